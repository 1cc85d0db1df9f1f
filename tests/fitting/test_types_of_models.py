"""Deterministic models, and networks of one's own as models."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import gradlab
from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.fitting import collect, fit_model
from gradlab.fitting.derivative_losses import LOSSES
from gradlab.fitting.losses import OneStepError
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks import checkpoint
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, OwnNetwork
from gradlab.networks.mlp import mlp
from gradlab.systems.learned import LearnedSystem

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
