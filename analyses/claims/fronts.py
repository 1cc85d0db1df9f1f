"""What a page says first: each sentence and its intervals are made from the rows that it names.

python -m analyses.claims       writes them into the pages, between <!-- front NAME --> marks
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from analyses.harness.criteria import read_verdicts
from gradlab.runs.training.pairs import paired_returns
from gradlab.runs.training.results import load

Ends = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """A row of a table below reports, and the columns of its value and ends."""

    file: str
    picked: Mapping[str, str]
    columns: tuple[str, ...] = ("value", "low", "high")

    def text(self, reports: Path) -> str:
        with (reports / self.file).open() as file:
            found = [row for row in csv.DictReader(file) if self.picked.items() <= row.items()]
        assert len(found) == 1, (self.file, self.picked, len(found))
        cells = [found[0][name] for name in self.columns]
        return interval(*map(float, cells)) if len(cells) == 3 else cells[0].replace("-", "−")


@dataclass(frozen=True)
class Verdict:
    """A number of a verdict, with its ends where it has any."""

    file: str
    name: str

    def text(self, reports: Path) -> str:
        place = reports / self.file
        numbers = read_verdicts(place.parent)[place.name]["numbers"]
        ends = [numbers.get(f"{self.name}{joint}{end}") for end in ("low", "high")
                for joint in (" ", "_") if f"{self.name}{joint}{end}" in numbers]  # fmt: skip
        value = numbers[self.name]
        return f"{value:.3g}".replace("-", "−") if len(ends) < 2 else interval(value, *ends)


@dataclass(frozen=True)
class BestOf:
    """The mean over seeds of the best of several, its interval corrected for the choice."""

    file: str
    key: str
    chosen: str
    column: str

    def text(self, reports: Path) -> str:
        with (reports / self.file).open() as file:
            rows = list(csv.DictReader(file))
        values = np.array([float(r[self.column]) for r in rows if r[self.key] == self.chosen])
        return interval(*corrected(values, len({row[self.key] for row in rows})))


@dataclass(frozen=True)
class Paired:
    """Final return of one run less another's, paired by seeds, as `gradlab compare` has it."""

    above: str
    below: str

    def text(self, reports: Path) -> str:
        found = paired_returns(load(reports / self.below), load(reports / self.above))
        assert found is not None
        return interval(found.change, found.low, found.high)


@dataclass(frozen=True)
class Front:
    """A sentence or a table with a slot for each of its numbers. One that begins a line begins with
    a newline: Markdown leaves a line that begins with a mark as it is."""

    name: str
    page: str
    sentence: str
    numbers: Mapping[str, Row | Verdict | BestOf | Paired] = field(default_factory=dict)

    def text(self, reports: Path) -> str:
        return self.sentence.format(**{k: each.text(reports) for k, each in self.numbers.items()})


def corrected(values: np.ndarray, looks: int) -> Ends:
    """Mean, and Student's 95% interval of all looks together (Bonferroni)."""
    n = len(values)
    reach = stats.t.ppf(1 - 0.025 / looks, n - 1) * values.std(ddof=1) / n**0.5
    return float(values.mean()), float(values.mean() - reach), float(values.mean() + reach)


def interval(value: float, low: float, high: float) -> str:
    """0.26 [0.19, 0.35]"""
    ends = [f"{x:.2g}" if abs(x) < 99.5 else f"{x:,.0f}" for x in (value, low, high)]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]".replace("-", "−")


def _race(world: str, row: str) -> Row:
    return Row("first-order/race.csv", {"world": world, "row": row})


def _run(name: str, column: str) -> Row:
    return Row("model-based/table.csv", {"run": name}, (column,))


def _table_1(name: str) -> Verdict:
    return Verdict("mpg-table-1/tab1-path", name)


_DPG = Paired(
    "mpg-table-1/full/mpg-v2-path_tracking.h5", "mpg-table-1/full/n-step-dpg-path_tracking.h5"
)
FRONTS = (
    Front(
        "table-1", "README.md",
        "MPG's Table I on path tracking at the paper's length, five seeds of six algorithms: "
        "MPG-v2 ends best by its median and is shown above n-step ADP (by {adp}), SAC ({sac}) and, "
        "by Welch's interval, n-step DPG ({dpg}; not with the seeds paired, {paired}), not above "
        "TD3 ({td3}), which loses one seed; the gap in speed is not as printed",
        {"sac": _table_1("mpg-v2 − sac"), "td3": _table_1("mpg-v2 − td3"),
         "dpg": _table_1("mpg-v2 − n-step-dpg"), "adp": _table_1("mpg-v2 − n-step-adp"),
         "paired": _DPG},
    ),
    Front(
        "dpg", "mpg-table-1/README.md",
        "MPG-v2 ends above n-step DPG by {dpg} with the seeds as separate samples (Welch's "
        "interval, which the verdict uses), and by {paired}, which shows nothing, with the seeds "
        "paired, as `gradlab compare` has it.",
        {"dpg": _table_1("mpg-v2 − n-step-dpg"), "paired": _DPG},
    ),
    Front(
        "late", "README.md",
        "what the papers say about the best horizon, the rule for weights, and bias and "
        "variance early and late in training. Late, after 20,000 iterations, the critic is the "
        "better gradient on all four seeds; that the prior's offset of half a metre makes it so is "
        "shown on one (bias(25)/bias(0) {published}, without the offset {without}), and four "
        "shorter trainings leave it open (after 7,500 iterations {four}, without {four_without})",
        {"published": Verdict("horizon-claims/early-late-exchange", "visited published 20000"),
         "without": Verdict("horizon-claims/early-late-exchange", "visited no offset 20000"),
         "four": Verdict("horizon-claims/early-late-arms", "published, prior published, 7500"),
         "four_without": Verdict("horizon-claims/early-late-arms",
                                 "published, prior no offset, 7500")},
    ),
    Front(
        "shac", "first-order/README.md",
        "\n\n| processor seconds over those of Stable-Baselines3's SAC, to | `shac` | `sac` |\n"
        "|---|---|---|\n"
        "| −250 on the pendulum | {shac_pendulum} | {sac_pendulum} |\n"
        "| 900 on InvertedPendulum-v5 | {shac_inverted} | {sac_inverted} |\n"
        "| 500 on Hopper-v5 | {shac_hopper} | {sac_hopper} |\n\n",
        {f"{row}_{key}": _race(world, row)
         for row in ("shac", "sac")
         for key, world in (("pendulum", "pendulum"), ("inverted", "inverted-pendulum"),
                            ("hopper", "hopper"))},
    ),
    Front(
        "paths", "first-order/README.md",
        "one small step along `shac`'s gradient is estimated to gain at h = 16 alone, of six "
        "horizons: {gain}, the mean of five seeds, corrected for the choice of one of six. "
        "Training at 16 instead of 32 changes the final return by {trained}",
        {"gain": BestOf("first-order/window-gains-hopper.csv", "horizon", "16", "gain"),
         "trained": Row("first-order/window-gain.csv", {"world": "hopper"})},
    ),
    Front(
        "winner", "model-based/README.md",
        "\n**Train by `rp-dp`: of ten rows its mean return over the run is the highest in both "
        "worlds.** On the pendulum it is {pendulum} (next `maac`, {maac}; at the end most rows are "
        "alike), on the cart-pole swing-up {whole} (next `sac`, {whole_sac}), where it ends at "
        "{cart} (`sac` at {sac})",
        {"pendulum": _run("rp-dp-pendulum", "over the run"),
         "maac": _run("maac-pendulum", "over the run"),
         "whole": _run("rp-dp-cart-pole", "over the run"),
         "whole_sac": _run("sac-cart-pole", "over the run"),
         "cart": _run("rp-dp-cart-pole", "final"), "sac": _run("sac-cart-pole", "final")},
    ),
)  # fmt: skip


def write(reports: Path) -> None:
    """Put every front into its page."""
    for front in FRONTS:
        page = reports / front.page
        if not page.is_file():
            continue
        place = re.compile(rf"(<!-- front {front.name} -->).*?(<!-- /front -->)", re.DOTALL)
        text = front.text(reports)
        old = page.read_text()
        page.write_text(place.sub(lambda found, text=text: f"{found[1]}{text}{found[2]}", old))
