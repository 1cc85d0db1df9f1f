"""`measure` finds the known answer where the answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import machine
from gradlab.data.noise import stream
from gradlab.data.trajectories import Path
from gradlab.errors import InputError
from gradlab.networks.mlp import QCritic
from gradlab.tasks import double_integrator
from gradlab.truth.lqr import lqr_gradient
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


def test_a_seed_reproduces_a_profile_and_leaves_the_global_stream_alone():
    task = scalar_task()
    torch.manual_seed(1)
    first = gradlab.measure(task, scalar_policy(), Quadratic(), horizon=2, starts=16, seed=5)
    after = torch.rand(1)
    torch.manual_seed(1)
    again = gradlab.measure(task, scalar_policy(), Quadratic(), horizon=2, starts=16, seed=5)
    assert torch.equal(torch.rand(1), after)
    assert first.table().equals(again.table())
    other = gradlab.measure(task, scalar_policy(), Quadratic(), horizon=2, starts=16, seed=6)
    assert not first.table().equals(other.table())


def test_the_users_networks_stay_as_they_are():
    policy = scalar_policy().float()
    gradlab.measure(scalar_task(), policy, Quadratic(), horizon=1, starts=16)
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
    names = set(gradlab.measure(task, scalar_policy(), Quadratic(), starts=16).table().estimator)
    assert names == {"data", "true_dynamics", "true_dynamics_all"}


def test_an_unstable_policy_leaves_variances_only():
    task = scalar_task()
    profile = gradlab.measure(task, scalar_policy(-1.5), Quadratic(), horizon=60, starts=16)
    assert not profile.truth["admissible"]
    assert set(profile.table().quantity) == {"mean_norm", "variance", "snr", "tail_index"}
    assert "λ" in profile.truth["reason"]


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

    table = gradlab.measure(scalar_task(), scalar_policy(), Broken(), horizon=1).table()
    row = table.query("estimator == 'data' and quantity == 'bias2'").iloc[0]
    assert math.isnan(row.value)
    assert "not finite" in row.method


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(horizon=-1), "horizon is -1"),
        (dict(horizon=10**8), "8 starts × .* MB of each at horizon 100000000 are .* GB"),
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
    with pytest.raises(InputError, match=r"5000 starts × .* GB .*Jacobians by differences"):
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
