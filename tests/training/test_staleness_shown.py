"""Lags of gradients in sentences and on the page, from planted counts."""

from dataclasses import replace

import numpy as np
import pytest

from gradlab.reporting.training_page import staleness
from gradlab.runs.training.asynchrony import asynchrony
from gradlab.runs.training.results import load
from gradlab.verdicts.training.sentences import verdict


@pytest.fixture
def stale(td3_run):
    """Lags 0, 1, 2 of 40, 50 and 10 policy gradients in two rows, after a resumption a death."""
    run = load(td3_run)
    settings = run.config["settings"] | {"asynchronous": {"learners": 2, "actors": 1, "buffers": 1}}
    rows = {
        "iteration": np.array([50.0, 100.0]),
        "policy_lag": np.array([[40.0, 10.0, 0.0], [0.0, 40.0, 10.0]]),
        "critic_lag": np.array([[0.0, 100.0, 0.0], [0.0, 100.0, 0.0]]),
        "mean_lag": np.array([0.2, 1.2]),
        "largest_lag": np.array([1.0, 2.0]),
        "learner_gradients": np.array([[30.0, 20.0], [30.0, 20.0]]),
        "learner_seconds": np.array([[2.0, 1.0], [2.0, 1.0]]),
        "actor_steps": np.array([[9.0], [8.0]]),
        "replaced": np.array([2.0, 1.0]),
        "seconds": np.array([2.0, 8.0]),
    }
    return replace(run, asynchrony=rows, config=run.config | {"settings": settings})


def test_numbers_of_all_rows_together(stale):
    found = asynchrony(stale)
    assert found.mean == pytest.approx((50 * 1 + 10 * 2) / 100) and found.largest == 2
    assert (found.at_most(0.4), found.at_most(0.41), found.at_most(0.95)) == (0, 1, 2)
    assert found.rate == 100 / 8 and found.busy.tolist() == [0.5, 0.25] and found.died == 3


def test_the_sentence_and_the_page_have_them(stale):
    text = next(each.text for each in verdict(stale) if each.about == "staleness")
    assert "2 learners, 1 actor, 1 buffer: 12.5 updates per second" in text
    assert "made 0.7 steps on average" in text and "at most 2 for 95% of them and 2 for" in text
    assert "3 of its processes died" in text
    (section,) = staleness({"td3": stale})
    for row in ("<td>0</td><td>40.0%</td><td>0.0%</td>", "<td>2 or more</td><td>10.0%</td>"):
        assert row in section.body
    assert "<td>learner 1</td><td>40 gradients</td><td>25% of the time</td>" in section.body


def test_a_run_in_one_process_says_nothing_of_it(td3_run):
    run = load(td3_run)
    assert staleness({"td3": run}) == []
    assert all(each.about != "staleness" for each in verdict(run))
