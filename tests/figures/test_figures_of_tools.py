"""Figures of attributions, choices and tests of remedies draw what their tables say.

Waterfalls, maps and curves draw what an attribution says, negatives and nothing included.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from gradlab import figures
from gradlab.runs.attribution import SOURCES, Account, Attribution, Part, Place
from gradlab.tools.remedies.result import STEPS, TIME
from tests.figures.drawn import check_texts, line, texts
from tests.planted_tools import ARMS, LEVELS, TABLE, H

ALL = (figures.ledger, figures.entries)
SHARES = {"states": -3.0, "A": 4.0, "B": 0.5, "reward": 0.0, "critic_s": -0.75, "critic_a": 0.25}


def part(kind, cause, value, total, lost=False, **place):
    ends = (np.nan, -np.inf, np.inf) if lost else tuple((value + d) / total for d in (0, -0.2, 0.2))
    return Part(Place(kind, cause, **place), value, 0.1, value - 0.2, value + 0.2, *ends)


def account(horizon, name="model", lost=False):
    total = sum(SHARES.values())
    whole = Part(Place("total", "total"), total, 0.1, 0.0 if lost else 0.8, 1.2, 1.0, 1.0, 1.0)
    places = (
        ("A", 4.0, dict(block="A", output="$x$", input="v")),
        ("critic_s", -0.75, dict(block="q_s", output="critic", input="v")),
    )
    parts = [
        whole,
        *(part(kind, cause, value, total, lost)
          for kind in ("shapley", "first", "last") for cause, value in SHARES.items()),
        *(part("entry", cause, value, total, lost, **place) for cause, value, place in places),
        *(part("step", "A", 1.0 * t, total, lost, step=t) for t in range(horizon)),
    ]  # fmt: skip
    return Account("bias", name, horizon, tuple(parts))


def table(*accounts):
    parts = part("total", "total", 2.0, 2.0), *(part("source", s, 0.5, 2.0) for s in SOURCES)
    spread = Account("variance", "model", 3, parts)
    return Attribution(accounts, (spread,), {}, 64, "", ("$x$", "v"), ("push",)).table()


def test_shares_of_a_known_bias_stand_with_their_signs():
    ax = figures.ledger(table(account(2), account(5, lost=True)))
    total = sum(SHARES.values())
    shown = [float(each.lines[0].get_ydata()[0]) for each in ax.containers]
    np.testing.assert_allclose(shown, [value / total for value in SHARES.values()])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2"]  # h = 5 is lost


def test_the_map_has_every_coordinate_and_the_signs():
    ax = figures.entries(table(account(2), account(5, lost=True)))
    cells = {(round(x + 0.5), round(y + 0.5)): patch.get_hatch() for patch in ax.patches
             for x, y in [patch.get_xy()]}  # fmt: skip
    assert set(cells) == {(1, 0), (1, 3)} and cells[1, 3] and not cells[1, 0]
    assert "h = 2" in texts(ax) and "+400%" in texts(ax) and "−75%" in texts(ax)
    lost = figures.entries(table(account(5, lost=True)))
    assert "not distinguishable from zero" in texts(lost) and "4" in texts(lost).split()


@pytest.mark.parametrize("figure", ALL)
def test_an_estimator_without_an_account_is_said(figure):
    for empty in (table(), pd.DataFrame(columns=table().columns)):
        ax = figure(empty, estimator="$my _own")
        assert "nothing attributed" in texts(ax)
        ax.figure.canvas.draw()


OF_REMEDIES: tuple[Callable[..., Axes], ...] = (
    lambda ax=None: figures.remedy_effects(TABLE, ax),
    lambda ax=None: figures.remedy_effects(TABLE, ax, quantity="variance", at=H),
    lambda ax=None: figures.remedy_jacobians(TABLE, ax),
    lambda ax=None: figures.remedy_horizons(TABLE, ax),
    lambda ax=None: figures.remedy_levels(LEVELS, ax, quantity="relative_mse", one="zero gradient"),
)


def marks(ax, label):
    """The heights of one series of marks, in the order of the names below."""
    (found,) = (each for each in ax.containers if each.get_label() == label)
    return [float(y) for y in found.lines[0].get_ydata()]


def names(ax):
    return [t.get_text() for t in ax.get_xticklabels()]


def ratios(quantity, budget, **where):
    rows = TABLE[(TABLE["quantity"] == quantity) & (TABLE["budget"] == budget)]
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return [float(x) for x in rows["ratio"]]


def test_every_remedy_has_its_ratios_at_equal_time_and_at_equal_steps_and_its_price():
    ax = figures.remedy_effects(TABLE)
    assert [name.partition(",")[0] for name in names(ax)] == list(ARMS)
    for budget in (TIME, STEPS):
        assert marks(ax, f"at {budget}") == pytest.approx(ratios("least_mse", budget))
    assert ratios("least_mse", TIME) != pytest.approx(ratios("least_mse", STEPS))
    assert ax.get_yscale() == "log"
    assert len([name for name in names(ax) if name.endswith(", 1.6×")]) == 1


def test_jacobians_are_shown_block_by_block():
    assert len(names(figures.remedy_jacobians(TABLE))) == 4


def test_a_ratio_over_the_horizon_is_the_tables():
    ax = figures.remedy_horizons(TABLE, quantity="variance", budget=STEPS)
    spectral = line(ax, "spectral")
    np.testing.assert_array_equal(spectral.get_xdata(), np.arange(1, H + 1))
    assert list(spectral.get_ydata()) == pytest.approx(ratios("variance", STEPS, arm="spectral"))


@pytest.mark.parametrize("draw", OF_REMEDIES)
def test_no_text_covers_another_and_none_is_cut_off(draw):
    check_texts(draw())


def test_empty_tables_say_so():
    none, nothing = TABLE.iloc[:0], LEVELS.iloc[:0]
    for ax in (
        figures.remedy_effects(none),
        figures.remedy_jacobians(none),
        figures.remedy_horizons(none),
        figures.remedy_levels(nothing, quantity="relative_mse"),
    ):
        assert "no" in texts(ax)
