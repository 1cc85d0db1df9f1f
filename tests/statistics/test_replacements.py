"""What to replace first, on games whose mean errors are planted vectors.

b_S = Σ of the errors of players outside S, so that every v(S) = |b_S|² is known.
"""

import numpy as np
import pytest

from gradlab.statistics.moments import PairSums
from gradlab.statistics.selection import best_replacement
from gradlab.statistics.shapley import share_interval, squared_norms

GROUPS, REPETITIONS = 64, 120


def game(errors, noise=1e-6, seed=0):
    """U-statistics of GROUPS samples of each player's error around its mean."""
    rng = np.random.default_rng(seed)
    means = np.array(list(errors.values()))
    samples = means + noise * rng.normal(size=(GROUPS, *means.shape))
    k = len(errors)
    outside = np.array([[not S >> i & 1 for i in range(k)] for S in range(2**k)], dtype=float)
    b = np.einsum("sk,gkd->sgd", outside, samples)
    total = b.sum(axis=1)
    own = (b**2).sum(axis=-1)
    along = np.einsum("sgd,sd->sg", b, total)
    return squared_norms(tuple(errors), PairSums(own, along, along), np.ones(GROUPS))


def test_a_player_whose_cure_alone_makes_it_worse_is_replaced_with_the_one_that_it_hides():
    """|b|²: .0125 of all; .8125 or 1.0025 with A or B cured; .0025 with both; .01 with C."""
    errors = {"A": (1.0, 0.0), "B": (-0.9, 0.0), "C": (0.0, 0.05)}
    best = best_replacement(game(errors))
    assert best.players == ("A", "B")
    assert best.taken_off.value == pytest.approx(0.01, rel=1e-3)
    assert best.rivals == ()


def test_of_additive_errors_the_largest_alone_comes_first():
    best = best_replacement(game({"A": (0.3, 0.0), "B": (0.0, 1.0), "C": (0.1, 0.0)}))
    assert best.players == ("B",)
    assert best.taken_off.value == pytest.approx(1.0, rel=1e-3)


def test_where_every_replacement_harms_the_best_one_is_negative():
    """(1, 0) − (½, √¾) − (½, −√¾) = 0 and a rest of .1: any one or two of them leave 1 or more."""
    third = 0.75**0.5
    best = best_replacement(
        game({"A": (1.1, 0.0), "B": (-0.5, third), "C": (-0.5, -third)}, noise=1e-4)
    )
    low, high = (
        getattr(share_interval(best.taken_off, best.level), end) for end in ("low", "high")
    )
    assert low < high < 0


def test_the_interval_of_the_chosen_one_pays_for_the_choice():
    """Four that take off 1 each: the largest estimate is too large, its interval must hold 1."""
    errors = dict(zip("ABCD", np.eye(4), strict=True))
    covered, plain = 0, 0
    for seed in range(REPETITIONS):
        best = best_replacement(game(errors, noise=1.0, seed=seed))
        truth = float(len(best.players))
        ends = share_interval(best.taken_off, best.level)
        covered += ends.low <= truth <= ends.high
        uncorrected = share_interval(best.taken_off)
        plain += uncorrected.low <= truth <= uncorrected.high
    assert covered >= 0.92 * REPETITIONS  # 95% less 1.5 standard errors
    assert plain < covered


def test_two_groups_say_nothing():
    few = game({"A": (1.0,), "B": (2.0,)})
    few = type(few)(few.players, few.value, few.left_out[:, :2])
    assert best_replacement(few) is None
