"""The gradient of windows that are linearized at once: backpropagation through their simulator.

Rows along on-policy windows: SHAC and what differs from it, on a linear task and refused.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import Failure
from gradlab.systems import from_function
from gradlab.training.algorithms import find
from gradlab.training.parts.duals import AdaptiveHorizon, Stiffness
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.window_losses import StateLambda, WindowReturn
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import SMALL, flattened, policy_gradients, push, row, task
from tests.training.test_row_gradients import linear_task, measured

STEPS, GAMMA, ALPHA, SCALE = 8, 0.9, 0.2, 0.5


def shaken(state, action, noise):
    """The small world with noise in its slopes: they are those of the transition's own noise."""
    after, reward = push(state, action, noise)
    return after + 0.1 * noise * state * action[:, :1], reward + 0.1 * noise[:, 0] * state[:, 1]


def begun(algorithm, world=shaken, **changes):
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
            ahead = SCALE * world.reward[0] + GAMMA * v * (1 - here["terminated"][0])
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
                state, discount = world.state[0], GAMMA * discount
                continue
            after = world.state[None].expand(2, -1, -1)
            ahead = ()
            if amended:
                tail = policy.with_log_prob(world.state, drawn[agent * STEPS + t][None])
                ahead = (x.expand(2, *x.shape) for x in tail)
            value = values(after, *ahead)[seed, :, 0]
            value = value.mean() if mean else value.min() if len(value) else 0.0
            total = total + GAMMA * discount * value * (0.0 if ended and masked else 1.0)
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
    run = begun(replace(row("shac"), **changes))
    if changes.get("loss", WindowReturn()).jacobians == "model":  # its mean, without noise
        run = begun(replace(row("shac"), **changes), world=push)
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
    run = begun(replace(row("shac"), adaptive=Stiffness()))
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
    run = begun(row("shac"))
    batch = next_batch(run)
    run.learner.update(0, batch)
    with pytest.raises(Failure, match="actions are not the policy's own"):
        run.learner.update(1, batch)


def test_all_transitions_of_all_seeds_are_linearized_in_one_call(monkeypatch):
    run = begun(row("shac"))
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
