"""What `measure(task, policy, critic)` says by default, where the return's gradient is known.

Two-dimensional linear-quadratic worlds: a prior whose actions push beside where they do, a critic
of another policy. Every mean follows from second moments, so that bias and gain are numbers.
"""

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting, as_starts
from gradlab.gradients.start_laws import initial, visitation
from gradlab.measurement.arguments import resolved
from gradlab.tasks import linear_quadratic
from gradlab.truth.common_random import mean_and_error
from gradlab.truth.lqr import ExactCritic, lqr_gradient, lqr_return, second_moment
from gradlab.truth.truth import matched_truth
from tests.measurement.turned import GAMMA, discounted, feedback, known_first, moments, turned

TWO = torch.eye(2, dtype=torch.float64)
MEAN, SPREAD = torch.tensor([0.6, -0.3], dtype=torch.float64), 0.5 * TWO
WEIGHT, OTHER = -0.1 * TWO, -0.5 * TWO
H, STEPS = 4, 400
UNROLLED = ("model", "mixed", "true_dynamics")


def world(angle):
    """The prior's actions push `angle` radians beside those of the simulator."""
    return linear_quadratic(
        A=0.9 * turned(0.3), B=0.5 * TWO, Q=TWO, R=0.1 * TWO, noise_covariance=0.1 * TWO,
        start_mean=MEAN, start_covariance=SPREAD, discount=GAMMA,
        prior=(0.9 * turned(0.3), 0.5 * turned(angle)),
    )  # fmt: skip


def expected(task, critic):
    """E of every default estimator at every horizon: visited states weigh Σ_t γᵗ E[s_t s_tᵀ]; with
    θ in all, Σ_k γᵏ of the first-action gradient of n − k steps at s_k, the tail's own among them.
    """
    sim, prior, start = task.simulator, task.prior, second_moment(MEAN, SPREAD)
    visited = torch.einsum("t,tij->ij", discounted(STEPS), moments(sim, WEIGHT, start, STEPS))
    found = {("data", 0): known_first(sim, sim, WEIGHT, critic, visited, 0)}
    for name, states, jacobians in zip(
        UNROLLED, (prior, sim, sim), (prior, prior, sim), strict=True
    ):
        along = moments(states, WEIGHT, start, H + 1)
        for n in range(H + 1):
            found[name, n] = known_first(states, jacobians, WEIGHT, critic, visited, n)
            found[f"{name}_all", n] = sum(
                GAMMA**k * known_first(states, jacobians, WEIGHT, critic, along[k], n - k)
                for k in range(n + 1)
            )
    return found


def truth_of(task):
    start = second_moment(MEAN, SPREAD)
    return lqr_gradient(task.simulator, WEIGHT, start, GAMMA, "all")


def share(gradient, truth):
    return float(gradient @ truth / gradient.norm() / truth.norm())


@pytest.fixture(scope="module")
def measured():
    """The call that a user makes, with a critic of another policy."""
    task = world(1.2)
    critic = ExactCritic(task.simulator, OTHER, GAMMA)
    short = dict(judges=4, rehearse=False)  # steps are `test_realised_gains`, `test_rehearsal`
    profile = gradlab.measure(task, feedback(WEIGHT), critic, horizon=H, starts=1000, **short)
    return profile, expected(task, critic), truth_of(task)


def test_a_number_of_starts_means_visited_states_and_the_gradient_of_the_return(measured):
    profile, known, _ = measured
    assert profile.config["law"] == "visited"
    assert profile.config["truth"] == profile.truth["kind"] == "objective"
    assert set(profile.estimators) == {name for name, _ in known}
    assert {profile.config["actions"][name] for name in UNROLLED} == {"first"}
    assert {profile.config["actions"][f"{name}_all"] for name in UNROLLED} == {"all"}


def test_bias_and_gain_of_every_default_estimator_are_the_closed_form(measured):
    profile, known, truth = measured
    assert abs(profile.truth["norm"] - truth.norm()) < 4 * profile.truth["standard_error"]
    inside = []
    for (name, n), mean in known.items():
        bias, gain = (profile.estimate(name, quantity, n) for quantity in ("bias2", "gain"))
        rows = profile.table().query("estimator == @name and horizon == @n")
        rows = rows.set_index("quantity")
        want = {"bias2": float((mean - truth) @ (mean - truth)), "gain": share(mean, truth)}
        for quantity, estimate in (("bias2", bias), ("gain", gain)):
            row = rows.loc[quantity]
            inside.append(row.ci_low <= want[quantity] <= row.ci_high)
            assert abs(estimate.value - want[quantity]) < 4.5 * row.se + 1e-3, (name, n, quantity)
    assert np.mean(inside) > 0.8
    gains = [share(mean, truth) for mean in known.values()]
    assert min(gains) < 0.7 and max(gains) > 0.99, "the world has gradients to be told apart"


def test_a_critic_of_another_policy_biases_data_more_than_long_true_rollouts(measured):
    """γⁿ Dₙ of the closed loop takes the critic's share away, with θ in all actions, too."""
    profile, known, truth = measured
    error = {cell: float((mean - truth).norm()) for cell, mean in known.items()}
    assert error["true_dynamics", H] < error["true_dynamics", 1] < error["data", 0]
    value = {cell: profile.estimate(cell[0], "bias2", cell[1]).value for cell in known}
    assert value["true_dynamics", H] < value["true_dynamics", 1] < value["data", 0]
    assert value["true_dynamics_all", H] < value["true_dynamics_all", 0]
    gain = {cell: profile.estimate(cell[0], "gain", cell[1]).value for cell in known}
    assert gain["true_dynamics", H] > gain["mixed", H] + 0.1
    assert gain["true_dynamics_all", H] > gain["mixed_all", H] + 0.1


def test_with_the_exact_critic_data_and_true_dynamics_have_the_whole_gain():
    task = world(0.0)
    critic = ExactCritic(task.simulator, WEIGHT, GAMMA)
    profile = gradlab.measure(
        task, feedback(WEIGHT), critic, horizon=2, starts=500, judges=4, rehearse=False
    )
    size = float(truth_of(task).norm()) ** 2
    rows = profile.table().set_index(["estimator", "quantity", "horizon"])
    for cell in (("data", 0), ("true_dynamics", 0), ("true_dynamics", 2)):
        name, n = cell
        assert rows.ci_high[name, "gain", n] > 0.999 and rows.value[name, "gain", n] > 0.98
        assert rows.ci_low[name, "bias2", n] == 0.0
        assert rows.ci_high[name, "bias2", n] < 0.1 * size


@pytest.mark.slow
def test_a_step_of_negative_gain_lowers_the_return_and_one_of_positive_gain_raises_it():
    """A prior that pushes backwards; returns before and after a small step in closed form."""
    task = world(float(np.pi))
    critic = ExactCritic(task.simulator, WEIGHT, GAMMA)
    policy, start = feedback(WEIGHT), second_moment(MEAN, SPREAD)
    profile = gradlab.measure(task, policy, critic, horizon=H, starts=500)
    before = lqr_return(task.simulator, WEIGHT, start, GAMMA)
    tail = gradlab.Tail(H, critic, GAMMA)
    starts = task.starts(500, torch.Generator().manual_seed(1))
    moved = {}
    for name, jacobians in (("mixed_all", task.prior), ("true_dynamics_all", task.simulator)):
        estimator = gradlab.Estimator(task.simulator, jacobians, "all", tail)
        gradient = estimator.mean_gradient(policy, starts)
        step = WEIGHT + 1e-3 * (gradient / gradient.norm()).reshape(2, 2)
        moved[name] = float(lqr_return(task.simulator, step, start, GAMMA) - before)
    best = 1e-3 * float(truth_of(task).norm())
    for name, gained in moved.items():
        gain = profile.estimate(name, "gain", H).value
        assert gained / best == pytest.approx(gain, abs=0.05)
    assert moved["mixed_all"] < -0.5 * best < 0.9 * best < moved["true_dynamics_all"]


@pytest.mark.slow
def test_matched_truth_at_visited_states_times_the_sum_of_discounts_is_the_returns_gradient():
    """E_ν[J_θᵀ ∂_a Q] / (1 − γ) = ∇_θ E_ζ[V], sampled on both sides and in closed form."""
    task, policy = world(0.0), feedback(WEIGHT)
    known = truth_of(task)
    at = as_starts(visitation(task, policy, 4000, seed=3), 2)
    matched = matched_truth(Setting(task.simulator, policy, at, GAMMA, 1), kinds=("first",)).first
    each = (matched.gradients[:, :, None] * at.states[:, None, :]).flatten(1)  # J_θᵀ ∂_a Q
    mean, error = mean_and_error(each.T / (1 - GAMMA), at.group)
    assert ((mean - known).abs() < 4 * error + 0.01 * known.norm()).all()
    assert error.norm() < 0.1 * known.norm()
    profiles = [
        gradlab.measure(
            task, policy, ExactCritic(task.simulator, WEIGHT, GAMMA), horizon=1, starts=n,
            law="visited", truth=truth,
        )
        for n, truth in ((4000, "matched"), (1000, "objective"))
    ]  # fmt: skip
    norms = [profiles[0].truth["norm"] / (1 - GAMMA), profiles[1].truth["norm"]]
    errors = [
        profiles[0].truth["standard_error"] / (1 - GAMMA), profiles[1].truth["standard_error"]
    ]  # fmt: skip
    for norm, each in zip(norms, errors, strict=True):
        assert abs(norm - float(known.norm())) < 4 * each + 0.01 * float(known.norm())
    at_starts = gradlab.measure(
        task, policy, ExactCritic(task.simulator, WEIGHT, GAMMA), horizon=1, starts=1000,
        law="start",
    )  # fmt: skip
    start_norm = at_starts.truth["norm"]
    assert start_norm < 0.6 * float(known.norm()), "the trap: matched truth at the starts"


# Law, truth and starts of a measurement: defaults, and what contradicts.


TENSOR = torch.zeros(8, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("starts", "law", "truth", "expected"),
    [
        (64, None, None, ("visited", "objective")),
        (64, "start", None, ("start", "matched")),
        (64, None, "matched", ("visited", "matched")),
        (TENSOR, None, None, ("start", "matched")),
        (TENSOR, "visited", None, ("visited", "objective")),
        (TENSOR, None, "objective", ("visited", "objective")),
        (TENSOR, "start", None, ("start", "matched")),
    ],
)
def test_defaults_follow_from_what_is_given(starts, law, truth, expected):
    assert resolved(starts, law, truth) == expected


@pytest.mark.parametrize(
    ("starts", "law", "truth", "message"),
    [
        (64, "visits", None, "law is 'visits'"),
        (64, None, "return", "truth is 'return'"),
        (64, "start", "objective", "leave law out"),
        (TENSOR, "visited", "matched", "starts is a tensor"),
    ],
)
def test_contradictions_are_refused_with_the_way_out(starts, law, truth, message):
    with pytest.raises(InputError, match=message):
        resolved(starts, law, truth)


def test_a_path_is_a_law_of_its_own():
    task = gradlab.tasks.double_integrator()
    with pytest.raises(InputError, match="starts is a Path"):
        resolved(initial(task, 8), "visited", None)


def test_a_gain_is_within_its_range_and_its_interval_and_what_was_used_is_recorded():
    A, B = [[0.9, 0.2], [0.0, 0.8]], [[0.0], [0.5]]
    task = gradlab.tasks.linear_quadratic(A, B, start_mean=[1.0, 1.0], discount=0.9)
    policy = feedback(torch.tensor([[-0.1, -0.2]], dtype=torch.float64))
    critic = ExactCritic(task.simulator, policy.weight.data, 0.9)
    profile = gradlab.measure(task, policy, critic, horizon=3, starts=8, judges=4)
    gains = profile.table().query("quantity == 'gain'")
    assert len(gains) and gains["value"].between(-1, 1).all()
    assert gains["value"].between(gains["ci_low"], gains["ci_high"]).all()
    config = profile.config
    assert (config["starts"], config["starts_used"], config["visits"]) == (8, 8, 8)
