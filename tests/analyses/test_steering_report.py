"""The page of steering: outcomes of planted shares, averages over a run."""

from __future__ import annotations

import numpy as np
import pytest

from analyses.steering import linear_quadratic as lq
from analyses.steering import report, training


def planted(ahead: float, ahead_at_equal_steps: float) -> list[dict]:
    """Worlds in which every arm has the share .5 and rehearse and accept are ahead."""
    rows = []
    for family in ("mild", "hard"):
        for seed in range(20):
            for arm in lq.ARMS:
                better = arm in ("rehearse", "accept")
                noise = 0.01 * np.sin(seed)
                share = 0.5 + better * (ahead + noise)
                equal = 0.5 + better * (ahead_at_equal_steps + noise)
                rows.append({
                    "family": family, "seed": seed, "arm": arm, "share": [0.1, 0.2, 0.3, share],
                    "equal_steps": equal, "held": 0.5,
                })  # fmt: skip
    return rows


def test_an_arm_pays_where_it_is_ahead_at_both_budgets():
    said = report.judge(planted(0.2, -0.1)).splitlines()
    assert ["pays" in line for line in said] == [True, False, True, False]
    assert ["refuted" in line for line in said] == [False, True, False, True]


def test_worlds_below_their_start_do_not_pay():
    rows = planted(0.2, 0.2)
    for row in rows:
        if row["arm"] == "rehearse" and row["seed"] < 2:
            row["share"] = [0.0, 0.0, 0.0, -0.01]
    assert "undecided" in report.judge(rows).splitlines()[0]


def test_the_best_fixed_is_that_of_each_world():
    rows = planted(0.2, 0.2)
    for row in rows:
        if row["arm"] == f"fixed {lq.HORIZONS[row['seed'] % 4]}":
            row["share"][-1] = 0.9
    wide = report.shares_of(rows, "mild", steps=False)
    assert (wide[report.BEST] == 0.9).all() and (wide["fixed 0"] == 0.9).sum() == 5


def test_an_interval_of_worlds_covers_a_mean():
    generator = np.random.default_rng(1)
    drawn = [report.interval_of(1 + generator.normal(size=30), 400) for _ in range(200)]
    met = [low < 1.0 < high for _, low, high in drawn]
    assert np.mean(met) > 0.88


def test_a_return_is_averaged_up_to_where_it_is_asked_for():
    row = {"seconds": [0.0, 10.0, 20.0], "returns": [0.0, 10.0, 10.0]}
    assert report.averaged(row, "seconds", 20.0) == pytest.approx(7.5)
    assert report.averaged(row, "seconds", 15.0) == pytest.approx((50 + 50) / 15)


def trained(ahead: float, ahead_late: float, arms=training.ARMS) -> list[dict]:
    """Hopper: at equal iterations both steered arms are ahead by `ahead`; they take twice the
    seconds, and at those of the fixed ones they are ahead by `ahead_late`."""
    rows = []
    for arm in arms:
        better = arm in training.STEERED
        for seed in range(6):
            early, late = (0.5 * ahead_late, ahead_late) if better else (0.0, 0.0)
            end = 4 * ahead - 2 * early - 2 * late + 0.01 * np.sin(seed) if better else late
            returns = [0.0, 2 * early, 2 * early, end]
            rows.append({
                "task": "Hopper-v5", "arm": arm, "seed": seed, "iterations": [0, 1, 2, 3],
                "returns": [each + 0.01 * np.sin(seed + 7 * better) for each in returns],
                "seconds": [(1 + better) * k for k in range(4)], "transitions": [0, 1, 2, 3],
                "judged": [0] * 4, "held": 0.5 if better else None,
            })  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("ahead", "late", "word"),
    [(9.0, 5.0, "**pays**"), (9.0, -5.0, "**refuted**"), (9.0, 0.0, "only at equal iterations")],
)
def test_learned_models_are_judged_at_equal_seconds(ahead, late, word):
    said = report.judge_learned(trained(ahead, late)).splitlines()
    hopper = [line for line in said if line.startswith("- Hopper-v5")]
    assert len(hopper) == 2 and all(word in line for line in hopper)


def test_what_is_not_over_is_not_judged():
    said = report.judge_learned(trained(1.0, 1.0, arms=("rule", "h0")))
    assert "- Hopper-v5: not over, 2 of 6 arms." in said and "**" not in said


def test_seeds_that_end_below_their_start_are_counted():
    rows = trained(1.0, 1.0, arms=("h0",))
    rows[0]["returns"][-1] = rows[0]["returns"][0] - 1
    assert report.below([rows[0]]) == 1 and report.below(rows[1:2]) == 0
