"""Verdict and page of `beside_sb3`, from its curves: one row per algorithm, side, seed, evaluation.

difference   mean over seeds here − mean over seeds there, Welch's interval (Welch 1947)
same         the whole interval lies within ± the margin
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from analyses.beside_sb3.runs import CONTROL, HERE, NAMES, SLOW, THERE
from analyses.beside_sb3.settings import listed
from analyses.harness.criteria import Part, deciding, outcome, within
from analyses.harness.student import half_width
from analyses.harness.verdicts import Verdict, put, save

Floats = NDArray[np.float64]
END, AREA = "return at the end", "mean return over the run"
MARGINS: Mapping[str, float] = {END: 50.0, AREA: 100.0}
LAST = 4  # evaluations
WORDS = {"holds": "the same", "refuted": "not the same", "undecided": "undecided"}
COLOURS = {HERE: "black", THERE: "tab:red", CONTROL: "tab:grey"}


@dataclass(frozen=True)
class Difference:
    """A number of one side less Stable-Baselines3's.

    Attributes:
        here, there: means over the seeds; seeds: of either side.
        value, low, high: of the difference, with Welch's 95% interval.
    """

    algorithm: str
    side: str
    quantity: str
    here: float
    there: float
    value: float
    low: float
    high: float
    seeds: tuple[int, int]

    @property
    def word(self) -> str:
        return WORDS[outcome(self._parts)]

    @property
    def more(self) -> int | None:
        """Further seeds on either side that would decide; None where it is, or none would."""
        if self.word != WORDS["undecided"]:
            return None
        undecided = [part for part in self._parts if part.state == "undecided"]
        return deciding(undecided, min(self.seeds))[1]  # type: ignore[index]

    @property
    def _parts(self) -> list[Part]:
        margin = MARGINS[self.quantity]
        return list(within(self.quantity, (self.value, self.low, self.high), -margin, margin))


def numbers(curves: pd.DataFrame) -> pd.DataFrame:
    """Both quantities of every run: algorithm, side, seed."""
    runs = curves.sort_values("update").groupby(["algorithm", "side", "seed"])
    return runs.apply(_of_run, include_groups=False).reset_index()


def _of_run(run: pd.DataFrame) -> pd.Series:
    update, earned = run["update"].to_numpy(), run["return"].to_numpy()
    area = np.trapezoid(earned, update) / (update[-1] - update[0])
    return pd.Series({END: earned[-LAST:].mean(), AREA: area})


def differences(curves: pd.DataFrame) -> list[Difference]:
    """Of the rows here and of the control, where it was run."""
    every = numbers(curves).set_index(["algorithm", "side"]).sort_index()
    return [
        _difference(name, side, quantity, every.loc[(name, side)], every.loc[(name, THERE)])
        for name in NAMES
        for side in (HERE, CONTROL)
        if (name, side) in every.index
        for quantity in MARGINS
    ]


def _difference(
    name: str, side: str, quantity: str, here: pd.DataFrame, there: pd.DataFrame
) -> Difference:
    one, other = (runs[quantity].to_numpy(dtype=np.float64) for runs in (here, there))
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return Difference(
        name, side, quantity, one.mean(), other.mean(), one.mean() - other.mean(),
        float(interval.low), float(interval.high), (len(one), len(other)),
    )  # fmt: skip


def judged(curves: pd.DataFrame) -> Verdict:
    """All four numbers of the rows here have to be the same."""
    gaps = differences(curves)
    rows, controls = ([gap for gap in gaps if gap.side == side] for side in (HERE, CONTROL))
    sentence = "; ".join(_worded(gap) for gap in rows)
    if controls:
        sentence += f". Control, learning rates {SLOW:g}: {'; '.join(map(_worded, controls))}"
    return Verdict(
        "BESIDE-SB3",
        "–",
        "here − Stable-Baselines3, Welch's 95% interval over seeds: return at the end within "
        f"±{MARGINS[END]:g}, mean return over the run within ±{MARGINS[AREA]:g}, for SAC and TD3; "
        "the control is not the same",
        all(gap.word == "the same" for gap in rows) and not _blind(controls),
        sentence + ".",
        {f"{gap.algorithm}, {gap.side}, {gap.quantity}{end}": value for gap in gaps
         for end, value in (("", gap.value), (" low", gap.low), (" high", gap.high))},
        curves,
        figure(curves),
    )  # fmt: skip


def _blind(controls: Sequence[Difference]) -> bool:
    """A control is judged the same in both numbers."""
    alike = [gap.algorithm for gap in controls if gap.word == "the same"]
    return any(alike.count(name) == len(MARGINS) for name in NAMES)


def _worded(gap: Difference) -> str:
    more = gap.more
    return (
        f"{gap.algorithm}, {gap.quantity}: {gap.here:.0f} against {gap.there:.0f}, difference "
        f"{gap.value:+.0f} [{gap.low:.0f}, {gap.high:.0f}], {gap.word}"
        + (f" ({more} more seeds a side would decide)" if more else "")
    )


def table(gaps: Sequence[Difference]) -> str:
    """The differences as a table of the page."""
    lines = [
        "| algorithm | here | quantity | Stable-Baselines3 | here | difference | margin | judged |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for gap in gaps:
        lines.append(
            f"| {gap.algorithm} | {gap.side} | {gap.quantity} | {gap.there:.0f} | "
            f"{gap.here:.0f} | {gap.value:+.0f} [{gap.low:.0f}, {gap.high:.0f}] | "
            f"±{MARGINS[gap.quantity]:.0f} | {gap.word} |"
        )
    return "\n".join(lines)


def figure(curves: pd.DataFrame) -> Figure:
    """Mean over seeds with Student's 95% interval, sides over each other."""
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    panels = drawn.subplots(1, len(NAMES), sharey=True)
    for axes, name in zip(panels, NAMES, strict=True):
        for side, colour in COLOURS.items():
            runs = curves[(curves["algorithm"] == name) & (curves["side"] == side)]
            if len(runs):
                by_seed = runs.pivot(index="update", columns="seed", values="return")
                values, seeds = by_seed.to_numpy(), by_seed.shape[1]
                mean = values.mean(axis=1)
                reach = half_width(values)
                dash = {HERE: "-", THERE: "--", CONTROL: ":"}[side]
                axes.plot(by_seed.index, mean, dash, color=colour, label=f"{side}, {seeds} seeds")
                axes.fill_between(
                    by_seed.index, mean - reach, mean + reach, color=colour, alpha=0.15, lw=0
                )
        axes.set(title=name, xlabel="updates, one per environment step")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    panels[0].set_ylabel("return of 200 steps, without exploration")
    return drawn


def write(curves: pd.DataFrame, output: Path) -> None:
    """The verdict, {claim}.csv, .png, and the tables of README.md between their marks."""
    save(judged(curves), output, "python -m analyses.beside_sb3 judge")
    put(output / "README.md", "differences", table(differences(curves)))
    put(output / "README.md", "settings", listed())
