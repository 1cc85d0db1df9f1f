"""Ensembles fitted to transitions: what they learn, what a seed fixes, what is dropped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradlab import cli
from gradlab.data import trajectories
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import descend, finished, fit_model, prepared
from gradlab.fitting.losses import MultiStep, OneStepError, split
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.tasks import double_integrator, linear_quadratic, pendulum
from tests.systems.ensembles import by_jacrev

FAST = ModelSettings(members=3, hidden=(24, 24), batch=64, epochs=4, precision="float64")
A, B = [[0.9, 0.2], [-0.1, 0.8]], [[0.3], [0.5]]
QUIET = linear_quadratic(A, B, torch.eye(2), [[1.0]], noise_covariance=torch.zeros(2, 2))


@pytest.fixture(scope="module")
def record():
    return collect(pendulum(), 400)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_fitted_model_has_the_systems_jacobians():
    data = collect(QUIET, 1500)
    fit = fit_model(data, replace(FAST, epochs=40, learning_rate=0.01), OneStepError("mse"))
    found = by_jacrev(fit.ensemble, data.state[:200], data.action[:200])[0][:, :, :2]
    wanted = torch.cat([torch.tensor(A), torch.tensor(B)], dim=1).double()
    assert (found - wanted).abs().mean() < 0.02
    assert float(fit.explained[:, :2].min()) > 0.999


def test_noise_scales_are_those_of_the_system():
    task = linear_quadratic(A, B, torch.eye(2), [[1.0]], noise_covariance=0.04 * torch.eye(2))
    data = collect(task, 1000)
    for loss in (OneStepError("nll"), OneStepError("mse")):
        fit = fit_model(data, replace(FAST, epochs=40, members=1, learning_rate=5e-3), loss)
        std = fit.ensemble(data.state, data.action).std[..., :2]
        torch.testing.assert_close(
            std.mean(dim=(0, 1)), torch.full((2,), 0.2).double(), rtol=0.1, atol=0
        )


@pytest.mark.parametrize(
    "loss", [OneStepError(), DirectionalDerivative(4, directions=1), MultiStep(3)]
)
def test_a_seed_repeats_a_fit_and_one_that_goes_on_after_its_end_is_the_same(record, loss):
    settings = replace(FAST, spectral="all_but_last")
    whole = fit_model(record, settings, loss)
    assert same(whole.ensemble, fit_model(record, settings, loss).ensemble)
    assert not same(whole.ensemble, fit_model(record, replace(FAST, seed=1), loss).ensemble)
    descent, constant = prepared(record, settings, loss)
    descend(descent, replace(settings, epochs=2))
    short = finished(descent, settings, loss, constant)
    assert len(short.curves["held_out"]) == 2
    descend(descent, settings)
    again = finished(descent, settings, loss, constant)
    assert same(whole.ensemble, again.ensemble)
    np.testing.assert_array_equal(whole.curves["held_out"], again.curves["held_out"])


def test_members_are_kept_as_they_were_at_their_lowest_held_out_loss(record):
    seen: list[GaussianEnsemble] = []

    def keep(epoch, ensemble):
        copied = GaussianEnsemble(2, 1, 3, (24, 24)).double()
        copied.load_state_dict(ensemble.state_dict())
        seen.append(copied)

    settings = replace(FAST, epochs=60, patience=3, learning_rate=0.01)
    fit = fit_model(record, settings, after_epoch=keep)
    curve = fit.curves["held_out"]
    assert len(curve) == len(seen) < 60
    for k, best in enumerate(fit.best_epoch):
        until = curve[: best + 3, k]
        assert until.argmin() == best - 1 and fit.held_out_loss[k] == until.min()
        for name, value in seen[best - 1].state_dict().items():
            assert torch.equal(fit.ensemble.state_dict()[name][k], value[k])
    assert len(curve) == max(fit.best_epoch) + 3
    order = np.argsort(fit.held_out_loss)
    assert fit.elites(2) == tuple(sorted(order[:2]))


def test_members_that_diverge_are_dropped_and_named(record):
    class Failing:
        """The likelihood, which in member 1 is lost after the first epoch."""

        name, prediction = "failing", "nll"

        def bind(self, rows, training, held_out):
            parts = OneStepError().bind(rows, training, held_out)

            def value(ensemble, at, turn):
                lost = torch.tensor([1.0, torch.inf if turn > 8 else 1.0, 1.0])
                return parts[0].value(ensemble, at, turn) * lost

            return replace(parts[0], value=value), parts[1]

    found = fit_model(record, FAST, Failing())
    assert found.members == (0, 2) and found.dropped == {1: 2}
    assert found.ensemble.members == 2
    whole = fit_model(record, FAST).ensemble.state_dict()
    for name, value in found.ensemble.state_dict().items():
        assert torch.equal(value, whole[name][[0, 2]])


def test_held_out_rows_lie_in_pieces_apart_from_the_others():
    long = collect(QUIET, 1000, length=1000)
    training, held = split(long, 0.1, 0)
    assert sorted([*training.tolist(), *held.tolist()]) == list(range(1000))
    assert len(held) == 100 and len(torch.unique(held // 20)) == 5
    short = collect(QUIET, 1000, length=10)
    _, held = split(short, 0.1, 0)
    assert len(torch.unique(held // 10)) == 10


def test_growing_data_goes_on_from_the_model_before(record):
    before = fit_model(record, replace(FAST, epochs=20))
    more = trajectories.joined([record, collect(pendulum(), 100, seed=7)])
    after = fit_model(more, replace(FAST, epochs=1), start=before.ensemble)
    fresh = fit_model(more, replace(FAST, epochs=1))
    pairs = zip(after.held_out_loss, fresh.held_out_loss, strict=True)
    assert all(later < first for later, first in pairs)
    with pytest.raises(InputError, match="another architecture"):
        fit_model(more, replace(FAST, hidden=(8,)), start=before.ensemble)


def test_settings_that_make_no_sense_are_refused(record):
    for change, word in (
        ({"members": 0}, "members"),
        ({"patience": 0}, "patience"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"precision": "float16"}, "precision"),
    ):
        with pytest.raises(InputError, match=word):
            replace(FAST, **change)
    with pytest.raises(InputError, match="held_out"):
        fit_model(record, replace(FAST, held_out=1.0))
    with pytest.raises(InputError, match="expected at least 10"):
        fit_model(trajectories.first(record, 5), FAST)


# `gradlab fit --two-model`: DDPPO's pair, made, gone on with, and used.


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


@pytest.mark.slow
def test_measure_and_jacobians_take_one_and_both_in_the_place_of_the_prior(tmp_path, capsys):
    data = collect(double_integrator(), 150).save(tmp_path / "data.h5")
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
