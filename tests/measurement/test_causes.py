"""Substitutions against whole estimators, closed forms and planted causes.

Attribution of errors that were planted in one part: mass, critic, one entry of B. Problems with
substitutions, their starts, and linear ones with a planted error. Under the gradient of the return,
causes are found at visited states.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, Starts, Tail, as_starts
from gradlab.gradients.start_laws import visits
from gradlab.measurement import substitution
from gradlab.measurement.substitution import (
    CAUSES,
    detail,
    named,
    split,
    squared_bias_games,
    substitutions,
)
from gradlab.networks.policies import GaussianPolicy, WithLogProb
from gradlab.statistics.shapley import fraction, share_interval, shares
from gradlab.systems.closed_form import TABLE4, CartPoleSimulator, LinearQuadratic, Pendulum
from gradlab.systems.system import Entropic, standard_normal
from gradlab.tasks import linear_quadratic
from gradlab.truth.oracles import unroll_first_action
from tests.gradients.worlds import Critic, Noisy, matrix, network, worlds
from tests.linear_quadratic import ExactCritic

GAMMA, STEPS, HORIZONS = 0.9, 12, (0, 1, 4)


def starting(n, scale, groups=None):
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(n, len(scale), generator=generator, dtype=torch.float64) * scale
    begin = as_starts(states, len(scale))
    group = begin.group if groups is None else torch.arange(n) % groups
    weight = 0.5 + torch.rand(n, generator=generator, dtype=torch.float64)
    return Starts(states, weight, group)


def cart(mass, A=((1.0, 0.1), (0.0, 1.0)), friction=0.5):
    """A cart of this mass with friction, pushed for 0.1 s."""
    A, one = matrix(*A), torch.eye(2, dtype=torch.float64)
    A[1, 1] -= 0.1 * friction / mass
    return LinearQuadratic(A, matrix((0.0,), (0.1 / mass,)), one, 0.1 * one[:1, :1], 0.0 * one)


def wrong_mass():
    return cart(1.0), cart(1.4)


def linear_problem(systems):
    simulator, model = systems
    policy = nn.Linear(simulator.state_dim, simulator.action_dim, bias=False).double()
    torch.manual_seed(1)
    policy.weight.data = -torch.rand_like(policy.weight) - 0.5
    return simulator, model, policy, ExactCritic(simulator, policy.weight, GAMMA)


def fractions(found):
    shares = (fraction(each, found.total).value for each in found.shapley)
    return dict(zip(CAUSES, shares, strict=True))


WORLDS = worlds()


def problem(name, horizon=4, value="Q"):
    simulator, model, scale = WORLDS[name]
    torch.manual_seed(0)
    ds, da = simulator.state_dim, simulator.action_dim
    policy = Noisy(network((ds, 6, 2 * da), nn.Tanh), da)
    critic = Critic(ds + da if value == "Q" else ds)
    estimator = Estimator(model, model, "first", Tail(horizon, critic, GAMMA, value))
    return simulator, model, policy, starting(6, scale), estimator


def close(found, expected, tolerance=1e-12):
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("name", WORLDS)
def test_without_a_substitution_it_is_the_estimator_and_with_all_the_truth(name):
    simulator, _, policy, begin, estimator = problem(name)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), HORIZONS)
    plain, true = found.gradients(()), found.action_gradients(CAUSES)
    unrolled = unroll_first_action(Setting(simulator, policy, begin, GAMMA), at_most=50)
    for k, n in enumerate(HORIZONS):
        other = replace(estimator, tail=replace(estimator.tail, horizon=n))
        close(plain[k], other.gradients(policy, begin))
        close(true[k], unrolled.gradients[STEPS - 1])
    close(found.truth, unrolled.gradients[STEPS - 1])


@pytest.mark.parametrize("name", WORLDS)
def test_substituted_estimators_are_those_of_the_other_systems(name):
    simulator, model, policy, begin, estimator = problem(name)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), HORIZONS)
    jacobians = ("A", "B", "reward")
    others = {
        ("states",): (simulator, model),
        jacobians: (model, simulator),
        ("states", *jacobians): (simulator, simulator),
    }
    for causes, (states, differentiated) in others.items():
        other = replace(estimator, states=states, jacobians=differentiated)
        close(found.gradients(causes)[-1], other.gradients(policy, begin))


def test_each_block_of_the_jacobians_is_replaced_by_itself():
    one, ds = torch.eye(2, dtype=torch.float64), 2
    blocks = {
        "A": (matrix((0.9, 0.1), (0.1, 0.8)), matrix((0.8, 0.2), (0.0, 0.9))),
        "B": (matrix((0.3, 0.1), (0.2, 0.4)), matrix((0.5, 0.1), (0.2, 0.3))),
        "reward": ((one, 0.1 * one), (2 * one, 0.3 * one)),
    }

    def system(causes):
        model, true = ({name: pair[k] for name, pair in blocks.items()} for k in (0, 1))
        A, B, (Q, R) = ((true if name in causes else model)[name] for name in blocks)
        return LinearQuadratic(A, B, Q, R, 0.0 * one)

    model, simulator, policy = system(()), system(blocks), nn.Linear(ds, 2).double()
    begin = starting(5, torch.ones(ds))
    estimator = Estimator(model, model, "first", Tail(4, Critic(4), GAMMA))
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (4,))
    for mask in range(8):
        causes = {name for k, name in enumerate(blocks) if mask >> k & 1}
        other = replace(estimator, jacobians=system(causes))
        close(found.gradients(causes)[0], other.gradients(policy, begin))


def test_the_true_critic_at_the_models_states_is_the_simulators_return_on_the_same_noise():
    simulator, _, policy, begin, estimator = problem("nonlinear")
    found = substitutions(
        estimator, Setting(simulator, policy, begin, GAMMA, STEPS, seed=5), HORIZONS
    )
    path, tail = found.along[0][0].linear.path, found.along[0][1].tail
    rows = len(begin.states)
    for n in HORIZONS:
        start = path.states[n].clone().requires_grad_()
        first = path.actions[n].clone().requires_grad_()
        state, action, total = start, first, 0.0
        for t in range(n, STEPS):
            if t > n:
                noise = standard_normal(rows, policy.noise_dim, stream(5, "policy", t))
                action = policy(state, noise)
            xi = simulator.sample_noise(rows, stream(5, "dynamics", t))
            out = simulator.step(state, action, xi)
            total, state = total + GAMMA ** (t - n) * out.reward.sum(), out.state
        expected = torch.autograd.grad(total, (start, first))
        close(tail.q_s[n], expected[0], 1e-10)
        close(tail.q_a[n], expected[1], 1e-10)


def test_the_true_critic_at_the_models_states_is_that_of_the_closed_form():
    simulator, model, policy, critic = linear_problem(wrong_mass())
    begin = starting(5, torch.ones(2))
    estimator = Estimator(model, model, "first", Tail(4, critic, GAMMA))
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, 260), (0, 2, 4))
    own, true = found.along[0]
    for n in (0, 2, 4):
        close(true.tail.q_s[n], own.tail.q_s[n], 1e-10)
        close(true.tail.q_a[n], own.tail.q_a[n], 1e-10)


def test_a_value_critic_and_termination_are_followed():
    simulator, _, policy, begin, estimator = problem("nonlinear", value="V")
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (1, 4))
    close(found.gradients(())[-1], estimator.gradients(policy, begin))
    close(found.action_gradients(CAUSES)[0], found.truth)
    assert not found.along[0][1].tail.q_a.any()
    simulator, _, policy, begin, estimator = problem("cart-pole")
    begin = replace(begin, states=begin.states * 1.8)
    found = substitutions(
        estimator, Setting(simulator, policy, begin, GAMMA, STEPS, termination="mask"), HORIZONS
    )
    ended = ~found.along[0][0].linear.path.alive[-1]
    assert ended.any() and not ended.all()
    true = found.along[0][1].tail
    assert not true.q_s[4][ended].any() and true.q_s[4][~ended].all()
    close(found.gradients(())[-1], estimator.gradients(policy, begin, termination="mask"))
    unrolled = unroll_first_action(
        Setting(simulator, policy, begin, GAMMA, termination="mask"), at_most=50
    )
    close(found.action_gradients(CAUSES)[-1], unrolled.gradients[STEPS - 1])


def test_games_are_the_u_statistics_of_explicit_gradients_over_groups():
    simulator, _, policy, begin, estimator = problem("nonlinear")
    begin = starting(9, torch.ones(2), groups=4)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (1, 4))
    true = found.gradients(CAUSES)[0]
    for k, game in enumerate(squared_bias_games(found)):
        for mask in (0, 5, 44):
            Y = (found.gradients(named(mask))[k] - true).numpy()
            group = begin.group.numpy()
            pairs = (Y @ Y.T)[group[:, None] != group[None, :]]
            assert np.isclose(game.value[mask], pairs.mean(), rtol=1e-10)
        share = shares(game)
        total = sum(each.value for each in share.shapley)
        assert abs(total - share.total.value) <= 1e-12 * np.abs(game.value).max()
        assert abs(game.value[-1]) <= 1e-25  # all causes together are the truth


def by_block(pieces):
    found = {}
    for block, t, piece in pieces:
        found[block, t] = found.get((block, t), 0.0) + piece
    return found


@pytest.mark.parametrize("name", ["nonlinear", "vehicle"])
def test_a_difference_splits_into_blocks_entries_and_steps_without_a_rest(name):
    simulator, _, policy, begin, estimator = problem(name)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (4,))
    for less, more in (((), ("states", "B")), (("A",), CAUSES), (("critic_s",), ("A", "critic_a"))):
        x, y = found.parts(less), found.parts(more)
        pieces = [piece.sum(dim=(0, 1)) for _, _, piece in split(x, y, 4, GAMMA)]
        difference = found.action_gradients(less)[0] - found.action_gradients(more)[0]
        scale = float(torch.stack(pieces).abs().max())
        assert float((sum(pieces) - difference).abs().max()) <= 1e-13 * scale
        one, other = by_block(split(x, y, 4, GAMMA)), by_block(split(y, x, 4, GAMMA))
        for key, piece in one.items():  # neither side comes first
            assert float((piece + other[key]).abs().max()) <= 1e-13 * scale


@pytest.mark.parametrize("cause", CAUSES)
def test_details_of_every_cause_sum_to_its_share(cause):
    simulator, _, policy, _, estimator = problem("cart-pole")  # whose prior has another reward
    begin = starting(8, WORLDS["cart-pole"][2], groups=5)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (4,))
    share = shares(squared_bias_games(found)[0]).shapley[CAUSES.index(cause)]
    parts = detail(found, cause, 4)
    assert len(parts.labels) == len(parts.entries) and len(parts.steps) == 5
    for several in (parts.entries, parts.steps):
        left_out = sum(each.left_out for each in several)
        scale = sum(abs(each.value) for each in several)
        assert abs(sum(each.value for each in several) - share.value) <= 1e-12 * scale
        np.testing.assert_allclose(left_out, share.left_out, rtol=1e-8, atol=1e-12 * scale)


def test_games_and_details_do_not_depend_on_how_the_work_is_divided(monkeypatch):
    simulator, _, policy, begin, estimator = problem("nonlinear")
    begin = replace(begin, group=begin.group // 2)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (0, 4))
    games, parts = squared_bias_games(found), detail(found, "B", 4)
    monkeypatch.setattr(substitution, "_SETS", 1)
    monkeypatch.setattr(substitution, "ENTRIES", 1)
    for one, other in zip(games, squared_bias_games(found), strict=True):
        np.testing.assert_allclose(one.left_out, other.left_out, rtol=1e-10, atol=1e-14)
    for one, other in zip(parts.entries, detail(found, "B", 4).entries, strict=True):
        np.testing.assert_allclose(one.left_out, other.left_out, rtol=1e-10, atol=1e-14)


def test_the_error_without_a_model_is_that_of_the_critic_in_the_action():
    simulator, _, policy, begin, estimator = problem("nonlinear")
    tail = replace(estimator.tail, horizon=0)
    data = Estimator(simulator, None, "first", tail)
    found = substitutions(data, Setting(simulator, policy, begin, GAMMA, STEPS), (0,))
    close(found.gradients(())[0], data.gradients(policy, begin))
    part = fractions(shares(squared_bias_games(found)[0]))
    assert abs(part.pop("critic_a") - 1.0) < 1e-14 and not any(part.values())


def test_an_entropy_term_is_followed():
    simulator, _, _, begin, plain = problem("nonlinear")
    policy = GaussianPolicy(2, 2, (6,), "tanh", squash=True).double()
    estimator = replace(plain, entropy=0.3)
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), HORIZONS)
    close(found.gradients(())[-1], estimator.gradients(policy, begin))
    soft = Entropic(simulator, 0.3)
    unrolled = unroll_first_action(Setting(soft, WithLogProb(policy), begin, GAMMA), at_most=50)
    for true in found.action_gradients(CAUSES):
        close(true, unrolled.gradients[STEPS - 1])


def test_what_cannot_be_attributed_is_refused():
    simulator, _, policy, begin, estimator = problem("linear")
    with pytest.raises(InputError, match="actions 'first'"):
        substitutions(
            replace(estimator, actions="all"), Setting(simulator, policy, begin, GAMMA, STEPS), (1,)
        )
    with pytest.raises(InputError, match="1 to 8 of 0 … 12"):
        substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (13,))
    found = substitutions(estimator, Setting(simulator, policy, begin, GAMMA, STEPS), (1,))
    with pytest.raises(InputError, match="cause is 'mass'"):
        detail(found, "mass", 1)


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


VISITS_DISCOUNT, H, N = 0.8, 3, 40
A, B = [[0.9, 0.1], [0.0, 0.8]], [[0.0], [0.5]]
WEIGHT = torch.tensor([[-0.3, -0.6]], dtype=torch.float64)


def path_of(starts):
    n, new = len(starts.states), starts.states.new_empty
    return Path(
        starts.states[None], new(1, n, 0), new(0, n), new(1, n, 0), new(0, n, 0),
        torch.ones(1, n, dtype=torch.bool), starts.weight, starts.group,
    )  # fmt: skip


def test_causes_at_visited_states_are_those_of_a_matched_measurement_there():
    task = linear_quadratic(
        A, B, start_mean=[1.0, -1.0], discount=VISITS_DISCOUNT, prior=(A, [[0.0], [0.7]])
    )
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = WEIGHT.clone()
    critic = ExactCritic(task.simulator, WEIGHT, VISITS_DISCOUNT)
    found = gradlab.measure(
        task, policy, critic, horizon=H, starts=N, attribute=(1, H), judges=4, rehearse=False
    )
    assert found.truth["kind"] == "objective"

    begin = as_starts(task.starts(N, stream(0, "starts")), 2)
    T = int(found.truth["horizon"])
    there = path_of(visits(Setting(task.simulator, policy, begin, VISITS_DISCOUNT, T), 1))
    alone = gradlab.measure(task, policy, critic, horizon=H, starts=there, attribute=(1, H))
    ours, theirs = (gradlab.attribute(each).bias for each in (found, alone))
    assert [(each.estimator, each.horizon) for each in ours] == [
        ("model", 1),
        ("model", H),
        ("mixed", 1),
        ("mixed", H),
    ]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.total.value, other.total.value, rtol=1e-6)
        np.testing.assert_allclose(
            [part.value for part in one.rows("shapley")],
            [part.value for part in other.rows("shapley")],
            atol=1e-6 * one.total.value,
        )
    model = next(each for each in ours if each.horizon == 1 and each.estimator == "model")
    largest = max(model.rows("shapley"), key=lambda part: part.value)
    assert largest.name == "B", "only the model's B is wrong"
