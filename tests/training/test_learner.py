"""Updates against the estimators they claim to follow, targets against hand-made sums."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.systems import from_function
from gradlab.training.algorithms import find
from gradlab.training.learner import Learner
from gradlab.training.members import BETAS
from gradlab.training.parts.context import Context, Draws, Objective
from gradlab.training.parts.critics import NStep, OneStep
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.settings import Settings
from tests.training.small_runs import flattened

GAMMA = 0.9


def push(state, action):
    """A nonlinear system in three coordinates with two actions."""
    moved = 0.9 * state + 0.3 * torch.sin(state.roll(1, 1))
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0] * state[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1) + state[:, 0] * action[:, 1]


def ends_far_out(state):
    return state[:, 0].abs() < 1.5


def world(alive=None):
    return from_function(push, state_dim=3, action_dim=2, alive=alive)


def task(alive=None):
    model = world(alive)

    return gradlab.Task("push", model, model, starts, GAMMA, 5, action_limit=(2.0, 1.0))


def small(name):
    return replace(find(name), hidden=(8, 8), activation="tanh", batch=16)


def settings(**changes):
    return Settings(**{"precision": "float64", "warmup": 64, "termination": "ignore", **changes})


def batch_at(state):
    """A batch of which only the states matter."""
    nothing = state.new_zeros(state.shape[:2])
    return Batch(state, state[..., :2], nothing, state, nothing)


def context(act, value, objective, system=None, **changes):
    """A context of functions; `act` and `value` take no noise and no members apart."""

    def plain(state, noise):
        return act(state), None

    model = world() if system is None else system
    draws = Draws((0,), torch.float64, "cpu")
    given = Context(
        objective, plain, plain, plain, noiseless, value, value, starts, model, model, draws, 0
    )
    return replace(given, **changes)


def starts(n, generator):
    return torch.randn(n, 3, generator=generator, dtype=torch.float64)


def noiseless(state, action):
    return state[..., :0]


def deterministic(learner, model):
    """The context of a deterministic learner."""
    frozen, critic = learner.policy.frozen(), learner.critic.frozen()
    return context(
        learner.policy, learner.valuing.first(critic), Objective(GAMMA), model,
        frozen=lambda state, noise: (frozen(state), None),
    )  # fmt: skip


@pytest.mark.parametrize("actions", ["first", "all"])
@pytest.mark.parametrize("horizon", [0, 1, 4])
def test_a_term_has_the_gradient_of_its_estimator(horizon, actions):
    chosen, row = task(), small("td3")
    learner = Learner(row, chosen, settings(seeds=2))
    state = torch.randn(2, 16, 3, dtype=torch.float64)
    loss, _ = MixtureLoss()(
        deterministic(learner, chosen.prior), batch_at(state), [Term(horizon, actions)],
        np.ones((2, 1)),
    )  # fmt: skip
    gradients = torch.autograd.grad(loss.sum(), learner.policy.parameters)
    for member in range(2):
        policy, critic = learner.policy_of(member), learner.critic_of(member)
        tail = gradlab.Tail(horizon, critic.double(), GAMMA)
        estimator = gradlab.Estimator(chosen.prior, chosen.prior, actions, tail)
        wanted = estimator.mean_gradient(policy.double(), state[member])
        torch.testing.assert_close(-flattened(gradients, member), wanted, rtol=1e-10, atol=1e-12)


def test_a_mixture_is_the_weighted_sum_of_its_terms():
    chosen, row = task(), small("mpg-v2")
    learner = Learner(row, chosen, settings())
    state = torch.randn(1, 16, 3, dtype=torch.float64)

    def loss(terms, weights):
        given = deterministic(learner, chosen.prior)
        return MixtureLoss()(given, batch_at(state), terms, np.array([weights]))[0]

    parts = [Term(0), Term(2), Term(5)]
    whole = loss(parts, [0.2, 0.5, 0.3])
    apart = (
        0.2 * loss(parts[:1], [1.0]) + 0.5 * loss(parts[1:2], [1.0]) + 0.3 * loss(parts[2:], [1.0])
    )
    torch.testing.assert_close(whole, apart, rtol=1e-13, atol=0)


def batch_of(terminated):
    states = torch.tensor([[[0.3, -0.2, 0.1], [1.0, 0.5, -0.4]]], dtype=torch.float64)
    actions = torch.tensor([[[0.4, -0.3], [0.9, 0.2]]], dtype=torch.float64)
    after, reward = push(states[0], actions[0])
    ended = torch.tensor([terminated], dtype=torch.float64)
    return Batch(states, actions, reward[None], after[None], ended)


def linear_act(state):
    return state[..., :2] * 0.5


def sum_value(state, action, log_prob=None):
    return state.sum(2) + 2 * action.sum(2)


class Given:
    """Draws that are always the same."""

    def __init__(self, noise):
        self.noise = noise

    def normal(self, name, iteration, shape):
        return self.noise


def test_one_step_values_a_truncated_state_and_not_a_terminal_one():
    batch = batch_of([0.0, 1.0])
    got = OneStep()(context(linear_act, sum_value, Objective(GAMMA, 0.5, True)), batch)
    after = sum_value(batch.next_state, linear_act(batch.next_state))
    torch.testing.assert_close(got[0, 0], 0.5 * batch.reward[0, 0] + GAMMA * after[0, 0])
    torch.testing.assert_close(got[0, 1], 0.5 * batch.reward[0, 1])
    ignoring = OneStep()(context(linear_act, sum_value, Objective(GAMMA, 0.5)), batch)
    torch.testing.assert_close(ignoring[0, 1], 0.5 * batch.reward[0, 1] + GAMMA * after[0, 1])


def test_smoothing_is_clipped_twice():
    batch, limit = batch_of([0.0, 0.0]), torch.tensor([2.0, 1.0], dtype=torch.float64)
    noise = torch.tensor([[[100.0, -100.0], [1.0, 1.0]]], dtype=torch.float64)
    given = context(linear_act, sum_value, Objective(GAMMA), limit=limit, draws=Given(noise))
    got = OneStep(smoothing=0.1, limit=0.5)(given, batch)
    shift = torch.tensor([[[1.0, -0.5], [0.2, 0.1]]], dtype=torch.float64)
    action = (linear_act(batch.next_state) + shift).clamp(-limit, limit)
    torch.testing.assert_close(got, batch.reward + GAMMA * sum_value(batch.next_state, action))


@pytest.mark.parametrize("masked", [False, True])
def test_n_steps_are_summed_by_hand(masked):
    batch = batch_of([0.0, 0.0])
    given = context(linear_act, sum_value, Objective(GAMMA, 0.5, masked), world(ends_far_out))
    got = NStep("simulator", steps=3)(given, batch)
    for row in range(2):
        state, action, total, alive = (
            batch.state[0, row : row + 1],
            batch.action[0, row : row + 1],
            0.0,
            1.0,
        )
        for t in range(3):
            state, reward = push(state, action)
            total += alive * GAMMA**t * 0.5 * float(reward)
            if masked and not bool(ends_far_out(state)):
                alive = 0.0
            action = linear_act(state)
        total += alive * GAMMA**3 * float(sum_value(state[None], action[None]))
        assert float(got[0, row]) == pytest.approx(total, rel=1e-12)


def test_the_batched_gaussian_is_the_policy_it_exports():
    learner = Learner(small("sac"), task(), settings(seeds=2))
    state = torch.randn(2, 16, 3, dtype=torch.float64)
    noise = torch.randn(2, 16, 2, dtype=torch.float64)
    action, density = learner.acting.draw(learner.policy, state, noise)
    for member in range(2):
        policy = learner.policy_of(member).double()
        wanted = policy.with_log_prob(state[member], noise[member])
        torch.testing.assert_close(action[member], wanted[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(density[member], wanted[1], rtol=1e-6, atol=1e-6)


def test_the_exported_critic_values_unscaled_rewards():
    learner = Learner(small("td3"), task(), settings(reward_scale=0.01))
    state = torch.randn(1, 16, 3, dtype=torch.float64)
    action = torch.randn(1, 16, 2, dtype=torch.float64)
    trained = learner.valuing.every(learner.critic, state, action)[0, 0]
    torch.testing.assert_close(
        learner.critic_of(0).double()(state[0], action[0]), trained / 0.01, rtol=1e-5, atol=1e-5
    )


def followed(trained):
    """Norm of every network's gradient after clipping, from Adam's memory of its first step."""
    state = trained.adam.state()
    memory = [state[f"{k}.exp_avg"] for k in range(len(trained.raw.parameters))]
    return sum((x**2).sum(dim=(1, 2)) for x in memory).sqrt() / (1 - BETAS[0])


def test_twin_critics_are_clipped_apart():
    learner = Learner(replace(small("td3"), clip=1.0), task(), settings())
    factor = torch.tensor([1e-3, 3.0], dtype=torch.float64)[:, None, None]
    loss = sum((p * factor).sum() for p in learner.critic.parameters)
    size = factor.flatten() * sum(p[0].numel() for p in learner.critic.parameters) ** 0.5
    norm = learner.trained_critic.step(loss, 2)
    torch.testing.assert_close(norm, size.square().sum().sqrt()[None])
    torch.testing.assert_close(followed(learner.trained_critic), size.clamp(max=1.0))
