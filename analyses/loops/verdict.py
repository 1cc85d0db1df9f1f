"""The criterion over all runs: causes, false red lines, greens, bits and cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from analyses.loops.cases import FAULTS, SOUND, UNSEEN, Case

Row = dict[str, Any]
NAMED, RED, COST = 36, 1, 0.05  # at least, at most, at most
SYMPTOM = re.compile(r"\breturn\b.*\b(fell|fallen|lower|rose)\b|falling return")
_END = re.compile(r"(?<=[.?!]) (?=[A-ZΑ-Ω])")


def first_line(row: Row) -> str:
    """The first sentence of the headline."""
    return _END.split(row["headline"])[0]


def named(row: Row, case: Case) -> bool:
    """The first sentence has the cause, in a run of 500 updates or one that died before."""
    line = first_line(row).lower()
    return not SYMPTOM.search(line) and re.search(case.words, line) is not None


def red(row: Row) -> bool:
    """An alarm at any time, a check at fault at the end, a red light, or no run."""
    return bool(row["alarms"] or row["faults"] or row["light"] in ("none", "") or row["error"])


def green(row: Row) -> bool:
    return bool(row["light"] == "act")


def by_case(rows: Sequence[Row], cases: Mapping[str, Case], group: str) -> pd.DataFrame:
    """A row for each fault: in how many runs it was named, and what was said."""
    table = []
    for name, case in cases.items():
        mine = [row for row in rows if row["group"] == group and row["case"] == name]
        told = [named(row, case) for row in mine] if case.words else []
        heard = [row for row in mine if red(row)]
        said = next((r for r, hit in zip(mine, told, strict=False) if not hit), (mine or [{}])[0])
        table.append({
            "fault": name, "kind": case.kind, "loop": case.loop, "environment": case.envs[0],
            "runs": len(mine), "named": sum(told), "red": len(heard),
            "green": sum(map(green, mine)), "majority": 2 * sum(told) > max(len(mine), 1),
            "said": first_line(said) if said else "",
        })  # fmt: skip
    return pd.DataFrame(table)


def by_loop(rows: Sequence[Row]) -> pd.DataFrame:
    """A row for each sound loop: runs, those with a red line, and what was red."""
    table = []
    for name in SOUND:
        mine = [row for row in rows if row["group"] in ("sound", "long") and row["case"] == name]
        bad = [row for row in mine if red(row)]
        table.append({
            "loop": name, "runs": len(mine), "red": len(bad), "green": sum(map(green, mine)),
            "what": "; ".join(
                f"{r['env']} {r['seed']}: {first_line(r) or r['error']}" for r in bad
            ),
        })  # fmt: skip
    return pd.DataFrame(table)


def pairs(rows: Sequence[Row], group: str = "pairs") -> tuple[list[Row], list[float], float]:
    """Pairs of runs, (with − without) / with of each, and of all together."""
    found = [row for row in rows if row["group"] == group and row.get("bare_seconds")]
    shares = [1 - row["bare_seconds"] / row["seconds"] for row in found]
    whole = sum(row["seconds"] for row in found)
    return found, shares, 1 - sum(row["bare_seconds"] for row in found) / whole if found else np.nan


def write_verdict(rows: Sequence[Row], output: Path) -> str:
    """Tables and README.md beside cells.jsonl; returns the criteria as lines."""
    faults, unseen = by_case(rows, FAULTS, "faults"), by_case(rows, UNSEEN, "unseen")
    loops, (paired, shares, cost) = by_loop(rows), pairs(rows)
    faults.to_csv(output / "by-fault.csv", index=False)
    unseen.drop(columns=["named", "majority"]).to_csv(output / "unseen.csv", index=False)
    loops.to_csv(output / "by-loop.csv", index=False)
    caught, tried = int(faults["majority"].sum()), int((faults["runs"] > 0).sum())
    whole = bool((faults["runs"] >= 3).all())
    long, long_shares, long_cost = pairs(rows, "long")
    equal = sum(row["digest"] == row["bare_digest"] for row in [*paired, *long])
    of_long = f"{long_cost:.1%} of the time ({', '.join(f'{x:.1%}' for x in long_shares)})"
    half = (
        scipy.stats.t.ppf(0.975, len(shares) - 1) * np.std(shares, ddof=1) / len(shares) ** 0.5
        if len(shares) > 1 else np.nan
    )  # fmt: skip
    lines = [
        ("the right cause in the first line, by majority of three runs",
         f"{caught} of {tried} faults", f"{NAMED} of {len(FAULTS)}",
         caught >= NAMED if whole else None),
        ("sound runs with a false red line",
         f"{int(loops['red'].sum())} of {int(loops['runs'].sum())} ({len(long)} of them long)",
         f"at most {RED} of 203", False if loops["red"].sum() > RED
         else True if loops["runs"].sum() == 203 else None),
        ("green headlines on a broken loop",
         f"{int(faults['green'].sum())} of {int(faults['runs'].sum())}", "none",
         not faults["green"].sum() if whole else None),
        ("cost, start included",
         f"{cost:.1%} of the time (± {half:.1%}, {len(shares)} pairs)", f"at most {COST:.0%}",
         cost <= COST if len(paired) == 2 * len(SOUND) else None),
        ("cost over 100,000 steps",
         of_long if long else "no run", f"at most {COST:.0%}",
         long_cost <= COST if len(long) == 3 else None),
        ("parameters, optimiser and random states equal bit for bit",
         f"{equal} of {len(paired) + len(long)} pairs", "all",
         equal == len(paired) + len(long) if len(paired) == 2 * len(SOUND) and len(long) == 3
         else None),
    ]  # fmt: skip
    verdicts = {True: "met", False: "**not met**", None: "not decided, runs are missing"}
    table = [
        f"| {a} | {b} | {c} | {verdicts[d if d is None else bool(d)]} |" for a, b, c, d in lines
    ]
    page = _page(table, (caught, tried), faults, unseen, loops)
    (output / "README.md").write_text(page, encoding="utf-8")
    return "\n".join(f"{a}: {b} (asked for: {c})" for a, b, c, _ in lines)


def _page(
    table: Sequence[str], caught: tuple[int, int], faults: pd.DataFrame, unseen: pd.DataFrame,
    loops: pd.DataFrame,
) -> str:  # fmt: skip
    return f"""# Whose fault is it? Forty faults, planted in loops that people write

Put the probe's lines around a loop that does not learn and mend what its first line names: of
{caught[1]} faults that some check can see, {caught[0]} were named by their cause within 500
updates.

    python -m analyses.loops            # goes on with the runs that are missing

[The criterion](criterion.md) was written before any of these runs. A fault is an edit of a few
lines in one of five loops (`analyses/loops/`); each runs three times, and the majority counts.
[`cells.jsonl`](cells.jsonl) has every run with its commit.

| criterion | found | asked for | |
|---|---|---|---|
{chr(10).join(table)}

## Faults

Runs of three with the right cause in the first sentence, and what it said where it was another
([`by-fault.csv`](by-fault.csv)).

{_markdown(faults.drop(columns=["majority", "runs"]))}

## What no check sees

These were listed before the runs and are not counted: what is declared wrongly or wrong below the
recorder, settings, and what does no harm. A green line here is a return that rose
([`unseen.csv`](unseen.csv)).

{_markdown(unseen.drop(columns=["majority", "named", "runs"]))}

## Sound loops

A run is red with an alarm at any time, a check at fault at its end, a red light or a crash
([`by-loop.csv`](by-loop.csv)).

{_markdown(loops)}
"""


def _markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(
        "| " + " | ".join(str(value).replace("|", "∣") for value in row) + " |" for row in rows
    )
