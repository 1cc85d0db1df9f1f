"""The step that a probe recommends, from cosines at visited states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradlab.reporting import probe_page
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.verdicts.probe.findings import verdict
from gradlab.verdicts.probe.followed import facts_of
from tests.probe.planted_probe import H, measurement, written

SE = 0.02


def run(path: Path, cosines: dict[str, list[float]], law: str = "visited") -> ProbeRun:
    value = np.full((len(ESTIMATORS), H + 1), np.nan)
    for name, over in cosines.items():
        value[ESTIMATORS.index(name), : len(over)] = over
    row = measurement(
        400, cosine=value, cosine_low=value - 2 * SE, cosine_high=value + 2 * SE,
        cosine_se=np.full_like(value, SE),
    )  # fmt: skip
    found = load(written(path, {"measured": [row]}))
    return replace(found, config={**found.config, "law": law})


BACKWARDS = {
    "data": [-0.8],
    "model": [-0.8, -0.5, 0.2, 0.7, 0.75],
    "mixed": [-0.8, 0.9, 0.9, 0.9, 0.9],
}


def test_the_newest_measurement_recommends_a_step(tmp_path):
    found = run(tmp_path / "run.h5", BACKWARDS)
    facts = facts_of(found)
    assert facts is not None
    assert facts.best == ("model", 4) and facts.close(facts.best) == [3, 4]
    assert facts.gains["data", 0].high < 0 and ("model", 0) not in facts.gains
    (told,) = [each for each in verdict(found) if each.about == "gain"]
    assert not told.decided and "3–4 steps" in told.text


@pytest.mark.parametrize("law", ["start", None])
def test_cosines_at_the_starts_are_no_gains(tmp_path, law):
    found = run(tmp_path / "run.h5", BACKWARDS, law=law)  # type: ignore[arg-type]
    assert facts_of(found) is None
    assert not [each for each in verdict(found) if each.about == "gain"]


def test_the_recommended_step_heads_the_page_of_a_sound_loop(tmp_path):
    screen = probe_page.page(run(tmp_path / "run.h5", BACKWARDS)).screen
    assert "3–4 steps" in screen.headline and screen.sure.endswith("no alarm")
    assert screen.light == "choose"  # no step along it was taken
