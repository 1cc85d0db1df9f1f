"""LOOPS: does a probe name what is wrong with a loop, and is it silent where nothing is?

    python -m analyses.loops [--only CASE …] [--group faults] [--most N] [--verdict]

Forty faults, three seeds each; 200 sound runs; pairs of runs with the probe and without, of 2,000
updates, and three of 100,000 steps (`cases`). Criterion in reports/loops/criterion.md. A run is one
line of cells.jsonl and is not made again; `--verdict` reads the file alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tyro

from analyses.harness.cells import grown
from analyses.loops.cases import FAULTS, HOPPER, PENDULUM, POLE, SOUND, UNSEEN
from analyses.loops.run import run
from analyses.loops.verdict import write_verdict

UPDATES = {"faults": 500, "unseen": 500, "sound": 1000, "pairs": 2000}
# Updates of the policy in 100,000 steps of the environment.
LONG = (("TD3", HOPPER, 49_800), ("SAC", PENDULUM, 99_600), ("PPO", POLE, 6_250))
FIRST = {"faults": 16, "unseen": 10, "sound": 130, "long": 40, "pairs": 52}  # seeds
Cell = tuple[str, str, str, int, int]  # group, case, environment, seed, updates


def cells() -> Iterator[Cell]:
    """All runs, in the order in which they are made: of every group one seed after the other."""
    for k in range(3):
        for group, table in (("faults", FAULTS), ("unseen", UNSEEN)):
            for name, case in table.items():
                yield group, name, case.envs[0], FIRST[group] + k, UPDATES[group]
    for k, (name, case) in itertools.product(range(10), SOUND.items()):
        for env in case.envs if k < case.seeds else ():
            yield "sound", name, env, FIRST["sound"] + k, UPDATES["sound"]
    for name, env, updates in LONG:
        yield "long", name, env, FIRST["long"], updates
    for k, (name, case) in itertools.product(range(2), SOUND.items()):
        env = case.envs[k % len(case.envs)]
        yield "pairs", name, env, FIRST["pairs"] + k, UPDATES["pairs"]


def made(cell: Cell, folder: Path) -> dict[str, Any]:
    """The row of one cell; with a run without the probe, at the same time, of pairs and of long
    runs: what else the machine does slows both."""
    group, name, env, seed, updates = cell
    table = group if group in ("faults", "unseen") else "sound"
    if group not in ("pairs", "long"):
        return run(table, name, env, seed, updates, folder) | {"group": group}
    with ThreadPoolExecutor() as at_once:
        probed, alone = at_once.map(
            lambda bare: run(table, name, env, seed, updates, folder, bare), (False, True)
        )
    bare = {f"bare_{key}": alone.get(key) for key in ("seconds", "digest", "error")}
    return probed | bare | {"group": group}


def _said(row: dict[str, Any]) -> str:
    error = f" ({row['error']})" if row["error"] else ""
    return f"{row['light']}: {row['headline']}{error}"


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
        group: faults, unseen, sound, long or pairs; all without it.
        most: new runs, at the most.
        verdict: judge what is there, and run nothing.
        folder: of the probes' logs.
        output: of cells.jsonl and the verdict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    wanted = (
        cell for cell in cells() if group in (None, cell[0]) and (not only or cell[1] in only)
    )
    rows = grown(
        output / "cells.jsonl", wanted, ("group", "case", "env", "seed"),
        lambda *cell: made(cell, folder), _said, 0 if verdict else most,
    )  # fmt: skip
    if rows:
        print(write_verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
