"""Waterfalls, maps and curves draw what an attribution says, negatives and nothing included."""

import numpy as np
import pandas as pd
import pytest

from gradlab import figures
from gradlab.runs.attribution import (
    CAUSES,
    SOURCES,
    Account,
    Attribution,
    BlockEntry,
    Part,
    Spread,
    StepShare,
)
from tests.figures.drawn import texts

ALL = (figures.ledger, figures.entries)
SHARES = {"states": -3.0, "A": 4.0, "B": 0.5, "reward": 0.0, "critic_s": -0.75, "critic_a": 0.25}


def part(name, value, total, lost=False):
    ends = (np.nan, -np.inf, np.inf) if lost else tuple((value + d) / total for d in (0, -0.2, 0.2))
    return Part(name, value, 0.1, value - 0.2, value + 0.2, *ends)


def account(horizon, name="model", lost=False):
    total = sum(SHARES.values())
    shapley = tuple(part(cause, value, total, lost) for cause, value in SHARES.items())
    entry = BlockEntry("A", "A", "$x$", "v", part("entry", 4.0, total, lost))
    down = BlockEntry("critic_s", "q_s", "critic", "v", part("entry", -0.75, total, lost))
    steps = tuple(StepShare("A", t, part("step", 1.0 * t, total, lost)) for t in range(horizon))
    whole = Part("total", total, 0.1, 0.0 if lost else 0.8, 1.2, 1.0, 1.0, 1.0)
    return Account(
        name,
        horizon,
        whole,
        lost,
        shapley,
        shapley,
        shapley,
        (entry, down),
        (),
        (),
        steps,
        (),
        None,
    )


def table(*accounts):
    spread = Spread(
        "model", 3, part("total", 2.0, 2.0), tuple(part(s, 0.5, 2.0) for s in SOURCES), None
    )
    return Attribution(accounts, (spread,), {}, 64, "", ("$x$", "v"), ("push",)).table()


def test_a_waterfall_goes_down_for_negative_shares_and_ends_at_the_total():
    ax = figures.ledger(table(account(2), account(5)))
    bars = [bar for bar in ax.patches if bar.get_height() or bar.get_y()][: len(CAUSES)]
    size = sum(map(abs, SHARES.values()))
    np.testing.assert_allclose([bar.get_height() * size for bar in bars], list(SHARES.values()))
    ends = np.cumsum([0.0, *SHARES.values()])
    np.testing.assert_allclose([bar.get_y() * size for bar in bars], ends[:-1], atol=1e-12)
    marks = [line for line in ax.lines if line.get_linewidth() == 1.8]
    np.testing.assert_allclose([line.get_ydata()[0] * size for line in marks], [1.0, 1.0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "5"]


def test_the_map_has_every_coordinate_and_the_signs():
    ax = figures.entries(table(account(2), account(5, lost=True)))
    drawn = np.ma.filled(ax.images[0].get_array(), 0.0)
    np.testing.assert_allclose(drawn, [[0, 4.0, 0], [0, 0, 0], [0, 0, 0], [0, -0.75, 0]])
    assert "h = 2" in texts(ax) and "+400%" in texts(ax) and "−75%" in texts(ax)
    assert len(ax.patches) == 1  # the negative cell is hatched
    lost = figures.entries(table(account(5, lost=True)))
    assert "not distinguishable from zero" in texts(lost) and "+4" in texts(lost)


@pytest.mark.parametrize("figure", ALL)
def test_an_estimator_without_an_account_is_said(figure):
    for empty in (table(), pd.DataFrame(columns=table().columns)):
        ax = figure(empty, estimator="$my _own")
        assert "nothing attributed" in texts(ax)
        ax.figure.canvas.draw()
