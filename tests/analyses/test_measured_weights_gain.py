"""The verdicts of the section "Under gain" from planted runs."""

from types import SimpleNamespace

import numpy as np
import pytest

from analyses.measured_weights import gain as report
from analyses.measured_weights.runs import row_of
from gradlab.training.parts.context import MeasuredWeights


def test_arms_under_gain_are_those_of_the_rule_but_for_their_weights():
    for name in ("pair", "four"):
        rule, gain, error = (row_of(f"{what}-{name}", "path_tracking") for what in
                             ("rule", "gain", "weights"))  # fmt: skip
        assert gain.terms == rule.terms
        assert isinstance(gain.weights, MeasuredWeights) and gain.weights.by == "gain"
        assert error.weights.by == "mse" and gain.weights.rule == error.weights.rule


@pytest.mark.parametrize(
    ("low", "high", "word"), [(1.0, 2.0, "holds"), (-2, -1, "refuted"), (-1, 1, "undecided")]
)
def test_an_interval_decides(low, high, word):
    gap = report.Gap((low + high) / 2, low, high, 3, 6)
    assert report.WORDS[gap.sign] == word


def test_both_tasks_are_needed_to_hold_and_one_to_refute():
    rows = report.comparisons({}).assign()
    assert report.outcome(rows, ["path_tracking", "inverted_pendulum"]) == "not tried"
    rows = rows.reindex(range(2))
    for outcomes, missing, wanted in [
        (["holds", "holds"], [], "holds"), (["holds", "undecided"], [], "undecided"),
        (["holds", "refuted"], [], "refuted"), (["holds", "holds"], ["x"], "undecided"),
    ]:  # fmt: skip
        assert report.outcome(rows.assign(outcome=outcomes), missing) == wanted


def test_a_run_is_compared_up_to_its_last_evaluation():
    at = np.array([0, 500, 1000, 1500])
    run = SimpleNamespace(iteration=at, returns=np.arange(8.0).reshape(4, 2), seconds=at * 0.1)
    found = report.gap_of(np.array([1.0, 1.1, 0.9, 1.0]))
    assert found.sign == 1 and found.better == 4
    here = run.iteration <= 1000
    assert report.averaged(
        SimpleNamespace(iteration=at[here], returns=run.returns[here])
    ) == pytest.approx([2.0, 3.0])
