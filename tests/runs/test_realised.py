"""Realised gains as they are read: what helps, what harms, what is best, what disagrees.

What a rehearsal says, against changes of the return that are planted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradlab import load
from gradlab.measurement.realised_gains import chosen_cells, first_cells, planned
from gradlab.runs.layout import groups_of, value_of
from gradlab.runs.profile import COLUMNS, Profile
from gradlab.runs.realised import PATHWISE, SCORE, TRUE_CELL, Realised
from gradlab.runs.rehearsal import Rule, judged
from tests.runs.planted_gains import followed_once, planted, planted_jumps, planted_rehearsal


def gains(values: dict, half: float = 0.05) -> pd.DataFrame:
    rows = [(*cell, "gain", v, v - half, v + half) for cell, v in values.items()]
    rows += [(*cell, "cosine", 0.0, 0.0, 0.0) for cell in values]
    columns = ["estimator", "horizon", "quantity", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


SLOPES = {("data", 0): -0.9, ("model", 5): 0.02, ("mixed", 5): 0.9, ("mixed", 9): 0.93}


def test_what_helps_what_harms_and_what_is_not_told_apart():
    found = planted(SLOPES)
    assert [found.helps(cell) for cell in SLOPES] == [False, False, True, True]
    assert [found.harms(cell) for cell in SLOPES] == [True, False, False, False]
    assert found.best() == ("mixed", 9) and found.helps(TRUE_CELL)
    assert found.not_excluded() == (("mixed", 5), ("mixed", 9))


def test_what_helps_is_what_the_update_s_own_length_does():
    turned = planted(SLOPES)
    cell = turned.cells.index(("mixed", 5))
    turned.gain[cell, [0, 2]] *= -1
    assert turned.helps(("mixed", 5))
    turned.gain[cell, 1] *= -1
    assert turned.harms(("mixed", 5)) and not turned.helps(("mixed", 5))


def test_lengths_that_were_not_taken_are_named_so_and_decide_nothing():
    found = planted(SLOPES)
    found.gain[found.cells.index(("mixed", 9)), [0, 2]] = np.nan
    rows = found.table().query("estimator == 'mixed' and horizon == 9")
    assert list(rows["status"]) == ["not taken", "stepped", "not taken"]
    assert list(rows["update"]) == [False, True, False]
    assert np.isnan(rows["share"].iloc[0]) and found.share(("mixed", 9), 0) is None
    assert found.best() == ("mixed", 9) and found.helps(("mixed", 9))


def test_without_a_truth_shares_are_of_the_best_direction_found_again_without_each_group():
    found = planted(SLOPES | {(PATHWISE, 0): -2.0, (SCORE, 0): 1.2}, truth=False)
    assert found.reference == (SCORE, 0) and not found.best_is_known
    assert (SCORE, 0) not in found.stepped and found.best() == ("mixed", 9)
    assert found.share((PATHWISE, 0))[0] == pytest.approx(-2 / 1.2)
    value, ends = found.share(("mixed", 9))
    assert value == pytest.approx(0.93 / 1.2) and ends.low < value < ends.high
    best, around = found.share((SCORE, 0))
    assert best == 1 and around.low == pytest.approx(1) == around.high
    close = planted({("a", 1): 1.0, ("b", 1): 0.99}, truth=False)  # either may be best
    assert close.share(("b", 1))[1].high > 0.99 and close.reference == ("a", 1)
    assert planted({("a", 1): 0.01}, truth=False).reference is None
    assert found.among(["mixed"]).reference == (SCORE, 0)


def test_more_cells_ask_for_more_evidence():
    near = {("a", 1): 0.1}
    alone = planted(near, noise=0.3, truth=False)
    crowd = planted(near | {("b", k): 0.0 for k in range(20)}, noise=0.3, truth=False)
    crowd.gain[0] = alone.gain[0]
    assert alone.helps(("a", 1)) and not crowd.helps(("a", 1))


def misses(rng, means, spread, judges, repetitions):
    """How often intervals of the chosen cell miss its known gain: plain ones, and `chosen_ends`."""
    missed = np.zeros(2)
    for _ in range(repetitions):
        taken = planted(means, truth=False, groups=judges)
        noise = spread * rng.standard_normal((len(means), 1, judges))
        slope = np.array(list(means.values()))[:, None, None] + noise
        taken = replace(taken, gain=slope * taken.lengths[:, None])
        best = taken.best()
        gain = means[best] * taken.lengths[taken.at]
        for k, ends in enumerate((taken.ends(best), taken.chosen_ends(best))):
            missed[k] += not ends.low <= gain <= ends.high
    return missed / repetitions


def test_the_interval_of_a_chosen_gain_pays_for_the_choice():
    """Eight equal gains: the largest estimate is too large, which a plain interval ignores."""
    equal = {("model", k): 0.5 for k in range(8)}
    plain, chosen = misses(np.random.default_rng(3), equal, 0.5, 64, 200)
    assert plain > 0.11 and chosen < 0.09
    alone = planted({("model", 1): 0.5}, truth=False)
    assert alone.chosen_ends(("model", 1)) == alone.ends(("model", 1))


@pytest.mark.slow
@pytest.mark.parametrize("judges", [16, 64])
@pytest.mark.parametrize("step", [0.0, 0.02, 0.2])
def test_intervals_of_chosen_gains_cover_ninety_four_of_a_hundred(step, judges):
    means = {("model", k): 0.5 + step * k for k in range(8)}
    assert misses(np.random.default_rng(4), means, 0.5, judges, 1500)[1] <= 0.06


def test_shares_are_of_what_the_exact_gradient_would_gain():
    found = planted(SLOPES)
    noisy = replace(found, kept=np.array([0.95, *found.kept[1:]]))
    share, ends = found.share(("mixed", 9))
    assert share == pytest.approx(0.93) and ends.low < 0.93 < ends.high
    assert noisy.share(("mixed", 9))[0] == pytest.approx(0.95 * 0.93)
    assert noisy.share(TRUE_CELL)[0] == pytest.approx(0.95)
    for kept in (0.8, 0.0):  # a direction that is mostly noise says nothing of what is possible
        vague = replace(found, kept=np.array([kept, *found.kept[1:]]))
        assert vague.share(("mixed", 9)) is None and not vague.best_is_known
        assert vague.disagreements(gains({("data", 0): 0.7})) == ()
    lost = replace(found, gain=np.where(np.arange(5)[:, None, None] == 0, -1, 1) * found.gain)
    assert lost.share(("mixed", 9)) is None and not lost.best_is_known


def test_gains_that_follow_the_first_order_do_not_disagree():
    found = planted(SLOPES)
    assert found.disagreements(gains(SLOPES)) == ()
    assert found.disagreements(gains(SLOPES).iloc[:0]) == ()
    kept = np.array([1.0, 1.0, 1.0, 0.5, 1.0])  # of this direction half is noise
    halved = replace(found, kept=kept)
    halved.gain[3] *= 0.5
    assert halved.disagreements(gains(SLOPES)) == ()


def test_another_law_a_boundary_and_a_long_step_are_told_apart():
    elsewhere = gains(SLOPES | {("data", 0): 0.7})
    (one,) = planted(SLOPES).disagreements(elsewhere)
    assert one.cell == ("data", 0) and one.reason == "law"
    assert one.realised == pytest.approx(-0.9) and one.predicted == 0.7
    assert one.realised_ends[1] < one.predicted_ends[0]
    (one,) = planted(SLOPES, termination="mask", ended=0.2).disagreements(elsewhere)
    assert one.reason == "boundary"
    bent = planted(SLOPES, bend=1.0, noise=0.05)
    found = {each.cell: each.reason for each in bent.disagreements(gains(SLOPES))}
    assert found[TRUE_CELL] == "step" and found["data", 0] == "step"
    bent.gain[bent.cells.index(("data", 0)), [0, 2]] = np.nan  # taken once: as the truth's own
    found = {each.cell: each.reason for each in bent.disagreements(gains(SLOPES))}
    assert found["data", 0] == "step"


@pytest.mark.parametrize("bends", [True, False])
def test_a_truth_whose_own_step_bends_is_no_measure_of_what_brought_more(bends):
    """A ship's +0.12, of 2.4 times the truth's bent step, came true; 0.5 of it was predicted."""
    found = planted(SLOPES, noise=0.05)
    if bends:
        found.gain[found.cells.index(TRUE_CELL), 1:] *= 0.3
    reasons = {
        each.cell: each.reason for each in found.disagreements(gains(SLOPES | {("mixed", 9): 0.5}))
    }
    assert reasons["mixed", 9] == ("step" if bends else "law")


@pytest.mark.parametrize(
    ("per_length", "reason"),
    [((1.12, 1.30, 0.73), "step"), ((1.30, 1.30, 1.30), "law"), ((0.88, 0.70, 0.50), "step")],
)
def test_a_return_that_bends_more_than_a_line_shows_is_of_the_same_problem(per_length, reason):
    """By a quarter and the whole of an update 1.12 and 1.30 of what the slope at none promises, as
    a ball brings that flies off: by a line 1.06 at none, sharper than its distance to 1."""
    bent = planted(SLOPES, noise=0.01)
    bent.gain[:] *= np.array(per_length)[:, None]
    (one,) = bent.disagreements(gains({}))
    assert one.cell == TRUE_CELL and one.reason == reason
    assert one.realised == pytest.approx(per_length[1])


def test_where_the_return_jumps_that_is_the_reason():
    elsewhere, found = gains(SLOPES | {("data", 0): 0.7}), planted(SLOPES)
    reasons = {"harmful": "jump", "rough": "jump", "open": "jump", "smooth": "law"}
    for kind, reason in reasons.items():
        (one,) = found.disagreements(elsewhere, planted_jumps(kind))
        assert one.reason == reason


def test_a_truth_that_gains_less_than_its_norm_disagrees():
    (one,) = planted(SLOPES, norm=3.0).disagreements(gains({}))
    assert one.cell == TRUE_CELL and one.reason == "law"
    assert one.realised == pytest.approx(1 / 3) and one.predicted == 1.0
    assert planted(SLOPES, noise=0.01, norm=1.2).disagreements(gains({})) == ()


def test_small_differences_are_none_however_sharp():
    sharp = planted(SLOPES, noise=1e-3)
    shifted = {cell: value + 0.05 for cell, value in SLOPES.items()}
    assert sharp.disagreements(gains(shifted, half=1e-3)) == ()


def test_a_file_holds_every_number_of_it(tmp_path):
    for found in (planted(SLOPES), planted(SLOPES, truth=False)):
        again = value_of(Realised, groups_of(found, "realised"), "realised")
        for name in ("cells", "status", "moves", "horizon", "termination", "ended", "steps", "at"):
            assert getattr(again, name) == getattr(found, name)
        for name in ("gain", "before", "size", "lengths", "kept", "norm"):
            assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)
        assert again.table().equals(found.table())


def test_a_profile_keeps_it_and_files_without_it_have_none(tmp_path):
    shape = (1, 1, 1)
    columns = dict.fromkeys(COLUMNS, np.zeros(shape))
    count, method = np.ones(shape, dtype=np.int64), np.full(shape, "", dtype=object)
    left_out = np.zeros((*shape, 4))
    bare = Profile(("data",), ("snr",), (0,), columns, count, method, left_out, {}, {}, {})
    assert load(bare.save(tmp_path / "bare.h5")).realised is None
    found = planted(SLOPES)
    again = load(replace(bare, realised=found).save(tmp_path / "run.h5")).realised
    assert again is not None and again.table().equals(found.table())


def test_cells_are_the_best_the_harmful_and_the_longest():
    over = [("data", 0)] + [(name, h) for name in ("true", "model", "mixed") for h in range(13)]
    values = {("data", 0): -0.5}
    values |= {("true", h): 1 - 0.01 * h for h in range(13)}
    values |= {("model", h): -0.4 + 0.05 * h for h in range(13)}
    values |= {("mixed", h): 0.9 - 0.01 * abs(h - 7) for h in range(13)}
    table = gains(values)
    rows = table[table["quantity"] == "gain"]
    chosen = chosen_cells(over, rows, controls=["true"])
    assert chosen[:4] == (("data", 0), ("model", 12), ("mixed", 7), ("model", 1))
    assert chosen[4:] == (("true", 1), ("true", 12), ("mixed", 12))
    assert chosen_cells(over, rows, ["true"], most=2) == chosen[:2]


def test_without_gains_cells_are_a_grid_whose_middle_comes_first():
    over = [("data", 0)] + [(name, h) for name in ("a", "b") for h in range(16)]
    chosen = chosen_cells(over, None, most=12)
    assert chosen[:3] == (("data", 0), ("a", 5), ("b", 5))
    assert {h for name, h in chosen if name == "a"} == {1, 2, 5, 10, 15}
    lost = gains({cell: float("nan") for cell in over})  # against a truth that is 0
    assert chosen_cells(over, lost[lost["quantity"] == "gain"], most=12) == chosen
    assert chosen_cells([("score", h) for h in range(1, 4)], None) == (
        ("score", 3), ("score", 1), ("score", 2),
    )  # fmt: skip


def test_what_is_stepped_along_at_every_length_is_the_data_gradient_and_the_best_of_each_family():
    values = {("data", 0): -0.5, ("model", 3): 0.2, ("mixed", 4): 0.9, ("model", 9): 0.1}
    rows = gains(values)
    rows = rows[rows["quantity"] == "gain"]
    cells, families = tuple(values), [["model"], ["model", "mixed"]]
    assert first_cells(cells, rows, families) == (("data", 0), ("model", 3), ("mixed", 4))
    assert first_cells(cells, None, families) == (("data", 0), ("model", 3))
    lost = gains(dict.fromkeys(values, float("nan")))
    assert first_cells(cells, lost, [["mixed"]]) == (("data", 0), ("mixed", 4))


def test_a_plan_pays_for_further_cells_and_not_for_the_first_ones():
    first, further = [("data", 0), ("model", 3)], [("a", k) for k in range(8)]
    for budget in np.geomspace(1e4, 1e8, 60):
        plan = planned(first, further, (400, 200), budget, 64, references=1)
        assert plan.everywhere == tuple(first) and plan.judges == 64
        rollouts = 1 + 3 * (len(first) + 1) + len(plan.once)
        assert plan.steps == 64 * plan.horizon * rollouts
        assert plan.once == tuple(further[: len(plan.once)]) and len(plan.cells) >= 5
        assert len(plan.cells) == 5 or plan.steps <= budget
        assert plan.horizon == 400 or budget < 64 * 400 * 10
    assert len(planned(first, further, (400,), 1e8, 64).once) == 8


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


def planted_changes(means, spread=0.1, groups=64, seed=0):
    """Changes with these means, [C, L], common to the starts but for a spread of their own."""
    means = np.asarray(means, dtype=np.float64)
    draw = np.random.default_rng(seed).standard_normal((*means.shape, groups))
    return means[..., None] + spread * (draw - draw.mean(axis=2, keepdims=True))


def in_draws(*by_draw, spread=0.1, groups=32):
    """The same by one draw of batches after the other, with the draw of each group."""
    parts = [planted_changes(means, spread, groups, seed) for seed, means in enumerate(by_draw)]
    return np.concatenate(parts, axis=2), np.repeat(np.arange(len(parts)), groups)


def test_a_gradient_holds_up_to_its_highest_return_and_a_harmful_one_not_at_all():
    found = rehearsed(planted_changes([[1, 2, 3, 2, -1], FALLS]))
    assert found.holds(GOOD) == 5 and not found.at_least(GOOD)
    assert found.holds(BAD) is None and found.peak_of(BAD).gain.high < 0
    assert found.falls(GOOD) == (25,) and found.lowered_after(BAD) == 1
    assert found.best.cell == GOOD and found.best.updates == 5 and not found.hold
    assert found.best.gain.value == pytest.approx(3) and found.best.gain.low > 2.9
    assert found.not_excluded() == (GOOD,)
    rows = found.table()
    assert len(rows) == 10 and rows[rows["holds"]]["updates"].tolist() == [5]


def test_the_present_policy_is_kept_where_nothing_is_above_it():
    found = rehearsed(planted_changes([[-0.1, -1, -1, -1, -1], FALLS]))
    assert found.hold and found.best.updates == 1 and found.best.gain.high < 0
    assert found.leading == {} and found.chosen is None and found.missing(LEAST) == 0
    undecided = rehearsed(planted_changes([[0.01, 0, 0, 0, 0], FALLS]))
    assert undecided.hold and undecided.holds(GOOD) is None


def test_a_return_that_still_rises_holds_at_least_that_long():
    found = rehearsed(planted_changes([RISES]), cells=(GOOD,))
    assert found.holds(GOOD) == 25 and found.at_least(GOOD)


def test_what_was_lost_on_the_way_is_no_length_to_stop_at():
    change = planted_changes([RISES, [1, 1, 1, 1, 1]])
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
