"""The gradient of a row's own loss, start by start, and its errors where the truth is known.

Gradients along a rollout by Jacobians of many steps at once are those of autograd. The gradient of
windows that are linearized at once: backpropagation through their simulator. Rows along on-policy
windows: SHAC and what differs from it, on a linear task and refused.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab import tasks
from gradlab.data.replay import Batch
from gradlab.data.trajectories import stream
from gradlab.errors import Failure
from gradlab.systems import from_function
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.training.algorithms import ALGORITHMS, find
from gradlab.training.learner import alone
from gradlab.training.measured import gradient_errors
from gradlab.training.measured.gradient_errors import (
    in_trained_weights,
    measured_terms,
    start_gradients,
    unbroken,
)
from gradlab.training.parts import policy_losses
from gradlab.training.parts.context import Draws, Newest
from gradlab.training.parts.critics import NoCritic, Soft
from gradlab.training.parts.duals import AdaptiveHorizon, Stiffness
from gradlab.training.parts.policy_losses import MOST, MixtureLoss, RolloutSteps, Term, followed
from gradlab.training.parts.window_losses import StateLambda, WindowReturn
from gradlab.training.run import collect, next_batch
from gradlab.training.seed_models import TrueSteps, in_dtype, of_seed
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.gradients.worlds import matrix
from tests.training import small_runs
from tests.training.small_runs import SMALL, flattened, policy_gradients, push, row, task

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


def linear_task(offset=0.0, gain=1.0, noise=0.01):
    """Linear and quadratic; its prior may be off by a constant, or in its dynamics."""
    eye = torch.eye(2, dtype=torch.float64)
    world = LinearQuadratic(A, B, eye, 0.1 * eye, noise * eye)
    guess = LinearQuadratic(gain * A, B, eye, 0.1 * eye, noise * eye)

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
    row = gradient_errors.row(run)
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
    assert (
        horizons == [0, 1, 2, 4, 8, 12] and gradient_errors.STATUSES[int(found["truth"])] != "none"
    )
    assert found["bias2_low"][-1] <= 1e-6 * found["variance"][-1]
    assert found["cosine_high"][-1] == 1.0 and found["cosine_low"][-1] > 0.5
    assert abs(found["bias2"][-1]) < 0.1 * found["variance"][-1]
    # The critic is a fresh one: what stops at it is wrong, and it is that which is blamed.
    assert found["bias2_low"][1] > 0
    np.testing.assert_allclose(found["bias2_tail"][1], found["bias2"][1], rtol=1e-6)
    np.testing.assert_allclose(found["dynamics_bias2"][1:], 0.0, atol=1e-12)


def test_a_mixtures_errors_are_what_gradlab_measure_says_at_the_same_states():
    world = linear_task(gain=0.7, noise=0.0)
    run = begun(small_runs.row("mpg-v2"), world, gradient_starts=8, gradient_every=1)
    found, horizons = gradient_errors.row(run), run.algorithm.horizons
    states = gradient_errors.drawn_batches(run).state[0].double()
    assert len(states.unique(dim=0)) == len(states), "repeated rows are one there"
    policy, critic = (
        network.double() for network in (run.learner.policy_of(0), run.learner.critic_of(0))
    )
    tail = gradlab.Tail(max(horizons), critic, GAMMA)
    estimators = {"model": gradlab.Estimator(world.prior, world.prior, "first", tail)}
    profile = gradlab.measure(
        world, policy, critic, estimators, horizon=max(horizons), starts=states,
        batch=run.algorithm.batch, law="start", truth="matched",
    )  # fmt: skip
    for name in ("bias2", "variance", "mse", "relative_mse", "cosine"):
        wanted = [profile.estimate("model", name, h).value for h in horizons]
        # Both truths are unrolled until the rest is below a thousandth.
        np.testing.assert_allclose(found[name][0], wanted, rtol=1e-3, err_msg=name)


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
    parts = sum(gained[name][-1] for name in gradient_errors.PARTS)
    np.testing.assert_allclose(parts, gained["bias2"][-1], rtol=1e-9)
    assert gained["bias2_jacobians"][-1] > 0 and gained["bias2_states"][-1] > 0
    own2, true2, inner = (gained[name] for name in gradient_errors.SQUARES)
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
    assert gradient_errors.TRUTHS[int(score["truth"])] == "score"
    assert unrolled["bias2_low"][-1] > 0 and score["bias2_low"][-1] > 0
    assert unrolled["bias2_low"][-1] <= score["bias2_high"][-1]
    assert score["bias2_low"][-1] <= unrolled["bias2_high"][-1]
    assert score["bias2"][-1] == pytest.approx(unrolled["bias2"][-1], rel=0.5)


LONG, ROWS = 7, 12


@pytest.fixture(params=["path_tracking", "inverted_pendulum"])
def driven(request):
    return getattr(tasks, request.param)()


def gradients(model, task, noisy=True):
    """Of a linear policy's return with a value at the end, and of the first states."""
    states = task.starts(ROWS, stream(0, "starts"))
    states[0] *= 40.0  # a path tracker beyond its range of speeds
    states.requires_grad_()
    torch.manual_seed(0)
    policy = (0.1 * torch.randn(states.shape[1], task.prior.action_dim)).double()
    policy.requires_grad_()
    state, total = states, 0.0
    for t in range(LONG):
        noise = task.prior.sample_noise(ROWS, stream(0, "noise", t)) if noisy else None
        after = model.step(state, (state @ policy).tanh(), noise)
        total = total + 0.9**t * after.reward * after.alive
        state = after.state
    loss = (total + state.square().sum(dim=1)).sum()
    return [*torch.autograd.grad(loss, (policy, states), retain_graph=True)], loss


@pytest.mark.parametrize("rows", [ROWS, 3 * ROWS, 4096])
@pytest.mark.parametrize("noisy", [True, False])
def test_they_are_those_of_autograd(driven, noisy, rows, monkeypatch):
    monkeypatch.setattr(policy_losses, "ROWS", rows)
    expected, loss = gradients(driven.prior, driven, noisy)
    found, same = gradients(RolloutSteps(driven.prior), driven, noisy)
    torch.testing.assert_close(same, loss, rtol=0, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_step_that_is_made_after_a_backward_pass_has_its_own_jacobian(driven):
    path, state = (
        RolloutSteps(driven.prior),
        driven.starts(ROWS, stream(0, "starts")).requires_grad_(),
    )
    action = torch.zeros(ROWS, driven.prior.action_dim, dtype=state.dtype)
    for scale in (1.0, 2.0):
        after, expected = (m.step(scale * state, action) for m in (path, driven.prior))
        (found,) = torch.autograd.grad(after.state.sum(), state, retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(expected.state.sum(), state)[0])


def test_only_formulas_on_few_rows_are_followed(driven):
    assert isinstance(followed(driven.prior, MOST), RolloutSteps)
    assert followed(driven.prior, MOST + 1) is driven.prior
    assert followed(driven.simulator, 1) is driven.simulator
    assert followed(None, 1) is None


STEPS, DISCOUNT, ALPHA, SCALE = 8, 0.9, 0.2, 0.5


def shaken(state, action, noise):
    """The small world with noise in its slopes: they are those of the transition's own noise."""
    after, reward = push(state, action, noise)
    return after + 0.1 * noise * state * action[:, :1], reward + 0.1 * noise[:, 0] * state[:, 1]


def begun_in_windows(algorithm, world=shaken, **changes):
    alive = (lambda state: state[:, 0].abs() < 1.5) if changes.pop("ends", True) else None
    simulator = from_function(world, state_dim=3, action_dim=2, noise_dim=3, alive=alive)
    chosen = replace(task(), simulator=simulator, prior=simulator, alive=alive)
    chosen_row = replace(
        algorithm, terms=(Term(STEPS, "all"),), source=Newest(STEPS), activation="tanh"
    )
    settings = Settings(
        **SMALL | {"seeds": 2, "termination": "mask", "reward_scale": SCALE, "episode": 6} | changes
    )
    run = begin(replace(chosen_row, batch=chosen_row.rows(4)), chosen, settings)
    collect(run)
    run.learner.model = simulator
    return run


def critics_share(run, seed, batch):
    """v₁² / (v₀² + v₁²) of each step, from the gradients in the actions, one agent at a time."""
    learner, policy = run.learner, run.learner.policy_of(seed).double()
    values, live = (learner.valuing.all(x) for x in (learner.target_critic, learner.critic))
    drawn = learner.context(0, learner.draws).along("tail actions", 1, 4 * STEPS, 2)[0][seed]
    rows = {name: x[seed].view(STEPS, 4, *x.shape[2:]) for name, x in batch.tensors.items()}
    found = []
    for t in range(STEPS):
        slopes = []
        for agent in range(4):
            here = {name: x[t, agent][None] for name, x in rows.items()}
            action = here["action"].clone().requires_grad_()
            q = live(here["state"].expand(2, 1, -1), action.expand(2, 1, -1), None)[seed].min()
            world = run.task.simulator.step(here["state"], action, here["dynamics_noise"])
            tail = policy.with_log_prob(world.state, drawn[agent * STEPS + t][None])
            v = values(*(x.expand(2, *x.shape) for x in (world.state, *tail)))[seed].min()
            ahead = SCALE * world.reward[0] + DISCOUNT * v * (1 - here["terminated"][0])
            slopes.append(torch.stack([torch.autograd.grad(x, action)[0][0] for x in (q, ahead)]))
        v0, v1 = torch.stack(slopes).var(dim=0, correction=0).sum(dim=1) ** 2
        found.append(v1 / (v0 + v1))
    return torch.stack(found)


def unrolled(run, seed, batch, cut=STEPS, mean=False, alpha=0.0, amended=False, share=None):
    """The return of the window by stepping through it, with autograd through every step."""
    learner, policy = run.learner, run.learner.policy_of(seed).double()
    values, live = (learner.valuing.all(x) for x in (learner.target_critic, learner.critic))
    drawn = learner.context(0, learner.draws).along("tail actions", 1, 4 * STEPS, 2)[0][seed]
    at_once = 0.0  # Q of the critic itself at every state
    masked, total = run.settings.termination == "mask", 0.0
    rows = {name: x[seed].view(STEPS, 4, *x.shape[2:]) for name, x in batch.tensors.items()}
    for agent in range(4):
        state, discount = rows["state"][0, agent], 1.0
        for t in range(STEPS):
            here = {name: x[t, agent][None] for name, x in rows.items()}
            noise = here["policy_noise"]
            action, log_prob = policy.with_log_prob(state[None], noise)
            world = run.task.simulator.step(state[None], action, here["dynamics_noise"])
            earned = (SCALE * world.reward - alpha * log_prob)[0]
            if share is not None:
                both = (x.expand(2, 1, -1) for x in (state[None], action))
                earned = torch.lerp(earned, live(*both, None)[seed].min(), share[t])
            total = total + discount * earned
            discount = discount * (1 if share is None else 1 - share[t])
            if amended and share is None:
                here_again = policy.with_log_prob(here["state"], noise)
                both = (x.expand(2, *x.shape) for x in (here["state"], *here_again))
                at_once = at_once + live(*both)[seed].min() / (4 * STEPS)
            ended = here["terminated"][0] > 0.5
            following = rows["state"][t + 1, agent] if t + 1 < STEPS else None
            same = following is not None and torch.equal(here["next_state"][0], following)
            if same and not ended and (t + 1) % cut:
                state, discount = world.state[0], DISCOUNT * discount
                continue
            after = world.state[None].expand(2, -1, -1)
            ahead = ()
            if amended:
                tail = policy.with_log_prob(world.state, drawn[agent * STEPS + t][None])
                ahead = (x.expand(2, *x.shape) for x in tail)
            value = values(after, *ahead)[seed, :, 0]
            value = value.mean() if mean else value.min() if len(value) else 0.0
            total = total + DISCOUNT * discount * value * (0.0 if ended and masked else 1.0)
            state, discount = following, 1.0
    total = (total / 4 + at_once) / 2 if amended and share is None else total / 4
    gradients = torch.autograd.grad(total, list(policy.parameters()))
    return total, torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"target": StateLambda(critics=2), "loss": WindowReturn(tail="mean")}, {"mean": True}),
        ({"target": StateLambda(critics=2, temperature=ALPHA)}, {"alpha": ALPHA}),
        ({"loss": WindowReturn("model")}, {}),  # a model that is exact
        (
            {
                "target": StateLambda(temperature=ALPHA, actions=True),
                "loss": WindowReturn(blend="half"),
            },
            {"alpha": ALPHA, "amended": True},
        ),
        (
            {
                "target": StateLambda(critics=2, actions=True),
                "loss": WindowReturn(blend="variance"),
            },
            {"amended": True, "share": critics_share},
        ),
    ],
)
def test_the_gradient_is_that_of_autograd_through_the_unrolled_simulator(changes, options):
    run = begun_in_windows(replace(row("shac"), **changes))
    if changes.get("loss", WindowReturn()).jacobians == "model":  # its mean, without noise
        run = begun_in_windows(replace(row("shac"), **changes), world=push)
    batch = next_batch(run)
    assert (batch.terminated > 0.5).any() and batch.policy_noise.abs().max() > 0
    loss, _ = run.learner.policy_loss(0, batch, run.learner.weights(0), run.learner.draws)
    followed = policy_gradients(run.learner, 0, batch, run.learner.draws)
    for seed in range(2):
        own = {k: x(run, seed, batch) if callable(x) else x for k, x in options.items()}
        value, gradient = unrolled(run, seed, batch, **own)
        torch.testing.assert_close(-loss[seed], value, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(-flattened(followed, seed), gradient, rtol=1e-8, atol=1e-10)


def test_paths_that_are_cut_are_those_of_shorter_windows():
    run = begun_in_windows(replace(row("shac"), adaptive=Stiffness()))
    run.learner.adapted.value.copy_(torch.tensor([3.2, 5.0]))
    batch = next_batch(run)
    followed = policy_gradients(run.learner, 0, batch, run.learner.draws)
    for seed, cut in enumerate((3, 5)):
        _, gradient = unrolled(run, seed, batch, cut=cut)
        torch.testing.assert_close(-flattened(followed, seed), gradient, rtol=1e-8, atol=1e-10)


def test_mujocos_certified_jacobians_give_the_slope_of_its_own_return():
    # Of a deterministic policy; against central differences of the return in each parameter.
    pendulum, steps = gradlab.tasks.inverted_pendulum(engine="mujoco"), 3  # no pole falls in so few
    plain = replace(
        find("shac"), policy="deterministic", exploration=0.0, target=StateLambda(stochastic=False),
        hidden=(2,), activation="tanh", terms=(Term(steps, "all"),), source=Newest(steps),
    )  # fmt: skip
    options = {"agents": 3, "warmup": 9, "seeds": 1, "termination": "ignore", "episode": 100}
    settings = Settings(**SMALL | options)
    run = begin(replace(plain, batch=plain.rows(3)), pendulum, settings)
    collect(run)
    batch = next_batch(run)
    assert not batch.terminated.any()
    followed = policy_gradients(run.learner, 0, batch, run.learner.draws)
    gradient = -flattened(followed, 0)
    policy, critic = run.learner.policy_of(0).double(), run.learner.critic_of(0).double()

    @torch.no_grad()
    def value():
        state, total = batch.state[0, :3], 0.0
        for t in range(steps):
            after = pendulum.simulator.step(state, policy(state))
            state, total = after.state, total + pendulum.discount**t * after.reward
        return float((total + pendulum.discount**steps * critic(state)).mean())

    differences, h = [], 1e-5
    for parameter in policy.parameters():
        flat = parameter.data.view(-1)
        for k in range(len(flat)):
            flat[k] += h
            up = value()
            flat[k] -= 2 * h
            differences.append((up - value()) / (2 * h))
            flat[k] += h
    wanted = torch.tensor(differences, dtype=torch.float64)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6 * float(wanted.abs().max()))


def test_a_window_that_another_policy_collected_is_refused():
    run = begun_in_windows(row("shac"))
    batch = next_batch(run)
    run.learner.update(0, batch)
    with pytest.raises(Failure, match="actions are not the policy's own"):
        run.learner.update(1, batch)


def test_all_transitions_of_all_seeds_are_linearized_in_one_call(monkeypatch):
    run = begun_in_windows(row("shac"))
    batch, calls = next_batch(run), []
    system, linearize = type(run.task.simulator), type(run.task.simulator).linearize

    def counted(self, state, action, noise=None):
        calls.append(len(state))
        return linearize(self, state, action, noise)

    monkeypatch.setattr(system, "linearize", counted)
    run.learner.update(0, batch)
    assert calls == [2 * 4 * STEPS]


def slopes(stiffness):
    """∂(s′, r)/∂(s, a) [E, 6, 4, 5] with as large a singular value of ∂s′/∂s for each seed."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(len(stiffness), 6, 4, 5, generator=generator, dtype=torch.float64)
    turned, _ = torch.linalg.qr(drawn[:, :, :3, :3])
    scale = torch.tensor(stiffness, dtype=torch.float64)[:, None, None]
    drawn[:, :, :3, :3] = turned * torch.stack([scale, 0.5 * scale, 0.1 * scale], dim=3)
    return drawn


def test_the_horizon_falls_where_steps_are_stiffer_than_the_threshold_and_grows_elsewhere():
    horizon = AdaptiveHorizon(Stiffness(10.0, 8, 0.01), 32, 3, torch.device("cpu"))
    assert horizon.steps.tolist() == [8, 8, 8]
    horizon.value.fill_(20.0)
    H, dual, last = np.full(3, 20.0), np.zeros(3), None
    for _ in range(40):
        last = horizon.value.tolist()
        horizon.step(slopes([5.0, 10.0, 30.0]))
        dual = dual + 0.01 * (np.array([0.5, 1.0, 3.0]) - 1)
        H = np.clip(H - 0.01 * H * dual, 8, 32)
        np.testing.assert_allclose(horizon.value.numpy(), H, rtol=1e-12)
    assert last[0] > 20 and last[1] == pytest.approx(20) and last[2] < 20
    lost = slopes([5.0, 5.0, 5.0])
    lost[1] = torch.nan
    horizon.step(lost)
    assert horizon.value.isfinite().all() and horizon.value[1] == pytest.approx(20)


def along(name, **changes):
    """A row without a critic, or with one, that follows 12 steps; its model is the task's prior."""
    terms = (Term(12, "all"),)
    return replace(row(name), model=None, terms=terms, source=Newest(12), **changes)


def test_windows_through_the_simulator_have_no_bias_but_their_tails():
    plain, horizons = measured(along("apg"), linear_task(), agents=48)
    assert horizons == [1, 2, 4, 8, 12]
    assert plain["bias2_low"][-1] <= 1e-6 * plain["variance"][-1]
    assert plain["bias2_low"][0] > 0  # one step alone
    np.testing.assert_array_equal(plain["bias2_tail"], plain["bias2"])
    for part in ("bias2_states", "bias2_jacobians"):
        np.testing.assert_array_equal(plain[part], 0.0)


def test_the_gradient_of_a_soft_window_is_that_of_the_soft_return():
    target = StateLambda(critics=2, temperature=3.0)
    soft, _ = measured(along("sapo", target=target), linear_task(), agents=48)
    assert soft["bias2_low"][-1] <= 1e-6 * soft["variance"][-1]
    assert soft["bias2_low"][0] > 0


def test_a_wrong_models_jacobians_are_the_whole_bias_along_the_simulators_states():
    wrong, _ = measured(along("dmo"), linear_task(gain=0.4), agents=256)
    assert wrong["bias2_low"][-1] > 0
    np.testing.assert_allclose(wrong["bias2_states"], 0.0, atol=1e-9)
    assert wrong["bias2_jacobians"][-1] > 0.8 * wrong["bias2"][-1]
