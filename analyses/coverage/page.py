"""The criterion of the coverage campaign, judged, and its page (`analyses.coverage`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

FLAGGED = 0.5  # share of measurements from which on a cell counts as flagged
SMALL_N = ("cosine", "cosine_batch", "snr", "growth", "sign_agreement")
CELL, AVERAGE, CHOSEN, PROMISED = 0.90, 0.93, 0.94, 0.9375
BIAS, NO_BIAS = (0.93, 0.98), (0.96, 0.99)
FALSE, SEEN = 0.05, 0.95
MANY = 200  # repetitions from which on a single cell says something
GAINS = ("gain", "headline gain")  # directions, which the check does not concern
REFERENCE = "the same as if not chosen"  # a row to compare with, not to judge
NOTE = (
    "The criterion was written before the run (commit 239d6ef). Between the two the check that "
    "flags was changed twice: its pool went from 131,072 to 65,536 starts (784724d), and below "
    "1,024 samples it flags only where the starts' own tail exceeds its standard error (06e3e93), "
    "which can only flag less; so the shares of flagged measurements are those of a rule that is "
    "younger than their limits. After the run only the sentence on the least cell was limited to "
    "cells with many repetitions. Measured cells have few: they show what is flagged and whether "
    "coverage is far off, not that it is 95%. A cell is judged by the share of its measurements "
    "that are flagged; coverage of flagged cells stands below, too, where sentences on it decide "
    "nothing."
)
Verdict = dict[str, object]


def verdict_and_text(table: pd.DataFrame, command: str, missing: list[str]) -> tuple[Verdict, str]:
    rows = table[(table["quantity"] == "bias2") & (table["family"] == "planted")]
    none = rows["cell"].str.startswith("rho 0,")
    some, nothing = (float(part["coverage"].mean()) for part in (rows[~none], rows[none]))
    holds = BIAS[0] <= some <= BIAS[1] and NO_BIAS[0] <= nothing <= NO_BIAS[1]
    judged = {
        "cells": _cells(table),
        "small N": _small_n(table),
        "squared bias": {"with_bias": some, "without": nothing, "holds": bool(holds)},
        "flags": _flags(table),
        "chosen": _average(table[table["quantity"] == "mse of the chosen"], CHOSEN),
        "headline": _average(table[table["quantity"] == "headline gain"], CHOSEN),
        "seeds": _average(table[table["family"] == "seeds"], PROMISED),
    }
    commits = sorted(table["commit"].astype(str).unique())
    verdict: Verdict = {
        **judged,
        "holds": all(bool(each["holds"]) for each in judged.values()),
        "command": command,
        "commits": commits,
        "not_measured": missing,
    }
    return verdict, _page(table, judged, verdict)


def _cells(table: pd.DataFrame) -> Verdict:
    """Of what an interval is printed for; the share of flags excuses a cell."""
    rows = table[(table["quantity"] != REFERENCE) & (table["flagged"] < FLAGGED)]
    short = rows[rows["coverage"] < CELL - 2 * _error(rows, CELL)]
    many = rows["repetitions"] >= MANY
    worst = rows.loc[(rows[many] if many.any() else rows)["coverage"].idxmin()]
    return {
        "judged": len(rows),
        "mean_of_few": float(rows[~many]["coverage"].mean()),
        "flagged": int((table["flagged"] >= FLAGGED).sum()),
        "mean": float(rows["coverage"].mean()),
        "least": float(worst["coverage"]),
        "least_at": _named(worst),
        "short": [f"{_named(row)}: {row['coverage']:.3f}" for _, row in short.iterrows()],
        "holds": short.empty,
    }


def _small_n(table: pd.DataFrame) -> Verdict:
    rows = table[table["quantity"].isin(SMALL_N) & (table["flagged"] < FLAGGED)]
    means = rows.groupby(["quantity", "n"])["coverage"].mean()
    errors = rows.groupby(["quantity", "n"])[["repetitions"]].sum()
    floor = AVERAGE - 2 * _error(errors, AVERAGE)
    return {
        "averages": {f"{name}, N = {n}": float(mean) for (name, n), mean in means.items()},
        "holds": bool((means >= floor).all()),
    }


def _flags(table: pd.DataFrame) -> Verdict:
    rows = table[table["family"].isin(["starts", "measured"])]
    rows = rows[~rows["quantity"].isin(GAINS)]
    rows = rows.drop_duplicates(["family", "tails", "n", "cell", "block"])
    shares = (
        rows.groupby("tails")["flagged"].agg(["mean", "max"]).reindex(["Gaussian", "t9", "t4.5"])
    )
    false, seen = float(shares["mean"]["Gaussian"]), float(shares["mean"]["t4.5"])
    return {
        "gaussian": false,
        "gaussian_most": float(shares["max"]["Gaussian"]),
        "t9": float(shares["mean"]["t9"]),
        "t4.5": seen,
        "holds": false <= FALSE and seen >= SEEN,
    }


def _average(rows: pd.DataFrame, wanted: float) -> Verdict:
    """Over the cells of a family; less two standard errors of all their repetitions."""
    error = float(np.sqrt(wanted * (1 - wanted) / rows["repetitions"].sum()))
    mean = float(rows["coverage"].mean())
    return {
        "mean": mean,
        "least": float(rows["coverage"].min()),
        "cells": len(rows),
        "holds": mean >= wanted - 2 * error,
    }


def _error(rows: pd.DataFrame, share: float) -> pd.Series:
    return np.sqrt(share * (1 - share) / rows["repetitions"])


def _named(row: pd.Series) -> str:
    return f"{row['quantity']}, {row['family']}, {row['tails']}, N = {row['n']}, {row['cell']}"


def _page(table: pd.DataFrame, judged: dict[str, Verdict], verdict: Verdict) -> str:
    lines = ["# Coverage of nominal 95% intervals", ""]
    state = " so far" if verdict["not_measured"] else ""
    cells, bias, flags = judged["cells"], judged["squared bias"], judged["flags"]
    lines += [
        f"Intervals hold the true value in {cells['mean']:.1%} of repetitions, on average over the "
        f"{cells['judged']:,} cells that are not flagged. Criterion{state}: "
        f"{'holds' if verdict['holds'] else 'refuted'}.",
        "",
    ]
    averages = judged["small N"]["averages"]
    assert isinstance(averages, dict)
    plain = table[table["quantity"] == REFERENCE]["coverage"].mean()
    short = cells["short"]
    assert isinstance(short, list)
    under = f" Under it: {'; '.join(short)}." if short else ""
    sentences = {
        "cells": f"every cell that is not flagged at least {CELL:.2f} less two standard errors: "
        f"least {cells['least']:.3f} ({cells['least_at']}) of those with {MANY} repetitions or "
        f"more, of the others {cells['mean_of_few']:.3f} on average; {cells['flagged']} are "
        f"flagged.{under}",
        "small N": f"averages of at least {AVERAGE:.2f} from N = 64 on: "
        + "; ".join(f"{name} {mean:.3f}" for name, mean in averages.items())
        + ".",
        "squared bias": f"calibrated where it was planted: {bias['with_bias']:.3f} where there is "
        f"one, {bias['without']:.3f} where there is none (97.5% is nominal there: the upper end "
        f"cannot miss 0).",
        "flags": f"starts rarer than the sample are flagged in {flags['t4.5']:.0%} of measurements "
        f"under t4.5 starts, {flags['t9']:.0%} under t9, {flags['gaussian']:.1%} under Gaussian "
        f"ones (at most {flags['gaussian_most']:.0%} in a cell).",
        "chosen": f"the error of a chosen cell at least {CHOSEN:.2f}: "
        f"{judged['chosen']['mean']:.3f}, least {judged['chosen']['least']:.3f}; as if it had not "
        f"been chosen {plain:.3f}.",
        "headline": f"the gain in the headline at least {CHOSEN:.2f}: "
        f"{judged['headline']['mean']:.3f}, least {judged['headline']['least']:.3f}.",
        "seeds": f"medians over five seeds {PROMISED:.4g} as promised: "
        f"{judged['seeds']['mean']:.3f}, least {judged['seeds']['least']:.3f}.",
    }
    lines += [f"- {_word(judged[name])} {text}" for name, text in sentences.items()]
    lines += ["", "Gains of steps, also end to end: `gain.md`, made by "
              "`python -m analyses.coverage.gain_coverage`.", ""]  # fmt: skip
    lines += _not_measured(verdict["not_measured"])
    repetitions = table.groupby("family")["repetitions"].agg(["min", "max"])
    counts = ", ".join(
        f"{name} {row['min']}" if row["min"] == row["max"] else f"{name} {row['min']}–{row['max']}"
        for name, row in repetitions.iterrows()
    )
    lines += [
        f"Repetitions a cell: {counts}. Made by `{verdict['command']}`, commit "
        f"{', '.join(map(str, verdict['commits']))}; every cell in `coverage.csv`, with the shares "
        f"of intervals above and below the known value, of those that are everything (`lost`), of "
        f"measurements that are flagged, and median widths. What cells are is in "
        f"`analyses/coverage/__main__.py`.",
        "",
        NOTE,
        "",
    ]
    for family in ("planted", "lq", "growth", "starts", "measured", "chosen", "seeds"):
        lines += _tables(family, table[table["family"] == family])
    return "\n".join(lines)


def _word(judged: Verdict) -> str:
    return "holds:" if judged["holds"] else "**refuted**:"


def _not_measured(names: object) -> list[str]:
    assert isinstance(names, list)
    if not names:
        return []
    listed = "; ".join(names)
    return [f"Not measured yet (`--resume` goes on where it stopped): {listed}.", ""]


def _tables(family: str, rows: pd.DataFrame) -> list[str]:
    """Mean and least over cells, and of families with a check the share of flags."""
    if rows.empty:
        return []
    columns = ["task", "tails", "n"] if family == "measured" else ["tails", "n"]
    lines = []
    for which in ("mean", "min"):
        wide = rows.pivot_table(index="quantity", columns=columns, values="coverage", aggfunc=which)
        if family in ("starts", "measured"):
            under = rows[~rows["quantity"].isin(GAINS)]
            flags = under.pivot_table(
                index="family", columns=columns, values="flagged", aggfunc=which
            )
            wide = pd.concat([wide, flags.set_axis(["(flagged)"])])
        lines += _table(f"{family}, {which} over cells", wide)
    return lines


def _table(head: str, wide: pd.DataFrame) -> list[str]:
    names = [f"{', '.join(map(str, key[:-1]))}, N = {key[-1]}" for key in wide.columns]
    lines = [f"{head} | " + " | ".join(names), " | ".join(["---"] * (len(names) + 1))]
    for name, row in wide.iterrows():
        values = ("" if np.isnan(value) else f"{value:.3f}" for value in row)
        lines.append(f"{name} | " + " | ".join(values))
    return [*lines, ""]
