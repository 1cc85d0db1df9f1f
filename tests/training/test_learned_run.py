"""Whole runs on a model that is learned meanwhile: seeds, resumption, measurements, files."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import gradlab
from gradlab.networks import checkpoint, spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, predict
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.systems.learned import LearnedSystem
from gradlab.training.algorithm import LOSSES, LearnedModel
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.settings import Settings
from tests.training import small_runs
from tests.training.small_runs import same_tables, stopped

SMALL = dict(
    iterations=40, agents=12, interval=2, warmup=240, episode=25, evaluate_every=20,
    evaluation_starts=8, log_every=10, checkpoint_every=15, termination="ignore",
    at_end="restart", keep=(0.0, 1.0), precision="float64", gradient_every=0,
)  # fmt: skip
TABLES = ("updates", "evaluations", "model")
MODEL = LearnedModel(members=2, hidden=(8,), every=20, first_steps=15, steps=10, batch=16)


def push(state, action, noise):
    moved = 0.9 * state + 0.2 * torch.sin(state.roll(1, 1)) + 0.05 * noise
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1)


def task(prior=None):
    world = from_function(push, state_dim=3, action_dim=2, noise_dim=3)

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, prior, starts, 0.9, 5, action_limit=(2.0, 1.0))


def row(model=MODEL, horizons=(0, 3), **changes):
    short = with_horizons(find("mpg-v2"), horizons)
    return replace(short, hidden=(8, 8), batch=15, model=model, replay=4096, **changes)


ARMS = {
    "nll": row(),
    "dd": row(replace(MODEL, loss=LOSSES["dd"])),
    "multistep": row(replace(MODEL, loss=LOSSES["multistep"])),
    "multistep-dd": row(replace(MODEL, loss=LOSSES["multistep-dd"])),
    "two models": row(replace(MODEL, loss=LOSSES["dd"], two_models=True)),
    "spectral": row(
        replace(MODEL, spectral="all_but_last"), policy_spectral="all", critic_spectral="all"
    ),
    "cold": row(replace(MODEL, warm_start=False, rows=200)),
}


def numbers(path, seed=0):
    """All parameters that one seed's run kept at its end."""
    folder = sorted(path.with_name(path.stem + "-checkpoints").iterdir())[-1]
    files = sorted(folder.glob(f"seed{seed}-*.safetensors"))
    assert len(files) >= 3
    return torch.cat(
        [p.double().flatten() for file in files for p in checkpoint.load(file).parameters()]
    )


@pytest.fixture
def whole(small_run):
    """The uninterrupted run of two seeds of what is named."""
    return lambda name: small_run(ARMS[name], task, **SMALL, seeds=2)


@pytest.mark.parametrize(
    ("arm", "seed"), [("nll", 0), ("multistep", 1), ("two models", 0), ("spectral", 1)]
)
@pytest.mark.sampled(2)
def test_seeds_that_learn_models_together_are_seeds_apart(tmp_path, whole, arm, seed):
    together = whole(arm)
    apart = train(ARMS[arm], task(), tmp_path / "apart.h5", **SMALL, first_seed=seed)
    torch.testing.assert_close(numbers(together, seed), numbers(apart, seed), rtol=1e-7, atol=1e-9)
    fits, own = (read(path).groups["model"] for path in (together, apart))
    for name in ("prediction_held_out", "prediction_explained"):
        np.testing.assert_allclose(fits[name].values[:, seed], own[name].values[:, 0], rtol=1e-7)
    assert not torch.equal(numbers(together, 0), numbers(together, 1))


# "multistep-dd" saves what its two parts save.
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in ("dd", "multistep")])
@pytest.mark.sampled(2)
def test_a_stopped_learned_run_goes_on_bit_for_bit(tmp_path, whole, arm):
    cut = stopped(partial(train, ARMS[arm], task(), tmp_path / "cut.h5"), 30, **SMALL, seeds=2)
    for seed in range(2):
        assert torch.equal(numbers(whole(arm), seed), numbers(cut, seed))
    same_tables(whole(arm), cut, TABLES)


def test_a_model_that_is_the_simulator_has_no_error_of_its_own(tmp_path):
    still = from_function(
        lambda state, action: push(state, action, torch.zeros_like(state)),
        state_dim=3, action_dim=2,
    )  # fmt: skip
    calm = replace(task(still), simulator=still)
    chosen = row(model=None, horizons=(0, 3))
    options = SMALL | {"gradient_every": 40, "gradient_starts": 8}
    found = read(train(chosen, calm, tmp_path / "run.h5", **options)).groups["gradients"]
    assert found["iteration"].values.tolist() == [40]  # nothing is replayed at the beginning
    bias, error, cosine, variance = (
        found[name].values[:, :, 1]
        for name in ("dynamics_bias2", "dynamics_mse", "dynamics_cosine", "variance")
    )
    np.testing.assert_allclose(bias, 0, atol=1e-20)
    np.testing.assert_allclose(error, variance / 15, rtol=1e-8)
    np.testing.assert_allclose(cosine, 1, rtol=1e-8)
    assert (found["bias2"].values[:, :, 1] > 0).all()  # the critic's, which the truth sees


def test_held_networks_have_norm_one_and_are_kept_with_plain_weights(whole):
    folder = whole("spectral").with_name("run-checkpoints") / "000040"
    policy = checkpoint.load(folder / "seed0-policy.safetensors")
    for layer in spectral.norms(policy):
        assert layer.values[0] == pytest.approx(1, abs=2e-2)  # one power iteration an update
    layers = spectral.norms(checkpoint.load(folder / "seed0-prediction.safetensors"))
    np.testing.assert_allclose(layers[0].values, 1, rtol=1e-5)
    assert not any(layer.normalised for layer in layers)


def given(noisy):
    """The small world with three members of its own as its model, and no noise where not noisy."""
    whole = GaussianEnsemble(3, 2, 3, (8,), reward=True).double().requires_grad_(False)

    def still(state, action):
        return push(state, action, 0.0)

    chosen = task(LearnedSystem(whole))
    return chosen if noisy else replace(chosen, simulator=from_function(still, 3, 2)), whole


def test_a_given_ensembles_rows_are_those_of_its_members_in_equal_shares():
    chosen, whole = given(noisy=True)
    model = Learner(row(None), chosen, Settings(precision="float64")).model
    generator = torch.Generator().manual_seed(1)
    draw = (torch.randn(6000, k, generator=generator, dtype=torch.float64) for k in (3, 2, 5))
    state, action, noise = draw
    assert model.noise_dim == 5
    after, reward, _ = model.step(state, action, noise)
    every = predict(whole.numbers(state), torch.cat([state, action], dim=1))
    wanted = every.mean + every.std * noise[:, :4]
    made = torch.cat([after, reward[:, None]], dim=1)
    member, at = torch.where((made - wanted).abs().amax(dim=2) < 1e-9)
    assert at.sort().values.tolist() == list(range(6000))
    shares = member.bincount() / 6000
    assert (shares - 1 / 3).abs().max() < 0.025  # four deviations
    edge = noise[at[member == 0], 4].max()  # the draws below Φ⁻¹(1/3) are the first member's
    assert edge == pytest.approx(-0.4307, abs=0.01)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("name", ["mpg-v1", "mpg-v2", "n-step-adp", "svg", "rp-dp"])
@pytest.mark.sampled(4)
def test_training_rolls_through_every_member_of_a_given_ensemble(
    monkeypatch, tmp_path, name, noisy
):
    chosen, whole = given(noisy)
    asked, numbers = [], whole.numbers

    def seen(like, members=None):
        asked.append(tuple(members))
        return numbers(like, members)

    monkeypatch.setattr(whole, "numbers", seen)
    few = replace(small_runs.row(name), model=None)
    train(few, chosen, tmp_path / "run.h5", **SMALL | {"iterations": 10}, seeds=2)
    assert {(0,), (1,), (2,)} <= set(asked)
    counts = [asked.count((member,)) for member in range(3)]
    assert min(counts) > 0.9 * max(counts) and min(counts) >= 10
