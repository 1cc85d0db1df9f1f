"""One truth for every kind of estimator, where everything is known in closed form.

Visited states follow the discounted visitation from their starts. One truth for many sets of
estimators gives what single measurements give.
"""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import systems
from gradlab.errors import InputError
from gradlab.fitting import critics, fit_critic, policies, stabilising_policy
from gradlab.gradients import named
from gradlab.gradients.setting import Setting, Starts, as_starts
from gradlab.gradients.start_laws import repeated, visits
from gradlab.measurement.assembly import shared_truth
from gradlab.measurement.visited import SAMPLES, objective_moments
from gradlab.networks.policies import Gaussian
from gradlab.tasks import linear_quadratic
from gradlab.truth.common_random import mean_and_error
from gradlab.truth.truth import matched_truth
from tests.linear_quadratic import ExactCritic, lqr_gradient, second_moment
from tests.measurement.linear import (
    GAMMA,
    ONE,
    STD,
    discounted,
    feedback,
    known_first,
    moments,
    planar,
    turned,
)


def scalar():
    """Process noise as large as the starts, and a prior that is wrong."""
    mean = torch.tensor([0.6], dtype=torch.float64)
    task = linear_quadratic(
        A=0.9 * ONE, B=0.5 * ONE, Q=ONE, R=ONE, noise_covariance=0.1 * ONE, start_mean=mean,
        start_covariance=0.5 * ONE, discount=GAMMA, prior=(0.8 * ONE, 0.6 * ONE),
    )  # fmt: skip
    return task, -0.1 * ONE, second_moment(mean, 0.5 * ONE)


WORLDS = {"scalar": scalar, "planar": planar}


@pytest.fixture(scope="module", params=WORLDS)
def measured(request):
    task, weight, moment = WORLDS[request.param]()
    critic = ExactCritic(task.simulator, weight, GAMMA)
    sim, prior, tail = task.simulator, task.prior, gradlab.Tail(0, critic, GAMMA)
    chosen = {
        "data": gradlab.Estimator(sim, None, "first", tail),
        "model": gradlab.Estimator(prior, prior, "first", tail),
        "mixed": gradlab.Estimator(sim, prior, "first", tail),
        "true_dynamics": gradlab.Estimator(sim, sim, "first", tail),
        "all": gradlab.Estimator(sim, sim, "all", tail),
    }
    profile = gradlab.measure(
        task, feedback(weight), None, chosen, horizon=4, starts=1500, truth="objective",
        judges=4, rehearse=False,
    )  # fmt: skip
    return profile, task, weight, moment, critic, chosen


def test_first_action_estimators_have_the_known_bias_under_the_objective(measured):
    """κ_n Σ_t γᵗ E[s_t s_tᵀ] less ∇_W E_ζ[V], both in closed form; 0 for the true dynamics."""
    profile, task, weight, moment, critic, chosen = measured
    truth = lqr_gradient(task.simulator, weight, moment, GAMMA, "all")
    visited = moments(task.simulator, weight, moment, 400)
    visited = torch.einsum("t,tij->ij", discounted(400), visited)
    rows = profile.table().set_index(["quantity", "estimator", "horizon"]).loc["bias2"]
    inside = []
    for name in ("data", "model", "mixed", "true_dynamics"):
        parts = chosen[name].states, chosen[name].jacobians or task.simulator
        for n in [0] if name == "data" else range(5):
            bias, row = known_first(*parts, weight, critic, visited, n) - truth, rows.loc[name, n]
            known, width = float(bias @ bias), row.ci_high - row.ci_low
            inside.append(row.ci_low <= known <= row.ci_high)
            assert row.ci_low - width / 2 <= known <= row.ci_high + width / 2
            if name in ("data", "true_dynamics"):
                assert float(bias.norm()) < 1e-9 * float(truth.norm())
                assert row.ci_low == 0.0
                assert row.ci_high < 0.05 * float(truth @ truth)
    assert np.mean(inside) > 0.8
    wrong = known_first(task.simulator, task.prior, weight, critic, visited, 1) - truth
    assert wrong.norm() > 0.1 * truth.norm(), "the wrong prior has a bias to be found"


@pytest.mark.slow
def test_the_gain_of_a_step_is_the_known_cosine_with_the_gradient_of_the_return():
    """Through a prior whose actions push 70° beside where they do."""
    two, mean = torch.eye(2, dtype=torch.float64), torch.tensor([0.6, -0.3], dtype=torch.float64)
    task = linear_quadratic(
        A=0.9 * turned(0.3), B=0.5 * two, Q=two, R=0.1 * two, noise_covariance=0.1 * two,
        start_mean=mean, start_covariance=0.5 * two, discount=GAMMA,
        prior=(0.9 * turned(0.3), 0.5 * turned(1.2)),
    )  # fmt: skip
    sim, prior, weight = task.simulator, task.prior, -0.1 * two
    critic = ExactCritic(sim, weight, GAMMA)
    estimator = gradlab.Estimator(sim, prior, "first", gradlab.Tail(0, critic, GAMMA))
    profile = gradlab.measure(
        task, feedback(weight), None, {"mixed": estimator}, horizon=4, starts=2000,
        truth="objective",
    )  # fmt: skip
    moment = second_moment(mean, 0.5 * two)
    truth = lqr_gradient(sim, weight, moment, GAMMA, "all")
    visited = moments(sim, weight, moment, 400)
    visited = torch.einsum("t,tij->ij", discounted(400), visited)
    rows = profile.table().query("quantity == 'gain'").set_index("horizon")
    gains = []
    for n in range(5):
        expected, row = known_first(sim, prior, weight, critic, visited, n), rows.loc[n]
        gains.append(float(expected @ truth / expected.norm() / truth.norm()))
        assert abs(row.value - gains[-1]) < 4 * row.se + 1e-3
    assert min(gains) < 0.6 < max(gains)


def test_gradients_with_all_actions_miss_what_follows_the_tail(measured):
    """full_n with the exact critic leaves out Σ_{t>n} γᵗ J_θᵀQ_a(s_t), known in closed form."""
    profile, task, weight, moment, *_ = measured
    later = moments(task.simulator, weight, moment, 400)
    rows = profile.table().query("estimator == 'all' and quantity == 'bias2'").set_index("horizon")
    for n in range(5):
        rest = torch.einsum("t,tij->ij", discounted(400)[n + 1 :], later[n + 1 :])
        bias = lqr_gradient(task.simulator, weight, rest, GAMMA, "first")
        assert abs(rows.value[n] - float(bias @ bias)) < 4 * rows.se[n]


def test_the_truth_is_the_closed_form_start_by_start(measured):
    _, task, weight, *_ = measured
    starts = as_starts(task.starts(1000, torch.Generator().manual_seed(1)), len(weight[0]))
    truth = matched_truth(
        Setting(task.simulator, feedback(weight), starts, GAMMA, 4), kinds=("all",)
    )
    each = starts.states[:, :, None] * starts.states[:, None, :]
    exact = lqr_gradient(task.simulator, weight, each, GAMMA, "all")
    gap, error = mean_and_error((truth.every.gradients - exact).T, starts.group)
    assert (gap.abs() < 3.5 * error + truth.remainder).all()
    assert truth.remainder <= 0.01 * float(exact.mean(dim=0).norm()) * 1.1
    assert error.norm() < 0.1 * exact.mean(dim=0).norm()


@pytest.mark.slow
def test_scores_share_the_objective_with_pathwise_gradients():
    task, weight, moment = scalar()
    critic = ExactCritic(task.simulator, weight, GAMMA)
    chosen = {
        "score": named.likelihood_ratio(task.simulator, critic, GAMMA, 0),
        "first": gradlab.Estimator(task.simulator, None, "first", gradlab.Tail(0, critic, GAMMA)),
    }
    policy = Gaussian(feedback(weight), STD)
    profile = gradlab.measure(task, policy, None, chosen, horizon=2, starts=8000, truth="objective")
    later = moments(task.simulator, weight, moment, 400, STD**2)
    rows = profile.table().set_index(["estimator", "quantity", "horizon"]).xs("bias2", level=1)
    for n in range(3):
        rest = torch.einsum("t,tij->ij", discounted(400)[n + 1 :], later[n + 1 :])
        bias = float(lqr_gradient(task.simulator, weight, rest, GAMMA, "first"))
        assert abs(rows.value["score", n] - bias**2) < 4 * rows.se["score", n]
    assert rows.ci_low["first", 0] == 0.0
    truth = abs(
        float(lqr_gradient(task.simulator, weight, moment, GAMMA, "all", None, STD**2 * ONE))
    )
    assert abs(profile.truth["norm"] - truth) < 4 * profile.truth["standard_error"]


def test_inner_products_with_the_truth_are_those_of_explicit_gradients():
    task, weight, _ = planar()
    policy, critic = feedback(weight), ExactCritic(task.simulator, weight, GAMMA)
    states = task.starts(6, torch.Generator().manual_seed(0))
    begin = Starts(states, torch.linspace(0.5, 2, 6).double(), torch.tensor([4, 4, 7, 0, 0, 7]))
    prior = gradlab.Estimator(task.prior, task.prior, "first", gradlab.Tail(3, critic, GAMMA))
    truth = matched_truth(Setting(task.simulator, policy, begin, GAMMA, 3), kinds=("all",))
    assert truth.every is not None
    setting = Setting(task.simulator, policy, begin, GAMMA, 3)
    found = objective_moments({"model": prior}, setting, truth).cells["model", 3]
    at = visits(dataclasses.replace(setting, horizon=truth.horizon), SAMPLES)
    path = repeated(at.states, 1)
    path = dataclasses.replace(path, weight=at.weight, group=at.group)
    G = prior.gradients(policy, path)
    T = truth.every.gradients.repeat_interleave(SAMPLES, dim=0)

    def grouped(x):
        return torch.stack([x[at.group == label].sum(dim=0) for label in (0, 4, 7)])

    for name, X, Z in (
        ("gradient", G, G),
        ("truth", T, T),
        ("difference", G - T, G - T),
        ("cross", G, T),
    ):
        x, z, sums = grouped(X), grouped(Z), getattr(found, name)
        want = (x * z).sum(dim=1), x @ Z.sum(dim=0), z @ X.sum(dim=0)
        for got, each in zip((sums.own, sums.left, sums.right), want, strict=True):
            np.testing.assert_allclose(got, each.numpy(), rtol=1e-9)
    np.testing.assert_allclose(found.size, 2 * SAMPLES)


def test_the_cut_objective_is_that_of_its_own_horizon():
    """∇ of the T-step return in closed form, and first-action gradients visit T steps only."""
    one = ONE
    task = linear_quadratic(
        A=1.1 * one, B=0.5 * one, Q=one, R=one, noise_covariance=0.01 * one,
        start_mean=one[0], start_covariance=0.1 * one, discount=GAMMA,
    )  # fmt: skip
    policy = feedback(0.02 * one)
    starts = as_starts(task.starts(1024, torch.Generator().manual_seed(0)), 1)
    truth = matched_truth(Setting(task.simulator, policy, starts, GAMMA, 3), kinds=("all",))
    assert truth.status == "cut"
    each = starts.states[:, :, None] ** 2
    exact = lqr_gradient(task.simulator, 0.02 * one, each, GAMMA, "all", truth.horizon)
    gap, error = mean_and_error((truth.every.gradients - exact).T, starts.group)
    assert (gap.abs() < 3.5 * error).all()
    assert error.norm() < 0.05 * exact.mean().abs()


def test_recorded_states_are_refused_under_the_objective():
    task, weight, _ = scalar()
    critic = ExactCritic(task.simulator, weight, GAMMA)
    recorded = dataclasses.replace(named.svg_infinity(task.simulator, GAMMA, 2), actions="first")
    recorded = dataclasses.replace(recorded, tail=gradlab.Tail(2, critic, GAMMA))
    with pytest.raises(InputError, match="reads recorded states"):
        gradlab.measure(task, feedback(weight), None, {"svg": recorded}, 2, 16, truth="objective")


def test_a_critic_that_is_wrong_where_the_true_gradient_has_ended_lowers_the_return():
    """Only actions at age 0 are paid, and the truth is summed for 50 steps; the critic pulls later
    ones the other way: a loop at visited states follows the sum, 1 − .018 γ/(1 − γ) = −.78, which
    is .3 after 50 steps."""

    def step(s, a):
        return s + 0.001, -(s[:, 0] < 0.001).to(s) * (a[:, 0] - 1) ** 2

    world = systems.from_function(step, 1, 1)
    task = gradlab.Task(
        "once", world, world, discount=0.99, horizon=3,
        starts=lambda n, draws: torch.rand(n, 1, generator=draws, dtype=torch.float64) / 2000,
    )  # fmt: skip
    policy = nn.Linear(1, 1).double()
    with torch.no_grad():
        policy.weight.zero_()
        policy.bias.zero_()

    def critic(s, a):
        return a[:, 0] * torch.where(s[:, 0] < 0.001, 1.0, -0.018)

    found = gradlab.measure(task, policy, critic, starts=64, rehearse=False)
    assert int(found.truth["horizon"]) <= 50
    rows = found.table()
    gain = rows[(rows["estimator"] == "data") & (rows["quantity"] == "gain")]
    assert float(gain["ci_high"].iloc[0]) < 0


def test_visits_from_the_starts_are_the_discounted_visitation():
    task, weight, moment = planar()
    n, T = 4000, 12
    starts = as_starts(task.starts(n, torch.Generator().manual_seed(2)), 2)
    found = visits(Setting(task.simulator, feedback(weight), starts, GAMMA, T, seed=3), 4)
    want = torch.einsum("t,tij->ij", discounted(T), moments(task.simulator, weight, moment, T))
    s = found.states
    products = found.weight[:, None] * (s[:, :, None] * s[:, None, :]).flatten(1)
    gap, error = mean_and_error((products - want.flatten()).T, found.group)
    assert (gap.abs() < 4 * error + 1e-12).all()
    assert (error < 0.05 * want.norm()).all()
    assert torch.equal(found.group, starts.group.repeat_interleave(4))


def counter(end=np.inf):
    return systems.from_function(
        lambda s, a: (s + 1, 0 * s[:, 0]), 1, 1, alive=lambda s: s[:, 0] < end
    )


@pytest.mark.parametrize("samples", [1, 5])
def test_the_times_of_visits_follow_the_truncated_discount(samples):
    zero = as_starts(torch.zeros(20_000, 1, dtype=torch.float64), 1)
    found = visits(Setting(counter(), feedback(ONE), zero, GAMMA, 6), samples)
    share = torch.bincount(found.states[:, 0].long(), minlength=6).double() / (20_000 * samples)
    torch.testing.assert_close(share, discounted(6) / discounted(6).sum(), atol=0.015, rtol=0)
    assert torch.allclose(found.weight, discounted(6).sum())
    half = visits(Setting(counter(3.0), feedback(ONE), zero, GAMMA, 6, "mask"), samples)
    assert bool((half.weight[half.states[:, 0] >= 3] == 0).all())
    assert float(half.weight.mean()) == pytest.approx(float(discounted(3).sum()), rel=0.02)


def test_from_visited_starts_matched_and_objective_differ_by_the_sum_of_discounts():
    """And the identity behind it: ∇_W E_ζ[V] = E_ν[J_θᵀQ_a] / (1 − γ)."""
    task, weight, moment = planar()
    visited = torch.einsum(
        "t,tij->ij", discounted(600), moments(task.simulator, weight, moment, 600)
    )
    nu = (1 - GAMMA) * visited
    first = lqr_gradient(task.simulator, weight, nu, GAMMA, "first") / (1 - GAMMA)
    torch.testing.assert_close(first, lqr_gradient(task.simulator, weight, moment, GAMMA, "all"))

    policy, critic = feedback(weight), ExactCritic(task.simulator, weight, GAMMA)
    begin = as_starts(task.starts(64, torch.Generator().manual_seed(0)), 2)
    objective = gradlab.measure(
        task, policy, critic, horizon=2, starts=begin.states, truth="objective"
    )
    T = int(objective.truth["horizon"])
    at = visits(Setting(task.simulator, policy, begin, GAMMA, T), 8)
    path = dataclasses.replace(repeated(at.states, 1), group=at.group)
    matched = gradlab.measure(task, policy, critic, horizon=2, starts=path)
    factor = float(at.weight[0])
    assert "gain" in set(objective.table().quantity)
    assert "gain" not in set(matched.table().quantity), "it says nothing about the return"
    for name in ("data", "model", "mixed", "true_dynamics"):
        for quantity, power in (("mean_norm", 1), ("variance", 2)):
            ours, theirs = (each.estimate(name, quantity, 0).value for each in (objective, matched))
            assert ours == pytest.approx(factor**power * theirs, rel=1e-9)


@pytest.fixture(scope="module")
def world():
    task = replace(gradlab.tasks.double_integrator(), discount=0.9)  # of which less is unrolled
    with pytest.MonkeyPatch.context() as quick:
        for module in (critics, policies):
            quick.setattr(module, "UPDATES", 100)
        quick.setattr(critics, "TRAJECTORIES", 64)
        policy = stabilising_policy(task)
        return task, policy, fit_critic(task, policy)


def test_values_are_those_of_a_measurement(world):
    task, policy, critic = world
    tail = gradlab.Tail(5, critic.double(), task.discount)
    estimators = {
        "model": gradlab.Estimator(task.prior, task.prior, "first", tail),
        "mixed": gradlab.Estimator(task.simulator, task.prior, "first", tail),
    }
    whole = gradlab.measure(task, policy, critic, estimators, horizon=5, starts=32, law="start")
    truth = shared_truth(task, policy, 32, 5)
    for name, estimator in estimators.items():  # one at a time
        part = truth.profile({name: estimator})
        for quantity in ("bias2", "variance", "mse", "cosine"):
            for h in (0, 2, 5):
                ours, theirs = (p.estimate(name, quantity, h) for p in (part, whole))
                assert ours.value == pytest.approx(theirs.value, rel=1e-10, nan_ok=True)
                np.testing.assert_allclose(ours.left_out, theirs.left_out, rtol=1e-9)


def test_states_that_the_caller_brings_are_recorded_as_given(world):
    task, policy, critic = world
    tail = gradlab.Tail(1, critic.double(), task.discount)
    model = {"model": gradlab.Estimator(task.prior, task.prior, "first", tail)}
    states = task.starts(8, torch.Generator().manual_seed(0))
    laws = [
        shared_truth(task, policy, starts, 1).profile(model).config["law"] for starts in (8, states)
    ]
    assert laws == ["start", "given"]


def test_no_estimator_is_refused(world):
    task, policy, _ = world
    with pytest.raises(InputError, match="estimators is empty"):
        shared_truth(task, policy, 8, 2).profile({})
