"""Truths that are cut or refused, and the boundary term of termination."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab import systems
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.measure import measure
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth import oracles
from gradlab.truth.common_random import common_random_differences, mean_and_error
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import linear
from tests.truth.linear_policies import Relinearized, feedback, gaussian_starts


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
    assert "no truth here: λ = 0." in long.reason
    if kind == "all":  # the mean of the starts, as `gradlab jacobians` has it
        assert long.growth == pytest.approx(0.495, abs=0.01)
        assert f"λ = {long.growth:.3g} per step over 25 steps" in long.reason


def test_a_wrong_jacobian_is_caught_by_the_differences():
    wrong = Relinearized(linear(), lambda _, out: replace(out, B=1.05 * out.B))
    truth = matched_truth(Setting(wrong, feedback(1.2, 1.4), gaussian_starts(256, 2), 0.95, 10))
    assert truth.status == "none"
    assert "differs from finite differences" in truth.reason


@pytest.mark.parametrize("kind", ["first", "all"])
def test_the_objective_is_cut_where_a_wrong_jacobian_sets_in(kind):
    """∂f/∂s is off from step 5 on: it first enters the reward of step 6, so T = 6 is the last."""

    def late(state, out):
        return replace(out, A=torch.where(state[:, 1, None, None] >= 5, 1.5 * out.A, out.A))

    def step(s, a):
        after = torch.cat([0.9 * s[:, :1] + 0.5 * a, s[:, 1:] + 1], dim=1)
        return after, -(s[:, 0] ** 2) - a[:, 0] ** 2

    generator = torch.Generator().manual_seed(0)
    states = torch.zeros(128, 2, dtype=torch.float64)
    states[:, 0] = 1 + 0.1 * torch.randn(128, generator=generator, dtype=torch.float64)
    system, policy = Relinearized(systems.from_function(step, 2, 1), late), feedback(0.2, 0.0)
    truth = matched_truth(Setting(system, policy, as_starts(states, 2), 0.9, 2), kinds=(kind,))
    assert truth.status == "cut"
    assert truth.horizon == 6 if kind == "first" else 3 <= truth.horizon <= 6
    assert matched_truth(Setting(system, policy, as_starts(states, 2), 0.9, 10)).status == "none"
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


@pytest.mark.parametrize("kind", ["first", "all"])
def test_a_precise_truth_that_one_percent_of_the_starts_carry_is_not_reliable(kind):
    """z = 30 at 20 of 2048 starts and 0 at all others, which have the same gradient each."""
    system, _ = delayed(torch.clone)
    states = torch.zeros(2048, 5, dtype=torch.float64)
    states[:, 4] = 1.0
    states[:20, 0] = 30.0
    starts = as_starts(states, 5)
    setting = Setting(system, Sees(), starts, 0.9, 10)
    truth = matched_truth(setting, kinds=(kind,))
    reference = truth.first if kind == "first" else truth.every
    assert reference.relative_se < 0.25 and reference.concentration > 0.7
    assert truth.status == "imprecise" and not reference.precise
    assert "not reliable at N = 2048: 1% of the starts carry" in truth.reason
    short = matched_truth(Setting(system, Sees(), starts, 0.9, 2), kinds=(kind,))
    assert short.status == "cut"
    if kind == "first":
        assert short.horizon == 3  # the last reward without z
    else:
        assert short.every.concentration <= 0.5


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


def test_the_boundary_term_reaches_the_profile():
    system, policy, starts = bounded(0.8, 3.0)
    from gradlab.tasks import Task

    task = Task("edge", system, None, lambda n, g: starts.states[:n], discount=0.9, horizon=2)
    critic = nn.Bilinear(1, 1, 1).double()
    profile = measure(
        task, policy, lambda s, a: critic(s, a)[:, 0], starts=starts.states, termination="mask"
    )
    assert profile.truth["boundary"] > 3 * profile.truth["boundary_se"] > 0
    assert not profile.truth["admissible"]
