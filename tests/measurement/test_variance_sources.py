"""What every kind of noise adds to a variance, against closed forms.

Sketches are what they stand for, and critics' variance is measured as planted.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting, Tail, as_starts
from gradlab.measurement import attribution
from gradlab.measurement.attribution import DRAWS, added_variance
from gradlab.measurement.sketches import explicit_sketch, jacobian_sketch, sketch_for
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.tails import DIRECTIONS
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.system import Certificate, Entropic, Linearization, Transition
from tests.gradients.worlds import Critic, Noisy, network, nonlinear
from tests.measurement.scalar import Quadratic

ONE = torch.eye(1, dtype=torch.float64)
A, B, R, W, GAMMA = 0.9, 0.5, 0.3, 0.04, 0.9
GAIN, SPREAD = -0.4, 0.2  # a = w s + σ ε
MEAN, DEVIATION = 0.8, 0.5  # of the starts
SECOND = MEAN**2 + DEVIATION**2
FOURTH = MEAN**4 + 6 * MEAN**2 * DEVIATION**2 + 3 * DEVIATION**4


class Drawn(nn.Module):
    """a = w s + σ ε."""

    def __init__(self, spread):
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(self.linear.weight, GAIN)
        self.noise_dim, self.spread = 1, spread

    def forward(self, state, noise):
        return self.linear(state) + self.spread * noise


@dataclass(frozen=True, eq=False)
class Members:
    """s' = A s + b_k a: a planted ensemble of two known members, with process noise."""

    push: tuple[float, float] = (0.5, 0.9)
    noise: float = W
    state_dim, action_dim, noise_dim, member_column, differentiable = 1, 1, 2, 1, True

    def _push(self, noise):
        low, high = noise.new_tensor(self.push)
        return torch.where(noise[:, 1:] < 0.5, low, high)

    def step(self, state, action, noise=None):
        after = A * state + self._push(noise) * action + self.noise**0.5 * noise[:, :1]
        reward = -(state**2 + R * action**2)[:, 0]
        return Transition(after, reward, torch.ones_like(reward, dtype=torch.bool))

    def linearize(self, state, action, noise=None):
        whole = torch.full_like(state, A)[:, :, None]
        r_s, r_a = -2 * state, -2 * R * action
        exact = Certificate.exact(state)
        return Linearization(whole, self._push(noise)[:, :, None], r_s, r_a, exact)

    def sample_noise(self, n, generator, dtype=torch.float64):
        normal = torch.randn(n, 1, generator=generator, dtype=torch.float64)
        uniform = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return torch.cat([normal, uniform], dim=1).to(dtype)


def starting(n, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return MEAN + DEVIATION * torch.randn(n, 1, generator=generator, dtype=torch.float64)


def estimator(system, horizon=1):
    return Estimator(system, system, "first", Tail(horizon, Quadratic(), GAMMA))


def linear(noise=W):
    return LinearQuadratic(A * ONE, B * ONE, ONE, R * ONE, noise * ONE)


def coefficients(push=B):
    """G = s (c_s s + c_0 ε_0 + c_1 ε_1 + c_ξ ξ) at n = 1, per unit of σ and of √W."""
    p, q, m, w = Quadratic.p, Quadratic.q, Quadratic.m, GAIN
    ahead = -2 * GAMMA * push * (p + 2 * m * w + q * w * w)  # γ b dq/ds₁
    return {
        "start": -2 * R * w + ahead * (A + push * w),
        "policy": (-2 * R + ahead * push, -2 * GAMMA * push * (m + q * w)),
        "dynamics": ahead,
    }


def setting(system, policy, starts, seed=0):
    return Setting(system, policy, as_starts(starts, system.state_dim), GAMMA, seed=seed)


def close(found, exact, precise=0.03):
    """Within 4 standard errors, which are small."""
    se = jackknife_se(found.left_out)
    assert se < precise * exact, (se, exact)
    assert abs(found.value - exact) < 4 * se, (found.value, exact, se)


def test_process_and_action_noise_add_what_they_do_in_closed_form():
    c = coefficients()
    (found,) = added_variance(
        estimator(linear()), setting(linear(), Drawn(SPREAD), starting(20_000)), (1,)
    )
    close(found["policy"], sum(x * x for x in c["policy"]) * SPREAD**2 * SECOND)
    close(found["dynamics"], c["dynamics"] ** 2 * W * SECOND)
    assert found["member"].value == 0.0 and not found["member"].left_out.any()


def test_the_starts_have_the_rest_of_the_variance():
    c, policy, starts = coefficients(), Drawn(SPREAD), starting(20_000)
    (found,) = added_variance(estimator(linear()), setting(linear(), policy, starts), (1,))
    G = estimator(linear()).gradients(policy, starts)[:, 0]
    rest = float(G.var()) - sum(found[name].value for name in DRAWS)
    exact = c["start"] ** 2 * (FOURTH - SECOND**2)
    assert abs(rest - exact) < 0.05 * exact


def test_a_planted_ensemble_of_two_members_adds_what_they_differ_by():
    each = [coefficients(push) for push in Members().push]
    (found,) = added_variance(
        estimator(Members()), setting(Members(), Drawn(0.0), starting(20_000)), (1,)
    )
    halves = [(each[0][k] - each[1][k]) / 2 for k in ("start", "dynamics")]
    # The member is known last: it moves the start's part and that of the process noise it shares.
    close(found["member"], halves[0] ** 2 * FOURTH + halves[1] ** 2 * W * SECOND)
    mean = (each[0]["dynamics"] + each[1]["dynamics"]) / 2
    close(found["dynamics"], mean**2 * W * SECOND)
    assert found["policy"].value == 0.0


def test_what_draws_nothing_adds_exactly_nothing():
    (found,) = added_variance(
        estimator(linear(0.0)), setting(linear(0.0), Drawn(0.0), starting(64)), (1,)
    )
    for name in DRAWS:
        assert found[name].value == 0.0 and not found[name].left_out.any()


@pytest.mark.parametrize("actions", ["first", "all", "score"])
def test_every_kind_of_gradient_agrees_with_nested_draws(actions):
    """All noise together, by explicit gradients on the same starts with every stream redrawn."""
    simulator = nonlinear()
    torch.manual_seed(0)
    if actions == "score":
        from gradlab.networks.policies import GaussianPolicy

        policy = GaussianPolicy(2, 2, (6,), "tanh").double()
    else:
        policy = Noisy(network((2, 6, 4), nn.Tanh), 2)
    begin = as_starts(torch.randn(40, 2, dtype=torch.float64), 2)
    jacobians = None if actions == "score" else simulator
    found = Estimator(simulator, jacobians, actions, Tail(3, Critic(4), GAMMA))
    (added,) = added_variance(found, setting(simulator, policy, begin, seed=7), (3,))
    own = found.gradients(policy, begin, seed=7)
    fresh = found.gradients(policy, replace(begin, redrawn=frozenset(DRAWS)), seed=7)
    total = sum(added[name].value for name in DRAWS)
    exact = float((own - fresh).square().sum(dim=1).mean()) / 2
    assert np.isclose(total, exact, rtol=1e-10)
    assert added["policy"].value != 0 and added["dynamics"].value != 0


def test_results_do_not_depend_on_blocks_and_left_out_values_are_those_of_the_others(monkeypatch):
    system, policy = Members(), Drawn(SPREAD)
    begin = replace(as_starts(starting(30), 1), group=torch.arange(30) // 3)
    here = setting(system, policy, begin)
    whole = added_variance(estimator(system, 3), here, (0, 2, 3))
    monkeypatch.setattr(attribution, "NUMBERS", 7)
    parts = added_variance(estimator(system, 3), here, (0, 2, 3))
    for one, other in zip(whole, parts, strict=True):
        for name in DRAWS:
            np.testing.assert_allclose(one[name].left_out, other[name].left_out, rtol=1e-12)
            assert len(one[name].left_out) == 10


def test_redrawing_touches_what_is_named_and_nothing_else():
    ensemble = GaussianEnsemble(2, 1, members=3, hidden=(4,), reward=True).double()
    model = Entropic(LearnedSystem(ensemble), 0.1)
    begin = as_starts(torch.zeros(50, 2, dtype=torch.float64), 2)
    plain = model.sample_noise(50, stream(5, "dynamics", 2))
    policy = Drawn(1.0)
    for names in itertools.chain(*(itertools.combinations(DRAWS, k) for k in range(4))):
        other = replace(begin, redrawn=frozenset(names))
        noise = other.dynamics_noise(model, 5, 2)
        assert torch.equal(noise[:, :-1], plain[:, :-1]) == ("dynamics" not in names)
        untouched = not {"dynamics", "member"} & set(names)
        assert torch.equal(noise[:, -1], plain[:, -1]) == untouched
        same = torch.equal(other.policy_noise(policy, 5, 2), begin.policy_noise(policy, 5, 2))
        assert same == ("policy" not in names)
        block = other.block(slice(20, 30)).dynamics_noise(model, 5, 2)
        assert torch.equal(block, noise[20:30])


class Tilted(nn.Module):
    """Q(s, u) = −s² − u² − tilt · s u."""

    def __init__(self, tilt):
        super().__init__()
        self.tilt = tilt

    def forward(self, s, u):
        return -(s[:, 0] ** 2) - u[:, 0] ** 2 - self.tilt * s[:, 0] * u[:, 0]


def scalar_task():
    return gradlab.tasks.linear_quadratic(
        A=0.9 * ONE, B=0.5 * ONE, Q=ONE, R=ONE, noise_covariance=0.01 * ONE,
        start_mean=0.6 * torch.ones(1, dtype=torch.float64), start_covariance=0.5 * ONE,
        discount=0.9,
    )  # fmt: skip


def scalar_policy():
    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -0.3)
    return policy


@pytest.mark.parametrize("hidden", [(), (8,), (24, 24)])
def test_a_sketch_by_the_jacobian_is_that_of_the_explicit_gradient(hidden):
    torch.manual_seed(0)
    policy = Policy(3, 2, hidden=hidden).double()
    states, noise = torch.randn(5, 3).double(), torch.zeros(5, 0).double()
    g, sketch = torch.randn(5, 2).double(), sketch_for(policy)
    J = jacobian_sketch(sketch, policy_jacobian(policy, states, noise))
    found = torch.einsum("na,nas->ns", g, J)
    for i in range(5):
        grads = torch.autograd.grad(policy(states[i : i + 1])[0] @ g[i], policy.parameters())
        whole = torch.cat([each.flatten() for each in grads])
        assert torch.allclose(found[i], explicit_sketch(sketch, whole[None])[0], atol=1e-12)
    assert found.shape == (5, DIRECTIONS + min(whole.numel(), 256))


def test_frozen_parameters_have_no_sign():
    policy = Policy(3, 1, hidden=(4,)).double()
    first = next(policy.parameters())
    first.requires_grad_(False)
    _, columns = sketch_for(policy)
    assert int(columns.min()) >= first.numel()


@pytest.mark.parametrize("actions", ["first", "all"])
def test_variance_across_critics_is_that_of_exact_mean_gradients(actions):
    """The mean gradient at horizon 1 is linear in the critic's tilt: its variance is known."""
    task, policy = scalar_task(), scalar_policy()
    critics = [Tilted(tilt) for tilt in (0.0, 1.0, 3.0)]
    tail = gradlab.Tail(1, critics[0], task.discount)
    mine = gradlab.Estimator(task.simulator, task.simulator, actions, tail)
    measured = gradlab.measure(
        task, policy, critics, {"mine": mine}, horizon=1, starts=128, law="start"
    )
    row = measured.table().query("quantity == 'variance_critics' and horizon == 1").iloc[0]
    starts = task.starts(128, stream(0, "starts"))
    means = [
        gradlab.Estimator(
            task.simulator, task.simulator, actions, gradlab.Tail(1, c, task.discount)
        ).mean_gradient(policy, starts, 0)
        for c in critics
    ]
    plug_in = float(torch.stack(means).var(dim=0).sum())
    assert row.value < plug_in  # without the sampling noise
    assert row.value == pytest.approx(plug_in, rel=0.1)
    assert row.ci_low <= row.value <= row.ci_high


def test_equal_critics_have_no_variance_and_one_critic_none_to_tell():
    task, policy = scalar_task(), scalar_policy()
    given = dict(horizon=2, starts=16, law="start")
    same = gradlab.measure(task, policy, [Tilted(1.0), Tilted(1.0)], **given).table()
    across = same.query("quantity == 'variance_critics'")
    assert set(across.estimator) == {"data", "model", "mixed", "true_dynamics"}
    assert (across.value.abs() < 1e-20).all()
    alone = gradlab.measure(task, policy, Tilted(1.0), **given).table()
    assert "variance_critics" not in set(alone.quantity)
    rest = same.query("quantity != 'variance_critics'").reset_index(drop=True)
    np.testing.assert_allclose(rest.value, alone.value, rtol=1e-9, atol=1e-12)


def test_critics_that_are_none_are_refused():
    task, policy = scalar_task(), scalar_policy()
    for wrong in ([], [Tilted(1.0), "two"]):
        with pytest.raises(InputError, match="critic"):
            gradlab.measure(task, policy, wrong, horizon=1, starts=16)
