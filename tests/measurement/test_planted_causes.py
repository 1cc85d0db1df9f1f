"""Attribution of errors that were planted in one part: mass, critic, one entry of B."""

from dataclasses import replace

import torch
from torch import nn

from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Setting, Tail
from gradlab.measurement.substitution import (
    detail,
    squared_bias_games,
    substitutions,
)
from gradlab.statistics.shapley import share_interval, shares
from gradlab.systems.cartpole import TABLE4, CartPoleSimulator
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.pendulum import Pendulum
from tests.gradients.worlds import matrix, network
from tests.measurement.substituted import (
    GAMMA,
    fractions,
    linear_problem,
    starting,
    wrong_mass,
)


def attributed(simulator, states, model, policy, critic, n=4, samples=64):
    begin = starting(samples, torch.ones(simulator.state_dim), groups=None)
    begin = replace(begin, states=begin.states + 1.0)
    estimator = Estimator(states, model, "first", Tail(n, critic, GAMMA))
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, 260), (n,))
    return found, shares(squared_bias_games(found)[0])


def test_a_wrong_mass_is_blamed_on_the_dynamics_and_not_on_reward_or_critic():
    simulator, model, policy, critic = linear_problem(wrong_mass())
    _, along_true = attributed(simulator, simulator, model, policy, critic)
    part = fractions(along_true)
    assert abs(part["A"] + part["B"] - 1.0) < 1e-9 and min(part["B"], abs(part["A"])) > 0.01
    _, along_own = attributed(simulator, model, model, policy, critic)
    part = fractions(along_own)
    assert abs(part["states"] + part["A"] + part["B"] - 1.0) < 1e-9
    assert max(abs(part[c]) for c in ("reward", "critic_s", "critic_a")) < 1e-9
    assert abs(part["states"]) > 0.01


def unrolled(simulator, model, scale):
    """Causes of the model's error at 6 steps, where nothing lies beyond: no tail."""
    torch.manual_seed(2)
    policy, begin = network((len(scale), 6, 1), nn.Tanh), starting(16, torch.tensor(scale))
    estimator = Estimator(model, model, "first", Tail(6, None, GAMMA))
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, 6), (6,))
    return fractions(shares(squared_bias_games(found)[0]))


def test_a_heavier_pendulum_errs_in_b_and_in_its_states_only():
    part = unrolled(Pendulum(), Pendulum(mass=1.3), [0.3, 0.3])
    assert max(abs(part[c]) for c in ("A", "reward", "critic_s", "critic_a")) < 1e-12
    assert part["B"] > 0.5


def test_a_cart_pole_with_another_mass_errs_in_states_and_dynamics_only():
    model = CartPoleSimulator(replace(TABLE4, pole_mass=1.3 * TABLE4.pole_mass))
    part = unrolled(CartPoleSimulator(TABLE4), model, [0.1] * 4)
    assert max(abs(part[c]) for c in ("reward", "critic_s", "critic_a")) < 1e-12
    assert abs(sum(part[c] for c in ("states", "A", "B")) - 1.0) < 1e-9
    assert all(abs(part[c]) > 1e-3 for c in ("states", "A", "B"))


def test_one_wrong_entry_of_b_is_found():
    one = torch.eye(2, dtype=torch.float64)
    A, B = matrix((0.9, 0.1), (0.1, 0.8)), matrix((0.3, 0.1), (0.2, 0.4))
    wrong = B.clone()
    wrong[1, 0] = 0.5
    systems = [LinearQuadratic(A, b, one, 0.1 * one, 0.0 * one) for b in (B, wrong)]
    simulator, model, policy, critic = linear_problem(systems)
    found, share = attributed(simulator, simulator, model, policy, critic)
    assert abs(fractions(share)["B"] - 1.0) < 1e-9
    parts = detail(found, "B", 4)
    values = [each.value / share.total.value for each in parts.entries]
    entries = dict(zip(parts.labels, values, strict=True))
    assert abs(entries.pop(("B", 1, 0)) - 1.0) < 1e-9
    assert max(map(abs, entries.values())) < 1e-20
    assert share_interval(parts.entries[parts.labels.index(("B", 1, 0))]).low > 0
