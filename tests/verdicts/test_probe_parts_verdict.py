"""The headline names the cause that a check has proved; without a look there is no green light."""

import pytest

from gradlab.probe.alarms.evidence import DESCENT, FROZEN, STORED
from gradlab.probe.alarms.gradients import ENDED
from gradlab.runs.probe.results import load
from gradlab.verdicts.probe.first_screen import screen
from tests.probe.planted_probe import alarm, burst, window, written

WORDS = "the critic's targets have not moved for 500 updates: are the target networks updated?"


def test_the_cause_comes_before_the_symptom(tmp_path):
    cause = alarm(1, 600, FROZEN) | {"message": WORDS}
    rows = {"vitals": [window(1)], "alarms": [alarm(0, 500, "exploding critic"), cause]}
    first = screen(load(written(tmp_path / "run.h5", rows)))
    assert first.headline.startswith("The critic's targets have not moved for 500 updates: are the")
    assert first.headline.endswith("Seen from step 599 on. Symptom: exploding critic at step 499.")
    assert first.light == "none" and first.sure == "2 alarms in 600 updates"


def test_of_two_causes_the_one_upstream_comes_first_and_what_is_lost_is_the_symptom(tmp_path):
    dies = "the loop died at update 900 (ValueError): parameters are NaN (w) since its step"
    told = [(500, "learning rate too large"), (600, DESCENT), (700, STORED), (800, "dead path")]
    rows = [alarm(k, at, kind) | {"message": f"{kind}: look?"} for k, (at, kind) in enumerate(told)]
    rows.append(alarm(4, 900, ENDED) | {"message": dies})
    text = screen(
        load(written(tmp_path / "a.h5", {"vitals": [window(1)], "alarms": rows}))
    ).headline
    assert text == (
        f"{STORED.capitalize()}: look? Seen from step 699 on. Beside it: learning rate too large "
        f"(from step 499 on), {DESCENT} (from step 599 on). Symptom: {dies}. 1 more kind of alarm."
    )
    rows = [alarm(0, 800, "dead path"), rows[-1]]
    text = screen(
        load(written(tmp_path / "b.h5", {"vitals": [window(1)], "alarms": rows}))
    ).headline
    assert text == f"T{dies[1:]}. 1 more kind of alarm."


def test_a_symptom_without_a_cause_says_what_to_look_at_and_what_has_not_looked(tmp_path):
    symptom = alarm(0, 500, "exploding critic") | {"message": "it grows: look at the rewards"}
    off = {"update": 100, "step": 99, "number": 0, "check": "targets follow", "state": "off",
           "proof": "none", "value": 0.0, "threshold": 0.0, "looks": 0, "seconds": 0.0}  # fmt: skip
    rows = {"vitals": [window(1)], "alarms": [symptom], "checks": [off]}
    assert screen(load(written(tmp_path / "run.h5", rows))).headline == (
        "Mend this loop before you train on: exploding critic at step 499: look at the rewards. "
        "1 check of the loop's parts has not looked."
    )


@pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
def test_no_alarm_is_amber_and_says_what_is_not_known(tmp_path, share):
    rows = {"vitals": [window(1)], "successive": [burst(40 * k, share) for k in range(1, 9)]}
    first = screen(load(written(tmp_path / "run.h5", rows, horizon=None, task="")))
    assert first.light == "choose" and "batches" not in first.headline
    assert "Whether a step helps is not known" in first.headline


def test_every_check_has_a_line_with_its_proof_and_its_cost(tmp_path):
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
