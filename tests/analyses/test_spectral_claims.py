"""Claims on variance and growth: other ways to compute, planted tables, small runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.bounds import fitted_double_integrator
from analyses.bounds.tailed_gradients import (
    Dynamics,
    QuadraticCritic,
    exact_critic,
    tailed_gradient,
)
from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts
from analyses.jacobians import landscape, var_exp
from analyses.remedies import (
    cond1_learned,
    hopper_spectral,
    landscape_learned,
    sn_var,
    u_shape_learned,
    var_exp_learned,
)
from analyses.remedies.spectral_arms import ARMS, by_raw_weights, initial_policy, plain, tasks
from gradlab.networks import spectral
from gradlab.truth.lqr import costs_to_go

HORIZONS = var_exp.HORIZONS


def test_both_policies_start_from_the_same_weights_but_for_their_norms():
    task = tasks()["pendulum"][0]
    free, held = (initial_policy(task, 3, normalised) for normalised in (False, True))
    for layer, other in zip(
        (each for each in free.modules() if isinstance(each, torch.nn.Linear)),
        (each for each in held.modules() if hasattr(each, "in_features")),
        strict=True,
    ):
        ratio = layer.weight / other.weight
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)
    assert all(norm.values[0] == pytest.approx(1, abs=1e-5) for norm in spectral.norms(held))


def test_gradients_by_raw_weights_are_those_of_automatic_differentiation():
    policy = initial_policy(tasks()["cart-pole"][0], 0, normalised=True).double().eval()
    draw = torch.Generator().manual_seed(0)
    state = torch.randn(3, 4, generator=draw).double()
    noise = torch.randn(3, 1, generator=draw).double()

    def each_sample(network):
        rows = [
            torch.autograd.grad(network(state, noise)[k].sum(), list(network.parameters()))
            for k in range(3)
        ]
        names = [name for name, _ in network.named_parameters()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    baked = plain(policy)
    ours = torch.stack(
        [torch.cat([g.flatten() for g in row.values()]) for row in each_sample(baked)]
    )
    found = by_raw_weights(policy)(ours)
    raw = each_sample(policy)
    begin = 0
    for name, value in baked.named_parameters():
        part = found[:, begin : begin + value.numel()]
        begin += value.numel()
        theirs = name.replace(".weight", ".parametrizations.weight.original")
        expected = torch.stack([row[theirs if theirs in row else name].flatten() for row in raw])
        torch.testing.assert_close(part, expected, rtol=1e-8, atol=1e-12)


def test_a_plain_policy_has_one_set_of_coordinates():
    policy = initial_policy(tasks()["pendulum"][0], 0, normalised=False)
    gradients = torch.ones(2, sum(each.numel() for each in policy.parameters())).double()
    assert torch.equal(by_raw_weights(policy)(gradients), gradients)


def test_renormalised_weights_have_norm_one_at_every_point_and_biases_stay():
    draw = torch.Generator().manual_seed(0)
    moved = {"a.weight": torch.randn(4, 5, 3, generator=draw), "a.bias": torch.ones(4, 5)}
    found = landscape_learned.renormalised(moved)
    assert torch.linalg.svdvals(found["a.weight"])[:, 0].tolist() == pytest.approx([1.0] * 4)
    assert found["a.bias"] is moved["a.bias"]


def test_a_slice_of_an_unchanged_policy_does_not_depend_on_the_change_being_named():
    place = next(each for each in var_exp.worlds(small=True) if each.contracts)
    policy = var_exp.random_policy(place)
    same = landscape.slice_of(place, policy, 0, lambda moved: moved)
    assert np.array_equal(same, landscape.slice_of(place, policy, 0))
    still = landscape.slice_of(place, policy, 0, lambda moved: {k: 0 * v for k, v in moved.items()})
    assert np.ptp(still[0]) == 0 < np.ptp(same[0])


def test_the_ratio_over_trials_is_a_paired_students_interval_of_logs():
    gaps = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    second = np.exp(np.array([3.0, -2.0, 0.5, 1.0, 9.0]))
    value, low, high = sn_var.ratio(2 * np.exp(gaps) * second, second)
    half = 2.776445 * gaps.std(ddof=1) / np.sqrt(5)
    assert value == pytest.approx(2)
    assert np.log([low, high]) == pytest.approx([np.log(2) - half, np.log(2) + half], rel=1e-4)


def planted(ratio, slope_both, tasks_=("pendulum", "cart-pole")):
    """Variances that grow as e^{0.4 h}, divided by `ratio` at h = 15 where both are normalised."""
    noise = np.random.default_rng(0)
    rows = []
    for task in tasks_:
        for stage in sn_var.STAGES:
            for arm in ARMS:
                for seed in range(5):
                    for h in HORIZONS:
                        slope = slope_both if arm == "both" else 0.4
                        size = np.exp(6 + slope * (h - 15) + 0.05 * noise.standard_normal())
                        variance = size / (ratio if arm == "both" else 1)
                        rows.append(
                            {"task": task, "stage": stage, "arm": arm, "seed": seed, "h": h,
                             "variance": variance, "variance_raw": 2 * variance, "simulator": 1.0,
                             "relative_variance": 1.0 + 0.01 * noise.standard_normal(),
                             "distance": 0.5, "jacobian_error": 0.1, "explained": 0.9,
                             "last_norm": 2.0, "product_of_norms": 9.0,
                             "return": -1.0, "saturated": 0.0, "N": 256}
                        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("ratio", "slope", "holds"),
    [(20, 0.15, True), (9, 0.195, False), (11, 0.195, True), (40, 0.25, False)],
)
def test_only_a_tenth_of_the_variance_and_half_the_slope_meet_sn_var(ratio, slope, holds):
    verdict = sn_var.judge(planted(ratio, slope))
    assert verdict.holds == holds
    assert verdict.numbers["pendulum_improved_ratio_both"] == pytest.approx(ratio, rel=0.1)
    assert verdict.numbers["cart-pole_improved_slope_both"] == pytest.approx(slope, abs=0.01)
    assert hopper_spectral.judge(planted(ratio, slope)).holds == holds


def test_sn_var_needs_every_h_from_five_on():
    table = planted(20, 0.15)
    at = (table["arm"] == "both") & (table["h"] == 5)
    assert not sn_var.judge(table.assign(variance=table["variance"].mask(at, 1e9))).holds


def rough(long, normalised):
    rows = []
    noise = np.random.default_rng(0)
    for task in ("pendulum", "cart-pole"):
        for arm in (*ARMS, landscape_learned.BY_W):
            for seed in range(5):
                for h in landscape.HORIZONS:
                    value = 0.01 * (long if h == 15 else 1) * np.exp(0.01 * noise.standard_normal())
                    value *= normalised if arm == "both" and h == 15 else 1
                    rows.append({"task": task, "arm": arm, "seed": seed, "pair": 0, "h": h,
                                 "roughness": value})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("long", "normalised", "holds"), [(4, 0.4, True), (2, 0.4, False), (4, 0.6, False)]
)
def test_a_landscape_has_to_roughen_and_to_be_smoothed(long, normalised, holds):
    verdict = landscape_learned.judge(rough(long, normalised))
    assert verdict.holds == holds
    assert verdict.numbers["pendulum_longer"] == pytest.approx(long, rel=0.05)


def test_variances_over_seeds_are_geometric_means_with_each_left_out():
    variances = np.exp(np.random.default_rng(0).standard_normal((4, len(var_exp.ALL))))
    value, left_out = var_exp_learned.over_seeds(variances)[var_exp.ALL[2]]
    assert value == pytest.approx(variances[:, 2].prod() ** 0.25)
    assert left_out[1] == pytest.approx(np.delete(variances[:, 2], 1).prod() ** (1 / 3))


@pytest.mark.parametrize("horizon", [0, 1, 20, 80])
def test_gradients_with_a_critic_follow_the_exact_recursion(horizon):
    setting = u_shape_learned.settings()["double integrator, 0.1 of the optimal gain"]
    given, system, _ = fitted_double_integrator.make_setting(0.1)
    start = u_shape_learned.starts(setting)
    given = replace(given, moment=start.T @ start / len(start))
    critic = exact_critic(system, costs_to_go(system, given.weight, given.discount)[-1],
                          given.discount)  # fmt: skip
    found = u_shape_learned.gradients(setting, system, QuadraticCritic(critic), (horizon,))[0]
    true = Dynamics(system.A, system.B)
    expected = tailed_gradient(given, true, true, critic, horizon)[0]
    # Only the small process noise is drawn.
    assert float((found - expected).abs().sum() / expected.abs().sum()) < 0.02


def test_every_pendulum_policy_of_the_u_is_stable_and_hardly_clipped():
    for name, setting in u_shape_learned.settings().items():
        if name.startswith("pendulum"):
            out = setting.system.linearize(torch.zeros(1, 2).double(), torch.zeros(1, 1).double())
            closed = out.A[0] + out.B[0] @ setting.weight
            assert torch.linalg.eigvals(closed).abs().max() < 1
            first = u_shape_learned.starts(setting) @ setting.weight.T
            assert (first.abs() < 2.0).double().mean() > 0.95  # N m, the limit


def curves(learned):
    """Rows of one cell with a given curve of the learned arm."""
    noise = np.random.default_rng(0)
    true = np.exp(-0.1 * np.array(u_shape_learned.HORIZONS, dtype=float))
    return pd.DataFrame(
        {"system": "a", "n": 9, "seed": seed, "arm": arm, "horizon": h, "cosine": 1.0,
         "error": curve[k] * np.exp(0.01 * noise.standard_normal())}
        for arm, curve in zip(u_shape_learned.ARMS, (true, learned), strict=False)
        for seed in range(10)
        for k, h in enumerate(u_shape_learned.HORIZONS)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("learned", "holds"),
    [
        ((9, 8, 7, 5, 3, 4, 6, 9, 12, 19), True),
        ((9, 8, 7, 5, 3, 3, 3, 3.2, 3.3, 3.3), False),
        ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), False),
    ],
)
def test_only_a_fall_and_a_rise_are_a_u(learned, holds):
    assert u_shape_learned.judge(curves(learned)).holds == holds


def test_one_fit_that_is_not_linear_is_enough_to_deny_condition_1():
    steps = np.arange(1, 26)
    rows = [
        {"task": task, "seed": seed, "loop": loop, "noise": noise, "coordinate": "norm",
         "law": "linear", "exponent": 1.0, "exponent_low": 0.9, "exponent_high": 1.1, "rate": 0.1,
         "c_m": 1.0, **{f"error_{i}": float(i) for i in steps}}
        for task in ("path tracking", "inverted pendulum") for seed in range(2)
        for loop in cond1_learned.LOOPS for noise in (cond1_learned.MEAN, cond1_learned.DRAWN)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    assert cond1_learned.judge(table).holds
    one = table.copy()
    one.loc[one.index[one["noise"] == cond1_learned.MEAN][0], "law"] = "exponential"
    assert not cond1_learned.judge(one).holds


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [sn_var, landscape_learned, var_exp_learned, cond1_learned, u_shape_learned, hopper_spectral],
    ids=lambda script: script.__name__.split(".")[1],
)
def test_a_verdict_is_saved(script, tmp_path):
    verdict = script.measure(small=True)
    verdicts.save(verdict, tmp_path, "python -m analyses.this")
    stem = tmp_path / verdict.claim.lower()
    made = read_verdicts(tmp_path)[stem.name]
    assert np.isfinite(list(made["numbers"].values())).all()
    assert "nan" not in made["sentence"]
