"""What a loop is told that follows the critic alone, as SAC, TD3 and DDPG do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradlab.reporting import probe_page
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.verdicts.probe.findings import verdict
from gradlab.verdicts.probe.first_screen import SEEN_IN, screen
from gradlab.verdicts.probe.followed import followed
from tests.first_screens import check_first_screen
from tests.probe.planted_probe import H, alarm, measurement, window, written

SE = 0.05
LONGER = {"model": [0.1, 0.3, 0.7, 0.75], "true_dynamics": [0.8, 0.9, 0.95, 0.95]}


def judged(
    update: int, critic: float, longer: dict[str, list[float]] = LONGER, **more: Any
) -> dict[str, Any]:
    """A measurement with these cosines, the critic's at h = 0."""
    value = np.full((len(ESTIMATORS), H + 1), np.nan)
    value[0, 0] = critic
    for name, over in longer.items():
        value[ESTIMATORS.index(name), 1:] = over
    return measurement(
        update, cosine=value, cosine_low=value - 2 * SE, cosine_high=value + 2 * SE,
        cosine_se=np.full_like(value, SE), **more,
    )  # fmt: skip


def run(path: Path, *measured: dict[str, Any], alarms: Any = (), alone: bool = True) -> ProbeRun:
    rows = {"vitals": [window(k) for k in range(1, 31)], "measured": measured, "alarms": alarms}
    return load(written(path, rows, critic_alone=alone))


def test_the_headline_is_about_the_gradient_that_the_loop_follows(tmp_path):
    raised = [alarm(0, 400, "wrong direction")]
    found = run(tmp_path / "run.h5", judged(400, -0.71), alarms=raised)
    first = screen(found)
    assert first.headline.startswith(
        "At step 399 a step along the actor's gradient lowered the return: cosine −0.71 (CI −0.81 "
        "to −0.61); one measurement, not measured since (2,600 steps ago)."
    )
    assert "improve the critic" in first.headline
    assert "3–4 model steps would raise it." in first.headline
    assert first.headline.index("critic") < first.headline.index("3–4 model")
    assert first.light == "none" and first.figure == "cosine"


@pytest.mark.parametrize(
    ("critic", "direction", "light"),
    [(-0.71, "lowered", "none"), (0.71, "raised", "act"), (0.05, "unknown", "choose")],
)
def test_the_newest_measurement_decides(tmp_path, critic, direction, light):
    found = run(tmp_path / "run.h5", judged(400, -critic), judged(3000, critic))
    own = followed(found)
    assert own is not None and own.direction == direction and screen(found).light == light
    assert own.since == 0 and "the newest of 2 measurements" in own.text and "since" not in own.text
    (told,) = [each for each in verdict(found) if each.about == "gain"]
    assert told.text == own.text and told.decided == (direction != "unknown")


def test_an_alarm_of_long_ago_does_not_outweigh_the_newest_measurement(tmp_path):
    raised = [alarm(0, 400, "wrong direction")]
    found = run(tmp_path / "run.h5", judged(400, -0.7), judged(3000, 0.7), alarms=raised)
    assert screen(found).light == "act"


def test_another_fault_comes_first_and_the_direction_after_it(tmp_path):
    raised = [alarm(0, 300, "wrong direction"), alarm(1, 500, "saturated actor")]
    first = screen(run(tmp_path / "run.h5", judged(400, -0.7), alarms=raised))
    assert first.headline.startswith("Saturated actor at step")
    end = "At step 399 a step along the actor's gradient lowered the return."
    assert first.headline.endswith(end)
    assert first.sure == "1 alarm in 3,000 updates" and first.figure == "saturation"


def test_a_loop_that_has_not_said_what_it_follows_keeps_its_sentence(tmp_path):
    raised = [alarm(0, 400, "wrong direction")]
    found = run(tmp_path / "run.h5", judged(400, -0.71), alarms=raised, alone=False)
    assert followed(found) is None
    first = screen(found)
    assert first.headline.startswith("Wrong direction at step")
    assert first.figure == "cosine"


def test_the_first_screen_holds_its_words(tab, tmp_path):
    page = probe_page.page(run(tmp_path / "run.h5", judged(400, -0.71)))
    check_first_screen(tab, page, tmp_path)


def test_every_figure_of_a_fault_is_a_panel():
    from gradlab.reporting.probe_panels import CAPTIONS

    assert set(SEEN_IN.values()) <= set(CAPTIONS)
