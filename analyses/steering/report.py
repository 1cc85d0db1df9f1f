"""Tables, verdict and figure of steering, from its lines.

The best fixed gradient is chosen in hindsight, world by world (one for all worlds of a family
beside it): nobody who trains can know it. Intervals are 95%: percentiles of 10,000 resamples of
the worlds, paired; over seeds the wider end of Student's and the skewness-corrected jackknife.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analyses.harness.verdicts import put
from analyses.steering import linear_quadratic as lq
from analyses.steering import training
from gradlab.figures.style import BLUE, GRID, INK, VERMILION
from gradlab.statistics.moments import Estimate
from gradlab.statistics.over_groups import mean_interval

Row = dict[str, Any]
Floats = NDArray[np.float64]
FIXED = [f"fixed {n}" for n in lq.HORIZONS]
HELD = [f"fixed {n}, hold" for n in lq.HORIZONS]
BEST, BEST_HELD = "best fixed", "best fixed, hold"
WITHIN = 0.02  # of the possible improvement: not worth mention
CONTRASTS = (  # what each part is worth, after 200 updates
    ("hold, no choice: best fixed with hold − best fixed", BEST_HELD, BEST),
    ("choice by returns over hold: rehearse − best fixed with hold", "rehearse", BEST_HELD),
    ("hold in rehearsal", "rehearse", "rehearse, no hold"),
    ("same starts", "rehearse", "rehearse, unpaired"),
    ("lengths 1, 5, 25 instead of 25", "rehearse", "rehearse, 25 only"),
    ("all candidates instead of the first choice", "rehearse", "first, lengths, hold"),
    ("adopting what was judged instead of following on", "rehearse", "rehearse, followed"),
    ("hold, choice by gain every 25", "gain 25, hold", "gain 25"),
    ("gain every 25 instead of once", "gain 25", "first"),
    ("gain every 25 instead of once, with hold", "gain 25, hold", "first, hold"),
    ("returns instead of gain, every 25, hold", "rehearse, 25 only", "gain 25, hold"),
    ("halving in accept", "accept", "accept, whole steps"),
)


AGAIN = tuple(name for name in lq.FAMILIES if name.endswith("again"))
FIRST = tuple(name for name in lq.FAMILIES if name not in AGAIN)


def shares_of(rows: Sequence[Row], family: str, steps: bool) -> pd.DataFrame:
    """Share of every world (rows) and arm (columns), after 200 updates or at equal steps, with the
    best fixed of each world, without and with hold."""
    chosen = [row for row in rows if row["family"] == family]
    flat = [
        (row["seed"], row["arm"], row["equal_steps"] if steps else row["share"][-1])
        for row in chosen
    ]
    table = pd.DataFrame(flat, columns=["seed", "arm", "share"])
    wide = table.pivot(index="seed", columns="arm", values="share").dropna()
    return wide.assign(**{BEST: wide[FIXED].max(axis=1), BEST_HELD: wide[HELD].max(axis=1)})


def interval_of(values: Floats, resamples: int = 10_000) -> tuple[float, float, float]:
    """Mean of paired values over worlds, with the percentile interval of a bootstrap."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def shown(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def family_table(rows: Sequence[Row], family: str) -> str:
    """An arm a line."""
    updates, steps = (shares_of(rows, family, equal) for equal in (False, True))
    held = {name: [row["held"] for row in rows if row["arm"] == name and row["family"] == family]
            for name in lq.ARMS}  # fmt: skip
    heads = [
        "arm", "share, 200 updates", "median", "below start", "− best fixed",
        "better, worse by 0.02", "held", "steps, of fixed's", "share, equal steps", "− best fixed",
    ]  # fmt: skip
    lines = []
    for name in [BEST, BEST_HELD, *lq.ARMS]:
        own, apart = updates[name], (updates[name] - updates[BEST]).to_numpy()
        at = steps[name]
        arm = lq.ARMS.get(name, lq.ARMS[HELD[0] if name == BEST_HELD else FIXED[0]])
        better, worse = (apart > WITHIN).mean(), (apart < -WITHIN).mean()
        cells = [
            name, f"{own.mean():.2f}", f"{own.median():.2f}", f"{(own < 0).mean():.0%}",
            "–" if name == BEST else shown(interval_of(apart)), f"{better:.0%}, {worse:.0%}",
            f"{np.mean(held[name]):.0%}" if held.get(name) else "–",
            f"{arm.price / lq.FITTED:.1f}", f"{at.mean():.2f}",
            "–" if name == BEST else shown(interval_of((at - steps[BEST]).to_numpy())),
        ]  # fmt: skip
        lines.append(cells)
    return table_of(heads, lines)


def stronger_table(rows: Sequence[Row]) -> str:
    """Rehearse and accept beside fixed gradients that spend the steps otherwise, equal steps."""
    heads = ["best fixed of each world", *(f"{family}: {what}" for family in AGAIN for what in
             ("its share", "rehearse −", "accept −"))]  # fmt: skip
    lines = []
    tables = {family: shares_of(rows, family, True) for family in AGAIN}
    groups = {"as it is, 850 updates": FIXED, "with hold, 550 updates": HELD}
    groups |= {kind: [f"{name}, {kind}" for name in FIXED] for kind in lq.KINDS}
    groups |= {"any of these": [name for some in groups.values() for name in some]}
    for label, names in groups.items():
        cells = [label]
        for wide in tables.values():
            best = wide[names].max(axis=1)
            cells.append(f"{best.mean():.2f}")
            for arm in ("rehearse", "accept"):
                cells.append(shown(interval_of((wide[arm] - best).to_numpy())))
        lines.append(cells)
    return table_of(heads, lines)


def table_of(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    every = (heads, ["---"] * len(heads), *rows)
    return "\n".join(" | ".join(cells) for cells in every) + "\n"


def judge(rows: Sequence[Row]) -> str:
    """Rehearse and accept by the criterion: both families of redrawn errors, both budgets."""
    lines = []
    for arm in ("rehearse", "accept"):
        for steps in (False, True):
            found, below = {}, {}
            for family in ("mild", "hard"):
                wide = shares_of(rows, family, steps)
                found[family] = interval_of((wide[arm] - wide[BEST]).to_numpy())
                below[family] = float((wide[arm] < 0).mean())
            above = [low > 0 for _, low, _ in found.values()]
            under = [high < WITHIN for _, _, high in found.values()]
            outcome = "undecided"
            if all(under):
                outcome = "refuted"
            elif all(above) and max(below.values()) <= 0.05:
                outcome = "pays"
            elif any(above) and any(under):
                outcome = "depends on the family"
            lines.append([
                f"`{arm}`", "equal simulator steps" if steps else "200 updates", f"**{outcome}**",
                *map(shown, found.values()), ", ".join(f"{each:.0%}" for each in below.values()),
            ])  # fmt: skip
    return table_of(["arm", "budget", "outcome", "mild", "hard", "below start: mild, hard"], lines)


def forest(rows: Sequence[Row]) -> Figure:
    """Paired differences to each world's best fixed gradient, an arm a line."""
    names = [BEST_HELD, *(name for name in lq.ARMS if name not in FIXED + HELD)]
    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, sharex=True)
    y = np.arange(len(names))[::-1]
    looks = ((False, BLUE, "o", BLUE, "200 updates", 0.17),
             (True, VERMILION, "s", "white", "equal simulator steps", -0.17))  # fmt: skip
    for ax, family in zip(axes, ("mild", "hard"), strict=True):
        for steps, colour, marker, fill, label, shift in looks:
            wide = shares_of(rows, family, steps)
            found = np.array([interval_of((wide[n] - wide[BEST]).to_numpy()) for n in names])
            spans = np.abs(found[:, 1:].T - found[:, 0])
            ax.errorbar(
                found[:, 0], y + shift, xerr=spans, fmt=marker, color=colour, mfc=fill, ms=5,
                lw=1.2, label=label,
            )  # fmt: skip
        ax.axvline(0, color=INK, lw=0.9)
        ax.grid(axis="x", color=GRID, lw=0.7)
        ax.set_axisbelow(True)
        ax.set(title=f"{family} worlds", xlabel="share − that of the world's best fixed gradient")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    axes[0].set_yticks(y, names)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def averaged(row: Row, over: str, until: float) -> float:
    """Return of a seed averaged up to an iteration, or second, on a line between evaluations."""
    x, returns = np.array(row[over], dtype=float), np.array(row["returns"])
    inside = np.append(x[x < until], until)
    return float(np.trapezoid(np.interp(inside, x, returns), inside) / (until - x[0]))


def arms_of(rows: Sequence[Row], task: str) -> dict[str, list[Row]]:
    """The rows of every arm that was run on a task."""
    arms = {
        name: [row for row in rows if row["task"] == task and row["arm"] == name]
        for name in training.ARMS
    }
    return {name: found for name, found in arms.items() if found}


def whole(found: Sequence[Row]) -> Floats:
    """Returns of the seeds, averaged over the run."""
    return np.array([averaged(row, "iterations", row["iterations"][-1]) for row in found])


def best_of(arms: Mapping[str, Sequence[Row]]) -> str | None:
    """The best fixed horizon in hindsight."""
    fixed = [name for name in training.FIXED if name in arms]
    return max(fixed, key=lambda name: whole(arms[name]).mean(), default=None)


def timed(found: Sequence[Row], other: Sequence[Row]) -> Floats:
    """Differences of the returns averaged up to the earlier end of the two, in seconds."""
    until = min(found[0]["seconds"][-1], other[0]["seconds"][-1])
    pair = [np.array([averaged(row, "seconds", until) for row in each]) for each in (found, other)]
    return pair[0] - pair[1]


def task_table(rows: Sequence[Row], task: str) -> str:
    """An arm a line: returns of the seeds, paired differences to the best fixed in hindsight."""
    arms = arms_of(rows, task)
    heads = [
        "arm", "return before, after", "below their start", "averaged over the run",
        "− best fixed, equal iterations", "− best fixed, equal seconds", "processor", "transitions",
        "judging steps", "held",
    ]  # fmt: skip
    lines = []
    best = best_of(arms)
    for name, found in arms.items():
        first, mean = found[0], whole(found)
        apart, later = "–", "–"
        if best is not None and name != best:
            apart = paired(mean - whole(arms[best]))
            later = paired(timed(found, arms[best]))
        begin = np.mean([row["returns"][0] for row in found])
        end = ", ".join(f"{row['returns'][-1]:.4g}" for row in found)
        held = "–" if first["held"] is None else f"{np.mean([row['held'] for row in found]):.0%}"
        lines.append([
            f"{name} (best fixed)" if name == best else name, f"{begin:.4g}; {end}",
            f"{below(found)} of {len(found)}", f"{mean.mean():.4g}", apart, later,
            f"{first['seconds'][-1]:.0f} s", f"{first['transitions'][-1]:,}",
            f"{first['judged'][-1]:,}", held,
        ])  # fmt: skip
    return table_of(heads, lines)


def below(found: Sequence[Row]) -> int:
    """Seeds that end below their start."""
    return sum(row["returns"][-1] < row["returns"][0] for row in found)


def judge_learned(rows: Sequence[Row]) -> str:
    """Accept and rehearse by part 4 of the criterion, task by task, where all arms were run."""
    heads = [
        "task", "arm", "outcome", "− best fixed, equal seconds", "− best fixed, equal iterations",
        "− rule", "below start", "best fixed, below start",
    ]  # fmt: skip
    lines = []
    for task in training.LEARNED:
        arms = arms_of(rows, task)
        if len(arms) < len(training.ARMS):
            over = f"not over, {len(arms)} of {len(training.ARMS)} arms"
            lines.append([task, "", over, *[""] * 5])
            continue
        best = best_of(arms)
        assert best is not None
        for name in training.STEERED:
            found = arms[name]
            apart, later = whole(found) - whole(arms[best]), timed(found, arms[best])
            lines.append([
                task, f"`{name}`", f"**{outcome_of(apart, later)}**", paired(later), paired(apart),
                paired(whole(found) - whole(arms["rule"])), f"{below(found)} of {len(found)}",
                f"{best}, {below(arms[best])} of {len(found)}",
            ])  # fmt: skip
    return table_of(heads, lines)


def outcome_of(apart: Floats, later: Floats) -> str:
    """By differences at equal iterations and at equal seconds."""
    low, high = ends_of(later)
    if low > 0:
        return "pays"
    if high < 0:
        return "refuted"
    return "undecided, only at equal iterations" if ends_of(apart)[0] > 0 else "undecided"


def ends_of(values: Floats) -> tuple[float, float]:
    left_out = (values.sum() - values) / (len(values) - 1)
    found = mean_interval(Estimate(float(values.mean()), left_out))
    return found.low, found.high


def paired(values: Floats) -> str:
    low, high = ends_of(values)
    return f"{values.mean():+.3g} [{low:+.3g}, {high:+.3g}]"


def write_page(worlds: Sequence[Row], tasks: Sequence[Row], output: Path) -> None:
    """The generated parts of README.md and, of every arm, of arms.md; and the figure."""
    page, arms = output / "README.md", output / "arms.md"
    if worlds:
        put(page, "verdict", judge(worlds))
        families = {family: shares_of(worlds, family, False) for family in FIRST}
        lines = [
            [what, *(shown(interval_of((w[a] - w[b]).to_numpy())) for w in families.values())]
            for what, a, b in CONTRASTS
        ]
        put(page, "parts", table_of(["what", *families], lines))
        for family in FIRST:
            put(arms, family.replace(", ", "-"), family_table(worlds, family))
        if any(row["family"] in AGAIN for row in worlds):
            put(page, "stronger", stronger_table(worlds))
        figure = forest(worlds)
        FigureCanvasAgg(figure)
        figure.savefig(output / "steering.png", dpi=110)
    put(page, "learned", judge_learned(tasks))
    for task in training.WORLDS:
        if any(row["task"] == task for row in tasks):
            put(arms, task, task_table(tasks, task))
