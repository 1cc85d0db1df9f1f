"""The criterion over all runs: causes, false red lines, bits and cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.loops.cases import FAULTS, SOUND, UNSEEN, Case

Row = dict[str, Any]
NAMED, RED, SHARE, SECONDS = 38, 1, 0.05, 3.0  # at least; at most
PAIRED = ("TD3", "SAC", "PPO")
PAGE = """# What the probe finds in training loops, and what it costs

**{first}**

    python -m analyses.loops            # makes the runs that are missing, and this page

[The criterion](criterion.md) was written before any of these runs; a fault is an edit of a few
lines in one of five loops (`analyses/loops/`). [Every run](cells.jsonl), [every
fault](by-fault.csv).

| criterion | found | asked for | |
|---|---|---|---|
{table}

**Not named** are {lost}.

**What is not counted** was called outside of the checks, or of little harm: {unseen}.

**Red sound runs**: {red}.

**Cost**, processor seconds without the probe and what it adds: {cost}.

Checks were written with these faults in sight: (a) says what the probe does with these causes, not
with others. Alarms of the probe of 57789d45 in loops of others: [266 runs](defaults.csv).
"""


def named(row: Row, case: Case) -> bool:
    """The first line has the cause."""
    return bool(case.words) and re.search(case.words, row["line"].lower()) is not None


def red(row: Row) -> bool:
    """A failure at any time, a red light, or a crash."""
    return bool(row["failed"] or row["light"] in ("none", "") or row["error"])


def by_case(rows: Sequence[Row], group: str, cases: Mapping[str, Case]) -> pd.DataFrame:
    """A row for each fault: in how many runs it was named; where it was not, what was said,
    and the code that failed first."""
    table = []
    for name, case in cases.items():
        mine = [row for row in rows if row["group"] == group and row["case"] == name]
        told = [named(row, case) for row in mine]
        other = [row for row, hit in zip(mine, told, strict=True) if not hit]
        shown = (other or mine or [{"line": "", "failed": {}}])[0]
        table.append({
            "fault": name, "kind": case.kind, "loop": case.loop, "environment": case.envs[0],
            "runs": len(mine), "named": sum(told), "red": sum(map(red, mine)),
            "majority": 2 * sum(told) > len(mine), "said": shown["line"],
            "first": min(shown["failed"], key=shown["failed"].get, default=""),
        })  # fmt: skip
    return pd.DataFrame(table)


def pairs(rows: Sequence[Row], group: str) -> list[tuple[Row, Row]]:
    """Runs with the probe and without, of one loop and seed."""
    there = {
        (row["case"], row["seed"], row["probed"]): row for row in rows if row["group"] == group
    }
    return [
        (row, there[case, seed, False])
        for (case, seed, probed), row in there.items()
        if probed and (case, seed, False) in there
    ]


def added(both: Sequence[tuple[Row, Row]]) -> dict[str, tuple[float, float]]:
    """By loop the mean seconds without the probe, and what it adds to them."""
    found = {}
    for name in dict.fromkeys(probed["case"] for probed, _ in both):
        mine = [(p["seconds"], bare["seconds"]) for p, bare in both if p["case"] == name]
        bare = sum(b for _, b in mine) / len(mine)
        found[name] = bare, sum(p - b for p, b in mine) / len(mine)
    return found


def write_verdict(rows: Sequence[Row], output: Path) -> str:
    """README.md and by-fault.csv beside cells.jsonl; returns the criteria as lines."""
    faults, unseen = by_case(rows, "faults", FAULTS), by_case(rows, "unseen", UNSEEN)
    pd.concat([faults, unseen]).to_csv(output / "by-fault.csv", index=False)
    ran = faults[faults["runs"] > 0]
    sound = [row for row in rows if row["group"] == "sound"]
    bad = [row for row in sound if red(row)]
    short, long = pairs(rows, "pairs"), pairs(rows, "long")
    equal = sum(one["digest"] == other["digest"] for one, other in short)
    over = {group: added(both) for group, both in (("pairs", short), ("long", long))}
    dear = [name for name, (bare, more) in over["pairs"].items() if more > SECONDS + SHARE * bare]
    above = f"above in {', '.join(dear) or 'no loop'}" if short else "not run"
    share = [more / bare for bare, more in over["long"].values()]
    caught, whole = int(ran["majority"].sum()), len(FAULTS) * 3 == faults["runs"].sum()
    lines: list[tuple[str, str, str, bool | None]] = [
        ("(a) the cause in the first line, in most runs of a fault",
         f"{caught} of {len(ran)} faults, {int(ran['named'].sum())} of {int(ran['runs'].sum())} "
         "runs", f"{NAMED} of {len(FAULTS)}", caught >= NAMED if whole else None),
        ("(b) sound runs with a red line", f"{len(bad)} of {len(sound)}", f"at most {RED} of 100",
         False if len(bad) > RED else True if len(sound) == 10 * len(SOUND) else None),
        ("(c) equal bits", f"{equal} of {len(short)} pairs", "all",
         equal == len(short) if len(short) == 2 * len(PAIRED) or equal < len(short) else None),
        ("(d) cost of 2,000 updates", above, "3 s + 5%",
         not dear if len(short) == 2 * len(PAIRED) else None),
        ("(d) cost of 20,000 updates", ", ".join(f"{x:.1%}" for x in share) or "not run", "5%",
         max(share) <= SHARE if len(long) == len(PAIRED) else None),
    ]  # fmt: skip
    words = {True: "holds", False: "**refuted**", None: "runs are missing"}
    first = (
        f"The probe's first line named {caught} of {len(ran)} planted faults within 500 updates; "
        f"{len(bad)} of {len(sound)} sound runs had a red line."
    )
    lost = [
        f"{x.fault} (“{x.said}”; first failed: {x.first or 'nothing'})"
        for x in ran.itertuples() if not x.majority
    ]  # fmt: skip
    aside = [f"{x.fault} (“{x.said}”)" for x in unseen.itertuples() if x.runs]
    spent = [
        f"{name} {bare:.0f} s + {more:.1f} s" for found in over.values()
        for name, (bare, more) in found.items()
    ]  # fmt: skip
    reds = [f"{row['case']} on {row['env']}, seed {row['seed']} (“{row['line']}”)" for row in bad]
    page = PAGE.format(
        first=first, table="\n".join(f"| {a} | {b} | {c} | {words[d]} |" for a, b, c, d in lines),
        lost=_listed(lost), unseen=_listed(aside), red=_listed(reds), cost=_listed(spent),
    )  # fmt: skip
    (output / "README.md").write_text(page, encoding="utf-8")
    return "\n".join(f"{a}: {b} (asked for: {c}): {words[d]}" for a, b, c, d in lines)


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts) or "none so far"
