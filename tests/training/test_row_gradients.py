"""The gradient of a row's own loss, start by start, and its errors where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.training.algorithms import ALGORITHMS
from gradlab.training.learner import alone
from gradlab.training.measured import row_errors
from gradlab.training.measured.row_errors import (
    in_trained_weights,
    measured_terms,
    start_gradients,
    unbroken,
)
from gradlab.training.parts.context import Draws
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.parts.targets import NoCritic, Soft
from gradlab.training.run import collect
from gradlab.training.seed_models import TrueSteps, in_dtype, of_seed
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.gradients.worlds import matrix
from tests.training import small_runs

OWN = [name for name, algorithm in ALGORITHMS.items() if len(algorithm.terms) == 1]
DOUBLE = torch.zeros((), dtype=torch.float64)


def begun(algorithm, task, **changes):
    """A run with something in replay, in the model's replay and in its model."""
    changed = {name: value for name, value in small_runs.SMALL.items() if name != "precision"}
    settings = Settings(**changed | {"termination": "ignore"} | changes)
    run = begin(replace(algorithm, batch=algorithm.rows(settings.agents)), task, settings)
    collect(run)
    if run.dynamics is not None:
        run.dynamics.fit(run.replay)
        run.learner.model = run.dynamics.rollout()
    if run.branches is not None:
        learner = run.learner
        run.branches.fill(run.replay, learner.model, learner.explore, learner.limit, 0)
    return run


def sample(run, seed):
    """One seed in float64, a batch of it, its model and the draws that an update would see."""
    single = alone(run.learner, seed, precision="float64")
    batch = run.drawn(run.learner.draws, 0)
    tensors = {name: v[seed : seed + 1].double() for name, v in batch.tensors.items()}
    model = of_seed(run.learner.model, seed, len(run.learner.seeds))
    model = None if model is None else in_dtype(model, DOUBLE)
    draws = Draws(single.seeds, torch.float64, "cpu")
    return single, type(batch)(**tensors), model, draws


@pytest.mark.parametrize("name", OWN)
def test_the_starts_of_a_row_make_the_gradient_that_its_update_follows(name):
    run = begun(small_runs.row(name), small_runs.task(), seeds=2)
    single, batch, model, draws = sample(run, 1)
    term, agents = run.algorithm.terms[0], run.settings.agents
    paths = run.algorithm.loss.paths
    # An update on whole paths alone; else an episode's end within one begins another.
    own = unbroken(batch, term.horizon, agents) if paths else batch
    starts = start_gradients(single, own, term, model, draws, 0)
    single.model = model
    single.settings = replace(single.settings, agents=len(starts.states))
    if single.adapted is not None:  # measured where nothing is cut
        single.adapted.value.fill_(term.horizon)
    followed = small_runs.policy_gradients(single, 0, own, draws)
    torch.testing.assert_close(
        in_trained_weights(single, starts.gradients).mean(dim=0),
        -small_runs.flattened(followed, 0),
        rtol=1e-7,
        atol=1e-9,
    )
    assert len(starts.states) == own.state.shape[1] // (term.horizon if paths else 1)
    assert starts.gradients.std(dim=0).max() > 0


def test_paths_are_cut_out_of_windows_and_broken_ones_left_out():
    # Two agents, windows of 4 steps, paths of 2: agent 1 begins anew within its second path.
    state = torch.tensor([[0.0, 10], [1, 11], [2, 12], [3, 99]]).double().view(1, 8, 1)
    following = torch.tensor([[1.0, 11], [2, 12], [3, 13], [4, 98]]).double().view(1, 8, 1)
    nothing = torch.zeros(1, 8).double()
    batch = Batch(state, state, nothing, following, nothing)
    kept = unbroken(batch, 2, 2)
    assert kept.state.flatten().tolist() == [0, 10, 2, 1, 11, 3]
    ended = replace(batch, terminated=torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]]).double())
    assert unbroken(ended, 2, 2).state.flatten().tolist() == [10, 2, 11, 3]


def test_what_changes_at_one_start_changes_the_gradient_of_that_start_alone():
    row = replace(small_runs.row("maac-no-steve"), model=None, loss=MixtureLoss(3))
    run = begun(row, small_runs.task())
    single, batch, model, draws = sample(run, 0)
    moved = batch.state.clone()
    moved[0, 5] += 0.5
    before, after = (
        start_gradients(single, here, Term(2, "all"), model, draws, 0).gradients
        for here in (batch, replace(batch, state=moved))
    )
    changed = (before - after).abs().amax(dim=1)
    assert changed[5] > 1e-3 * before[5].abs().max()
    assert changed[torch.arange(len(changed)) != 5].max() < 1e-9 * before.abs().max()


def test_certified_jacobians_stand_in_for_derivatives_that_autograd_has_not():
    world = small_runs.task().simulator

    class Opaque:
        differentiable, linearize, noise_dim = False, world.linearize, 3

        @torch.no_grad()
        def step(self, state, action, noise=None):
            return world.step(state, action, noise)

    run = begun(replace(small_runs.row("maac-no-steve"), model=None), small_runs.task())
    single, batch, _, draws = sample(run, 0)
    one, other = (
        start_gradients(single, batch, Term(3, "all"), TrueSteps(system), draws, 0).gradients
        for system in (world, Opaque())
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


# ---- worlds whose truth is known ----

A, B = matrix((0.8, 0.1), (-0.1, 0.7)), matrix((0.2, 0.0), (0.1, 0.3))
GAMMA = 0.5  # of which 12 steps leave .0002


def linear_task(offset=0.0, gain=1.0):
    """Linear and quadratic; its prior may be off by a constant, or in its dynamics."""
    eye = torch.eye(2, dtype=torch.float64)
    world = LinearQuadratic(A, B, eye, 0.1 * eye, 0.01 * eye)
    guess = LinearQuadratic(gain * A, B, eye, 0.1 * eye, 0.01 * eye)

    class Shifted:
        state_dim, action_dim, noise_dim, differentiable = 2, 2, 2, True
        linearize, sample_noise = guess.linearize, guess.sample_noise

        def step(self, state, action, noise=None):
            after = guess.step(state, action, noise)
            return replace(after, state=after.state + offset)

    def starts(n, generator):
        return 1.0 + torch.randn(n, 2, generator=generator, dtype=torch.float64)

    return gradlab.Task("linear", world, Shifted(), starts, GAMMA, 5)


def measured(algorithm, task, starts=64, **changes):
    run = begun(algorithm, task, gradient_starts=starts, gradient_every=1, **changes)
    row = row_errors.row(run)
    horizons = [term.horizon for term in measured_terms(run.algorithm, run.settings)]
    return {name: value[0] for name, value in row.items() if np.ndim(value)}, horizons


def soft_row(horizon=12, alpha=0.2, **changes):
    return replace(
        small_runs.row("maac"), model=None, terms=(Term(horizon, "all"),), target=Soft(alpha),
        loss=MixtureLoss(2), **changes,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_soft_row_with_an_exact_model_and_a_long_horizon_has_no_bias(scale):
    found, horizons = measured(soft_row(), linear_task(), reward_scale=scale)
    assert horizons == [0, 1, 2, 4, 8, 12] and row_errors.STATUSES[int(found["truth"])] != "none"
    assert found["bias2_low"][-1] <= 1e-6 * found["variance"][-1]
    assert found["cosine_high"][-1] == 1.0 and found["cosine_low"][-1] > 0.5
    assert abs(found["bias2"][-1]) < 0.1 * found["variance"][-1]
    # The critic is a fresh one: what stops at it is wrong, and it is that which is blamed.
    assert found["bias2_low"][1] > 0
    np.testing.assert_allclose(found["bias2_tail"][1], found["bias2"][1], rtol=1e-6)
    np.testing.assert_allclose(found["dynamics_bias2"][1:], 0.0, atol=1e-12)


def test_shorter_horizons_can_be_left_out_and_change_nothing_at_the_rows_own():
    world = linear_task(gain=0.7)
    everything, all_horizons = measured(soft_row(4), world)
    own, horizons = measured(soft_row(4), world, gradient_horizons="own")
    assert all_horizons == [0, 1, 2, 4] and horizons == [4]
    assert own.keys() == everything.keys()
    for name, value in own.items():
        kept = value if np.ndim(everything[name]) == 0 else value[-1]
        np.testing.assert_array_equal(kept, np.atleast_1d(everything[name])[-1], err_msg=name)


def test_a_models_offset_is_the_part_of_its_states_and_its_gain_of_both():
    row = replace(soft_row(), policy="deterministic", target=NoCritic(), loss=MixtureLoss())
    shifted, _ = measured(row, linear_task(offset=0.5))
    assert shifted["bias2_low"][-1] > 0
    assert shifted["bias2_states"][-1] > 0.9 * shifted["bias2"][-1]
    np.testing.assert_allclose(shifted["bias2_jacobians"][-1], 0.0, atol=1e-9)
    gained, _ = measured(row, linear_task(gain=0.7))
    parts = sum(gained[name][-1] for name in row_errors.PARTS)
    np.testing.assert_allclose(parts, gained["bias2"][-1], rtol=1e-9)
    assert gained["bias2_jacobians"][-1] > 0 and gained["bias2_states"][-1] > 0
    own2, true2, inner = (gained[name] for name in row_errors.SQUARES)
    np.testing.assert_allclose(own2 + true2 - 2 * inner, gained["bias2"], rtol=1e-9)
    np.testing.assert_allclose(inner / np.sqrt(own2 * true2), gained["cosine"], rtol=1e-9)
    np.testing.assert_allclose(true2, gained["mse"] / gained["relative_mse"], rtol=1e-9)


@pytest.mark.parametrize("policy", ["gaussian", "deterministic"])
def test_score_functions_find_the_bias_that_the_unrolled_truth_finds(policy):
    row, world = soft_row(), linear_task(gain=0.7)
    if policy == "deterministic":
        row = replace(row, policy=policy, target=NoCritic(), loss=MixtureLoss(), exploration=0.3)
    unrolled, _ = measured(row, world, starts=512)
    score, _ = measured(row, world, starts=512, gradient_truth="score")
    assert row_errors.TRUTHS[int(score["truth"])] == "score"
    assert unrolled["bias2_low"][-1] > 0 and score["bias2_low"][-1] > 0
    assert unrolled["bias2_low"][-1] <= score["bias2_high"][-1]
    assert score["bias2_low"][-1] <= unrolled["bias2_high"][-1]
    assert score["bias2"][-1] == pytest.approx(unrolled["bias2"][-1], rel=0.5)
