"""Ensembles fitted to transitions: what they learn, what a seed fixes, what is dropped.

Deterministic models, and networks of one's own as models. The papers' networks and settings: what
is made of them, piece by piece.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import cli
from gradlab.cli.program import main
from gradlab.data import trajectories
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import LOSSES, DirectionalDerivative
from gradlab.fitting.fitted import descend, finished, fit_model, prepared
from gradlab.fitting.losses import MultiStep, OneStepError, split
from gradlab.fitting.model_settings import MBPO, PRESETS, RP_PGM, ModelSettings
from gradlab.networks import checkpoint, spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, OwnNetwork
from gradlab.networks.mlp import mlp
from gradlab.systems.learned import LearnedSystem
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


WORDS = ("--two-model", "--neighbours", "3", "--members", "2", "--epochs", "2", "--json")


def fit(model, data, *more):
    words = ("--output", str(model), "--data", str(data), "--hidden", "8")
    return cli.main(["fit", "double_integrator", *words, *WORDS, *more])


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 16), nn.Linear(16, outputs)
        self.norm = nn.LayerNorm(16)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h + self.scale * torch.tanh(self.norm(h)))


def loss(mean, log_variance, target):
    return nn.functional.smooth_l1_loss(mean, target, reduction="none").mean(-1)
"""
SETTINGS = ModelSettings(members=2, hidden=(24, 24), epochs=4, precision="float64")


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    return "mine.py:Net"


@pytest.fixture(scope="module")
def rows():
    return collect(gradlab.tasks.pendulum(), 300, seed=1)


def same_as_gaussian(inputs, outputs):
    """What every member of `SETTINGS` is, as a network of one's own."""
    return mlp([inputs, 24, 24, 2 * outputs], "silu")


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
def test_own_copy_of_the_gaussian_type_is_fitted_alike(loss, rows):
    """vmap and autograd in the place of batched layers and closed forms, from the same draws."""
    if loss.name == "dd":
        loss = replace(loss, directions=2)
    network = OwnNetwork("here", same_as_gaussian)
    fits = [
        fit_model(rows, replace(SETTINGS, network=each), loss) for each in ("gaussian", network)
    ]
    state, action = rows.state[:7].double(), rows.action[:7].double()
    systems = [LearnedSystem(fit.ensemble) for fit in fits]
    noise = systems[0].sample_noise(7, torch.Generator().manual_seed(3))
    torch.testing.assert_close(*(fit.held_out_loss for fit in fits), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(*(s.step(state, action, noise).state for s in systems))
    ours, theirs = (s.linearize(state, action, noise) for s in systems)
    for name in ("A", "B", "r_s", "r_a"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("kind", ["deterministic", "own deterministic", "own gaussian"])
def test_jacobians_are_those_of_steps(kind):
    """Against central differences, with noise and without."""

    def make(inputs, targets):
        outputs = targets * (1 + (kind == "own gaussian"))
        return nn.Sequential(nn.Linear(inputs, 9), nn.Softplus(), nn.Linear(9, outputs))

    torch.manual_seed(0)
    network = OwnNetwork("here", make) if kind.startswith("own") else kind
    ensemble = GaussianEnsemble(3, 2, 4, (8, 8), network=network).double()
    system = LearnedSystem(ensemble, elites=(0, 2, 3))
    state, action = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    for noise in (None, system.sample_noise(5, torch.Generator().manual_seed(1))):

        def outcome(x, noise=noise):
            after = system.step(x[:, :3], x[:, 3:], noise)
            return torch.cat([after.state, after.reward[:, None]], 1)

        x, found = torch.cat([state, action], 1), system.linearize(state, action, noise)
        for k in range(5):
            moved = torch.zeros_like(x)
            moved[:, k] = 1e-6
            column = (outcome(x + moved) - outcome(x - moved)) / 2e-6
            by_state = torch.cat([found.A, found.r_s[:, None]], 1)
            by_action = torch.cat([found.B, found.r_a[:, None]], 1)
            expected = torch.cat([by_state, by_action], 2)[..., k]
            torch.testing.assert_close(expected, column, rtol=1e-6, atol=1e-8)


def test_deterministic_models_have_no_noise(rows):
    fit = fit_model(rows, replace(SETTINGS, network="deterministic"), OneStepError("mse"))
    system = LearnedSystem(fit.ensemble, elites=(1,))
    state, action = rows.state[:9].double(), rows.action[:9].double()
    noise = system.sample_noise(9, torch.Generator().manual_seed(3))
    mean = system.step(state, action)
    torch.testing.assert_close(system.step(state, action, noise).state, mean.state)
    assert (system.infer_noise(state, action, mean.state + 1)[:, :-1] == 0).all()


def test_noise_of_own_networks_has_the_size_of_held_out_errors(rows):
    """By squared error: one variance for each output, whatever the network says."""
    network = OwnNetwork("here", same_as_gaussian)
    fit = fit_model(rows, replace(SETTINGS, network=network), OneStepError("mse"))
    std = fit.ensemble(rows.state[:5].double(), rows.action[:5].double()).std
    expected = fit.ensemble.target_std * (1 - fit.explained)[:, None].sqrt()
    torch.testing.assert_close(std, expected.expand_as(std))


def test_own_types_and_losses_from_one_file(own, rows, capsys):
    rows.save("rows.h5")
    words = "--data rows.h5 --members 2 --epochs 3 --output m.safetensors"
    assert main(["fit", "pendulum", "--type", own, "--loss", "mine.py:loss", *words.split()]) == 0
    assert f"--model {own}=m.safetensors" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match=f"name it as {own}=m.safetensors"):
        checkpoint.load("m.safetensors")
    Path("lr=0.1").mkdir()  # as folders of sweeps are called
    Path("m.safetensors").rename("lr=0.1/m.safetensors")
    loaded = checkpoint.load(f"{own}=lr=0.1/m.safetensors")
    task = gradlab.tasks.pendulum()
    system = LearnedSystem(loaded.double())
    state = task.starts(4, torch.Generator().manual_seed(0))
    assert system.linearize(state, torch.zeros(4, 1).double()).A.isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda i, o: nn.Linear(i, o + 1), r"maps \[3, 4\] to \[3, 4\], expected \[3, 3\]"),
        (lambda i, o: nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o)), "num_batches_tracked"),
        (lambda i, o: "a network", "returned a str, expected a Module"),
        (lambda i: nn.Linear(i, 3), "here failed"),
    ],
)
def test_networks_that_are_no_model_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        GaussianEnsemble(2, 2, network=OwnNetwork("here", make))


SMALL = dict(hidden=(8, 8), members=2, epochs=2)


@pytest.fixture(scope="module")
def integrated():
    return collect(double_integrator(), 300)


def made(record, name):
    return prepared(record, PRESETS[name], OneStepError())[0].ensemble


def test_rp_pgms_model_is_one_of_five_layers_of_relu_units_all_but_the_last_held(integrated):
    """RP-PGM B.1: "the number of layers … is 4 and 5"; all except the final layers."""
    ensemble = made(integrated, "rp-pgm").eval()
    norms = spectral.norms(ensemble)
    assert [len(layer.values) for layer in norms] == [1] * 5
    assert [layer.normalised for layer in norms] == [True] * 4 + [False]
    assert [layer.values[0] for layer in norms[:4]] == pytest.approx([1.0] * 4, rel=1e-5)
    assert RP_PGM.activation == "relu" and not RP_PGM.bootstrap


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("reward", [True, False])
def test_without_a_network_the_model_predicts_the_mean_of_its_targets(residual, reward, integrated):
    """Residual prediction adds the state; the reward's head is an output more."""
    settings = replace(MBPO, **SMALL, residual=residual, reward=reward, precision="float64")
    descent, _ = prepared(integrated, settings, OneStepError())
    ensemble, training = descent.ensemble, descent.training.rows
    for parameter in ensemble.network.parameters():
        nn.init.zeros_(parameter)
    mean = ensemble(integrated.state, integrated.action).mean[0]
    change = (integrated.next_state - integrated.state)[training].mean(dim=0)
    wanted = integrated.state + change if residual else integrated.next_state[training].mean(dim=0)
    torch.testing.assert_close(mean[:, :2], wanted.expand(len(integrated), 2))
    assert mean.shape[1] == 2 + reward
    if reward:
        torch.testing.assert_close(
            mean[:, 2], integrated.reward[training].mean().expand(len(integrated))
        )
