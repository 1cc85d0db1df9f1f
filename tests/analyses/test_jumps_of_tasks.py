"""The table of what measurements say of a task's return, from their run files."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analyses.truths.jumps import said_of, table_of
from tests.runs.planted_gains import planted_jumps
from tests.verdicts.test_recommendation import PAPER, planted

ABOUT = {"commit": "0123456789", "wall_seconds": "90"}


def row_of(tmp_path, jumps):
    profile = planted(PAPER)
    truth = profile.truth | {"horizon": 40}
    profile = replace(profile, jumps=jumps, environment=ABOUT, truth=truth)
    return said_of("Hopper", profile.save(tmp_path / "Hopper.h5"))


def test_a_row_has_what_the_trial_found(tmp_path):
    row = row_of(tmp_path, planted_jumps("open", missing=300, lost=(0, 3, 9)))
    assert (row["task"], row["kind"], row["starts"]) == ("Hopper-v5", "open", 128)
    assert (row["jumping"], row["missing"], row["lost"]) == ("9 of 24", "300", "0, 3, 9")
    assert row["gap"] == "0.01 [-0.04, 0.06]" and row["promised"] == "104"
    assert row["minutes"] == 1.5 and row["commit"] == "01234567"


def test_what_was_not_tried_is_not_called_anything(tmp_path):
    row = row_of(tmp_path, None)
    assert row["kind"] == "not tried" and "starts" not in row
    lines = table_of(pd.DataFrame([row])).splitlines()
    assert lines[2].startswith("Hopper-v5 | not tried | – |") and lines[-1].startswith("- Hopper")
