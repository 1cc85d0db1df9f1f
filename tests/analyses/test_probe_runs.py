"""The faults that are planted into a loop are found, and the loop without them rings nothing."""

import json
from pathlib import Path

import pytest

import gradlab
from analyses.alarms import probe_runs
from gradlab.runs.probe.results import load


@pytest.mark.slow
def test_planted_faults_ring_and_are_kept_with_the_page(tmp_path: Path) -> None:
    run = tmp_path / "faults.h5"
    probe_runs.train(gradlab.tasks.path_tracking(), run, updates=120, faulty=True)
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
