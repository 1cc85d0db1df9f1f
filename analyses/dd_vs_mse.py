"""DD-VS-MSE: does a model need a loss on its derivatives, or do state predictions suffice?

    claim       RP-PGM: models that predict states suffice; DDPPO: the model's gradient has to be
                learned, by directional derivatives to neighbouring data
    paper       RP-PGM, section 4.3, against DDPPO, section 5.2
    criterion   a decided answer at every data size: the interval of the ratio of the policy
                gradient's squared bias, with the loss over without, at equal fitting time, lies
                below 1, above 1, or within [0.8, 1.25]

    python -m analyses.dd_vs_mse [--small] [--output reports/remedies] [--trials FILE]

Pendulum and cart-pole, without noise and with noise of a tenth of the spread of s' − s; 500 to
20,000 rows; 10 seeds of record and of fit. One network of 2×64 SiLU units, 2,000 steps of 256 rows
by squared error, against the same with w R beside it (DDPPO eq. 9, sign corrected; n = 10, w = 1,
standardised, one of the ten neighbours per step in turn), and against squared error for as long as
that took. The reward is known. The policy's gradient has θ in the first action, 1, 3, 5 and 10
model steps, and a critic that is all but exact, so that its bias is the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import remedy_claims
from analyses.forest import plain_ticks
from analyses.model_pairs import (
    cost_ratio,
    errors,
    gradients,
    held_out_of,
    learned,
    photographs,
    settings,
)  # fmt: skip
from analyses.model_worlds import world
from analyses.paired_trials import (
    ALIKE,
    HORIZONS,
    Row,
    as_numbers,
    columns,
    comparison,
    kept,
    told,
    with_bias,
)
from analyses.verdicts import Verdict, save
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import OneStep
from gradlab.fitting.nearness import nearness

FOLDER = Path("reports/remedies")
WORLDS = (("pendulum", 0.0), ("pendulum", 0.1), ("cart-pole", 0.0), ("cart-pole", 0.1))
ROWS = (500, 2000, 5000, 20_000)
TRIALS = 10
STEPS = 2000
LOSS = DirectionalDerivative(prediction="mse", directions=1)
BASELINE = OneStep("mse")
ANSWERS = ("better", "worse", "alike", "undecided")
BUDGETS = ("equal time", "equal steps")
PAIRS = {budget: (("mse", budget), ("dd", "both")) for budget in BUDGETS}
CELL = ("world", "noise", "rows")
QUANTITIES = (
    "bias2", *(f"{name}_{h}" for name in ("bias2", "cosine") for h in HORIZONS), "jacobian",
    "prediction",
)  # fmt: skip


def measure(trials: Path, small: bool = False, most: int = TRIALS) -> pd.DataFrame:
    """One row per world, size, trial and model; `most` trials."""
    worlds, sizes = (WORLDS[2:3], (200,)) if small else (WORLDS, ROWS)
    count, steps = (2, 20) if small else (most, STEPS)
    cells: list[Row] = [
        {"world": name, "noise": noise, "rows": rows, "trial": trial, "steps": steps}
        for trial in range(count)
        for rows in sizes
        for name, noise in worlds
    ]
    return kept(trials, cells, one_trial)


def one_trial(cell: Row) -> list[Row]:
    """The three models of one cell."""
    name, noise, rows = str(cell["world"]), float(cell["noise"]), int(cell["rows"])
    here, shape = world(name, noise), settings(int(cell["trial"]))
    data, test = here.record(rows, int(cell["trial"])), held_out_of(here)
    steps, times = int(cell["steps"]), cost_ratio(name, noise, LOSS, BASELINE)
    longer = round(times * steps)
    plain = photographs(data, shape, BASELINE, (steps, longer))
    fits = {
        ("mse", "equal steps"): plain[steps],
        ("mse", "equal time"): plain[longer],
        ("dd", "both"): photographs(data, shape, LOSS, (steps,))[steps],
    }
    systems = {" ".join(key): learned(here, fit) for key, fit in fits.items()}
    biases = gradients(here, systems)
    near = nearness(data, plain[longer], LOSS.neighbours, LOSS.divided)
    foreseen: Row = {"times": times, "nearness": near.verdict, "distance": near.distance}
    foreseen |= {"target_error": near.target_error, "model_error": near.model_error}
    return [
        {"arm": arm, "budget": budget, "best_epoch": fit.best_epoch[0]}
        | errors(systems[f"{arm} {budget}"], test)
        | biases[f"{arm} {budget}"]
        | foreseen
        for (arm, budget), fit in fits.items()
    ]


def foreseen(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and trial: what `nearness` said of the data, and what came of it."""
    rows = []
    for (name, noise, size), cell in with_bias(trials).groupby(list(CELL)):
        said = cell[cell["arm"] == "dd"].set_index("trial")["nearness"]
        found = {"world": name, "noise": noise, "rows": size, "said": said.to_numpy()}
        for quantity in ("jacobian", "bias2"):
            one, other = columns(cell, ("mse", "equal time"), ("dd", "both"), quantity)
            found[quantity] = other / one
        rows.append(pd.DataFrame(found))
    return pd.concat(rows, ignore_index=True)


def judge(trials: pd.DataFrame) -> Verdict:
    """The verdict from one row per world, size, trial and model."""
    table, near = comparison(trials, CELL, PAIRS, QUANTITIES), foreseen(trials)
    decisive = table[table["quantity"] == "bias2"].set_index("pair")
    timed = decisive.loc[["equal time"]]
    counts = {budget: decisive.loc[budget, "answer"].value_counts() for budget in BUDGETS}
    numbers = {
        f"cells {word}, {budget}": int(count.get(word, 0))
        for budget, count in counts.items()
        for word in ANSWERS
    }
    numbers |= as_numbers(timed, CELL) | _agreement(near)
    holds = bool((timed["answer"] != "undecided").all())
    return Verdict(
        "DD-VS-MSE",
        "RP-PGM, section 4.3, against DDPPO, section 5.2",
        "a decided answer at every data size: the interval of the ratio of the policy gradient's "
        "squared bias, with the loss over without, at equal fitting time, lies below 1, above 1, "
        f"or within [{1 / ALIKE:g}, {ALIKE:g}]",
        holds,
        _sentence(table, timed, counts, near, trials),
        numbers,
        table,
        _figure(table, near),
    )


def _agreement(near: pd.DataFrame) -> dict[str, float]:
    """How often the Jacobian's and the gradient's error fell, by what `nearness` had said."""
    found: dict[str, float] = {}
    for word, rows in near.groupby("said"):
        found[f"trials where neighbours {word}"] = len(rows)
        for quantity in ("jacobian", "bias2"):
            found[f"{quantity} lower where neighbours {word}"] = (rows[quantity] < 1).mean()
    return found


def _sentence(
    table: pd.DataFrame, timed: pd.DataFrame, counts: Mapping[str, pd.Series],
    near: pd.DataFrame, trials: pd.DataFrame,
) -> str:  # fmt: skip
    said = _agreement(near)
    foretold = "; ".join(
        f"{word} ({said[f'trials where neighbours {word}']:.0f} fits): lower Jacobian error in "
        f"{said[f'jacobian lower where neighbours {word}']:.0%}, lower bias² in "
        f"{said[f'bias2 lower where neighbours {word}']:.0%}"
        for word in sorted(near["said"].unique())
    )
    cosine = table[(table["quantity"] == "cosine_10") & (table["pair"] == "equal time")]
    moved = cosine[(cosine["ci_low"] > 0) | (cosine["ci_high"] < 0)]
    return (
        f"{_opening(counts)} Squared bias with/without the loss at equal time (geometric mean over "
        f"h = 1, 3, 5, 10 and the trials): {_by_world(timed)}. At equal steps: "
        f"{_counted(counts['equal steps'])}. Cosines at h = 10 differ beyond their interval in "
        f"{len(moved)} of {len(cosine)} cells. Foretold from the data: {foretold}. A step with "
        f"the loss cost {trials['times'].median():.2g} without it. N = "
        f"{int(timed['n'].min())} trials; 2×64 SiLU, reward known."
    )


def _opening(counts: Mapping[str, pd.Series]) -> str:
    count = counts["equal time"]
    better, rest = count.get("better", 0), count.get("worse", 0) + count.get("alike", 0)
    opening = (
        "RP-PGM is right on these systems: state prediction suffices."
        if rest and not better
        else "DDPPO is right on these systems."
        if better and not rest
        else "Each is right somewhere."
    )
    return f"{opening} At equal time the loss is {_counted(count)}."


def _counted(count: pd.Series) -> str:
    told = [f"{word} in {count[word]}" for word in ANSWERS if word in count]
    return f"{', '.join(told)} of {count.sum()} cells"


def _by_world(timed: pd.DataFrame) -> str:
    parts = []
    for (name, noise), rows in timed.groupby(["world", "noise"], sort=False):
        each = ", ".join(
            f"{row['rows']:,} rows {told(row)} {row['answer']}"
            for _, row in rows.sort_values("rows").iterrows()
        )
        parts.append(f"{_named(name, noise)}: {each}")
    return "; ".join(parts)


def _named(name: str, noise: float) -> str:
    return f"{name}, {f'noise {noise:.0%}' if noise else 'no noise'}"


def _figure(table: pd.DataFrame, near: pd.DataFrame) -> Figure:
    """Above the ratio by data size, below the relative bias itself."""
    worlds = list(table.groupby(["world", "noise"], sort=False))
    figure = Figure(figsize=(2.9 * len(worlds) + 0.6, 6.2), layout="constrained")
    panels = figure.subplots(2, len(worlds), sharey="row", squeeze=False)
    for axes, ((name, noise), rows) in zip(panels.T, worlds, strict=True):
        axes[0].set_title(_named(name, noise), fontsize=9)
        _ratios(axes[0], rows)
        _biases(axes[1], rows)
        for each in axes:
            each.set_xscale("log")
            sizes = sorted(rows["rows"].unique())
            each.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
            each.minorticks_off()
        _foretold(axes[0], near[(near["world"] == name) & (near["noise"] == noise)])
    for axes in panels[:, 0]:
        plain_ticks(axes.yaxis)
    panels[0, 0].set_ylabel("with / without the loss\n(below 1: it helps)", fontsize=8)
    panels[1, 0].set_ylabel("bias of the policy gradient\n/ its true norm, h = 10", fontsize=8)
    figure.supxlabel(
        "recorded transitions        (+a −b: trials whose data say beforehand that neighbours can "
        "help, cannot help)",
        fontsize=8,
    )
    handles = [h for axes in panels[:, 0] for h in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return figure


def _ratios(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhspan(1 / ALIKE, ALIKE, color="0.92", zorder=0)
    axes.axhline(1, color="black", linewidth=0.6)
    styles = {
        ("bias2", "equal time"): ("o-", "black", "black", "bias², equal time", 1.0),
        ("bias2", "equal steps"): ("o--", "black", "white", "bias², equal steps", 0.94),
        ("jacobian", "equal time"): ("s:", "0.45", "0.45", "Jacobian MSE, equal time", 1.06),
    }
    for (quantity, budget), (line, colour, face, label, shift) in styles.items():
        part = rows[(rows["quantity"] == quantity) & (rows["pair"] == budget)]
        part = part.sort_values("rows")
        y = part["value"]
        error = np.stack([y - part["ci_low"], part["ci_high"] - y])
        axes.errorbar(
            part["rows"] * shift, y, np.abs(error), fmt=line, color=colour, label=label,
            markerfacecolor=face, markersize=4, linewidth=1, capsize=2,
        )  # fmt: skip
    axes.set_yscale("log")


def _foretold(axes: Axes, near: pd.DataFrame) -> None:
    """Under each size: in how many trials neighbours were near enough to help, or not."""
    sizes = sorted(near["rows"].unique())
    said = [near[near["rows"] == size]["said"].value_counts() for size in sizes]
    counts = [f"+{one.get('can help', 0)} −{one.get('cannot help', 0)}" for one in said]
    labels = [f"{size:,}\n{count}" for size, count in zip(sizes, counts, strict=True)]
    axes.set_xticks(sizes, labels, fontsize=7)


def _biases(axes: Axes, rows: pd.DataFrame) -> None:
    part = rows[(rows["quantity"] == "bias2_10") & (rows["pair"] == "equal time")]
    part = part.sort_values("rows")
    for column, line, label in (
        ("without", "o-", "below: squared error alone"),
        ("with", "s--", "below: with the loss beside it"),
    ):
        axes.plot(part["rows"], part[column] ** 0.5, line, color="black", label=label,
                  markerfacecolor="black" if column == "without" else "white",
                  markersize=4, linewidth=1)  # fmt: skip
    axes.axhline(1, color="0.6", linewidth=0.6)
    axes.set_yscale("log")


def main(small: bool = False, output: Path = FOLDER, trials: Path | None = None) -> None:
    """Fit, measure and judge.

    Args:
        small: one world, one size, two trials.
        output: folder of the verdict.
        trials: file of single trials, which is gone on with; None: in the output.
    """
    table = measure(trials or output / "dd-vs-mse-trials.csv", small)
    save(judge(table), output, "python -m analyses.dd_vs_mse")
    remedy_claims.refresh(output)


if __name__ == "__main__":
    tyro.cli(main)
