"""Whose the crossing of MPG's biases is: verdicts from planted ratios, and one prior exchanged."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.horizons import early_late_arms as arms
from analyses.horizons import early_late_arms_report as report
from analyses.horizons import early_late_exchange as exchange
from analyses.horizons.checkpoint_samples import HORIZON
from gradlab.systems.vehicle import VehicleModel

ORDER = sorted(arms.CHECKPOINTS)
RISING = dict(zip(ORDER, (0.2, 0.3, 0.6, 0.85, 1.2, 1.5, 3.0), strict=True))
FALLING = dict.fromkeys(ORDER, 0.5)


def rows(published, offset, factor, shift=0.02):
    """Rows of the measurement: every seed near the ratios given for each arm."""
    ratios = {"published": published, "no offset": offset, "factor 1": factor}
    return pd.DataFrame(
        {"arm": arm, "prior": prior, "iteration": step, "seed": seed, "horizon": HORIZON,
         "quantity": "bias_ratio", "value": curve[step] * (1 + shift * (seed - 11.5))}
        for arm, curve in ratios.items()
        for prior in arms.PRIORS
        for step in ORDER
        for seed in arms.SEEDS
    )  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "factor", "words"),
    [
        (RISING, RISING, ["is no property of the offset", "is no property of the factor",
                          "has the right moment"]),
        (FALLING, RISING, ["is a property of the offset", "is no property of the factor",
                           "is not shown to have the right moment"]),
        (RISING, FALLING, ["is no property of the offset", "is a property of the factor",
                           "is not shown to have the right moment"]),
    ],
)  # fmt: skip
def test_late_belongs_to_the_part_without_which_it_does_not_come(offset, factor, words):
    verdict = report.judge(rows(RISING, offset, factor))
    assert all(word in verdict.sentence for word in words)
    assert verdict.holds == (offset is factor is RISING)


def test_seeds_that_differ_leave_it_open():
    verdict = report.judge(rows(RISING, dict.fromkeys(ORDER, 0.9), RISING, shift=0.5))
    assert "is not shown to be a property of the offset" in verdict.sentence


def test_the_mean_over_seeds_has_students_interval_and_none_where_a_seed_is_lost():
    values = pd.Series([0.5, 1.0, 2.0, 4.0])
    found = report.over_seeds(values)
    half = 3.182446 * np.log(values).std() / 2
    assert found["value"] == pytest.approx(2**0.5)
    assert np.log(found["high"] / found["value"]) == pytest.approx(half)
    assert np.isnan(report.over_seeds(values[:3])["value"])
    assert np.isnan(report.over_seeds(pd.Series([0.5, np.nan, 2.0, 4.0]))["low"])


def test_one_crossing_too_early_or_never_is_not_the_right_moment():
    assert report.right_moment([4400.0, 4450.0, 4550.0, 4600.0])
    assert not report.right_moment([1000.0, 1010.0, 1020.0, 1030.0])
    assert not report.right_moment([4400.0, 4450.0, np.nan, 4600.0])


def test_the_priors_differ_by_the_offset_alone():
    draw = torch.Generator().manual_seed(0)
    state = torch.randn(5, 6, generator=draw, dtype=torch.float64)
    action = 0.1 * torch.randn(5, 2, generator=draw, dtype=torch.float64)
    noise = torch.randn(5, 1, generator=draw, dtype=torch.float64)
    published, without = (prior.step(state, action, noise) for prior in arms.PRIORS.values())
    gap = published.state - without.state
    torch.testing.assert_close(gap, torch.tensor([0, 0, 0, 0.5, 0, 0]).double().expand(5, 6))
    assert arms.PRIORS["published"] == VehicleModel()


def exchanged(ratio, gap):
    """Rows of an exchange: the published prior's ratios rise, those of the other end at `ratio`."""
    made = []
    for law in exchange.LAWS:
        for step in exchange.ITERATIONS:
            for prior in arms.PRIORS:
                last = step == exchange.LAST and prior == "no offset"
                value, off = (ratio, gap) if last else (2.0, 1.0)
                cell = {"law": law, "iteration": step, "prior": prior, "horizon": HORIZON}
                made += [
                    cell | {"quantity": name, "value": x, "ci_low": x - 0.1, "ci_high": x + 0.1}
                    for name, x in (("bias_ratio", value), ("bias_gap", off))
                ]
    return pd.DataFrame(made)


@pytest.mark.parametrize(
    ("ratio", "gap", "opening", "holds"),
    [(0.5, -1.0, "Yes", True), (2.0, 1.0, "No", False), (1.0, 0.0, "Only partly", False)],
)
def test_the_exchange_is_judged_by_the_sign_at_the_last_checkpoint(ratio, gap, opening, holds):
    verdict = exchange.judge(exchanged(ratio, gap))
    assert verdict.sentence.startswith(opening) and verdict.holds == holds
    assert "nan" not in verdict.sentence
