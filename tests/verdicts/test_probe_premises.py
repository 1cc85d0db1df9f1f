"""A probe says first what leaves nothing to decide, and recommends nothing from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradlab.runs.probe.results import load
from gradlab.verdicts.probe.first_screen import screen
from gradlab.verdicts.probe.premises import void
from gradlab.verdicts.probe.sentences import verdict
from tests.probe.planted_probe import everything, measurement, written

SAME = measurement(1, error=1e-12)["bias2"]
SAME = np.stack([SAME[0], SAME[3], SAME[2], SAME[3]])


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"reward_max": 0.0, "truth_norm": 0.0}, "The reward is 0 on every path"),
        ({"truth_norm": 0.0}, "The true gradient is exactly 0"),
        ({"bias2": SAME, "jacobian_error": np.log(1e-12)}, "The model is the simulator itself"),
        ({"bias2": SAME, "jacobian_error": -np.inf}, "The model is the simulator itself"),
    ],
)
def test_it_is_the_first_sentence(changes: dict[str, Any], first: str, tmp_path: Path) -> None:
    rows = {k: v for k, v in everything().items() if k != "alarms"}
    rows["measured"] = [measurement(900, **changes)]
    run = load(written(tmp_path / "run.h5", rows))
    found = screen(run)
    assert found.headline.startswith(first)
    assert (found.light, found.sure) == ("none", "nothing is decided")
    told = verdict(run)
    assert told[0].text == found.headline
    assert not {"gain", "horizon", "rivals", "weights", "source"} & {each.about for each in told}


def test_a_sound_run_has_no_such_sentence(tmp_path: Path) -> None:
    rows = everything()
    assert void(load(written(tmp_path / "run.h5", rows))) == ()
    rows["measured"] = [measurement(900, bias2=SAME)]  # as small a bias, by other Jacobians
    assert void(load(written(tmp_path / "other.h5", rows))) == ()
