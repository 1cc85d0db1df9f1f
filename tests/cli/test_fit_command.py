"""`gradlab fit`: what it writes, what it says, how it goes on, what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from gradlab import cli
from gradlab.data import trajectories
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import LOSSES
from gradlab.networks import checkpoint, spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.storage import records
from gradlab.tasks import double_integrator, pendulum

SMALL = ("--members", "2", "--hidden", "8", "8", "--epochs", "2", "--json")


def fit(capsys, *words):
    assert cli.main(["fit", *words, *SMALL]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys, *words):
    assert cli.main(["fit", *words, *SMALL]) == 2
    return capsys.readouterr().err


def test_a_model_its_curves_and_its_data_are_kept(tmp_path, capsys):
    model = tmp_path / "m.safetensors"
    words = ("pendulum", "--rows", "200", "--spectral", "all_but_last", "--output", str(model))
    document = fit(capsys, *words)
    ensemble = checkpoint.load(model)
    assert isinstance(ensemble, GaussianEnsemble) and ensemble.members == 2
    curves = records.read(tmp_path / "m.h5")
    assert curves.attributes["kind"] == "fit" and curves.attributes["task"] == "pendulum"
    assert curves.groups["curves"]["held_out"].values.shape == (2, 2)
    assert curves.groups["norms"]["normalised"].values.tolist() == [True, True, False]
    assert len(trajectories.load(tmp_path / "m.data.h5")) == 200
    text = " ".join(str(each["text"]) for each in document["verdict"])
    assert "recorded 200 transitions with random actions" in text
    assert "layer 1 1, layer 2 1, layer 3" in text and "change of θ [rad]" in text
    assert not list(tmp_path.glob("*.resume.*"))
    assert "exists" in refused(capsys, *words)


def test_sentences_are_decided_where_the_data_decide(tmp_path, capsys):
    decided = {}
    for task, rows in (("pendulum", "3000"), ("double_integrator", "1500")):
        place = ("--output", str(tmp_path / f"{task}.safetensors"), "--neighbours", "3")
        words = ("--members", "2", "--hidden", "16", "--epochs", "60", "--json")
        assert cli.main(["fit", task, "--rows", rows, *place, *words]) == 0
        verdict = json.loads(capsys.readouterr().out)["verdict"]
        decided[task] = [each["decided"] for each in verdict]
        text = " ".join(each["text"] for each in verdict)
        assert "held-out rows" in text and "± " in text
    # Variance explained, source of the data, help with states and with reward, what to do next.
    assert decided == {
        "pendulum": [False, False, True, True, False, False],
        "double_integrator": [True, False, True, False, False, False],
    }
    assert "cannot help with the states' derivatives" in text
    assert "are not shown to help or to harm with the reward's" in text


def test_elites_are_the_members_with_the_lowest_held_out_loss(tmp_path, capsys):
    shared = ("pendulum", "--rows", "150", "--members", "3", "--output")
    words = ("--hidden", "8", "--epochs", "2", "--json")
    kept = []
    for name, more in (("all", ()), ("few", ("--elites", "2"))):
        model = tmp_path / f"{name}.safetensors"
        assert cli.main(["fit", *shared, str(model), *words, *more]) == 0
        kept.append(checkpoint.load(model))
    every, few = kept
    losses = records.read(tmp_path / "all.h5").groups["members"]["held_out_loss"].values
    best = sorted(losses.argsort()[:2].tolist())
    for name, value in few.state_dict().items():
        assert torch.equal(value, every.state_dict()[name][best])
    capsys.readouterr()
    place = ("--output", str(tmp_path / "none.safetensors"), "--elites", "3")
    assert "--elites is 3, expected 1 to the 2" in refused(capsys, "pendulum", *place)


def test_a_loss_of_ones_own_fits_as_the_same_one_of_the_table(tmp_path, capsys):
    data, own = tmp_path / "data.h5", tmp_path / "mine.py"
    collect(pendulum(), 120).save(data)
    own.write_text("def squared(m, v, y):\n    return (m - y).square().mean(dim=(1, 2))\n")
    found = []
    for name, loss in (("own", f"{own}:squared"), ("mse", "mse")):
        place = tmp_path / f"{name}.safetensors"
        fit(capsys, "pendulum", "--data", str(data), "--loss", loss, "--output", str(place))
        assert records.read(place.with_suffix(".h5")).attributes["loss"] == loss
        found.append(checkpoint.load(place).state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    words = ("--data", str(data), "--output", str(tmp_path / "none.safetensors"))
    said = refused(capsys, "pendulum", *words, "--loss", "hubber")
    assert f"loss is 'hubber', expected one of {', '.join(LOSSES)}, sobolev, or" in said
    assert "no function 'huber'" in refused(capsys, "pendulum", *words, "--loss", f"{own}:huber")


@pytest.mark.slow
def test_measure_holds_the_networks_that_it_makes_at_norm_one_where_asked(
    tmp_path, capsys, monkeypatch
):
    from gradlab.fitting import critics, policies

    for module in (critics, policies):
        monkeypatch.setattr(module, "UPDATES", 20)
    monkeypatch.setattr(critics, "TRAJECTORIES", 16)
    run = tmp_path / "run.h5"
    shared = ("measure", "linear_quadratic", "--output", str(run), "--no-report", "--json")
    small = ("--starts", "16", "--batch", "4", "--horizon", "1", "--spectral", "policy", "critic")
    assert cli.main([*shared, *small]) == 0
    text = str(json.loads(capsys.readouterr().out)["verdict"])
    assert "fitted policy: layer 1 1, layer 2 1, layer 3 1." in text
    assert "fitted critic: layer 1 1, layer 2 1, layer 3 " in text
    for kind, held in (("policy", 3), ("critic", 2)):
        made = spectral.norms(checkpoint.load(tmp_path / f"run.{kind}.safetensors"))
        assert [layer.values[0] for layer in made[:held]] == pytest.approx([1.0] * held, rel=1e-5)
    assert cli.main([*shared, "--overwrite", *small, "--policy", "x.py:f"]) == 2
    assert "--spectral policy, but the policy is given" in capsys.readouterr().err


def test_minari_datasets_are_taken_and_given(tmp_path, capsys):
    dataset = str(tmp_path / "dataset")
    first, again = (str(tmp_path / f"{name}.safetensors") for name in ("first", "again"))
    words = ("pendulum", "--rows", "120", "--output", first, "--export", dataset)
    text = str(fit(capsys, *words)["verdict"])
    assert f"also in the Minari dataset {dataset}" in text
    document = fit(capsys, "pendulum", "--data", dataset, "--output", again)
    assert f"120 transitions of {dataset}: its observations are taken" in str(document["verdict"])
    assert Path(first).read_bytes() == Path(again).read_bytes()


def test_an_interrupted_fit_goes_on_to_the_same_model(tmp_path, capsys, monkeypatch):
    from gradlab.fitting import models
    from gradlab.fitting.fitted import Descent

    words = ("pendulum", "--rows", "120", "--output")
    fit(capsys, *words, str(tmp_path / "whole.safetensors"))
    monkeypatch.setattr(models, "SAVE_AFTER", 0.0)
    run_epoch = Descent.run_epoch

    def stopped(descent):
        if descent.epoch == 1:
            raise KeyboardInterrupt
        run_epoch(descent)

    monkeypatch.setattr(Descent, "run_epoch", stopped)
    exported = ("--export", str(tmp_path / "dataset"))
    again = ("fit", *words, str(tmp_path / "half.safetensors"), *exported, *SMALL)
    assert cli.main(again) == 130
    assert "go on with --resume" in capsys.readouterr().err
    monkeypatch.setattr(Descent, "run_epoch", run_epoch)
    assert cli.main([*again, "--resume"]) == 0
    whole, half = (tmp_path / f"{name}.safetensors" for name in ("whole", "half"))
    assert whole.read_bytes() == half.read_bytes()


def test_places_that_are_taken_or_missing_are_refused(tmp_path, capsys):
    data = tmp_path / "data.h5"
    collect(double_integrator(), 50).save(data)
    (tmp_path / "dataset").write_text("")
    exported = ("double_integrator", "--data", str(data), "--export", str(tmp_path / "dataset"))
    assert "exists" in refused(capsys, *exported, "--output", str(tmp_path / "x.safetensors"))
    assert "ends in .safetensors" in refused(capsys, "pendulum", "--output", "model.h5")
    assert "no such file" in refused(capsys, "pendulum", "--data", str(tmp_path / "none.h5"))
    place = str(tmp_path / "new.safetensors")
    assert "nothing to resume" in refused(
        capsys, "double_integrator", "--data", str(data), "--output", place, "--resume"
    )
