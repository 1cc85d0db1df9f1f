"""What a rehearsal says, against changes of the return that are planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradlab.runs.rehearsal import Rule, judged
from tests.runs.planted_gains import followed_once, planted_rehearsal

RULE = Rule("adam", 1e-3, True, 25, 256, 50, "ignore", 1)
LENGTHS = (1, 2, 5, 10, 25)
GOOD, BAD, THIRD, FOURTH = ("model", 5), ("data", 0), ("mixed", 2), ("mixed", 4)
RISES, FALLS = (1, 2, 3, 4, 5), (-1, -2, -3, -4, -5)
LEAST = 0.05  # change of a return that is one


def rehearsed(change, cells=(GOOD, BAD), size=None, draw=None):
    change = np.asarray(change, dtype=np.float64)
    size = np.ones(change.shape[2]) if size is None else size
    before = np.zeros(len(size))
    return judged(cells, LENGTHS[: change.shape[1]], change, before, size, RULE, draw)


def planted(means, spread=0.1, groups=64, seed=0):
    """Changes with these means, [C, L], common to the starts but for a spread of their own."""
    means = np.asarray(means, dtype=np.float64)
    draw = np.random.default_rng(seed).standard_normal((*means.shape, groups))
    return means[..., None] + spread * (draw - draw.mean(axis=2, keepdims=True))


def in_draws(*by_draw, spread=0.1, groups=32):
    """The same by one draw of batches after the other, with the draw of each group."""
    parts = [planted(means, spread, groups, seed) for seed, means in enumerate(by_draw)]
    return np.concatenate(parts, axis=2), np.repeat(np.arange(len(parts)), groups)


def test_a_gradient_holds_up_to_its_highest_return_and_a_harmful_one_not_at_all():
    found = rehearsed(planted([[1, 2, 3, 2, -1], FALLS]))
    assert found.holds(GOOD) == 5 and not found.at_least(GOOD)
    assert found.holds(BAD) is None and found.peak_of(BAD).gain.high < 0
    assert found.falls(GOOD) == (25,) and found.lowered_after(BAD) == 1
    assert found.best.cell == GOOD and found.best.updates == 5 and not found.hold
    assert found.best.gain.value == pytest.approx(3) and found.best.gain.low > 2.9
    assert found.not_excluded() == (GOOD,)
    rows = found.table()
    assert len(rows) == 10 and rows[rows["holds"]]["updates"].tolist() == [5]


def test_the_present_policy_is_kept_where_nothing_is_above_it():
    found = rehearsed(planted([[-0.1, -1, -1, -1, -1], FALLS]))
    assert found.hold and found.best.updates == 1 and found.best.gain.high < 0
    assert found.leading == {} and found.chosen is None and found.missing(LEAST) == 0
    undecided = rehearsed(planted([[0.01, 0, 0, 0, 0], FALLS]))
    assert undecided.hold and undecided.holds(GOOD) is None


def test_a_return_that_still_rises_holds_at_least_that_long():
    found = rehearsed(planted([RISES]), cells=(GOOD,))
    assert found.holds(GOOD) == 25 and found.at_least(GOOD)


def test_what_was_lost_on_the_way_is_no_length_to_stop_at():
    change = planted([RISES, [1, 1, 1, 1, 1]])
    change[0, 2:], change[1] = np.nan, np.nan
    found = rehearsed(change)
    assert found.holds(GOOD) == 2 and found.peak_of(BAD) is None and found.holds(BAD) is None
    assert found.best.cell == GOOD and found.leading == {0: 2}
    lost = rehearsed(np.full((2, 5, 16), np.nan))
    assert lost.best is None and lost.hold and lost.not_excluded() == () and lost.leading == {}
    assert lost.missing(LEAST) == 0  # more starts bring nothing back


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


def test_an_interval_of_a_change_holds_those_of_both_draws():
    """Each is Student's, or wider, of its own starts: what one draw alone shows is not shown."""
    change, draw = in_draws([[3.0], [3.0]], [[1.0], [-1.0]])
    found = rehearsed(change, draw=draw)
    assert found.draws == 2
    for c, ends in enumerate(((3.0, 1.0), (3.0, -1.0))):
        own = found.after(found.cells[c], 1)
        assert own.value == pytest.approx(np.mean(ends))
        assert own.low < min(ends) < max(ends) < own.high
        assert own.high - own.low == pytest.approx(max(ends) - min(ends), abs=0.1)
    assert found.after(GOOD, 1).low > 0 and not found.after(BAD, 1).low > 0
    falls, draw = in_draws([[-3.0], [3.0]], [[-1.0], [-1.0]])
    down = rehearsed(falls, draw=draw)
    assert down.falls(GOOD) == (1,) and down.falls(BAD) == ()


def test_candidates_lead_at_the_length_where_every_draw_is_above_and_the_mean_is_largest():
    """One draw of batches took GOOD far above and the other below: after 10 updates it leads by
    1.5, not after 25 by 9; BAD leads before it, and what falls in one of the draws does not."""
    first = [[1, 1, 1, 2, 20], [2, 3, 4, 3, 2], [9, 9, 9, 9, 9], [-1] * 5]
    second = [[1, 1, 1, 1, -2], [2, 3, 4, 3, 2], [-1, -1, -1, -1, -1], [-1] * 5]
    change, draw = in_draws(first, second)
    found = rehearsed(change, (GOOD, BAD, THIRD, FOURTH), draw=draw)
    assert list(found.leading.items()) == [(1, 5), (0, 10)]
    # All that is judged at once would lead otherwise: by its mean over both draws.
    alone = rehearsed(change, (GOOD, BAD, THIRD, FOURTH))
    assert alone.leading == {0: 25, 1: 5, 2: 1}


def test_the_first_that_fresh_draws_confirm_is_chosen():
    changes = {GOOD: (1, 2, 5, 9, 20), BAD: RISES, THIRD: (1, 2, 3, 2, 1), FOURTH: FALLS}
    assert planted_rehearsal(changes).chosen == GOOD
    assert followed_once(changes).chosen is None  # not before a fresh draw
    nothing = dict.fromkeys((GOOD, BAD, THIRD), (0, 0, 0, 0, 0))
    for kept, chosen in ((0, GOOD), (1, BAD), (2, THIRD), (3, None)):
        again = dict(list(nothing.items())[:kept])
        found = planted_rehearsal(changes, again=again)
        assert found.chosen == chosen and found.confirmed.tolist() == [0, 1, 2][: kept + 1]
        assert [found.repeated(cell) for cell in nothing] == [k <= kept for k in range(3)]
    assert not found.repeated(FOURTH)


def test_a_confirmed_gradient_lasts_for_the_most_updates_that_fresh_draws_show():
    rises = {GOOD: (1, 2, 5, 9, 20)}
    for again, updates in (
        ((1, 2, 5, 9, 17), 25), ((1, 2, 5, 0, -9), 5), ((1, 0, 0, 0, -9), 1),
        ((1, 2, np.nan, np.nan, np.nan), 2), ((0,) * 5, None), ((np.nan,) * 5, None),
    ):  # fmt: skip
        found = planted_rehearsal(rises, again={GOOD: again})
        assert found.holds(GOOD) == updates
        assert found.chosen == (GOOD if updates else None)
        if updates:
            assert found.peak_of(GOOD).gain.value == pytest.approx(again[LENGTHS.index(updates)])
    # That of a length among several is sure for all of them: Bonferroni over the four shorter.
    found = planted_rehearsal(rises, again={GOOD: (0.15, 0, 0, 0, 0)}, noise=0.6)
    assert found.promised(GOOD, 1).low > 0 >= found.promised(GOOD, 1, 4).low
    assert found.holds(GOOD) is None and found.chosen is None


def test_the_change_by_fresh_draws_covers_draws_and_starts():
    """Changes m + (draw of batches) + (mean over its starts): of an interval that is Student's
    over draws 95% hold m whichever of the two dominates; the starts alone know only of one."""
    rng, m, judges, repetitions = np.random.default_rng(0), 1.0, 64, 1500
    none = followed_once({GOOD: RISES})
    for between, within, few in ((0.0, 2.0, 4), (1.0, 2.0, 4), (1.0, 0.0, 4), (1.0, 2.0, 8)):
        held, by_starts = 0, 0
        for _ in range(repetitions):
            draws = between * rng.standard_normal((few, 1))
            starts = m + draws + within * rng.standard_normal((few, judges))
            again = np.full((len(LENGTHS), few), np.nan)
            again[0] = starts.mean(axis=1)
            number = none.retried(0, again, judges, 100).promised(GOOD, 1)
            assert number.n == few * judges
            held += number.low <= m <= number.high
            half = 1.96 * starts.std() / starts.size**0.5
            by_starts += abs(starts.mean() - m) <= half
        assert 0.93 <= held / repetitions <= 0.98, (between, within)
        assert between == 0 or by_starts / repetitions < 0.7


def test_draws_that_lie_together_by_chance_promise_no_more_than_their_starts_show():
    """Four means whose spread is a tenth of their standard errors by their starts, or ten times."""
    none, means = followed_once({GOOD: RISES}), np.array([0.9, 1.1, 0.9, 1.1])
    spread = means.std(ddof=1)
    for se, wide in ((10 * spread, 10 * spread), (spread / 10, spread)):
        number = none.retried(0, np.tile(means, (5, 1)), 64, 100, se).promised(GOOD, 25)
        half = 3.18245 * wide / 4**0.5
        assert (number.low, number.high) == pytest.approx((1 - half, 1 + half), rel=1e-5)


def test_a_gradient_that_brings_nothing_is_seldom_confirmed():
    """2.5% for the most updates, and as much for all fewer ones together."""
    rng, repetitions = np.random.default_rng(1), 1500
    none, most, fewer = followed_once({GOOD: RISES}), 0, 0
    for _ in range(repetitions):
        found = none.retried(0, rng.standard_normal((5, 4)), 64, 100)
        updates = found.holds(GOOD)
        assert (found.chosen is None) == (updates is None)
        most += updates == LENGTHS[-1]
        fewer += updates is not None and updates < LENGTHS[-1]
    assert 0.015 < most / repetitions < 0.035 and 0 < fewer / repetitions < 0.035


def test_more_judges_are_asked_for_until_every_gradient_is_decided():
    """An interval 0.1 ± w leaves 0 where it is w / 0.1 times narrower: errors shrink with the root
    of the starts."""
    asked = []
    for noise in (4.0, 2.0, 1.0, 0.1):
        found = planted_rehearsal({GOOD: (0.1,) * 5, BAD: (-0.1,) * 5}, noise=noise)
        asked.append(found.missing(LEAST))
        if found.chosen is None:
            half = found.promised(GOOD, 1).high - 0.1
            assert asked[-1] >= found.judges * (half / 0.1) ** 2
    assert asked == sorted(asked, reverse=True) and asked[0] > 1000 and asked[-1] == 0
    assert planted_rehearsal({BAD: FALLS}).missing(LEAST) == 0
    hopeless = planted_rehearsal({GOOD: (0.001,) * 5}, noise=5.0)
    assert hopeless.missing(0.0) is None  # more than anybody can afford


@pytest.mark.parametrize("change", [0.1, 0.001])
def test_as_many_judges_as_are_asked_for_decide(change):
    """With the same noise of one start: confirmed, or shown to bring less than least."""
    few = planted_rehearsal({GOOD: (change,) * 5}, noise=2.0)
    asked = few.missing(LEAST)
    assert few.chosen is None and asked > few.judges
    many = planted_rehearsal({GOOD: (change,) * 5}, noise=2.0, groups=2 * (asked // 2))
    assert many.missing(LEAST) == 0
    assert (many.chosen == GOOD) == (change > LEAST)
    assert change > LEAST or many.peak_of(GOOD).gain.high < LEAST


def test_fresh_draws_that_sum_more_steps_are_compared_with_no_first_ones():
    once = followed_once({GOOD: RISES})
    again = np.ones((5, 4))
    assert once.retried(0, again, 16, once.horizon).comparable
    longer = once.retried(0, again, 16, 3 * once.horizon)
    assert not longer.comparable and longer.again_horizon == 300
    assert replace(longer, again_horizon=longer.horizon).comparable
