"""The headline names the cause that a check has proved; without a look there is no green light."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradlab.probe.alarms.parts import FROZEN
from gradlab.runs.probe.results import load
from gradlab.verdicts.probe.first_screen import screen
from tests.probe.planted_probe import alarm, burst, window, written

WORDS = "the critic's targets have not moved for 500 updates: are the target networks updated?"


def test_the_cause_comes_before_the_symptom(tmp_path: Path) -> None:
    cause = alarm(1, 600, FROZEN) | {"message": WORDS}
    rows = {"vitals": [window(1)], "alarms": [alarm(0, 500, "exploding critic"), cause]}
    first = screen(load(written(tmp_path / "run.h5", rows)))
    assert first.headline.startswith("The critic's targets have not moved for 500 updates: are the")
    assert "The first fault was another: exploding critic" in first.headline
    assert first.light == "none"


@pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
def test_no_alarm_is_amber_and_says_what_is_not_known(tmp_path: Path, share: float) -> None:
    rows = {"vitals": [window(1)], "successive": [burst(40 * k, share) for k in range(1, 9)]}
    first = screen(load(written(tmp_path / "run.h5", rows, horizon=None, task="")))
    assert first.light == "choose" and "batches" not in first.headline
    assert "Whether a step helps is not known" in first.headline


def test_every_check_has_a_line_with_its_proof_and_its_cost(tmp_path: Path) -> None:
    about = {"update": 100, "step": 99, "threshold": 0.5}
    rows = {
        "vitals": [window(1)],
        "checks": [
            about | {"number": 0, "check": "targets follow", "state": "sound", "value": 0.005,
                     "proof": "a move closes 0.005 of the gap", "looks": 20, "seconds": 0.1},
            about | {"number": 1, "check": "advantages", "state": "off", "value": 0.0,
                     "proof": "not handed over", "looks": 0, "seconds": 0.0},
        ],
    }  # fmt: skip
    first = screen(load(written(tmp_path / "run.h5", rows)))
    told = [each.text for each in first.rest if each.about == "part"]
    assert told == [
        "Targets follow: yes, a move closes 0.005 of the gap; 20 looks, 0.1% of the time.",
        "Advantages: not looked at, not handed over.",
    ]
    assert first.sure == "1 of 2 checks of the loop's parts passed"
