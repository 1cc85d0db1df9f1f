"""LOOPS: does a probe name what is wrong with a loop, and is it silent where nothing is?

    python -m analyses.loops [--group GROUP] [--only CASE …] [--most N] [--verdict] [--folder F]

Forty faults, three seeds each; 100 sound runs; runs with the probe and without, of 2,000 updates
("pairs") and of 20,000 ("long"). Criterion in reports/loops/criterion.md. A run is one line of
cells.jsonl and is not made again; `--verdict` reads the file alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from analyses.harness.running import grown
from analyses.loops.cases import GROUPS, HOPPER, PENDULUM, POLE
from analyses.loops.run import run
from analyses.loops.verdict import PAIRED, write_verdict

SEEDS, RUNS = 3, 10  # of a fault, of a sound loop
FIRST = {"faults": 400, "unseen": 400, "sound": 410, "pairs": 430, "long": 440}  # seeds
Cell = tuple[str, str, str, int, bool, int]  # group, case, environment, seed, probed, updates


def cells() -> Iterator[Cell]:
    """All runs, in the order in which they are made."""

    def of(group: str, k: int) -> Iterator[Cell]:
        for name, case in GROUPS[group].items():
            updates = 1000 if group == "sound" else 500
            yield group, name, case.envs[k % len(case.envs)], FIRST[group] + k, True, updates

    def paired(group: str, k: int, updates: int) -> Iterator[Cell]:
        for n, (name, env) in enumerate(zip(PAIRED, (HOPPER, PENDULUM, POLE), strict=True)):
            for probed in (
                (True, False) if (k + n) % 2 else (False, True)
            ):  # which is first, in turn
                yield group, name, env, FIRST[group] + k, probed, updates

    yield from of("faults", 0)
    for k in range(2):
        yield from of("sound", k)
        yield from paired("pairs", k, 2_000)
    for k in range(1, SEEDS):
        yield from of("faults", k)
    yield from of("unseen", 0)
    for k in range(2, RUNS):
        yield from of("sound", k)
    for k in range(1, SEEDS):
        yield from of("unseen", k)
    yield from paired("long", 0, 20_000)


def _said(row: dict[str, Any]) -> str:
    error = f" ({row['error']})" if row["error"] else ""
    return f"{row.get('light', 'bare')}: {row.get('line', '')}{error}"


def main(
    only: tuple[str, ...] = (),
    group: str | None = None,
    most: int | None = None,
    verdict: bool = False,
    folder: Path = Path("runs/loops"),
    output: Path = Path("reports/loops"),
) -> None:
    """
    Args:
        only: names of cases; all without any.
        group: faults, unseen, sound, pairs or long; all without it.
        most: new runs, at the most.
        verdict: judge what is there, and run nothing.
        folder: of the probes' logs.
        output: of cells.jsonl and the verdict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    wanted = [
        cell for cell in cells() if group in (None, cell[0]) and (not only or cell[1] in only)
    ]
    rows = grown(
        output / "cells.jsonl", wanted, ("group", "case", "env", "seed", "probed"),
        lambda *cell: run(*cell, folder), _said, 0 if verdict else most,
    )  # fmt: skip
    if rows:
        print(write_verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
