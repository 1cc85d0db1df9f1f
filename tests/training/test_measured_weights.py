"""Measured weights and horizons: known answers, hysteresis, refusals."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from gradlab.data.replay import Batch
from gradlab.runs.training.measured_weights import KEPT, LOST, NO_TRUTH, OUTCOMES, SWITCHED
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.algorithms import measured
from gradlab.training.draws import Draws
from gradlab.training.loop import train
from gradlab.training.measured import weights as measured_weights
from gradlab.training.measured import weights as samples
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.run import collect
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.measured_worlds import (
    FOLLOWED,
    GAMMA,
    SMALL,
    Unrolled,
    first_row,
    misled,
    push,
    row,
    task,
    wild,
    wrong,
)
from tests.training.small_runs import numbers, stopped


def test_an_exact_critic_and_a_wrong_model_leave_the_weight_on_the_data(monkeypatch):
    run, found = first_row("mpg-v2", "weights", wrong, True, monkeypatch)
    assert found["outcome"][0] == SWITCHED  # the rule has 1 − w_25 ≈ 0 here
    assert found["measured"][0, 0] > 0.9
    # J_0 of an exact critic is the truth itself: what is left is the variance of a batch.
    assert found["mse"][0, 0] < 0.2 * found["mse"][0, 1]
    np.testing.assert_array_equal(run.learner.weights(21)[0], found["measured"][0])


def test_a_wrong_critic_and_an_exact_model_leave_it_on_the_longest(monkeypatch):
    _, found = first_row("mpg-general", "weights", push, False, monkeypatch, (0, 2, 5, 25))
    assert found["measured"][0].argmax() == 3
    assert found["measured"][0, 3] > 0.9
    _, single = first_row("mpg-general", "horizon", push, False, monkeypatch, (0, 2, 5, 25))
    # The rule has all but 3e-6 on J_25: nothing is better than that.
    assert single["outcome"][0] == KEPT and single["measured"][0].tolist() == [0, 0, 0, 1]


def test_the_truth_is_that_of_the_states_in_replay(monkeypatch):
    run, found = first_row("mpg-v2", "weights", push, False, monkeypatch)
    policy = run.learner.policy_of(0).double()
    states = run.replay.rows[0, : len(run.replay), :3].double()
    action = policy(states)  # θ is wanted in the first action alone
    held = action.detach().requires_grad_()
    slope = torch.autograd.grad(Unrolled(policy)(states, held).sum(), held)[0] / len(states)
    gradient = torch.autograd.grad(action, list(policy.parameters()), slope)
    size = sum(float(part.square().sum()) for part in gradient)
    assert found["truth2"][0] == pytest.approx(size, rel=0.5)


def test_by_gain_the_truth_is_the_gradient_of_the_return(monkeypatch):
    run, found = first_row("mpg-v2", "weights", wrong, True, monkeypatch, by="gain")
    policy = run.learner.policy_of(0).double()
    state = torch.randn(4096, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    returns = 0.0
    for t in range(60):  # θ in every action
        state, reward = push(state, policy(state))
        returns = returns + GAMMA**t * reward.mean()
    gradient = torch.autograd.grad(returns, list(policy.parameters()))
    size = sum(float(part.square().sum()) for part in gradient)
    assert found["truth2"][0] == pytest.approx(size, rel=0.5)
    # J_0 of an exact critic is that gradient, but for the noise of a batch; the model's is not.
    assert found["gain_each"][0, 0] > 0.95 > found["gain_each_high"][0, 1]
    assert found["gain_measured"][0] > found["gain_each"][0, 0] - 0.01
    assert found["gain_measured"][0] > found["gain_in_force"][0] == found["gain_rule"][0]


def test_a_seed_that_is_lost_and_a_truth_that_is_not_there_keep_what_is_in_force(monkeypatch):
    settings = Settings(**SMALL, seeds=2)
    run = begin(measured(row(), weights="measured"), task(wrong), settings)
    collect(run)
    run.iteration = 20
    with torch.no_grad():
        run.learner.policy.parameters[0][1].fill_(torch.nan)
    found = measured_weights.row(run)
    assert found["outcome"][1] == LOST and np.isnan(found["mse"][1]).all()
    np.testing.assert_array_equal(found["in_force"][1], found["rule"])
    before = run.learner.in_force.copy()

    def no_truth(*args, **options):
        truth = shared(*args, **options)
        return replace(truth, reference=replace(truth.reference, status="none", first=None))

    shared = samples.shared_truth
    monkeypatch.setattr(samples, "shared_truth", no_truth)
    run.iteration = 40
    found = measured_weights.row(run)
    assert found["outcome"].tolist() == [NO_TRUTH, LOST] and len(OUTCOMES) == 4
    np.testing.assert_array_equal(run.learner.in_force, before)


def test_a_seed_without_weight_on_a_horizon_is_not_lost_in_it():
    # Seed 1 gives its weight to J_0 alone: the model's explosion must not reach it.
    def explodes(state, action):
        return 1e200 * (state + action.sum(1, keepdim=True)), -(state**2).sum(1)

    model = from_function(explodes, state_dim=3, action_dim=2)
    policy = torch.full((2, 3, 2), 0.1, dtype=torch.float64, requires_grad=True)
    state = torch.ones(2, 4, 3, dtype=torch.float64)

    def act(states, noise):
        return states @ policy, None

    def frozen(states, noise):
        return states @ policy.detach(), None

    def value(states, actions, log_prob=None):
        return states.sum(2) + actions.square().sum(2)

    nothing, draws = state.new_zeros(2, 4), Draws((0, 1), torch.float64, "cpu")
    batch = Batch(state, state[..., :2], nothing, state, nothing)
    context = Context(
        Objective(GAMMA), act, frozen, frozen, act, value, value, task().starts, model, model,
        draws, iteration=0,
    )  # fmt: skip

    def loss(weights, terms):
        total, _ = MixtureLoss()(context, batch, terms, np.array(weights))
        return total, torch.autograd.grad(total.sum(), policy)[0]

    both = [Term(0), Term(6)]
    together, gradient = loss([[0.3, 0.7], [1.0, 0.0]], both)
    alone, wanted = loss([[1.0], [1.0]], both[:1])
    assert not gradient[0].isfinite().all()
    assert torch.equal(together[1], alone[1]) and torch.equal(gradient[1], wanted[1])


# Whole runs with measured weights: resumption, seeds together and apart, what is written.


@pytest.mark.parametrize("by", ["mse", pytest.param("gain", marks=pytest.mark.slow)])
@pytest.mark.parametrize("follow", FOLLOWED)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, follow, by):
    options = SMALL | {"seeds": 2, "measure_starts": 32, "checkpoint_every": 12, "by": by}
    options, chosen = options | {follow: "measured"}, misled()

    whole = train(chosen, task(wild), tmp_path / "whole.h5", **options)
    cut = stopped(partial(train, chosen, task(wild), tmp_path / "cut.h5"), 30, **options)
    for seed in range(2):
        assert torch.equal(numbers(whole, seed), numbers(cut, seed))
    for table in ("updates", "evaluations", "weights"):
        same_rows(read(whole).groups[table], read(cut).groups[table])
    # Something is in force that the rule does not say, and the state at 24 has to remember it.
    assert (read(whole).groups["weights"]["outcome"].values[0] == SWITCHED).any()


def test_a_state_saved_at_a_measurement_tells_the_same_row_again(tmp_path):
    # Checkpoints at 20, where there is a measurement, too: it is made twice, and must not see its
    # own outcome as what was in force before.
    options = SMALL | {"checkpoint_every": 20, "measure_starts": 32, "weights": "measured"}

    whole = train(misled(), task(wild), tmp_path / "whole.h5", **options)
    cut = stopped(partial(train, misled(), task(wild), tmp_path / "cut.h5"), 30, **options)
    same_rows(read(whole).groups["weights"], read(cut).groups["weights"])
    assert torch.equal(numbers(whole, 0), numbers(cut, 0))
    assert read(whole).groups["weights"]["outcome"].values[0, 0] == SWITCHED


def same_rows(ours, theirs):
    for name in (name for name in ours if "seconds" not in name and name != "share"):
        np.testing.assert_array_equal(ours[name].values, theirs[name].values, name)


@pytest.mark.slow
@pytest.mark.parametrize("follow", FOLLOWED)
def test_seeds_measured_together_are_seeds_measured_apart(tmp_path, follow):
    chosen, options = row(horizons=(0, 2, 5)), SMALL | {follow: "measured"}
    together = train(chosen, task(wrong), tmp_path / "all.h5", **options, seeds=2)
    rows = read(together).groups["weights"]
    followed = rows["in_force"].values
    assert not np.array_equal(followed[:, 0], followed[:, 1])  # seeds have weights of their own
    for seed in range(2):
        apart = train(chosen, task(wrong), tmp_path / f"{seed}.h5", **options, first_seed=seed)
        assert torch.equal(numbers(together, seed), numbers(apart, seed))
        alone = read(apart).groups["weights"]
        for name in ("measured", "in_force", "mse", "gain", "outcome"):
            np.testing.assert_array_equal(
                alone[name].values[:, 0], rows[name].values[:, seed], name
            )


def test_what_is_written_adds_up(tmp_path):
    path = train(row(), task(wrong), tmp_path / "run.h5", **SMALL, seeds=2, weights="measured")
    rows = {name: array.values for name, array in read(path).groups["weights"].items()}
    assert rows["iteration"].tolist() == [20, 40]
    np.testing.assert_allclose(rows["measured"].sum(axis=2), 1)
    np.testing.assert_allclose(rows["in_force"].sum(axis=2), 1)
    switched = rows["outcome"] == SWITCHED
    assert switched.any() and ((rows["gain_least"] > 0) == switched).all()
    np.testing.assert_array_equal(rows["in_force"][switched], rows["measured"][switched])
    assert (rows["mse_rule_low"] <= rows["mse_rule"]).all()
    assert (rows["mse_rule"] <= rows["mse_rule_high"]).all()
    assert (rows["seconds"] > 0).all() and ((rows["share"] > 0) & (rows["share"] < 1)).all()
    assert rows["checked"].tolist() == [1, 0] and (rows["starts"] == 16).all()
    # What was in force before is judged on starts that did not choose it.
    first = rows["mse_in_force"][0] / rows["mse_rule"][0]
    np.testing.assert_allclose(first, 1)
