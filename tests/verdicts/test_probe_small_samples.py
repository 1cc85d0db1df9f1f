"""A probe with fewer starts than intervals were tested with decides nothing from them."""

import pytest

from gradlab.probe.alarms.evidence import FEWEST
from gradlab.runs.probe.results import load
from gradlab.verdicts.probe.measured import OF_INTERVALS
from gradlab.verdicts.probe.sentences import verdict
from tests.probe.planted_probe import measurement, written


@pytest.mark.parametrize("starts", [FEWEST // 2, FEWEST])
def test_sentences_on_intervals_decide_from_enough_starts_only(tmp_path, starts):
    rows = [measurement(400, starts=starts)]
    sentences = verdict(load(written(tmp_path / "run.h5", {"measured": rows})))
    resting = [each for each in sentences if each.about in OF_INTERVALS]
    few = starts < FEWEST
    assert len(resting) > 4
    assert all(each.text.startswith("Not reliable below 64 starts: ") == few for each in resting)
    assert any(each.decided for each in resting) is not few
