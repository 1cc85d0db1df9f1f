"""`gradlab fit --two-model`: DDPPO's pair, made, gone on with, and used."""

import json

import pytest
import torch

from gradlab import cli
from gradlab.cli.arguments import model_option
from gradlab.data import trajectories
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Descent
from gradlab.fitting.model_settings import ModelSettings
from gradlab.fitting.models import Recipe, ddppo
from gradlab.networks import checkpoint
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.storage import records
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.tasks import double_integrator, pendulum

WORDS = ("--two-model", "--neighbours", "3", "--members", "2", "--epochs", "2", "--json")
NETWORKS = """
import torch
from gradlab.networks.mlp import Policy, QCritic
def policy():
    torch.manual_seed(0)
    return Policy(2, 1, ())
def critic():
    return QCritic(2, 1, (4,))
"""


def fit(model, data, *more):
    words = ("--output", str(model), "--data", str(data), "--hidden", "8")
    return cli.main(["fit", "double_integrator", *words, *WORDS, *more])


@pytest.fixture
def data(tmp_path):
    return collect(double_integrator(), 150).save(tmp_path / "data.h5")


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_two_checkpoints_are_those_of_ddppos_recipe(tmp_path, data, capsys):
    assert fit(tmp_path / "m.safetensors", data) == 0
    document = json.loads(capsys.readouterr().out)
    settings = ModelSettings(members=2, hidden=(8,), epochs=2)
    recipe = Recipe(trajectories.load(data), settings, DirectionalDerivative(3))
    wanted = ddppo(recipe).fits
    assert same(checkpoint.load(document["model"]), wanted["prediction"].ensemble)
    assert same(checkpoint.load(document["gradient_model"]), wanted["gradient"].ensemble)
    assert records.read(document["run"]).attributes["loss"] == "nll"
    assert records.read(document["gradient_run"]).attributes["loss"] == "dd"
    text = " ".join(each["text"] for each in document["verdict"])
    assert "Prediction model: 2 members" in text and "Gradient model: 2 members" in text
    both = f"--model {document['model']} --gradient-model {document['gradient_model']}"
    assert f"gradlab measure double_integrator {both}" in text
    assert fit(tmp_path / "m.safetensors", data) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_pair_that_was_interrupted_goes_on_to_the_same_models(epoch, tmp_path, data, monkeypatch):
    """In the first model's second epoch, and in the second model's."""
    from gradlab.fitting import models

    whole, half = (tmp_path / f"{name}.safetensors" for name in ("whole", "half"))
    assert fit(whole, data) == 0
    monkeypatch.setattr(models, "SAVE_AFTER", 0.0)
    run_epoch, begun = Descent.run_epoch, [0]

    def stopped(descent):
        if begun[0] == epoch:
            raise KeyboardInterrupt
        begun[0] += 1
        run_epoch(descent)

    monkeypatch.setattr(Descent, "run_epoch", stopped)
    assert fit(half, data) == 130
    monkeypatch.setattr(Descent, "run_epoch", run_epoch)
    assert fit(half, data, "--resume") == 0
    for suffix in (".safetensors", ".gradient.safetensors"):
        pair = [path.with_suffix(suffix).read_bytes() for path in (whole, half)]
        assert pair[0] == pair[1]
    assert not list(tmp_path.glob("*.resume.*"))


@pytest.mark.slow
def test_measure_and_jacobians_take_one_and_both_in_the_place_of_the_prior(tmp_path, data, capsys):
    networks = tmp_path / "networks.py"
    networks.write_text(NETWORKS)
    assert fit(tmp_path / "m.safetensors", data) == 0
    capsys.readouterr()
    first, second = (str(tmp_path / f"m{part}.safetensors") for part in ("", ".gradient"))
    shared = ("double_integrator", "--policy", f"{networks}:policy", "--no-report", "--json")
    shared = (*shared, "--horizon", "2", "--starts", "64")
    tables = {}
    one = ("--model", first)
    for name, models in (("prior", ()), ("one", one), ("two", (*one, "--gradient-model", second))):
        words = ("measure", *shared, "--critic", f"{networks}:critic", "--batch", "8", *models)
        assert cli.main([*words, "--output", str(tmp_path / f"{name}.h5")]) == 0
        tables[name] = json.loads(capsys.readouterr().out)["table"]
    for other in ("prior", "two"):
        pairs = zip(tables["one"], tables[other], strict=True)
        apart = {row["estimator"] for row, of_other in pairs if row != of_other}
        assert apart == {"model", "mixed", "model_all", "mixed_all"}
    assert cli.main(["measure", "path_tracking", *one, "--no-report"]) == 2
    assert "prior has state_dim 2, but the simulator has 6" in capsys.readouterr().err
    # What is compared with the simulator's Jacobians is the gradient model's, at its mean.
    found = []
    for states in (first, second):
        models = ("--model", states, "--gradient-model", second, "--data", str(data))
        place = ("--output", str(tmp_path / f"j{len(found)}.h5"))
        assert cli.main(["jacobians", *shared, *models, *place]) == 0
        table = json.loads(capsys.readouterr().out)["table"]
        found.append([row for row in table if row["section"] == "entry"])
    assert found[0] and found[0] == found[1]


def test_the_named_pair_is_one_system(tmp_path):
    task = pendulum()
    for seed, name in enumerate(("p", "g")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            checkpoint.save(GaussianEnsemble(2, 1, 2, (4,)), tmp_path / f"{name}.safetensors")
    first, second = (str(tmp_path / f"{name}.safetensors") for name in ("p", "g"))
    system = model_option(task, first, second)
    assert isinstance(system, TwoModels) and isinstance(system.prediction, LearnedSystem)
    assert same(system.gradient.ensemble, checkpoint.load(second))
    assert model_option(task, None) is None
    with pytest.raises(InputError, match="--gradient-model needs --model"):
        model_option(task, None, second)
    with pytest.raises(InputError, match="pendulum has no prior model"):
        model_option(task, "prior", second)
