"""Oracles against one another, and the rules that say where there is a truth."""

import math

import pytest
import torch
from torch import nn

from gradlab import systems
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.tail import Tail
from gradlab.measurement.measure import measure
from gradlab.systems.linear import LinearQuadratic
from gradlab.tasks import inverted_pendulum
from gradlab.truth import oracles
from gradlab.truth.common_random import common_random_differences, mean_and_error
from gradlab.truth.lqr import lqr_gradient
from gradlab.truth.reference import reference_gradients
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import linear, matrix, network


def feedback(*gain):
    policy = nn.Linear(len(gain), 1, bias=False).double()
    policy.weight.data = -matrix(gain)
    return policy


def gaussian_starts(n, ds, mean=0.5):
    generator = torch.Generator().manual_seed(5)
    return as_starts(mean + torch.randn(n, ds, generator=generator, dtype=torch.float64), ds)


@pytest.mark.parametrize("actions", ["first", "all"])
def test_unrolled_truth_agrees_with_the_lqr_closed_form_within_its_error(actions):
    system, policy, n = linear(), feedback(1.2, 1.4), 512
    starts = gaussian_starts(n, 2)
    truth = matched_truth(Setting(system, policy, starts, 0.95, 10), kinds=("first", "all"))
    assert truth.status == "converged"
    moment = starts.states.T @ starts.states / n  # of these starts: only process noise is left
    exact = lqr_gradient(system, policy.weight.data, moment, 0.95, actions)
    if actions == "first":
        assert truth.first is not None
        samples = truth.first.gradients[:, :, None] * starts.states[:, None]
        samples = samples.flatten(1)
    else:
        samples = truth.every.gradients
    error = samples.std(dim=0) / math.sqrt(n)
    assert ((samples.mean(dim=0) - exact).abs() < 3.5 * error).all()
    assert truth.first.relative_se < 0.25
    assert truth.lyapunov < -math.log(0.95)


def test_differences_agree_with_both_kinds_of_gradients_on_a_nonlinear_system():
    def step(s, a):
        following = torch.cat([s[:, :1] + 0.1 * s[:, 1:], 0.8 * s[:, 1:] + 0.2 * torch.sin(a)], 1)
        return following, -(s**2).sum(1) - 0.1 * a[:, 0] ** 2

    torch.manual_seed(0)
    system = systems.from_function(step, 2, 1)
    policy, starts = network((2, 6, 1), nn.Tanh), gaussian_starts(32, 2)
    unrolled = oracles.unroll_first_action(Setting(system, policy, starts, 0.9), at_most=50)
    jacobian = policy_jacobian(policy, starts.states, starts.states[:, :0])
    first = oracles.gram.mean_gradients(jacobian, unrolled.gradients[-1:])[0]
    every = oracles.unroll_all_actions(Setting(system, policy, starts, 0.9, 50)).mean(dim=0)
    for actions, gradient in (("first", first), ("all", every)):
        found = common_random_differences(Setting(system, policy, starts, 0.9, 50), actions=actions)
        narrow, wide = found.narrow[-1].mean(dim=1), found.wide[-1].mean(dim=1)
        want = found.directions @ gradient
        assert (narrow - want).abs().max() < 1e-5 * want.abs().max()
        truncation = narrow - want, wide - want
        ratio = truncation[1].norm() / truncation[0].norm()
        assert 3.9 < ratio < 4.1, "central differences are second order"


def test_an_unstable_loop_has_no_truth_or_a_cut_one():
    one = torch.eye(1, dtype=torch.float64)
    system = LinearQuadratic(1.3 * one, 0.5 * one, one, one, 0.0 * one)
    starts = gaussian_starts(64, 1)
    cut = matched_truth(Setting(system, feedback(0.2), starts, 0.9, 10))
    assert cut.status == "cut"
    assert cut.horizon <= oracles.effective_horizon(0.9)
    assert f"T = {cut.horizon}" in cut.reason
    none = matched_truth(Setting(system, feedback(0.2), starts, 0.9, 100))
    assert none.status == "none"
    assert none.first is None
    assert "no truth here: λ = 0.182" in none.reason  # ln(1.3 − 0.5·0.2)


@pytest.mark.parametrize("kind", ["first", "all"])
def test_chaos_is_cut_before_the_chain_is_lost_or_refused(kind):
    """The logistic map at r = 3.9, whose exponent is 0.495 per step."""

    def step(s, a):
        return 3.9 * s * (1 - s) + 1e-3 * a, -(s[:, 0] ** 2)

    system, policy = systems.from_function(step, 1, 1), feedback(0.1)
    starts = as_starts(torch.rand(512, 1, generator=torch.Generator().manual_seed(0)).double(), 1)
    unrolled = oracles.unroll_first_action(Setting(system, policy, starts, 0.98))
    assert float(unrolled.lyapunov.mean()) == pytest.approx(0.495, abs=0.01)
    short = matched_truth(Setting(system, policy, starts, 0.98, 2), kinds=(kind,))
    assert short.status == "cut"
    assert 2 <= short.horizon < 10
    long = matched_truth(Setting(system, policy, starts, 0.98, 25), kinds=(kind,))
    assert long.status == "none"
    assert long.first is long.every is None
    assert "no truth here: λ = 0.5" in long.reason


def test_few_starts_are_imprecise_and_the_missing_ones_are_enough():
    system, policy = linear(), feedback(1.2, 1.4)
    few = matched_truth(Setting(system, policy, gaussian_starts(24, 2, mean=0.1), 0.95, 10))
    assert few.status == "imprecise"
    assert few.first.relative_se > 0.25
    assert few.first.missing > 0
    enough = gaussian_starts(24 + few.first.missing, 2, mean=0.1)
    assert matched_truth(Setting(system, policy, enough, 0.95, 10)).status == "converged"


def test_a_wrong_jacobian_is_caught_by_the_differences():
    class Wrong:
        """A simulator whose B is 5% off."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def linearize(self, state, action, noise=None):
            out = self.inner.linearize(state, action, noise)
            return type(out)(out.A, 1.05 * out.B, out.r_s, out.r_a, out.certificate)

    starts = gaussian_starts(256, 2)
    truth = matched_truth(Setting(Wrong(linear()), feedback(1.2, 1.4), starts, 0.95, 10))
    assert truth.status == "none"
    assert "differs from finite differences" in truth.reason


def test_a_truth_counts_its_flagged_jacobians():
    class Flagged:
        """Every fourth Jacobian fails its certificate."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def linearize(self, state, action, noise=None):
            out = self.inner.linearize(state, action, noise)
            flags = torch.arange(len(state)) % 4 == 0
            certificate = type(out.certificate)(flags, out.certificate.error)
            return type(out)(out.A, out.B, out.r_s, out.r_a, certificate)

    starts = gaussian_starts(256, 2)
    truth = matched_truth(Setting(Flagged(linear()), feedback(1.2, 1.4), starts, 0.95, 10))
    assert truth.flagged == 0.25
    assert truth.reason.endswith("; 25.00% of its Jacobians are flagged")


@pytest.mark.parametrize("kind", ["first", "all"])
def test_the_objective_is_cut_where_a_wrong_jacobian_sets_in(kind):
    """∂f/∂s is off from step 5 on: it first enters the reward of step 6, so T = 6 is the last."""

    class LateError:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def linearize(self, state, action, noise=None):
            out = self.inner.linearize(state, action, noise)
            A = torch.where(state[:, 1, None, None] >= 5, 1.5 * out.A, out.A)
            return type(out)(A, out.B, out.r_s, out.r_a, out.certificate)

    def step(s, a):
        after = torch.cat([0.9 * s[:, :1] + 0.5 * a, s[:, 1:] + 1], dim=1)
        return after, -(s[:, 0] ** 2) - a[:, 0] ** 2

    class Sighted(nn.Module):
        """a = −0.2 x, blind to the clock."""

        def __init__(self):
            super().__init__()
            self.gain = feedback(0.2)

        def forward(self, s):
            return self.gain(s[:, :1])

    generator = torch.Generator().manual_seed(0)
    states = torch.zeros(128, 2, dtype=torch.float64)
    states[:, 0] = 1 + 0.1 * torch.randn(128, generator=generator, dtype=torch.float64)
    system = LateError(systems.from_function(step, 2, 1))
    truth = matched_truth(Setting(system, Sighted(), as_starts(states, 2), 0.9, 2), kinds=(kind,))
    assert truth.status == "cut"
    assert truth.horizon == 6 if kind == "first" else 3 <= truth.horizon <= 6
    assert matched_truth(Setting(system, Sighted(), as_starts(states, 2), 0.9, 10)).status == "none"
    if kind == "first":
        assert "; at 7 steps it is " in truth.reason and "times what is allowed" in truth.reason


def delayed(tail):
    """The action returns after three steps, times a static z of each start, drawn by `tail`."""

    def step(s, a):
        after = torch.cat([s[:, :1], s[:, 2:4], a, s[:, 4:]], dim=1)  # z, three delays, x
        # the reward sees the action of three steps ago: r_3 = … + z a_0
        return after, -((a[:, 0] - s[:, 4]) ** 2) + s[:, 0] * s[:, 1]

    system = systems.from_function(step, 5, 1)
    generator = torch.Generator().manual_seed(0)
    states = torch.zeros(256, 5, dtype=torch.float64)
    states[:, 0] = tail(torch.randn(256, generator=generator, dtype=torch.float64))
    states[:, 4] = 1 + 0.1 * torch.randn(256, generator=generator, dtype=torch.float64)
    return system, as_starts(states, 5)


class Sees(nn.Module):
    """a = 0.5 x, blind to z."""

    def __init__(self):
        super().__init__()
        self.gain = feedback(-0.5)

    def forward(self, s):
        return self.gain(s[:, 4:])


HEAVY = 100.0


@pytest.mark.parametrize("kind", ["first", "all"])
def test_heavy_tails_cut_the_objective_where_they_set_in(kind):
    """r_3 is the first reward with z: T = 3 is precise, T = 4 is lost in z's spread."""
    system, starts = delayed(lambda normal: HEAVY * normal.sinh())
    policy = Sees()
    truth = matched_truth(Setting(system, policy, starts, 0.9, 2), kinds=(kind,))
    assert truth.status == "cut"
    assert truth.horizon == 3
    reference = truth.first if kind == "first" else truth.every
    assert reference.relative_se < 0.25
    long = matched_truth(Setting(system, policy, starts, 0.9, 10), kinds=(kind,))
    assert long.status == "imprecise"
    reference = long.first if kind == "first" else long.every
    assert reference.relative_se > 0.25
    assert "more starts" in long.reason
    light, starts = delayed(lambda normal: 0.1 * normal)
    assert (
        matched_truth(Setting(light, policy, starts, 0.9, 10), kinds=(kind,)).status == "converged"
    )


def test_a_truth_with_all_actions_goes_on_until_the_visitation_is_summed():
    """All of its signal is process noise: the share up to T is 1 − γᵀ, however stable the loop."""
    system, policy, gamma = linear(), feedback(0.4, 0.6), 0.97
    starts = as_starts(torch.zeros(512, 2, dtype=torch.float64), 2)
    truth = matched_truth(Setting(system, policy, starts, gamma, 10), kinds=("all",))
    assert truth.status == "converged"
    none = torch.zeros(2, 2, dtype=torch.float64)
    exact = lqr_gradient(system, policy.weight.data, none, gamma, "all")
    cut = lqr_gradient(system, policy.weight.data, none, gamma, "all", truth.horizon)
    assert (cut - exact).norm() < 0.013 * exact.norm()
    assert (cut - exact).norm() < 2 * truth.remainder
    gap, error = mean_and_error((truth.every.gradients - cut).T, starts.group)
    assert (gap.abs() < 3.5 * error).all()


def bounded(gain, width, cost=0.5):
    """s' = 0.9 s + 0.5 a; an episode ends at |s| ≥ 1, and each step before is worth 1 − cost·a²."""

    def step(s, a):
        return 0.9 * s + 0.5 * a, 1.0 - cost * a[:, 0] ** 2

    system = systems.from_function(step, 1, 1, alive=lambda s: s[:, 0].abs() < 1)
    starts = as_starts(torch.linspace(-width, width, 513).double()[:, None], 1)
    return system, feedback(gain), starts


def test_the_boundary_term_of_termination_is_measured_with_its_error():
    """Starts are uniform, the loop contracts, so an episode ends at its first step or never:

    V counts Σ_{1≤t<T} γᵗ E[r_t; |s_1| < 1], and moving the first action by δ s moves its edge
    |s_0| = 1/c by −0.5 δ/c², c = 0.9 − 0.5 k: a flux of the return at the edge, known exactly.
    """
    k, width, gamma = 0.8, 3.0, 0.9
    system, policy, starts = bounded(k, width)
    truth = matched_truth(Setting(system, policy, starts, gamma, 5, termination="mask"))
    c = 0.9 - 0.5 * k
    edge = sum(gamma**t * (1 - 0.5 * (k * c ** (t - 1)) ** 2) for t in range(1, 200))
    known = 0.5 / c**2 / width * edge
    assert abs(truth.boundary - known) < 3 * truth.boundary_se
    assert truth.boundary_se < 0.3 * known
    found = common_random_differences(
        Setting(system, policy, starts, gamma, truth.horizon, termination="mask")
    )
    flux, error = mean_and_error(found.boundary[-1], starts.group[: found.boundary.shape[2]])
    assert ((flux + known * found.directions[:, 0]).abs() < 3 * error).all()  # a wider loop loses
    assert truth.status == "none"
    assert "misses the boundary term of termination" in truth.reason
    ignoring = matched_truth(Setting(system, policy, starts, gamma, 5))
    assert ignoring.status == "converged"
    assert math.isnan(ignoring.boundary)


def test_episodes_that_never_end_have_no_boundary_term():
    system, policy, starts = bounded(0.8, 0.9)
    masked = matched_truth(
        Setting(system, policy, starts, 0.9, 5, termination="mask"), kinds=("all",)
    )
    assert masked.status == "converged"
    assert masked.boundary == masked.boundary_se == 0.0
    assert "no boundary term of termination was seen" in masked.reason


def test_the_boundary_term_reaches_the_profile():
    system, policy, starts = bounded(0.8, 3.0)
    from gradlab.tasks import Task

    task = Task("edge", system, None, lambda n, g: starts.states[:n], discount=0.9, horizon=2)
    critic = nn.Bilinear(1, 1, 1).double()

    class Critic(nn.Module):
        def forward(self, s, a):
            return critic(s, a)[:, 0]

    profile = measure(task, policy, Critic(), starts=starts.states, termination="mask")
    assert profile.truth["boundary"] > 3 * profile.truth["boundary_se"] > 0
    assert not profile.truth["admissible"]


def test_starts_of_one_group_count_once_in_the_errors():
    """Every value eight times, in one group: the error is that of the values themselves."""
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, error = mean_and_error(values, torch.arange(40))
    torch.testing.assert_close(error, values.std(dim=1) / math.sqrt(40))
    group = torch.arange(40).repeat_interleave(8)
    again, same = mean_and_error(values.repeat_interleave(8, dim=1), group)
    torch.testing.assert_close(again, mean)
    torch.testing.assert_close(same, error)


def test_mujoco_its_analytic_twin_autodiff_and_differences_have_one_truth():
    from gradlab.fitting.policies import riccati_gain

    mujoco, twin = inverted_pendulum(), inverted_pendulum(engine="analytic")
    gain = riccati_gain(mujoco.prior, torch.zeros(4, dtype=torch.float64), 0.98)
    policy, starts = feedback(*gain[0].tolist()), as_starts(mujoco.starts(16, torch.Generator()), 4)
    truths = [
        matched_truth(Setting(task.simulator, policy, starts, 0.98, 25), kinds=("first", "all"))
        for task in (mujoco, twin)
    ]
    assert truths[0].horizon == truths[1].horizon
    for kind in ("first", "every"):
        chained, closed = (getattr(truth, kind) for truth in truths)
        torch.testing.assert_close(chained.gradients, closed.gradients, rtol=1e-6, atol=1e-8)
        assert chained.discrepancy <= 1.0
        assert chained.distance < 1e-3 * chained.gradients.norm(dim=1).mean()
    few = as_starts(starts.states[:3], 4)
    for actions in ("first", "all"):
        system, tail = twin.simulator, Tail(25, None, 0.98)
        want = reference_gradients(Estimator(system, system, actions, tail), policy, few)
        if actions == "all":
            got = oracles.unroll_all_actions(Setting(mujoco.simulator, policy, few, 0.98, 25))
        else:
            sweep = oracles.unroll_first_action(Setting(mujoco.simulator, policy, few, 0.98))
            got = sweep.gradients[24] * few.states
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_constant_weight_scales_the_truth_and_changes_nothing_else(weight):
    system, policy = linear(), feedback(1.2, 1.4)
    plain = gaussian_starts(256, 2)
    heavy = Starts(plain.states, weight * plain.weight, plain.group)
    one, two = (
        matched_truth(Setting(system, policy, each, 0.95, 10), kinds=("first", "all"))
        for each in (plain, heavy)
    )
    assert one.status == two.status == "converged"
    assert two.every.norm == pytest.approx(weight * one.every.norm)
    assert two.first.norm == pytest.approx(weight * one.first.norm)
