"""`measure` finds the known answer where the answer is known.

What `measure(task, policy, critic)` says by default, where the return's gradient is known.

Two-dimensional linear-quadratic worlds: a prior whose actions push beside where they do, a critic
of another policy. Every mean follows from second moments, so that bias and gain are numbers.

An estimator's name is a label: what it is called moves no number, no light and no decision.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import machine
from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.findings.checks import truth_finding
from gradlab.gradients.setting import Setting, as_starts
from gradlab.gradients.start_laws import initial, visitation
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.config import MeasureConfig
from gradlab.measurement.update import Update
from gradlab.networks.mlp import QCritic
from gradlab.runs.decision_rules import judged_estimator
from gradlab.tasks import double_integrator, linear_quadratic
from gradlab.truth.common_random import mean_and_error
from gradlab.truth.truth import matched_truth
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import losses, recommendation
from tests.linear_quadratic import ExactCritic, lqr_gradient, lqr_return, second_moment
from tests.measurement.linear import discounted, feedback, known_first, moments, turned
from tests.measurement.scalar import GAMMA, ONE, Quadratic, known_biases, scalar_policy, scalar_task


def covered(seed, starts=128, horizon=6):
    """Which intervals of bias² hold the closed form, and how far each estimate is in se."""
    task = scalar_task(prior=(0.8 * ONE, 0.6 * ONE))
    profile = gradlab.measure(
        task, scalar_policy(), Quadratic(), horizon=horizon, starts=starts, law="start", seed=seed
    )
    rows = profile.table().query("quantity == 'bias2'").set_index(["estimator", "horizon"])
    known = known_biases(task, 0.3, horizon, moment=0.5 + 0.36)
    for (name, n), row in rows.iterrows():
        want = known[name][n] ** 2
        yield row.ci_low <= want <= row.ci_high, abs(row.value - want) / row.se


def test_squared_bias_is_the_closed_form_within_its_error():
    found = [each for seed in range(6) for each in covered(seed)]
    assert np.mean([inside for inside, _ in found]) > 0.85
    assert max(distance for _, distance in found) < 5


@pytest.mark.slow
def test_intervals_of_bias_cover_the_closed_form():
    """One-dimensional and skewed (chi-square starts): the hard case, at the default N."""
    found = [inside for seed in range(160) for inside, _ in covered(seed, starts=256)]
    assert 0.92 <= np.mean(found) <= 0.98


def test_variance_is_the_closed_form_for_gaussian_starts():
    """data: g s = κ s², so Var = κ² Var(s²)."""
    task, k = scalar_task(noise=0.0), 0.3
    profile = gradlab.measure(
        task, scalar_policy(k), Quadratic(), horizon=1, starts=4096, law="start"
    )
    row = profile.table().query("estimator == 'data' and quantity == 'variance'").iloc[0]
    factor = 2 * (1.5 * k - 0.4)
    want = factor**2 * (2 * 0.5**2 + 4 * 0.6**2 * 0.5)
    assert row.ci_low <= want <= row.ci_high


def test_true_dynamics_with_the_exact_critic_has_no_bias():
    k = 0.3
    closed, p = 0.9 - 0.5 * k, 0.0
    p = (1 + k * k) / (1 - GAMMA * closed**2)

    class Exact(nn.Module):
        def forward(self, s, u):
            following = 0.9 * s[:, 0] + 0.5 * u[:, 0]
            return -(s[:, 0] ** 2 + u[:, 0] ** 2) - GAMMA * p * following**2

    task = scalar_task(noise=0.0)
    profile = gradlab.measure(task, scalar_policy(k), Exact(), horizon=5, law="start")
    rows = profile.table().query("quantity == 'bias2' and estimator in ['data', 'true_dynamics']")
    # What is left is the truth's own truncation, below 1% of its norm.
    assert (rows.value < (0.01 * profile.truth["norm"]) ** 2).all()


def test_values_do_not_depend_on_the_horizon_or_on_the_other_estimators():
    task = scalar_task(prior=(0.8 * ONE, 0.6 * ONE))
    policy, critic = scalar_policy(), Quadratic()
    given = dict(starts=32, judges=4, rehearse=False)
    whole = gradlab.measure(task, policy, critic, horizon=6, **given).table()
    model = gradlab.Estimator(task.prior, task.prior, "first", gradlab.Tail(0, critic, GAMMA))
    alone = gradlab.measure(task, policy, None, {"model": model}, horizon=3, **given).table()
    both = whole.merge(alone, on=["estimator", "horizon", "quantity"])
    assert len(both) == len(alone)
    chosen = both["method_x"].str.endswith("chosen") | both["method_y"].str.endswith("chosen")
    assert set(both[chosen]["quantity"]) == {"gain"} and chosen.sum() <= 2  # one of each
    for column in ("value", "se", "ci_low", "ci_high"):
        # An interval of the largest gain knows among how many others it was chosen.
        rows = both[~chosen] if column.startswith("ci") else both
        np.testing.assert_allclose(rows[f"{column}_x"], rows[f"{column}_y"], rtol=1e-10, atol=1e-13)


def test_all_action_estimators_are_judged_by_their_own_truth():
    task = scalar_task(noise=0.0)
    every = gradlab.Estimator(
        task.simulator, task.simulator, "all", gradlab.Tail(0, Quadratic(), GAMMA)
    )
    profile = gradlab.measure(task, scalar_policy(), None, {"all": every}, horizon=40, law="start")
    table = profile.table()
    bias2 = table.query("quantity == 'bias2'").set_index("horizon").value
    assert bias2[40] < 1e-4 * bias2[1]
    norm = table.query("quantity == 'mean_norm'").set_index("horizon").value[40]
    states = task.starts(256, stream(0, "starts"))
    moment = (states**2).mean() * ONE
    exact = float(lqr_gradient(task.simulator, -0.3 * ONE, moment, GAMMA, "all"))
    assert norm == pytest.approx(abs(exact), rel=0.02)  # noise-corrected against these starts


# Everything that a measurement does, in little.
SHORT = dict(horizon=1, starts=16, judges=4, update=Update(refit=1))


def test_a_seed_reproduces_a_profile_and_leaves_the_global_stream_alone():
    task = scalar_task()
    torch.manual_seed(1)
    first = gradlab.measure(task, scalar_policy(), Quadratic(), seed=5, **SHORT)
    after = torch.rand(1)
    torch.manual_seed(1)
    again = gradlab.measure(task, scalar_policy(), Quadratic(), seed=5, **SHORT)
    assert torch.equal(torch.rand(1), after)
    assert first.table().equals(again.table())
    other = gradlab.measure(task, scalar_policy(), Quadratic(), seed=6, **SHORT)
    assert not first.table().equals(other.table())


def test_the_users_networks_stay_as_they_are():
    policy = scalar_policy().float()
    gradlab.measure(scalar_task(), policy, Quadratic(), **SHORT)
    assert policy.weight.dtype == torch.float32
    assert policy.weight.grad is None


def test_groups_widen_intervals():
    task = scalar_task()
    states = task.starts(32, torch.Generator().manual_seed(0))
    rows = torch.arange(32).repeat_interleave(4)
    none = states.new_zeros(0)
    path = Path(
        states=states[rows][None], actions=none, rewards=none, policy_noise=none,
        dynamics_noise=none, alive=none, weight=torch.ones(128).double(), group=rows,
    )  # fmt: skip
    grouped = gradlab.measure(task, scalar_policy(), Quadratic(), starts=path, horizon=1).table()
    alone = replace(path, group=torch.arange(128))  # as if each row were a start of its own
    naive = gradlab.measure(task, scalar_policy(), Quadratic(), starts=alone, horizon=1).table()
    width = [
        t.query("estimator == 'data' and quantity == 'variance'").eval("ci_high - ci_low").iloc[0]
        for t in (grouped, naive)
    ]
    assert width[0] > 1.5 * width[1]


def test_without_a_prior_there_is_no_model():
    simulator = scalar_task().simulator
    task = gradlab.Task("own", simulator, None, scalar_task().starts, 0.9, 3)
    names = set(gradlab.measure(task, scalar_policy(), Quadratic(), **SHORT).table().estimator)
    assert names == {"data", "true_dynamics", "true_dynamics_all"}


def test_an_unstable_policy_leaves_variances_only():
    task = scalar_task()
    given = SHORT | dict(horizon=60, rehearse=False)
    profile = gradlab.measure(task, scalar_policy(-1.5), Quadratic(), **given)
    assert not profile.truth["admissible"]
    assert set(profile.table().quantity) == {"mean_norm", "variance", "snr", "tail_index"}
    assert profile.truth["code"] == "truth_diverges"
    assert truth_finding(profile.truth).value == pytest.approx(profile.truth["lyapunov"])


def test_all_action_and_first_action_truths_are_kept_apart():
    task = scalar_task(noise=0.0)
    sim, tail = task.simulator, gradlab.Tail(0, Quadratic(), GAMMA)
    chosen = {kind: gradlab.Estimator(sim, sim, kind, tail) for kind in ("first", "all")}
    profile = gradlab.measure(
        task, scalar_policy(), None, chosen, horizon=30, starts=64, law="start"
    )
    table = profile.table().set_index(["estimator", "quantity", "horizon"]).value
    for kind, prefix in (("first", ""), ("all", "all_")):
        level = table[kind, "mse", 30] / table[kind, "relative_mse", 30]
        assert level == pytest.approx(profile.truth[f"{prefix}norm"] ** 2, rel=1e-6)
        assert table[kind, "cosine", 30] > 0.999
    assert profile.truth["all_norm"] > 1.5 * profile.truth["norm"]
    assert profile.config["actions"] == {"first": "first", "all": "all"}


def test_a_cosine_of_two_vanishing_gradients_is_lost_not_reversed():
    """With both norms below their noise, c / sqrt(u t) would be a confident −1."""
    task = scalar_task(mean=0.0)
    policy, tail = scalar_policy(0.0), gradlab.Tail(0, Quadratic(), GAMMA)
    policy.weight.data.fill_(-0.5303)  # near the optimum: the truth is noise
    exact = gradlab.Estimator(task.simulator, task.simulator, "first", tail)
    for seed in range(8):
        profile = gradlab.measure(task, policy, None, {"own": exact}, 30, 8, law="start", seed=seed)
        row = profile.table().query("quantity == 'cosine' and horizon == 30").iloc[0]
        assert row.ci_high > 0.9


def test_non_finite_gradients_are_counted_not_averaged():
    class Broken(Quadratic):
        def forward(self, s, u):
            return super().forward(s, u) + torch.where(s[:, 0] > 1.0, torch.nan, 0.0) * u[:, 0]

    given = SHORT | dict(starts=64, rehearse=False)
    table = gradlab.measure(scalar_task(), scalar_policy(), Broken(), **given).table()
    row = table.query("estimator == 'data' and quantity == 'bias2'").iloc[0]
    assert math.isnan(row.value)
    assert "not finite" in row.method


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(horizon=-1), "horizon is -1"),
        (dict(horizon=10**8), r"8 starts × .* MB of each \(horizon 100000000\) are .* GB"),
        (dict(batch=0), "batch is 0"),
        (dict(starts=2), "starts is 2"),
        (dict(starts=torch.zeros(8, 3)), r"expected \[N, 1\]"),
        (dict(termination="stop"), "termination"),
        (dict(truth="whole"), "truth is"),
        (dict(critic=None), "critic is None"),
        (dict(estimators={}), "estimators is empty"),
        (dict(policy=nn.Linear(2, 1)), "policy cannot take"),
    ],
)
def test_bad_input_names_the_argument(change, word):
    arguments = dict(policy=scalar_policy(), critic=Quadratic(), horizon=1, starts=8) | change
    with pytest.raises(InputError, match=word):
        gradlab.measure(scalar_task(), **arguments)


def test_a_policy_with_a_nan_is_refused():
    with pytest.raises(InputError, match="weight is not finite"):
        gradlab.measure(scalar_task(), scalar_policy(math.nan), Quadratic(), starts=8)


@pytest.fixture
def little(monkeypatch):
    """A machine whose memory asks for no more than 8 GB."""
    monkeypatch.setattr(machine, "memory", lambda: 8e9)


def test_the_long_path_of_a_truth_with_every_action_counts_towards_the_memory(little):
    """At γ = 0.99 it is 459 steps, however short the horizon."""
    task = gradlab.tasks.mujoco("HalfCheetah-v5")
    policy = nn.Linear(17, 6).double()
    critic = QCritic(17, 6, hidden=(2,)).double()
    with pytest.raises(InputError, match=r"5000 starts × .* GB.*starts fit"):
        gradlab.measure(task, policy, critic, horizon=1, starts=5000, truth="objective")


@pytest.mark.parametrize("place", ["simulator", "prior"])
def test_a_step_in_another_precision_is_refused_before_anything_is_computed(place):
    task, network, seen = double_integrator(), nn.Linear(3, 2), []
    own = gradlab.systems.from_function(
        lambda s, a: (s + network(torch.cat([s, a], 1)), -s.square().sum(1)), 2, 1
    )
    wrong = replace(task, **{place: own})
    with pytest.raises(InputError, match="convert its network"):
        gradlab.measure(
            wrong, nn.Linear(2, 1), lambda s, a: -a.square().sum(1), horizon=2, starts=16,
            progress=lambda stage, *_: seen.append(stage),
        )  # fmt: skip
    assert not seen


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
    short = dict(judges=4, rehearse=False)  # steps are `test_steps`, `test_rehearsal`
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


TASK = gradlab.tasks.double_integrator()


def resolved(given, **asked):
    return MeasureConfig(**asked).resolved(TASK, given)


@pytest.mark.parametrize(
    ("given", "law", "truth", "expected"),
    [
        ("", None, None, ("visited", "objective")),
        ("", "start", None, ("start", "matched")),
        ("", None, "matched", ("visited", "matched")),
        ("tensor", None, None, ("start", "matched")),
        ("tensor", "visited", None, ("visited", "objective")),
        ("tensor", None, "objective", ("visited", "objective")),
        ("tensor", "start", None, ("start", "matched")),
    ],
)
def test_defaults_follow_from_what_is_given(given, law, truth, expected):
    config = resolved(given, law=law, truth=truth)
    assert (config.law, config.truth) == expected
    assert (config.horizon, config.termination) == (TASK.horizon, "ignore")


@pytest.mark.parametrize(
    ("given", "asked", "message"),
    [
        ("", {"law": "visits"}, "law is 'visits'"),
        ("", {"truth": "return"}, "truth is 'return'"),
        ("", {"law": "start", "truth": "objective"}, "leave law out"),
        ("tensor", {"law": "visited", "truth": "matched"}, "starts is a tensor"),
        ("tensor", {"trim_starts": 0.1}, "starts holds the states themselves"),
        ("", {"starts": 3}, "starts is 3, expected an integer ≥ 4"),
        ("", {"batch": 0}, "batch is 0, expected an integer ≥ 1"),
        ("", {"horizon": 2.5}, "horizon is 2.5, expected an integer ≥ 0"),
        ("", {"judges": 3}, "judges is 3, expected an integer ≥ 4"),
        ("", {"surface": (3, -1)}, "surface is -1, expected an integer ≥ 0"),
        ("", {"also": "ivw"}, "also is 'ivw', expected several values in a tuple"),
        ("", {"max_steps": 0}, "max_steps is 0, expected an integer ≥ 1"),
        ("", {"attribute": 1}, "attribute is 1, expected True or False"),
    ],
)
def test_what_is_wrong_or_contradicts_is_refused_with_the_way_out(given, asked, message):
    with pytest.raises(InputError, match=message):
        resolved(given, **asked)


def test_a_path_is_a_law_of_its_own():
    with pytest.raises(InputError, match="starts is a Path"):
        gradlab.measure(TASK, nn.Linear(2, 1), None, starts=initial(TASK, 8), law="visited")


def test_a_gain_is_within_its_range_and_its_interval_and_what_was_used_is_recorded():
    A, B = [[0.9, 0.2], [0.0, 0.8]], [[0.0], [0.5]]
    task = gradlab.tasks.linear_quadratic(A, B, start_mean=[1.0, 1.0], discount=0.9)
    policy = feedback(torch.tensor([[-0.1, -0.2]], dtype=torch.float64))
    critic = ExactCritic(task.simulator, policy.weight.data, 0.9)
    profile = gradlab.measure(task, policy, critic, horizon=3, starts=8, judges=4, rehearse=False)
    gains = profile.table().query("quantity == 'gain'")
    assert len(gains) and gains["value"].between(-1, 1).all()
    assert gains["value"].between(gains["ci_low"], gains["ci_high"]).all()
    config = profile.config
    assert (config["starts"], config["starts_used"], config["visits"]) == (8, 8, 8)


DISCOUNT, HORIZON = 0.8, 2
OURS = (
    "data", "model", "mixed", "true_dynamics", "model_all", "mixed_all", "true_dynamics_all",
    "true_dynamics_score",
)  # fmt: skip
ARBITRARY = ("a", "b", "c", "d", "e", "f", "g", "h")
MISLEADING = (
    "true_dynamics", "mixed", "data", "model_all", "mixed_all", "true_dynamics_score", "model",
    "true_dynamics_all",
)  # fmt: skip
LEFT_OUT = {
    "all": (), "without model_all": ("model_all",), "without a model's": ("model", "model_all"),
}  # fmt: skip


def measured_as(names, task, without=()):
    """The default estimators under other names, from the same starts."""
    critic = ExactCritic(task.simulator, -0.5 * TWO, DISCOUNT)
    policy = gradlab.networks.policies.Gaussian(feedback(-0.1 * TWO), 0.2)
    own = estimators_at(task, critic, None, HORIZON, every=True, also=("score",))
    given = {
        called: own[name] for called, name in zip(names, OURS, strict=True) if name not in without
    }
    return gradlab.measure(
        task, policy, critic, given, horizon=HORIZON, starts=16, judges=4, update=Update(refit=5)
    )


def one_world():
    return linear_quadratic(
        A=0.9 * turned(0.3), B=0.5 * TWO, Q=TWO, R=0.1 * TWO,
        start_mean=torch.tensor([0.6, -0.3]).double(), start_covariance=0.5 * TWO,
        discount=DISCOUNT,
        prior=(0.9 * turned(0.3), 0.5 * turned(0.9)),
    )  # fmt: skip


def decisions(profile, called):
    """All that is decided, in our names."""
    ours = dict(zip(called, OURS, strict=True))

    def back(cells):
        return [(ours[name], h) for name, h in cells]

    found = facts(profile)
    choice = gradlab.choose(profile)
    told = recommendation(found)
    return {
        "judged": ours[judged_estimator(profile)],
        "own": [ours[name] for name in found.own],
        "best": back([found.best]),
        "kept": back(found.leading.kept),
        "beyond": back(found.beyond(found.best)),
        "stepped": back(found.realised.stepped),
        "losses": losses(found, found.best),
        "light": told.light,
        "followed": told.horizon,
        "gain": told.gain,
        "chosen": back([choice.best.cell]) + back(choice.best.kept),
        "competitors": [ours[name] for name in choice.estimators],
        "excluded": [ours[name] for name in choice.excluded],
        "weights": [choice.gain.weights.share, back(choice.gain.mixed)],
    }


@pytest.fixture(scope="module")
def task():
    return one_world()


@pytest.fixture(scope="module")
def arbitrary(task):
    return measured_as(ARBITRARY, task)


@pytest.mark.parametrize(
    ("left_out", "names"),
    [("all", ARBITRARY), ("without model_all", MISLEADING), ("without a model's", MISLEADING)],
    ids=["arbitrary", "misleading", "misleading, without a model"],
)
@pytest.mark.sampled(1)
def test_names_are_labels(task, arbitrary, left_out, names, tmp_path):
    without = LEFT_OUT[left_out]
    plain = measured_as(OURS, task, without)
    renamed = arbitrary if names is ARBITRARY else measured_as(names, task, without)
    renamed = gradlab.load(renamed.save(tmp_path / "renamed.h5"))
    for column in plain.columns:
        np.testing.assert_array_equal(plain.columns[column], renamed.columns[column])
    one, other = plain.table(), renamed.table()
    called = dict(zip(names, OURS, strict=True))
    assert list(one["estimator"]) == [called[name] for name in other["estimator"]]
    np.testing.assert_equal(decisions(renamed, names), decisions(plain, OURS))


def test_identities_are_those_of_the_objects_and_survive_a_file(arbitrary, tmp_path):
    systems = [(*each.systems, each.actions) for each in arbitrary.identities.values()]
    sim, model = "simulator", "model"
    assert systems == [
        (sim, "none", "first"), (model, model, "first"), (sim, model, "first"), (sim, sim, "first"),
        (model, model, "all"), (sim, model, "all"), (sim, sim, "all"), (sim, "none", "score"),
    ]  # fmt: skip
    control = [name for name, each in arbitrary.identities.items() if each.control]
    assert control == ["d", "g"]
    loaded = gradlab.load(arbitrary.save(tmp_path / "one.h5"))
    assert loaded.identities == arbitrary.identities
