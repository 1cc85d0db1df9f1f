"""From the cells of the board: what predicts the return after K updates, and who may be trusted.

python -m analyses.lasting              # reports/board/cells → reports/lasting: tables, paper.md
python -m analyses.lasting --pdf        # each panel as a PDF, too
python -m analyses.lasting --judge      # the rule on the tasks that did not shape it: verdict

regret    (best − chosen) / best     best: the largest change of the return after K updates in a
                                     group, of any estimator; chosen: that of the estimator with
                                     the largest prediction, or 0 where it says to hold
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from analyses.harness.verdicts import put
from gradlab.errors import InputError
from gradlab.tools.board.result import Board, Cell, Group, load

CHOOSE = ("lq_stable", "path_tracking", "cart_pole", "quadrotor")
JUDGE = ("lq_growing", "pendulum", "quadrotor_pillar", "hopper")
LENGTHS = (5, 25, 100)
REHEARSED = (5, 25, 100)
DRAWS = 4000  # of the bootstrap over task × seed
Cells = Mapping[str, Cell]  # of one group, by estimator
# The estimator that a predictor takes, None: it holds.
Predictor = Callable[[Cells], str | None]


def _largest(
    cells: Cells, value: Callable[[Cell], float], holds: Callable[[Cell], bool]
) -> str | None:
    there = {name: value(cell) for name, cell in cells.items() if np.isfinite(value(cell))}
    if not there:
        return None
    name = max(there, key=lambda each: there[each])
    return None if holds(cells[name]) else name


def gain(cells: Cells) -> str | None:
    """The largest change by the first update, where it is above 0."""
    return _largest(cells, lambda c: c.after(1).value, lambda c: not c.after(1).value > 0)


def rehearsal(updates: int) -> Predictor:
    """The largest change after so many rehearsed updates, where its interval is above 0."""

    def predicted(cells: Cells) -> str | None:
        return _largest(
            cells,
            lambda c: c.after(updates, True).value,
            lambda c: not c.after(updates, True).low > 0,
        )

    return predicted


def followed_five(cells: Cells) -> str | None:
    """The largest change after five updates that were made, where its interval is above 0."""
    return _largest(cells, lambda c: c.after(5).value, lambda c: not c.after(5).low > 0)


def snr(cells: Cells) -> str | None:
    """The largest signal-to-noise ratio of one batch; it never holds."""
    return _largest(cells, lambda c: float("nan") if c.snr is None else c.snr, lambda c: False)


def fixed(name: str) -> Predictor:
    """One estimator whatever was measured; where it is empty, nothing is done."""
    return lambda cells: name if name in cells else None


PREDICTORS: Mapping[str, Predictor] = {
    "gain": gain,
    **{f"rehearsed {k}": rehearsal(k) for k in REHEARSED},
    "followed 5": followed_five,
    "signal-to-noise": snr,
}
BY_COST = (  # what a predictor needs: nothing, a batch, an update, five and more of them
    "fixed", "signal-to-noise", "gain", "rehearsed 5", "followed 5", "rehearsed 25",
    "rehearsed 100",
)  # fmt: skip


def groups(board: Board, tasks: Sequence[str]) -> dict[Group, Cells]:
    """Cells that are not empty, by group, of some tasks.

    Raises:
        InputError: there are none.
    """
    found: dict[Group, dict[str, Cell]] = {}
    for cell in board.cells:
        if cell.task in tasks and cell.followed:
            found.setdefault(cell.group, {})[cell.estimator] = cell
    several = {group: cells for group, cells in found.items() if len(cells) > 1}
    if not several:
        folder = board.folder
        raise InputError(f"{folder} has no cells of {', '.join(tasks)}: `gradlab board {folder}`")
    return several


def regret(cells: Cells, updates: int, predictor: Predictor | None) -> float:
    """Share of the best that a predictor leaves; NaN where no estimator is shown to raise the
    return, or none was followed so long. None: chance, the mean over the estimators."""
    if _followed(cells) < updates:
        return float("nan")
    changes = {name: cell.after(updates) for name, cell in cells.items()}
    best = max(changes.values(), key=lambda each: np.nan_to_num(each.value, nan=-np.inf))
    if not best.low > 0:
        return float("nan")

    def left(name: str | None) -> float:
        if name is None:
            return 1.0
        value = changes[name].value
        return (best.value - value) / best.value if np.isfinite(value) else 2.0  # lost

    if predictor is None:
        return float(np.mean([min(left(name), 2.0) for name in cells]))
    return min(left(predictor(cells)), 2.0)


def _followed(cells: Cells) -> int:
    """Updates that the group's estimators were followed for."""
    return max(cell.followed[-1].updates for cell in cells.values())


def best_fixed(found: Iterable[Cells], updates: int) -> str:
    """The estimator with the smallest mean regret over groups that have it."""
    every = list(found)
    names = sorted({name for cells in every for name in cells})
    mean = {
        name: np.nanmean([regret(cells, updates, fixed(name)) for cells in every]) for name in names
    }
    return min(mean, key=lambda name: mean[name])


def interval(values: NDArray[np.float64], clusters: Sequence[object]) -> tuple[float, float, float]:
    """Mean with its 95% interval, by bootstrap over clusters (task × seed); of one cluster none."""
    keep = np.isfinite(values)
    if not keep.any():
        return (float("nan"),) * 3
    frame = pd.DataFrame(
        {"value": values[keep], "of": [str(c) for c, k in zip(clusters, keep, strict=True) if k]}
    )
    sums = frame.groupby("of")["value"].agg(["sum", "count"]).to_numpy()
    if len(sums) < 2:
        return float(frame["value"].mean()), float("nan"), float("nan")
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn, 0].sum(1) / sums[drawn, 1].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(frame["value"].mean()), float(low), float(high)


def compared(found: Mapping[Group, Cells], best: Mapping[int, str]) -> pd.DataFrame:
    """One row per length and predictor: mean regret, its interval, its difference to gain's,
    whether it is tied with the smallest (the paired difference's interval contains 0), and in how
    many of the groups without a regret it holds.

    Args:
        best: the fixed estimator of each length.
    """
    clusters = [(group.task, group.seed) for group in found]
    rows = []
    for updates in LENGTHS:
        name = best[updates]
        every: dict[str, Predictor | None] = {
            **{
                each: predictor
                for each, predictor in PREDICTORS.items()
                if not each.startswith("rehearsed") or int(each.split()[1]) <= updates
            },
            f"fixed: {name}": fixed(name), "chance": None,
        }  # fmt: skip
        left = {each: np.array([regret(cells, updates, predictor) for cells in found.values()])
                for each, predictor in every.items()}  # fmt: skip
        if not np.isfinite(left["chance"]).any():
            continue
        smallest = min(left, key=lambda each: np.nanmean(left[each]))
        none = [cells for cells, own in zip(found.values(), left["chance"], strict=True)
                if np.isnan(own) and _followed(cells) >= updates]  # fmt: skip
        for each, own in left.items():
            mean, low, high = interval(own, clusters)
            less, less_low, less_high = interval(own - left["gain"], clusters)
            tied = not interval(own - left[smallest], clusters)[1] > 0
            rows.append(
                {
                    "updates": updates, "predictor": each, "regret": mean, "low": low, "high": high,
                    "less gain": less, "less low": less_low, "less high": less_high,
                    "groups": int(np.isfinite(own).sum()), "tied": tied, "without": len(none),
                    "held": sum(p(cells) is None for cells in none) if (p := every[each]) else 0,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def lasting(found: Mapping[Group, Cells]) -> pd.DataFrame:
    """Rank correlation of the first update's change with that after K, mean over groups: of all
    stages and of each."""
    rows = []
    lengths = sorted({each.updates for cells in found.values() for cell in cells.values()
                      for each in cell.followed} - {1})  # fmt: skip
    for stage in ("all", *dict.fromkeys(group.stage for group in found)):
        here = {group: cells for group, cells in found.items() if stage in ("all", group.stage)}
        clusters = [(group.task, group.seed) for group in here]
        for updates in lengths:
            values = np.array([_correlation(cells, updates) for cells in here.values()])
            mean, low, high = interval(values, clusters)
            rows.append({
                "stage": stage, "updates": updates, "correlation": mean, "low": low, "high": high,
                "groups": int(np.isfinite(values).sum()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _correlation(cells: Cells, updates: int) -> float:
    there = [cell for cell in cells.values() if cell.followed[-1].updates >= updates]
    pairs = np.array([[c.after(1).value, c.after(updates).value] for c in there]).reshape(-1, 2)
    pairs = np.nan_to_num(pairs, nan=-np.inf)
    if len(pairs) < 3 or np.ptp(pairs[:, 0]) == 0 or np.ptp(pairs[:, 1]) == 0:
        return float("nan")
    return float(stats.spearmanr(pairs).statistic)


def shares(found: Mapping[Group, Cells]) -> pd.DataFrame:
    """Mean share of the best change, at least −1, that each estimator brings after 1, 25 and 100
    updates."""
    rows = []
    for name in sorted({name for cells in found.values() for name in cells}):
        here = {group: cells for group, cells in found.items() if name in cells}
        clusters = [(group.task, group.seed) for group in here]
        for updates in (1, 25, 100):
            left = np.array([regret(cells, updates, fixed(name)) for cells in here.values()])
            mean, low, high = interval(1 - left, clusters)
            rows.append({"estimator": name, "updates": updates, "share": mean, "low": low,
                         "high": high})  # fmt: skip
    return pd.DataFrame(rows)


_MARKS = {"choose": "o", "judge": "s"}
_OF = {"choose": "tasks to choose on", "judge": "tasks to judge on"}
_LABEL = dict(fontsize=8)


def regrets(figure: Any, table: pd.DataFrame) -> None:
    """Mean regret of every predictor, one panel for each length; held-out tasks as open squares."""
    axes = figure.subplots(1, len(LENGTHS), sharex=True)
    for ax, updates in zip(axes, LENGTHS, strict=True):
        rows = table[table["updates"] == updates]
        names = list(dict.fromkeys(rows["predictor"]))[::-1]
        for k, (tasks, own) in enumerate(rows.groupby("tasks", sort=False)):
            places = np.array([names.index(name) for name in own["predictor"]]) - 0.28 * k
            ax.hlines(places, own["low"], own["high"], color="0.35", linewidth=1.5)
            ax.plot(
                own["regret"], places, _MARKS[str(tasks)], color="black", markersize=5,
                clip_on=False, markerfacecolor="white" if k else "black", label=_OF[str(tasks)],
            )  # fmt: skip
        ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], **_LABEL)
        ax.set_title(f"after {updates} updates", fontsize=9)
        ax.axvline(1.0, color="0.7", linewidth=0.8)
        ax.set_xlim(left=0)
    if table["tasks"].nunique() > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2,
                      fontsize=8, frameon=False)  # fmt: skip
    figure.supxlabel("mean regret, 95% interval (0: the best, 1: no update)", **_LABEL)


def orders(figure: Any, lasts: pd.DataFrame) -> None:
    """Rank correlation with the first update over the updates, by stage."""
    ax = figure.subplots()
    ends = []
    for k, (stage, rows) in enumerate(lasts.groupby("stage", sort=False)):
        whole = stage == "all"
        if whole:
            ax.fill_between(rows["updates"], rows["low"], rows["high"], color="0.85", linewidth=0)
        style = dict(color="black", linewidth=2.2) if whole else dict(color="0.4", linewidth=1.1)
        dash = ("-", ":", "--", "-.")[k % 4]
        ax.plot(rows["updates"], rows["correlation"], linestyle=dash, **style)
        ends.append((float(rows["correlation"].iloc[-1]), str(stage)))
    place = -np.inf
    for value, stage in sorted(ends):  # names side by side with the ends of the lines, apart
        place = max(value, place + 0.05)
        ax.annotate(stage, (1.02, place), xycoords=("axes fraction", "data"), fontsize=8)
    ax.axhline(0.5, color="0.7", linewidth=0.8)
    ax.set_ylim(0, 1)
    ax.set_xlabel("updates", **_LABEL)
    ax.set_ylabel("rank correlation with the first", **_LABEL)
    ax.set_title("order of the estimators, by stage; band: 95%", fontsize=9)


def brought(figure: Any, table: pd.DataFrame) -> None:
    """Share of the best change that each estimator brings, after 1, 25 and 100 updates."""
    ax = figure.subplots()
    last = table[table["updates"] == table["updates"].max()].sort_values("share")
    names = list(last["estimator"])
    for k, (updates, rows) in enumerate(table.groupby("updates")):
        places = np.array([names.index(name) for name in rows["estimator"]]) + 0.25 * (1 - k)
        ax.hlines(places, rows["low"], rows["high"], color="0.5", linewidth=1.2)
        ax.plot(
            rows["share"], places, "o^s"[k], color="black", markersize=4,
            markerfacecolor=("white", "0.6", "black")[k], label=f"after {updates}",
        )  # fmt: skip
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], **_LABEL)
    ax.axvline(0.0, color="0.7", linewidth=0.8)
    ax.set_xlabel("mean share of the best change of the return, 95% interval", **_LABEL)
    ax.set_title("what each estimator brings", fontsize=9)
    ax.legend(fontsize=7)


def drawn(table: pd.DataFrame, lasts: pd.DataFrame, share: pd.DataFrame) -> Figure:
    """All panels as one picture."""
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=(3.2, 4.2))
    left, right = below.subfigures(1, 2)
    regrets(top, table)
    orders(left, lasts)
    brought(right, share)
    return figure


def rule(choose: pd.DataFrame, updates: int) -> str:
    """The cheapest of the predictors that are tied with the smallest mean regret."""
    rows = choose[(choose["updates"] == updates) & choose["tied"]]
    names = {name.split(":")[0]: str(name) for name in rows["predictor"]}
    return next(names[each] for each in BY_COST if each in names)


def verdict(choose: pd.DataFrame, judge: pd.DataFrame) -> str:
    """The rule by the tasks to choose on, and what the others say of it."""
    lines = []
    for updates in (25, 100):
        chosen = rule(choose, updates)
        row = judge[(judge["updates"] == updates) & (judge["predictor"] == chosen)].iloc[0]
        word = (
            "holds" if row["less high"] < 0 else "refuted" if row["less low"] > 0 else "undecided"
        )
        if word == "undecided":  # an interval as wide as the difference would exclude 0
            width = (row["less high"] - row["less low"]) / 2 / max(abs(row["less gain"]), 1e-9)
            word += f"; about {max(width**2, 1) * row['groups']:,.0f} groups would decide"
        lines.append(
            f"K = {updates}: {chosen}, regret {row['regret']:.2f}, "
            f"less gain's {row['less gain']:+.2f} [{row['less low']:+.2f}, "
            f"{row['less high']:+.2f}] in {row['groups']} groups: {word}"
        )
    return "\n".join(lines)


def by_task(found: Mapping[Group, Cells], choose: pd.DataFrame) -> str:
    """Mean regret of the rule and of gain on each task."""
    lines = ["| task | updates | rule | gain | groups |", "|---|---|---|---|---|"]
    for task in dict.fromkeys(group.task for group in found):
        cells = [each for group, each in found.items() if group.task == task]
        for updates in (25, 100):
            kind, _, name = rule(choose, updates).partition(": ")
            ways = fixed(name) if name else PREDICTORS[kind], gain
            left = np.array([[regret(each, updates, way) for way in ways] for each in cells])
            if not np.isfinite(left).any():
                continue
            own, first = np.nanmean(left, axis=0)
            groups = int(np.isfinite(left[:, 0]).sum())
            lines.append(f"| `{task}` | {updates} | {own:.2f} | {first:.2f} | {groups} |")
    return "\n".join(lines)


def written(
    page: Path, found: Mapping[Group, Cells], every: pd.DataFrame, lasts: pd.DataFrame,
    share: pd.DataFrame, judged: Mapping[Group, Cells], board: Board,
) -> None:  # fmt: skip
    """The numbers of the paper, between its marks. `judged`: the groups of the held-out tasks, {}
    where they are not looked at."""
    table = every[every["tasks"] == "choose"]
    lasts = lasts[lasts["stage"] == "all"]
    tasks = ", ".join(f"`{task}`" for task in dict.fromkeys(group.task for group in found))
    of = f"{len(found)} groups of {tasks}"
    of_gain, of_chance = (
        table[table["predictor"] == name].set_index("updates") for name in ("gain", "chance")
    )
    said = "; ".join(
        f"after {k} updates the estimator of the largest first gain leaves {_ends(of_gain.loc[k])} "
        f"of the best, chance {_ends(of_chance.loc[k])}"
        for k in (25, 100)
    )
    put(page, "abstract", f"On {of}: {said}.")
    put(page, "regret", _rows(table))
    judge = every[every["tasks"] == "judge"]
    if len(judge):
        put(page, "judged", _rows(judge))
        put(page, "verdict", "\n".join(f"- {line}." for line in verdict(table, judge).splitlines()))
        put(page, "by task", by_task(judged, table))
    rules = "; ".join(f"after {k} updates, {_backed(rule(table, k))}" for k in (25, 100))
    put(page, "rule", f"**The rule**, the cheapest of those tied with the smallest mean regret: "
        f"{rules}.")  # fmt: skip
    put(page, "brought", _brought(share, board.oracles))
    words = "; ".join(
        f"{row.correlation:.2f} [{row.low:.2f}, {row.high:.2f}] after {row.updates}"
        for row in lasts.itertuples()
        if row.updates in LENGTHS
    )
    lasted = lasts[(lasts["low"] > 0.5) & lasts["updates"].isin(LENGTHS)]["updates"]
    how_long = f"lasts {lasted.max()} updates" if len(lasted) else "is not shown to last 5 updates"
    put(page, "lasts", "Order of the estimators by the first update against their order later "
        f"(Spearman's correlation within a group): {words}. By the criterion (lower end above .5) "
        f"it {how_long}.")  # fmt: skip
    cells = board.cells
    count, hours = len(cells), sum(cell.wall for cell in cells) / 3600
    put(
        page,
        "cost",
        f"{count:,} cells took {hours:.1f} hours of cores that other work shared, "
        f"{3600 * hours / count:.0f} s each; cells know nothing of each other, so that as many "
        "workers as there are groups share them (`gradlab board --workers N`, or `--ray`).",
    )


def _brought(share: pd.DataFrame, oracles: frozenset[str]) -> str:
    """The best after 100 updates of all, of those without the simulator, and the critic alone."""
    last = share[share["updates"] == 100].sort_values("share", ascending=False)["estimator"]
    best, own = last.iloc[0], next(name for name in last if name not in oracles)
    parts = []
    for name in dict.fromkeys((best, own, "data")):
        rows = share[share["estimator"] == name].sort_values("updates")
        each = (f"{row.share:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in rows.itertuples())
        parts.append(f"`{name}` brings {', '.join(each)}")
    return (
        f"Mean share of the best change after 1, 25 and 100 updates: {'; '.join(parts)}. The first "
        "is the best of all after 100 updates; the second, of those that do not differentiate the "
        "simulator."
    )


def _rows(table: pd.DataFrame) -> str:
    lines = [
        "| updates | predictor | regret [95%] | less gain's [95%] | groups | holds in others |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['updates']} | {row['predictor']} | {_ends(row)} | {row['less gain']:+.2f} "
            f"[{row['less low']:+.2f}, {row['less high']:+.2f}] | {row['groups']} | "
            f"{row['held']} of {row['without']} |"
            for row in table.to_dict("records")
        ),
    ]
    return "\n".join(lines)


def _backed(predictor: str) -> str:
    kind, _, name = predictor.partition(": ")
    return f"the {kind} estimator `{name}`" if name else predictor


def _ends(row: Mapping[str, float]) -> str:
    return f"{row['regret']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def main(
    judge: bool = False, pdf: bool = False, board: Path = Path("reports/board"),
    output: Path = Path("reports/lasting"),
) -> None:  # fmt: skip
    """Compare predictors on the tasks to choose on; with --judge, the rule on the others."""
    output.mkdir(parents=True, exist_ok=True)
    whole = load(board)
    chosen = groups(whole, CHOOSE)
    best = {updates: best_fixed(chosen.values(), updates) for updates in LENGTHS}
    table, lasts, share = compared(chosen, best), lasting(chosen), shares(chosen)
    table.insert(0, "tasks", "choose")
    print(table.to_string(index=False), lasts.to_string(index=False), sep="\n\n")
    every, judged = table, {}
    if judge:
        judged = groups(whole, JUDGE)
        others = compared(judged, best)
        others.insert(0, "tasks", "judge")
        print(f"\n{others.to_string(index=False)}\n\n{verdict(table, others)}")
        every = pd.concat([table, others])
    every.to_csv(output / "table.csv", index=False, float_format="%.4g")
    drawn(every, lasts, share).savefig(output / "lasting.png", dpi=150)
    panels = (("regret", (9, 3.2), regrets, every), ("order", (4.5, 3.4), orders, lasts),
              ("estimators", (4.5, 4.2), brought, share))  # fmt: skip
    for name, size, draw, of in panels if pdf else ():
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, of)
        figure.savefig(output / f"{name}.pdf")
    written(output / "paper.md", chosen, every, lasts, share, judged, whole)


if __name__ == "__main__":
    tyro.cli(main)
