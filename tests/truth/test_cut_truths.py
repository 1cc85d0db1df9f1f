"""Truths that are cut or refused, and the boundary term of termination.

Score functions against closed forms, the unrolled truth, and what a path's end leaves.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab import systems
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting, as_starts
from gradlab.measurement.measure import measure
from gradlab.networks.policies import Gaussian, GaussianPolicy, WithLogProb
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.function import from_function
from gradlab.systems.system import Entropic
from gradlab.truth import oracles, score_actions
from gradlab.truth.agreement import precision_of
from gradlab.truth.common_random import common_random_differences, mean_and_error
from gradlab.truth.oracles import unroll_all_actions
from gradlab.truth.score_actions import score_gradients, score_truth
from gradlab.truth.truth import early_truth, matched_truth
from tests.gradients.worlds import linear
from tests.linear_quadratic import lqr_gradient
from tests.truth.linear_policies import Relinearized, feedback, gaussian_starts


def test_an_unstable_loop_has_no_truth_or_a_cut_one():
    one = torch.eye(1, dtype=torch.float64)
    system = LinearQuadratic(1.3 * one, 0.5 * one, one, one, 0.0 * one)
    starts = gaussian_starts(64, 1)
    cut = matched_truth(Setting(system, feedback(0.2), starts, 0.9, 10))
    assert cut.status == "cut"
    assert cut.horizon <= oracles.effective_horizon(0.9)
    assert (cut.finding.code, cut.finding.value) == ("truth_cut", cut.horizon)
    none = matched_truth(Setting(system, feedback(0.2), starts, 0.9, 100))
    assert none.status == "none"
    assert none.first is None
    assert none.finding.code == "truth_diverges"
    assert none.finding.value == pytest.approx(math.log(1.3 - 0.5 * 0.2))


@pytest.mark.parametrize("kind", ["first", "all"])
def test_chaos_is_cut_before_the_chain_is_lost_or_refused(kind):
    """The logistic map at r = 3.9, whose exponent is 0.495 per step."""

    def step(s, a):
        return 3.9 * s * (1 - s) + 1e-3 * a, -(s[:, 0] ** 2)

    system, policy = systems.from_function(step, 1, 1), feedback(0.1)
    starts = as_starts(torch.rand(512, 1, generator=torch.Generator().manual_seed(0)).double(), 1)
    if kind == "first":
        unrolled = oracles.unroll_first_action(Setting(system, policy, starts, 0.98))
        assert float(unrolled.lyapunov.mean()) == pytest.approx(0.495, abs=0.01)
    short = matched_truth(Setting(system, policy, starts, 0.98, 2), kinds=(kind,))
    assert short.status == "cut"
    assert 2 <= short.horizon < 10
    long = matched_truth(Setting(system, policy, starts, 0.98, 25), kinds=(kind,))
    assert long.status == "none"
    assert long.first is long.every is None
    assert long.finding.code == "truth_diverges"
    if kind == "all":  # the mean of the starts, as `gradlab jacobians` has it
        assert long.growth == pytest.approx(0.495, abs=0.01)


def test_a_wrong_jacobian_is_caught_by_the_differences():
    wrong = Relinearized(linear(), lambda _, out: replace(out, B=1.05 * out.B))
    truth = matched_truth(Setting(wrong, feedback(1.2, 1.4), gaussian_starts(256, 2), 0.95, 10))
    assert truth.status == "none"
    assert truth.finding.code == "truth_differs" and truth.finding.value > 1


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
    assert long.finding.code in ("truth_imprecise", "truth_in_noise")
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
    assert (truth.finding.code, truth.finding.n) == ("truth_few_carry", 2048)
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
    assert truth.finding.code == "truth_misses_boundary"
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


GAMMA, ALPHA = 0.8, 0.3


def z_scores(found, wanted):
    """Of the mean difference of [N, P], entry by entry."""
    off = found - wanted
    return off.mean(dim=0) / (off.std(dim=0) / len(off) ** 0.5 + 1e-12)


def test_a_one_step_return_has_its_closed_form():
    """r = −(a − 2)² and a = w s + σ ε: the gradient is −2 (w s − 2) s, whatever σ."""
    system = from_function(lambda s, a: (s, -((a[:, 0] - 2) ** 2)), state_dim=1, action_dim=1)
    policy = torch.nn.Linear(1, 1, bias=False).double()
    policy.weight.data.fill_(0.5)
    starts = gaussian_starts(400, 1)
    setting = Setting(system, Gaussian(policy, 0.7), starts, discount=1e-3)
    truth = score_truth(setting, [1], pairs=64)
    s = starts.states
    assert truth.status == "score" and truth.horizon == 1
    z = z_scores(truth.gradients(1), -2 * (0.5 * s - 2) * s)
    assert abs(float(z)) < 4
    assert float(truth.gradients(1).mean()) == pytest.approx(
        float((-2 * (0.5 * s - 2) * s).mean()), rel=0.05
    )


@pytest.mark.parametrize("count", [1, 3])
def test_the_soft_gradient_agrees_with_the_unrolled_one(count):
    torch.manual_seed(0)
    policy, system = (
        GaussianPolicy(2, 1, (4,), "tanh", squash=True, limit=2.0).double(),
        linear(0.8),
    )
    starts = gaussian_starts(600, 2)
    plain = Setting(system, policy, starts, GAMMA)
    soft = Setting(Entropic(system, ALPHA), WithLogProb(policy), starts, GAMMA)
    score = score_truth(plain, [1, 3], temperature=ALPHA, pairs=8).gradients(count)
    unrolled = early_truth(soft, [1, 3], check=False).gradients(count)
    z = z_scores(score, unrolled)
    assert z.abs().max() < 4.5 and z.square().mean() < 2.5
    mean, wanted = score.mean(dim=0), unrolled.mean(dim=0)
    assert torch.nn.functional.cosine_similarity(mean, wanted, dim=0) > 0.95


def test_nothing_counts_beyond_an_end_under_mask():
    """The first step pays and ends all; a reward of 100 a step lies beyond. θ in every action, too:
    it moves the only one of a path that ends at once."""

    def step(s, a):
        return s + 1, torch.where(s[:, 0] < 0.5, -((a[:, 0] - 2) ** 2), 100 * a[:, 0])

    system = from_function(step, state_dim=1, action_dim=1, alive=lambda s: s[:, 0] < 0.5)
    policy = Gaussian(torch.nn.Linear(1, 1, bias=True).double(), 0.5)
    torch.nn.init.zeros_(policy.policy.weight)
    torch.nn.init.zeros_(policy.policy.bias)
    starts = as_starts(torch.zeros(200, 1, dtype=torch.float64), 1)
    bias = {
        end: score_truth(Setting(system, policy, starts, 0.5, termination=end), [2]).gradients(2)
        for end in ("mask", "ignore")
    }
    setting = Setting(system, policy, starts, 0.5, horizon=3, termination="mask")
    bias["all"] = score_gradients(setting)
    means = {end: float(G[:, 1].mean()) for end, G in bias.items()}
    assert means["mask"] == pytest.approx(4.0, rel=0.1)
    assert means["all"] == pytest.approx(4.0, rel=0.1)
    assert means["ignore"] == pytest.approx(4.0 + 50.0, rel=0.1)


def test_a_gradient_lost_in_noise_is_imprecise_and_a_lost_path_has_none():
    flat = from_function(lambda s, a: (s, torch.sin(40 * a[:, 0])), state_dim=1, action_dim=1)
    policy = Gaussian(feedback(0.1), 1.0)
    found = score_truth(Setting(flat, policy, gaussian_starts(16, 1), 0.5), [1])
    assert found.status == "imprecise" and found.finding.value > 0.25
    wild = from_function(lambda s, a: (s * 1e300, a[:, 0]), state_dim=1, action_dim=1)
    lost = score_truth(Setting(wild, policy, gaussian_starts(16, 1), 0.5), [1])
    assert lost.status == "none" and lost.gradients(1) is None
    assert (lost.finding.value, lost.finding.n) == (16, 16)


def test_arguments_that_have_no_score_are_refused():
    setting = Setting(linear(), feedback(0.4, 0.6), gaussian_starts(8, 2), GAMMA)
    with pytest.raises(InputError, match="a density"):
        score_truth(setting, [1])
    noisy = Setting(linear(), Gaussian(feedback(0.4, 0.6), 0.1), gaussian_starts(8, 2), GAMMA)
    with pytest.raises(InputError, match="pairs is 1"):
        score_truth(noisy, [1], pairs=1)


def relative_error(G):
    return float(precision_of(G, gaussian_starts(len(G), 2)).relative)


def test_the_relative_error_is_that_of_a_mean():
    generator = torch.Generator().manual_seed(0)
    G = 1 + 3 * torch.randn(4000, 5, generator=generator, dtype=torch.float64)
    assert relative_error(G) == pytest.approx(3 / 4000**0.5, rel=0.1)


def test_with_theta_in_every_action_scores_have_the_closed_form_of_a_linear_quadratic_world():
    """And the pathwise gradient's: the return is smooth. Weights count."""
    system, K, T = linear(0.8), (0.4, 0.6), 12
    inner, starts = feedback(*K), gaussian_starts(800, 2)
    weight = torch.linspace(0.5, 1.5, 800, dtype=torch.float64)
    setting = Setting(system, Gaussian(inner, 0.5), replace(starts, weight=weight), GAMMA, T)
    found = score_gradients(setting, pairs=4)
    s = starts.states
    moment = (weight[:, None, None] * s[:, :, None] * s[:, None, :]).mean(dim=0)
    noise = 0.25 * torch.eye(1, dtype=torch.float64)
    wanted = lqr_gradient(system, inner.weight, moment, GAMMA, "all", T, noise)
    error = found.std(dim=0) / 800**0.5
    assert (((found.mean(dim=0) - wanted) / error).abs() < 4).all()
    assert float(found.mean(dim=0) @ wanted / wanted.norm() ** 2) == pytest.approx(1, abs=0.1)
    z = z_scores(found, unroll_all_actions(setting))
    assert z.abs().max() < 4


def test_a_linear_baseline_needs_fewer_starts_than_the_other_paths_alone(monkeypatch):
    setting = Setting(linear(), Gaussian(feedback(0.4, 0.6), 0.3), gaussian_starts(64, 2), 0.95, 30)
    fitted = relative_error(score_gradients(setting, pairs=2))
    monkeypatch.setattr(score_actions, "_baselines", lambda _, paths: torch.zeros_like(paths.to_go))
    assert fitted < 0.9 * relative_error(score_gradients(setting, pairs=2))
