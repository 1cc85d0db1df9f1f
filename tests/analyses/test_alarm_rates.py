"""The worlds in which alarms are tried have the closed forms that they claim."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyses.alarms import alarm_rates, alarm_tails, alarm_worlds


def test_steps_that_undo_each_other_have_the_share_of_the_closed_form() -> None:
    shares = [alarm_worlds.with_steps(0.5, 120, seed)[0] for seed in range(5)]
    assert abs(np.mean(shares) + 0.25) < 0.05


def test_a_replay_has_the_signal_of_what_it_holds() -> None:
    shares = [alarm_worlds.noisy("replay", 0.5, 70, seed)[0] for seed in range(5)]
    assert abs(np.mean(shares) - alarm_worlds.expected("replay", 0.5)) < 0.06


def test_a_planted_fault_rings_within_a_few_measurements_and_a_sound_loop_does_not() -> None:
    assert alarm_worlds.loop("none", 0.0, 2, 0) == {}
    assert "wrong direction" in alarm_worlds.loop("sign", -1.0, 2, 0)


def test_quantiles_hold_on_a_small_sample() -> None:
    table = pd.DataFrame(alarm_tails.rows(1000))
    assert (table["0.005"] <= 0.013).all()  # 5 of 1000 expected at most; 13 has probability 0.002


def test_an_interval_of_a_rate_is_exact() -> None:
    row = alarm_rates.row_of("none", 0.0, "kind", [np.inf] * 100)
    assert row["rang"] == 0.0 and abs(float(str(row["high"])) - 0.0362) < 1e-4
