"""The page of a board: a row per task, stage and estimator, to be sorted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from html import escape
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import style
from gradlab.reporting.numbers import cell, sortable
from gradlab.reporting.page import Page, PageSource, Section, panel
from gradlab.statistics.moments import sample_mean
from gradlab.statistics.over_groups import mean_interval
from gradlab.tools.board.result import Board
from gradlab.verdicts.screen import Fact, Screen
from gradlab.wording import duration, percent, signed, with_ends

_HEADINGS = (
    "task", "stage", "estimator", "first update, %", "lasts, updates", "at the end, %",
    "ms a gradient", "SNR of a batch", "seeds",
)  # fmt: skip


def page(board: Board, command: str = "") -> Page:
    """What the page of a board shows."""
    table = board.table()
    shown = (
        "<p>Click a heading to sort. Shares of the best estimator, medians over seeds; in brackets "
        "the range that holds the median of all seeds.</p>"
    ) + sortable(_HEADINGS, [_row(row, board) for row in table.to_dict("records")])
    how = (
        "<p><b>First update</b>: change of the return by the first update of the task's own rule, "
        "as a share of the largest in its group (one policy, critic and model); below 0 it lowers "
        "the return. <b>Lasts</b>: updates after which the return is highest, the critic fitted "
        "again on the way; 0: none is shown to raise it. <b>At the end</b>: as the first, after "
        "all updates. Returns are of the same starts and noise for every estimator of a group.</p>"
        f"<pre>gradlab board {escape(str(board.folder))}</pre>"
    )
    sections = (
        Section("Every estimator", body=shown, opened=True),
        Section("How this was computed", body=how, name="method"),
    )
    empty = sum(1 for cell in board.cells if cell.reason)
    facts = {
        "tasks": len({cell.task for cell in board.cells}),
        "groups": len({cell.group for cell in board.cells}),
        "cells": len(board.cells),
        "empty": empty or None,
        "commits": len({cell.commit for cell in board.cells}) or None,
        "wall time": duration(sum(cell.wall for cell in board.cells)),
    }
    question = "What is each gradient worth, and how long does it last?"
    source = PageSource(str(board.folder), command)
    caption = (
        "Change of the return after all updates as a share of the largest of its stage, cut at "
        "±100%; a dot is a stage (median over seeds), a line the mean over stages."
    )
    any_ = len(_worth(table)[0])
    drawn = (panel(_FIGURE, "Estimators", caption, partial(_shares, board)),) if any_ else ()
    return Page("The board", question, facts, screen(board), drawn, sections, source, apart=False)


_FIGURE = "shares"


def _worth(table: pd.DataFrame) -> tuple[pd.Series[float], pd.DataFrame]:
    """Estimators by their mean share at the end, the best first, of those that half of the stages
    have; and the rows where some estimator raises the return. Harm counts as much as the best
    brings: a gradient is not followed for its best stage."""
    there = table[table["kept"].notna()] if len(table) else table
    if there.empty:
        return pd.Series(dtype=float), there
    mean = there["kept"].clip(-1.0, 1.0).groupby(there["estimator"]).agg(["mean", "count"])
    often = mean[mean["count"] >= len(there.groupby(["task", "stage"])) / 2]["mean"]
    return often.sort_values(ascending=False), there


def _ends(rows: pd.DataFrame) -> tuple[float, float]:
    """95% of an estimator's mean share at the end: tasks are independent, stages of one are not."""
    by_task = rows["kept"].clip(-1.0, 1.0).groupby(rows["task"]).agg(["sum", "count"])
    if len(by_task) < 2:
        return math.nan, math.nan
    mean = sample_mean(by_task["sum"].to_numpy(float), by_task["count"].to_numpy(float))
    ends = mean_interval(mean)
    return max(ends.low, -1.0), min(ends.high, 1.0)


def _shares(board: Board, ax: Axes) -> Axes:
    """A row of dots for every estimator."""
    often, there = _worth(board.table())
    for place, name in enumerate(reversed(often.index)):
        kept = 100 * there.loc[there["estimator"] == name, "kept"].clip(-1.0, 1.0)
        colour = style.MUTED if name in board.oracles else style.BLUE
        ax.plot(kept, [place] * len(kept), "o", color=colour, ms=5, alpha=0.45, clip_on=False)
        ax.vlines(100 * often[name], place - 0.36, place + 0.36, color=colour, lw=2.6)
    ax.axvline(0.0, color=style.INK, lw=1.0)
    notes = ["grey: differentiates the simulator"] if board.oracles & set(often.index) else []
    style.dress(ax, "What is left at the end", "", notes)
    ax.set_yticks(
        range(len(often)),
        [style.plain(board.names.get(name, name)) for name in reversed(often.index)],
    )
    ax.set_xlabel("return gained, % of the best", color=style.INK)
    ax.set_xlim(-100, 100)
    return ax


def _row(row: Mapping[Any, Any], board: Board) -> list[str]:
    called = board.names.get(row["estimator"], row["estimator"])
    words = [cell(each) for each in (row["task"], row["stage"], called)]
    if not row["seeds"]:
        return [*words, f'<td class="words long" colspan="6">{escape(str(row["reason"]))}</td>']
    older = "" if row["commits"] == 1 else f" ({row['commits']} versions)"
    return [
        *words, _ranged(row, "gain", 100.0), _ranged(row, "lasts", 1.0),
        _ranged(row, "kept", 100.0), _plain(row["seconds"], 1e3), _plain(row["snr"], 1.0),
        f'<td data-v="{row["seeds"]}">{row["seeds"]}{older}</td>',
    ]  # fmt: skip


def _ranged(row: Mapping[Any, Any], name: str, scale: float) -> str:
    value, low, high = (scale * float(row[n]) for n in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return cell(value)
    ends = f" [{_whole(low)}, {_whole(high)}]" if not math.isnan(low) else ""
    return f'<td data-v="{value!r}">{_whole(value)}{ends}</td>'


def _whole(value: float) -> str:
    return "lost" if math.isinf(value) or math.isnan(value) else signed(f"{value:.0f}")


def _plain(value: float, scale: float) -> str:
    return cell(float(f"{scale * value:.2g}"))


def screen(board: Board) -> Screen:
    """Which estimator leads most often, and whether its first update tells."""
    table = board.table()
    if table.empty or not table["seeds"].any():
        text = f"Compute the cells first: gradlab board {board.folder}."
        return Screen(text, "choose", "no cell is known", ())
    often, there = _worth(table)
    if there.empty:
        groups = len({cell.group for cell in board.cells})
        where = "one group" if groups == 1 else f"{groups} groups"
        text = f"Keep the policy: no estimator raises the return in {where}."
        return Screen(text, "choose", _SURE, ())
    stages = len(there.groupby(["task", "stage"]))
    own = [name for name in often.index if name not in board.oracles]
    named = list(dict.fromkeys([*own[:1], often.index[0]]))
    parts: list[str] = []
    facts: list[Fact] = []
    sure = _SURE
    for name in named:
        called, rows = board.names.get(name, name), there[there["estimator"] == name]
        kept, worth = rows["kept"], (often[name], *_ends(rows))
        share, ends = with_ends(*worth, percent)
        if parts:
            follow = ":" if worth[1] <= 0 else " follow"
            text = f"With the simulator's derivatives{follow} {called}: {share}."
        else:
            fell = f"below the start in {int((kept < 0).sum())} of {len(kept)} stages"
            known = "" if math.isnan(worth[1]) else f" (CI {ends})"
            lead, sure = "Follow", _SURE
            if worth[1] <= 0:
                lead, sure = "Best guess:", "undecided: the interval over tasks holds 0"
            text = f"{lead} {called}: {share}{known} of the best at the end, {fell}."
        parts.append(text)
        facts.append(Fact.ranged(f"of the best at the end, {called}", worth, _HOW, percent))
    if often[named[0]] <= 0:
        parts = [
            f"Keep the policy: no estimator raises the return on the whole in {stages} stages."
        ]
    return Screen(" ".join(parts), "choose", sure, tuple(facts), _FIGURE)


_SURE = "medians over seeds, which predict no other task yet"
_HOW = (
    "Change of the return after all updates, as a share of the largest: mean over stages of "
    "medians over seeds, each share cut at ±100%; interval over tasks. Named: the largest."
)
