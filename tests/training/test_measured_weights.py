"""Measured weights and horizons: known answers, hysteresis, refusals.

Members that rollouts use: those of least held-out loss; bootstrap samples that members learn.
Worlds with a wrong and a wild model, and rows that follow what is measured in them. Weights replace
those in force where they are better, and hardly ever where they are not.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import gradlab
from gradlab.data.replay import Batch, Replay
from gradlab.fitting.losses import Bound
from gradlab.networks.gaussian_ensemble import predict
from gradlab.progress import silent
from gradlab.runs.training.measured_weights import KEPT, LOST, NO_TRUTH, SWITCHED
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.algorithm import LOSSES, LearnedModel
from gradlab.training.algorithms import find, measured, with_horizons
from gradlab.training.dynamics import Dynamics, experience
from gradlab.training.loop import train
from gradlab.training.measured import weights as measured_weights
from gradlab.training.measured import weights as samples
from gradlab.training.measured.switching import (
    ALPHA,
    errors,
    floored,
    propose_horizon,
    propose_weights,
)
from gradlab.training.parts.context import Context, Draws, FixedWeights, Objective
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.run import collect
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.planted_moments import explicit_grams
from tests.training.small_runs import numbers, stopped

GAMMA = 0.8
SMALL = dict(
    iterations=40, agents=4, interval=2, warmup=64, episode=20, evaluate_every=30,
    evaluation_starts=8, log_every=10, checkpoint_every=15, termination="ignore",
    at_end="restart", keep=(0.0, 1.0), precision="float64", measure_every=20, measure_starts=16,
)  # fmt: skip
FOLLOWED = ["weights", pytest.param("horizon", marks=pytest.mark.slow)]


def push(state, action, pull=0.9):
    moved = pull * state + 0.2 * torch.sin(state.roll(1, 1))
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1)


def wrong(state, action):
    moved, reward = push(state, action, pull=0.2)
    return -moved, reward


def wild(state, action):
    """Wrong in every state alike, so that few starts tell."""
    moved, _ = push(state, action, pull=4.0)
    return moved, -(moved**2).sum(1)


def opposed(state, action):
    """Wrong in direction too: a step along the wild model's gradient, however long, gains most."""
    moved, reward = wild(state, action)
    return moved, -reward


def task(model=push):
    world, prior = (from_function(step, state_dim=3, action_dim=2) for step in (push, model))

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, prior, starts, GAMMA, 5, action_limit=(2.0, 1.0))


def row(name="mpg-v2", horizons=(0, 5)):
    return replace(with_horizons(find(name), horizons), hidden=(8, 8), batch=16)


def misled(horizons=(0, 5)):
    """The row whose rule follows the longest horizon alone: with a wrong model it is soon left."""
    last = tuple(float(h == max(horizons)) for h in horizons)
    return replace(row(horizons=horizons), weights=FixedWeights(last))


class Unrolled(nn.Module):
    """Q^π of the simulator by summing its rewards: an exact critic of whatever policy."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, state, action):
        total = 0.0
        for t in range(60):
            state, reward = push(state, action)
            total = total + GAMMA**t * reward
            action = self.policy(state)
        return total


def first_row(name, follow, model, exact, monkeypatch, horizons=(0, 5), by="mse"):
    """One measurement of a fresh run, in one dictionary."""
    settings = Settings(**SMALL | {"iterations": 100, "measure_starts": 64})
    chosen = measured(row(name, horizons), **{follow: "measured"}, by=by)
    run = begin(chosen, task(model), settings)
    collect(run)
    run.iteration = 20
    if exact:
        policy = run.learner.policy_of(0).double()
        monkeypatch.setattr(run.learner, "critic_of", lambda seed: Unrolled(policy))
    return run, measured_weights.row(run)


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
    assert found["outcome"].tolist() == [NO_TRUTH, LOST]
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


@pytest.mark.parametrize("by", ["mse", pytest.param("gain", marks=pytest.mark.slow)])
@pytest.mark.parametrize("follow", FOLLOWED)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, follow, by):
    options = SMALL | {"seeds": 2, "measure_starts": 32, "checkpoint_every": 12, "by": by}
    options, chosen = options | {follow: "measured"}, misled()
    world = task({"mse": wild, "gain": opposed}[by])

    whole = train(chosen, world, tmp_path / "whole.h5", **options)
    cut = stopped(partial(train, chosen, world, tmp_path / "cut.h5"), 30, **options)
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


MEMBERS, ELITES = 4, 2
CHOICE = LearnedModel(
    members=MEMBERS, elites=ELITES, hidden=(8,), first_steps=30, steps=5, batch=16
)
LIKE = torch.zeros((), dtype=torch.float64)


def drift(state, action):
    return 0.9 * state + action, torch.sin(state[:, 0])


def dynamics_of(**changes):
    world = from_function(drift, state_dim=2, action_dim=1)
    task = gradlab.Task("drift", world, None, lambda n, g: torch.zeros(n, 2), 0.9, 5)
    choice = replace(CHOICE, **changes)
    return Dynamics(choice, task, Draws((0, 1), torch.float64, "cpu"), agents=4)


def filled(steps=60):
    """Two seeds of four environments whose states are drawn anew in every step."""
    replay, generator = Replay(2, 1000, 2, 1, torch.float64), torch.Generator().manual_seed(0)
    for _ in range(steps):
        state = torch.randn(2, 4, 2, generator=generator, dtype=torch.float64)
        action = torch.randn(2, 4, 1, generator=generator, dtype=torch.float64)
        flat = drift(state.flatten(0, 1), action.flatten(0, 1))
        after, reward = flat[0].view(2, 4, 2), flat[1].view(2, 4)
        replay.add(state, action, reward, after, torch.zeros(2, 4))
    return replay


def likelihoods(dynamics, replay, seed, role="prediction"):
    """Mean negative log likelihood of every member on held-out rows, up to a constant."""
    data = experience(replay, agents=4)
    rows = data.numbers[data.held]
    transitions = replay.rows[seed, rows]
    x, reward, after = transitions[:, :3], transitions[:, 3:4], transitions[:, 4:6]
    said = predict(dynamics.roles[role].used.numbers(LIKE), x)
    own = slice(seed * MEMBERS, (seed + 1) * MEMBERS)
    error = (said.mean[own] - torch.cat([after, reward], dim=1)) / said.std[own]
    return (error.square() + 2 * said.std[own].log()).sum(dim=2).mean(dim=1)


@pytest.mark.parametrize("two_models", [False, True])
def test_rollouts_and_kept_models_are_the_members_of_least_held_out_loss(two_models):
    dynamics, replay = dynamics_of(two_models=two_models), filled()
    dynamics.fit(replay)
    model, x = dynamics.rollout(), torch.randn(7, 3, dtype=torch.float64)
    chosen = set()
    for role in dynamics.roles:
        numbers = getattr(model, role).numbers if two_models else model.numbers
        everyone = predict(dynamics.roles[role].used.numbers(LIKE), x).mean
        rolled_out = predict(numbers, x).mean
        assert len(rolled_out) == 2 * ELITES
        for seed in range(2):
            best = likelihoods(dynamics, replay, seed, role).argsort()[:ELITES].sort().values
            wanted = everyone[seed * MEMBERS + best]
            here = slice(seed * ELITES, (seed + 1) * ELITES)
            torch.testing.assert_close(rolled_out[here], wanted, rtol=1e-12, atol=1e-12)
            kept = dynamics.ensembles_of(seed)[role].numbers(LIKE)
            torch.testing.assert_close(predict(kept, x).mean, wanted, rtol=1e-12, atol=1e-12)
            chosen.add(tuple(best.tolist()))
        state = torch.randn(3, 2, dtype=torch.float64)
        assert dynamics.system_of(1).step(state, state[:, :1]).state.shape == (3, 2)
    assert chosen != {(0, 1)}  # or the first members would pass


def test_saved_elites_are_those_that_go_on():
    dynamics, replay, x = dynamics_of(), filled(), torch.randn(7, 3, dtype=torch.float64)
    dynamics.fit(replay)
    again = dynamics_of()
    again.load({name: value.clone() for name, value in dynamics.state().items()})
    ours, theirs = (predict(one.rollout().numbers, x).mean for one in (dynamics, again))
    assert torch.equal(ours, theirs)
    assert not any("elites" in name for name in dynamics_of(elites=None).state())


def rows_of_a_fit(dynamics, replay):
    """The rows that every member was given, [E · M] sets."""
    data = experience(replay, agents=4)
    training, held_out = LOSSES["nll"].bind(data.rows, data.part(False), data.part(True))
    seen = [set() for _ in range(2 * MEMBERS)]

    def noted(ensemble, at, turn):
        for member, rows in enumerate(at.tolist()):
            seen[member].update(rows)
        return training.value(ensemble, at, turn)

    ensembles = dynamics.roles["prediction"]
    ensembles.fit((Bound(training.rows, noted), held_out), data, "nll", silent)
    return seen, int((~data.held).sum())


def test_a_bootstrap_sample_has_two_thirds_of_the_rows_and_is_the_members_own():
    options = dict(first_steps=150, steps=150, batch=32)
    dynamics, replay = dynamics_of(bootstrap=True, **options), filled()
    seen, count = rows_of_a_fit(dynamics, replay)
    for rows in seen:  # 1 − 1/e = 0.632 of them, standard deviation 0.02
        assert 0.55 < len(rows) / count < 0.72
    assert len({frozenset(rows) for rows in seen}) == 2 * MEMBERS
    again, _ = rows_of_a_fit(dynamics, replay)
    assert again[0] != seen[0]  # drawn anew in every fit
    everything, _ = rows_of_a_fit(dynamics_of(**options), replay)
    assert all(len(rows) == count for rows in everything)


def numbered(first: int, count: int, members: int = 2):
    """Transitions whose every entry is their number, members told apart by their sign."""
    number = torch.arange(first, first + count, dtype=torch.float64)
    sign = torch.tensor([1.0, -1.0])[:members, None]
    value = sign * number
    state, action = value[..., None].expand(-1, -1, 3), value[..., None]
    return state, action, value, state + 0.5, torch.zeros(members, count, dtype=torch.bool)


def test_a_batch_is_whole_transitions_of_its_own_member():
    replay = Replay(2, 100, 3, 1, torch.float64)
    replay.add(*numbered(1, 40))
    batch = replay.sample(torch.rand(2, 64))
    assert (batch.state[0] > 0).all() and (batch.state[1] < 0).all()
    for part in (batch.action[..., 0], batch.reward, batch.next_state[..., 2] - 0.5):
        assert torch.equal(part, batch.state[..., 0])


def test_the_oldest_transitions_are_overwritten():
    replay = Replay(2, 10, 3, 1, torch.float64)
    for first in range(0, 28, 4):
        replay.add(*numbered(first, 4))
    batch = replay.sample((torch.arange(10) + 0.5).expand(2, -1) / 10)
    assert sorted(batch.reward[0].tolist()) == list(range(18, 28))


def test_every_stored_transition_is_reached_and_none_other():
    replay = Replay(1, 1000, 3, 1, torch.float64)
    replay.add(*numbered(1, 7, members=1))
    reached = replay.sample(torch.tensor([[0.0, 0.99999999999]], dtype=torch.float64)).reward
    assert reached.tolist() == [[1.0, 7.0]]


BATCH = 256


def world(generator, starts, bias, noise=0.3, law="normal", common=1.0, parameters=12):
    """Gradients of K estimators and the truth, with the estimators' biases [K, P]."""

    def draw(*shape):
        z = generator.standard_normal((starts, *shape, parameters))
        tail = (starts,) + (1,) * (z.ndim - 1)
        if law == "t4":
            z = z / np.sqrt(generator.chisquare(4, tail) / 4)
        if law == "lognormal":
            z = z * np.exp(generator.standard_normal(tail))
        return z

    truth = 1 + draw()
    G = truth[:, None] + bias + common * draw()[:, None] + noise * draw(len(bias))
    return explicit_grams(np.concatenate([G, truth[:, None]], axis=1))


def one_each(K, size=1.5):
    return size * np.eye(K, 12)


def alike(K):
    return np.tile(one_each(1), (K, 1))


def test_two_independent_biases_have_the_weights_of_the_closed_form():
    grams = world(np.random.default_rng(0), 4000, np.diag([3.0, 1.0]) @ np.eye(2, 12), noise=0.0)
    found = propose_weights(errors(grams, BATCH), np.array([0.5, 0.5]))
    # E = diag(9, 1) and what both share: w_2 = E_11 / (E_11 + E_22), then the floor.
    assert found.weights[1] == pytest.approx((1 - ALPHA) * 0.9 + ALPHA / 2, abs=0.01)
    assert found.better and found.least > 0
    assert found.gain == pytest.approx(2.5 - (0.01 * 9 + 0.81), abs=0.1)


def test_the_price_of_the_floor_is_at_most_a_standard_error():
    generator = np.random.default_rng(3)
    for _ in range(20):
        measured = errors(world(generator, 64, generator.normal(size=(4, 12))), BATCH)
        best = np.eye(4)[np.argmin(np.diagonal(measured.value))]
        A = generator.normal(size=(4, 4))
        E = A @ A.T
        w = floored(best, measured, E)
        left_out = measured.mse(best).left_out
        allowed = np.sqrt((len(left_out) - 1) * left_out.var())
        assert w @ E @ w - best @ E @ best <= allowed * (1 + 1e-9)
        share = 4 * w[best == 0].min()
        assert w == pytest.approx((1 - share) * best + share / 4)
        assert share <= ALPHA + 1e-12


@pytest.mark.parametrize("law", ["normal", "t4", "lognormal"])
@pytest.mark.parametrize(("K", "biases"), [(2, alike), (4, alike), (2, one_each), (4, one_each)])
@pytest.mark.sampled(4)
def test_equal_weights_do_not_flip_on_noise(law, K, biases):
    # Equal errors: equal weights are a best mixture (`one_each`), or any weights are (`alike`).
    trials, generator, even = 100, np.random.default_rng(4), np.full(K, 1 / K)
    flips = {"weights": 0, "horizon": 0}
    for _ in range(trials):
        measured = errors(world(generator, 32, biases(K), law=law), BATCH)
        flips["weights"] += propose_weights(measured, even).better
        flips["horizon"] += propose_horizon(measured, even).better
    most = stats.binom.isf(1e-3, trials, ALPHA)
    assert max(flips.values()) <= most, flips


def test_a_horizon_in_force_stays_while_it_is_in_the_set():
    trials, generator, flips = 150, np.random.default_rng(5), 0
    for _ in range(trials):
        measured = errors(world(generator, 32, one_each(4)), BATCH)
        found = propose_horizon(measured, np.eye(4)[1])
        flips += found.better
        assert found.better == (not found.kept[1])
    assert flips <= stats.binom.isf(1e-3, trials, ALPHA)


def turned(cosines, lengths=1.0, starts=128, seed=8, noise=0.3):
    """Gradients of given cosines with the truth, off it in directions of their own, and lengths."""
    generator, P = np.random.default_rng(seed), 12
    c = np.asarray(cosines)[:, None]
    truth = np.eye(P)[0] + noise * generator.normal(size=(starts, P))
    G = c * np.eye(P)[0] + np.sqrt(1 - c**2) * np.eye(P)[1 : len(c) + 1]
    G = G + noise * generator.normal(size=(starts, len(c), P))
    G = G * np.broadcast_to(lengths, len(c))[:, None]
    return errors(explicit_grams(np.concatenate([G, truth[:, None]], axis=1)), BATCH)


def test_the_gain_is_the_share_of_the_step_that_is_along_the_truth():
    measured = turned([0.2, -0.9], [1.0, 30.0], starts=4000, noise=0.01)
    assert measured.gain(np.array([1.0, 0.0])).value == pytest.approx(0.2, abs=0.01)
    assert measured.gain(np.array([0.0, 1.0])).value == pytest.approx(-0.9, abs=0.01)
    one, other = (measured.gain(scale * np.array([0.5, 0.5])) for scale in (1.0, 7.0))
    assert one.value == pytest.approx(other.value)


def test_weights_by_gain_follow_lengths_as_the_same_mixture_needs():
    found = []
    for lengths in ([1.0, 1.0, 1.0], [50.0, 0.1, 3.0], [1e-3, 1e3, 1.0]):
        measured = turned([0.9, 0.6, -0.5], lengths)
        weights = propose_weights(measured, np.full(3, 1 / 3), "gain").weights * lengths
        found.append(weights / weights.sum())
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)
    assert found[0][0] > found[0][1] > found[0][2] > 0


@pytest.mark.parametrize(("law", "K"), [("normal", 2), ("t4", 2), ("normal", 4)])
def test_equal_gains_do_not_flip_on_noise(law, K):
    trials, generator, even = 100, np.random.default_rng(4), np.full(K, 1 / K)
    flips = {"weights": 0, "horizon": 0}
    for _ in range(trials):
        measured = errors(world(generator, 32, alike(K), law=law), BATCH)
        flips["weights"] += propose_weights(measured, even, "gain").better
        flips["horizon"] += propose_horizon(measured, even, "gain").better
    assert max(flips.values()) <= stats.binom.isf(1e-3, trials, ALPHA), flips


def test_a_gain_that_is_not_a_number_replaces_nothing():
    # Gradients without a mean in batches without noise: their length squared may be negative.
    generator = np.random.default_rng(3)
    X = generator.normal(size=(16, 3, 12))
    measured = errors(explicit_grams(X), 10**12)
    lost = [k for k in (0, 1) if not np.isfinite(measured.gain(np.eye(2)[k]).left_out).all()]
    assert lost
    for propose in (propose_weights, propose_horizon):
        assert not propose(measured, np.eye(2)[lost[0]], "gain").better
