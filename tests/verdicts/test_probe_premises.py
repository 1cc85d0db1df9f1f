"""A probe says first what leaves nothing to decide, and recommends nothing from it."""

import numpy as np
import pytest

from gradlab.runs.probe.results import load
from gradlab.verdicts.probe.first_screen import screen
from gradlab.verdicts.probe.followed import void
from gradlab.verdicts.probe.sentences import verdict
from tests.probe.planted_probe import everything, measurement, written


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"reward_max": 0.0, "truth_norm": 0.0}, "The reward is 0 on every path"),
        ({"truth_norm": 0.0}, "The true gradient is exactly 0"),
    ],
)
def test_it_is_the_first_sentence(changes, first, tmp_path):
    rows = {k: v for k, v in everything().items() if k != "alarms"}
    rows["measured"] = [measurement(900, **changes)]
    run = load(written(tmp_path / "run.h5", rows))
    found = screen(run)
    assert found.headline.startswith(first)
    assert (found.light, found.sure) == ("none", "nothing is decided")
    told = verdict(run)
    assert told[0].text == found.headline
    assert not {"gain", "horizon", "rivals", "weights", "source"} & {each.about for each in told}


def test_a_sound_run_has_no_such_sentence(tmp_path):
    rows = everything()
    assert void(load(written(tmp_path / "run.h5", rows))) == ()
    exact = measurement(1, error=1e-12)["bias2"]
    exact = np.stack([exact[0], exact[3], exact[2], exact[3]])
    rows["measured"] = [measurement(900, bias2=exact, jacobian_error=-np.inf)]
    run = load(written(tmp_path / "exact.h5", rows))
    assert void(run) == ()
    assert "The model's Jacobians are exact" in " ".join(each.text for each in verdict(run))
