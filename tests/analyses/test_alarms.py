"""The alarms: rates against known laws, and runs with planted faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gradlab
from analyses.alarms import alarm_rates, alarm_tails, alarm_worlds, probe_runs
from gradlab.runs.probe.results import load


def test_steps_that_undo_each_other_have_the_share_of_the_closed_form() -> None:
    shares = [alarm_worlds.with_steps(0.5, 120, seed)[0] for seed in range(3)]
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


@pytest.mark.slow
def test_planted_faults_ring_and_are_kept_with_the_page(tmp_path: Path) -> None:
    """Three bursts and a first window must lie before the samples that are lost, from half-way on:
    the probe pays for its start before it takes bursts."""
    run = tmp_path / "faults.h5"
    probe_runs.train(gradlab.tasks.path_tracking(), run, updates=1000, faulty=True)
    told = set(load(run).alarms["alarm"])
    assert {"saturated actor", "dead inputs", "origin of a non-finite gradient"} <= told
    probe_runs.freeze(run)
    made = json.loads(run.with_suffix(".json").read_text())
    assert set(made["alarms"]) == told and made["verdict"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "faults.h5", "faults.html", "faults.json",
    ]  # fmt: skip


def test_a_sound_loop_rings_nothing(tmp_path: Path) -> None:
    run = tmp_path / "sound.h5"
    probe_runs.train(gradlab.tasks.path_tracking(), run, updates=120, faulty=False)
    found = load(run)
    assert not found.alarms and found.updates == 120 and found.vitals["marked"].all()
