"""False alarms stay below the stated rate over a whole run."""

from __future__ import annotations

import numpy as np
import pytest

from gradlab.probe.alarms.evidence import ALPHA, AlarmEvidence
from gradlab.probe.alarms.gradients import noise
from gradlab.probe.alarms.policy import saturated
from gradlab.probe.alarms.task import jacobian_drift
from tests.probe.planted_rows import burst, measured, vitals


def test_levels_over_all_looks_sum_to_the_stated_rate():
    total = sum(AlarmEvidence([{}], k).level for k in range(1, 100_001))
    assert total == pytest.approx(ALPHA, rel=1e-4)


@pytest.mark.slow
def test_noise_rings_falsely_in_at_most_the_stated_share_of_runs():
    """At the worst gradient of the hypothesis, whose cosine is exactly 0.1, over 40 looks."""
    size = (200 * 0.01 / 0.99) ** 0.5
    false = 0
    for run in range(200):
        rows = [burst(size, 1000 * run + k) for k in range(40)]
        looks = (AlarmEvidence(rows[:k], k) for k in range(1, 41))
        false += any(noise(look) is not None for look in looks)
    assert false <= 6  # 200 · 1% = 2 expected at most; 6 or more has probability 0.02


def test_saturation_rings_falsely_in_at_most_the_stated_share_of_runs():
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(500):
        shares = generator.binomial(100, 0.5, size=(40, 1)) / 100
        rows = [vitals(saturation=share) for share in shares]
        false += any(saturated(AlarmEvidence(rows[: k + 1], k + 1)) for k in range(len(rows)))
    assert false <= 12


def test_an_actor_that_saturates_late_in_a_long_run_rings():
    """Each row has 25 passes: alone, none could ring at the level of its ten-thousandth look."""
    rows = [vitals(saturation=np.array([0.1, 0.97]), watched=25)] * 16
    assert saturated(AlarmEvidence(rows[:1], 10_000)) is None
    assert saturated(AlarmEvidence(rows, 10_000)) is not None


def test_drift_rings_falsely_in_at_most_the_stated_share_of_runs():
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(1000):
        errors = generator.normal(-1.0, 0.1, size=40)
        rows = [measured(jacobian_error=error) for error in errors]
        looks = (AlarmEvidence(rows[:k], k) for k in range(1, 41))
        false += any(jacobian_drift(look) is not None for look in looks)
    assert false <= 20
