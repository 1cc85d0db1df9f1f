"""EARLY-LATE-EXCHANGE: is "late, n = 0 is better" a property of the prior's offset?

    claim       late in training the model's error dominates, so that n = 0 is the better horizon
    paper       MPG, section III-B; its prior adds 0.5 m to y in every step of 0.1 s (eq. 17)
    criterion   |bias(25)|/|bias(0)| at the last checkpoint through the same prior without the
                offset, policies and critics unchanged: below 1 by its whole paired 95% interval,
                "late" is a property of the offset; above 1, it is not. Each law of the states

    python -m analyses.horizons.early_late_exchange [--output reports/horizon-claims]

The published run of MPG-v2 on path tracking, six checkpoints of one seed, at replayed states and at
those that the policy visits, where the truth is the gradient of the return. States, noise and truth
are the frozen ones of reports/choice/samples; only the prior is exchanged. The interval is the
paired jackknife over starts: of one seed, whose policy was driven by the prior with the offset and
by the rule (`early_late_arms` has arms that were trained without it).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analyses.harness import verdicts
from analyses.harness.verdicts import Verdict, save
from analyses.horizons.checkpoint_samples import (
    CHECKPOINTS,
    HORIZON,
    ITERATIONS,
    KEPT,
    RAMPS,
    Place,
    load,
    through,
)
from analyses.horizons.early_late import SIGNS, crossing, sign
from analyses.horizons.early_late_arms import PRIORS, TASK, ratios

FOLDER = Path("reports/horizon-claims")
LAWS = {"visited": "replayed states", "return": "states that the policy visits"}
LAST = ITERATIONS[-1]


def measure(checkpoints: Path, samples: Path) -> pd.DataFrame:
    """One row per law, checkpoint, prior, horizon and quantity."""
    rows = []
    for law in LAWS:
        for iteration in ITERATIONS:
            place = Place(TASK, iteration, 0, law)
            frozen = load(samples / place.name)
            for name, prior in PRIORS.items():
                about = {"law": law, "iteration": iteration, "prior": name}
                found = ratios(through(frozen, prior, checkpoints), checkpoints)
                rows += [about | row for row in found]
    return pd.DataFrame(rows)


def judge(rows: pd.DataFrame) -> Verdict:
    """The verdict from `measure`."""
    last = {law: _gap(rows, law, LAST) for law in LAWS}
    holds = all(each == -1 for each in last.values())
    refuted = all(each == 1 for each in last.values())
    opening = (
        'Yes: "late, n = 0 is better" is a property of the offset.'
        if holds
        else 'No: "late, n = 0 is better" remains without the offset.'
        if refuted
        else "Only partly, or undecided."
    )
    sentence = " ".join([opening, *(_of_law(rows, law, name) for law, name in LAWS.items())])
    return Verdict(
        "EARLY-LATE-EXCHANGE",
        "MPG, section III-B; eq. 17",
        "bias(25)/bias(0) at 20,000 iterations through the prior without its offset lies below 1, "
        "whole paired 95% interval, at replayed states and at those that the policy visits",
        holds,
        f"{sentence} One seed, paired jackknife over starts; the policies were trained with the "
        f"offset and with the rule.",
        numbers(rows),
        rows,
        _figure(rows),
    )


def _at(rows: pd.DataFrame, law: str, prior: str, quantity: str) -> pd.DataFrame:
    """Horizon 25 through training."""
    cells = (rows["law"] == law) & (rows["prior"] == prior) & (rows["horizon"] == HORIZON)
    return rows[cells & (rows["quantity"] == quantity)].sort_values("iteration")


def _gap(rows: pd.DataFrame, law: str, iteration: int, prior: str = "no offset") -> int:
    """Sign of bias² of J_25 less that of J_0, 0 where its interval holds both."""
    found = _at(rows, law, prior, "bias_gap").set_index("iteration").loc[iteration]
    return sign(found["ci_low"], found["ci_high"])


def numbers(rows: pd.DataFrame) -> dict[str, float]:
    """Ratio with its ends at every checkpoint; those that noise hides are left out."""
    found: dict[str, float] = {}
    for law in LAWS:
        for prior in PRIORS:
            for row in _at(rows, law, prior, "bias_ratio").dropna().to_dict("records"):
                name = f"{law} {prior} {row['iteration']}"
                found |= {
                    name: row["value"], f"{name} low": row["ci_low"], f"{name} high": row["ci_high"]
                }  # fmt: skip
    return found


def _of_law(rows: pd.DataFrame, law: str, name: str) -> str:
    parts = [f"{prior}, {_told(rows, law, prior)}" for prior in PRIORS]
    return f"At {name}, bias(25)/bias(0) by iteration: {'; '.join(parts)}."


def _told(rows: pd.DataFrame, law: str, prior: str) -> str:
    found = _at(rows, law, prior, "bias_ratio")
    listed = ", ".join(
        f"{int(row['iteration']):,} {SIGNS[_gap(rows, law, int(row['iteration']), prior)]}"
        if row["value"] != row["value"]
        else f"{int(row['iteration']):,} {row['value']:.2g} "
        f"[{row['ci_low']:.2g}, {row['ci_high']:.2g}]"
        for row in found.to_dict("records")
    )
    where = crossing(found)
    crossed = f"crosses 1 at {where:,.0f}" if where == where else "does not cross 1"
    return f"{listed} ({crossed})"


def _figure(rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    panels = figure.subplots(1, len(LAWS), sharey=True)
    for axes, (law, name) in zip(panels, LAWS.items(), strict=True):
        for prior, style, colour in zip(PRIORS, ("o-", "s--"), ("black", "tab:blue"), strict=True):
            found = _at(rows, law, prior, "bias_ratio").dropna()
            error = (found["value"] - found["ci_low"], found["ci_high"] - found["value"])
            label = "prior as published" if prior == "published" else "without its offset of 0.5 m"
            axes.errorbar(found["iteration"], found["value"], error, fmt=style, color=colour,
                          markersize=4, capsize=2, linewidth=1, label=label)  # fmt: skip
        axes.axhline(1.0, color="tab:red", linewidth=0.8)
        axes.axvline(RAMPS[TASK] // 2, color="0.6", linestyle=":", label="the rule's T/2")
        axes.set(yscale="log", xlabel="iteration", title=name)
        axes.title.set_fontsize(9)
    panels[0].set_ylabel("|bias of J_25| / |bias of J_0|")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def main(checkpoints: Path = CHECKPOINTS, samples: Path = KEPT, output: Path = FOLDER) -> None:
    """Measure and judge.

    Args:
        checkpoints: folder of the training runs, whose policies and critics are needed.
        samples: folder of the frozen samples; output: of the verdict.
    """
    save(
        judge(measure(checkpoints, samples)),
        output,
        "python -m analyses.horizons.early_late_exchange",
    )
    verdicts.main(output)


if __name__ == "__main__":
    tyro.cli(main)
