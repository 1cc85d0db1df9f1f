"""Every claim's script, run small: the verdict points the right way, and it could have failed."""

import math

import pandas as pd
import pytest
import torch

from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts
from analyses.identities import (
    dp_vs_dr,
    k_samples,
    one_over_n,
    quadratic_design,
    scalar_lq,
    thm1_mpg,
    thm1_mpg_j,
    time_over_horizon,
)
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail

pytestmark = pytest.mark.slow  # what a finished study computes anew

SCRIPTS = (thm1_mpg, thm1_mpg_j, time_over_horizon, one_over_n, k_samples, dp_vs_dr)


@pytest.fixture(scope="module")
def small():
    return {script: script.measure(small=True) for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.split(".")[1])
def test_a_verdict_is_saved_with_its_numbers_picture_and_a_row_of_the_table(
    script, small, tmp_path, capsys
):
    verdict = small[script]
    verdicts.save(verdict, tmp_path, "python -m analyses.this")
    verdicts.main(tmp_path)
    stem = tmp_path / verdict.claim.lower()
    made = read_verdicts(tmp_path)[stem.name]
    assert made["sentence"] in capsys.readouterr().out
    assert made["environment"]["commit"]
    assert all(math.isfinite(value) for value in made["numbers"].values())
    assert len(pd.read_csv(stem.with_suffix(".csv"))) == len(verdict.table)
    page = tmp_path / "README.md"
    assert verdict.claim in page.read_text()
    page.write_text(page.read_text() + "\n## Below\n\nBy hand.\n")
    table = page.read_text()
    verdicts.main(tmp_path)
    assert page.read_text() == table
    page.write_text(table + "\n## What to do\n\nThis.\n")
    for _ in range(2):
        verdicts.main(tmp_path)
        order = [page.read_text().index(each) for each in ("This.", made["sentence"], "By hand.")]
        assert order == sorted(order) and page.read_text().count("## ") == 3


def test_exact_expectations_are_deterministic():
    again = thm1_mpg.measure(small=True)
    pd.testing.assert_frame_equal(again.table, thm1_mpg.measure(small=True).table)


def test_the_design_has_exactly_the_moments_asked_for():
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    starts, noise = quadratic_design.design(mean, covariance, 5)
    columns = torch.cat([starts - mean, *noise], dim=1)
    expected = torch.block_diag(covariance, torch.eye(10, dtype=torch.float64))
    torch.testing.assert_close(starts.mean(dim=0), mean)
    torch.testing.assert_close(columns.T @ columns / len(columns), expected, atol=1e-12, rtol=0)


def test_the_theorem_fails_as_printed_and_holds_with_the_omitted_term_or_a_frozen_tail(small):
    numbers = small[thm1_mpg].numbers
    assert small[thm1_mpg].holds
    assert numbers["printed_error_least"] > 0.1
    assert numbers["n1_model_gradient"] * numbers["n1_printed_sum"] < 0
    assert numbers["with_term_error"] < 1e-12
    assert numbers["detached_error"] < 1e-12
    assert numbers["not_stationary_error"] > 0.1
    assert numbers["not_stationary_followed_error"] < 1e-12
    assert numbers["ways_differ_by"] < 1e-12


def test_the_theorem_is_rejected_when_the_tail_action_was_not_frozen(small):
    table = small[thm1_mpg].table
    swapped = {"attached": "detached", "detached": "attached"}
    assert not thm1_mpg.judge(table.assign(tail_action=table["tail_action"].map(swapped))).holds


def test_the_journal_s_identity_is_exact_in_the_limit_and_wrong_at_short_horizons(small):
    verdict = small[thm1_mpg_j]
    assert verdict.numbers["exact_error"] < 1e-8
    assert verdict.numbers["error_against_lyapunov"] < 1e-8
    assert verdict.numbers["data_error"] < 1e-12
    assert verdict.numbers["error_at_25"] > 0.1
    assert verdict.numbers["not_stationary_error"] > 0.1
    assert not verdict.holds  # small samples n = 25, where the two sides differ


def test_a_biased_sample_fails_the_journal_s_monte_carlo_part(small):
    world, table = scalar_lq.World(), small[thm1_mpg_j].table
    samples = thm1_mpg_j.monte_carlo(world, 1, 5)
    same = samples[0].expand(2, -1).clone()
    assert thm1_mpg_j.judge(world, table, same).holds
    assert not thm1_mpg_j.judge(world, table, same * samples.new_tensor([[1.0], [1.1]])).holds


def test_gradients_take_longer_over_longer_horizons(small):
    assert small[time_over_horizon].numbers["all_ratio"] > 3
    assert small[time_over_horizon].numbers["first_ratio"] > 3


@pytest.mark.parametrize(
    ("law", "holds"),
    [(lambda h: 1 + h, True), (lambda h: 1 + h**2, False), (lambda h: 10 + 0.1 * h, False)],
)
def test_only_a_steep_line_is_called_linear(law, holds):
    rows = [
        {"block": block, "gradient": name, "horizon": h, "seconds": law(h)}
        for block in range(3)
        for name in (time_over_horizon.PAPER, time_over_horizon.ONE, time_over_horizon.SWEEP)
        for h in time_over_horizon.HORIZONS
    ]
    assert time_over_horizon.judge(pd.DataFrame(rows)).holds == holds


def test_the_variance_falls_as_one_over_n_but_not_with_samples_of_one_start(small):
    numbers = small[one_over_n].numbers
    for key in ("dp", "dr"):
        assert numbers[f"{key}_low"] - 0.05 < -1 < numbers[f"{key}_high"] + 0.05
    assert numbers["control_low"] > -1


def test_another_slope_is_rejected(small):
    table = small[one_over_n].table.assign(relative_se=0.001)
    assert not one_over_n.judge(table.assign(variance=table["N"] ** -0.9), 150).holds
    assert one_over_n.judge(table.assign(variance=table["N"] ** -1.0), 150).holds


def test_several_samples_per_start_follow_the_two_part_formula(small):
    ratio = small[k_samples].table["variance"] / small[k_samples].table["predicted"]
    assert ((ratio - 1).abs() < 0.2).all()
    several = small[k_samples].table.query("K > 1")
    assert (several["predicted_independent"] < 0.8 * several["variance"]).all()


def test_the_formula_without_the_start_states_share_is_rejected(small):
    table = small[k_samples].table
    exact = table.assign(variance=table["predicted"], relative_se=0.001)
    assert k_samples.judge(exact, 1.0, 1.0, 10).holds
    naive = exact.assign(predicted=exact["predicted_independent"])
    assert not k_samples.judge(naive, 1.0, 1.0, 10).holds


def test_derivatives_on_simulator_states_are_less_biased_at_longer_horizons(small):
    numbers = small[dp_vs_dr].numbers
    assert numbers["bias_ratio_high_h5_error0.05"] < 1


def test_swapping_the_two_estimators_turns_their_ratio_around(small):
    table = small[dp_vs_dr].table
    swapped = table.assign(gradient=table["gradient"].map({"DP": "DR", "DR": "DP"}))
    assert dp_vs_dr.judge(swapped).numbers["bias_ratio_low_h5_error0.05"] > 1
    better = table.assign(bias=table["bias"].where(table["gradient"] == "DP", 0.5 * 1e-9))
    assert dp_vs_dr.judge(better).holds


def test_the_exact_critic_makes_the_true_model_s_gradient_approach_the_truth():
    world = dp_vs_dr.make_world()
    starts, noise = quadratic_design.design(world.start_mean, world.start_covariance, 200)
    system = quadratic_design.Designed(world.system, noise)
    tail = Tail(200, world.critic, dp_vs_dr.DISCOUNT)
    found = Estimator(system, system, "all", tail).mean_gradient(world.policy, starts, 0)
    # Only θ in the actions after the tail is left out, of weight γ²⁰⁰ = 3.5e-5.
    torch.testing.assert_close(found, world.truth, rtol=1e-3, atol=1e-3 * world.truth.norm().item())
