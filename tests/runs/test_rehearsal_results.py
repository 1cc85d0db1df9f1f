"""What a rehearsal says, against changes of the return that are planted."""

from __future__ import annotations

import numpy as np
import pytest

from gradlab.runs.rehearsal import Rule, judged

RULE = Rule("adam", 1e-3, True, 25, 256, 50, "ignore", 0, 1)
LENGTHS = (1, 2, 5, 10, 25)
GOOD, BAD = ("model", 5), ("data", 0)


def rehearsed(change, cells=(GOOD, BAD), size=None):
    change = np.asarray(change, dtype=np.float64)
    size = np.ones(change.shape[2]) if size is None else size
    return judged(cells, LENGTHS[: change.shape[1]], change, np.zeros(len(size)), size, RULE)


def planted(means, spread=0.1, groups=64, seed=0):
    """Changes with these means, [C, L], common to the starts but for a spread of their own."""
    means = np.asarray(means, dtype=np.float64)
    draw = np.random.default_rng(seed).standard_normal((*means.shape, groups))
    return means[..., None] + spread * (draw - draw.mean(axis=2, keepdims=True))


def test_a_gradient_holds_up_to_its_highest_return_and_a_harmful_one_not_at_all():
    found = rehearsed(planted([[1, 2, 3, 2, -1], [-1, -2, -3, -4, -5]]))
    assert found.holds(GOOD) == 5 and not found.at_least(GOOD)
    assert found.holds(BAD) is None and found.peak_of(BAD).gain.high < 0 and found.more(BAD) == 0
    assert found.best.cell == GOOD and found.best.updates == 5 and not found.hold
    assert found.best.gain.value == pytest.approx(3) and found.best.gain.low > 2.9
    assert found.not_excluded() == (GOOD,)
    rows = found.table()
    assert len(rows) == 10 and rows[rows["holds"]]["updates"].tolist() == [5]


def test_the_present_policy_is_kept_where_nothing_is_above_it():
    found = rehearsed(planted([[-0.1, -1, -1, -1, -1], [-1, -2, -3, -4, -5]]))
    assert found.hold and found.best.updates == 1 and found.best.gain.high < 0
    assert found.choice(GOOD) is None and found.choice(("mixed", 3)) is None  # one not rehearsed
    undecided = rehearsed(planted([[0.01, 0, 0, 0, 0], [-1, -2, -3, -4, -5]]))
    assert undecided.hold and undecided.holds(GOOD) is None and undecided.more(GOOD) > 0


def test_updates_are_too_long_where_all_of_them_end_below_and_nothing_is_above():
    lost = planted([[-1, -2, -3, -4, -5], [-1, -1, -1, -1, -1]])
    lost[1, 1:] = np.nan
    assert rehearsed(lost).too_long
    assert rehearsed(planted([[0.01, 0, 0, 0, -5], [-1, -2, -3, -4, -5]])).too_long
    assert rehearsed(planted([[1, 0, 0, 0, -5], [-1, -2, -3, -4, -5]])).too_long
    assert not rehearsed(planted([[1, 2, 0, 0, -5], [-1, -2, -3, -4, -5]])).too_long
    assert not rehearsed(planted([[0.01, 0, 0, 0, 0], [-1, -2, -3, -4, -5]])).too_long


def test_a_return_that_still_rises_holds_at_least_that_long():
    found = rehearsed(planted([[1, 2, 3, 4, 5]]), cells=(GOOD,))
    assert found.holds(GOOD) == 25 and found.at_least(GOOD)


def test_what_was_lost_on_the_way_is_no_length_to_stop_at():
    change = planted([[1, 2, 3, 4, 5], [1, 1, 1, 1, 1]])
    change[0, 2:], change[1] = np.nan, np.nan
    found = rehearsed(change)
    assert found.holds(GOOD) == 2 and found.peak_of(BAD) is None and found.holds(BAD) is None
    assert found.best.cell == GOOD and found.more(BAD) is None
    lost = rehearsed(np.full((2, 5, 16), np.nan))
    assert lost.best is None and lost.hold and lost.not_excluded() == ()


def test_groups_count_by_their_size():
    change = np.array([[[3.0, 1.0, 4.0, 2.0]]])
    found = rehearsed(change, cells=(GOOD,), size=np.array([3.0, 1.0, 4.0, 2.0]))
    assert found.judges == 10 and found.after(GOOD, 1).value == pytest.approx(1)


def test_a_length_that_was_chosen_among_many_is_seldom_said_to_hold_where_none_does():
    """Sixteen starts, walks without drift: the best of five lengths is above 0 by choice alone."""
    draws = np.random.default_rng(1)
    said, plain = 0, 0
    for _ in range(300):
        walk = draws.standard_normal((1, 25, 16)).cumsum(axis=1)[:, [0, 1, 4, 9, 24]]
        found = rehearsed(walk, cells=(GOOD,))
        place = LENGTHS.index(found.peak[0])
        said += found.holds(GOOD) is not None
        plain += bool(found.low[0, place] > 0)
    assert said <= 0.04 * 300 and said < plain  # 1.9% and 5.1% of 1,000
