"""ADVICE: does what a measurement recommends hold when it is followed?

    python -m analyses.advice [--only WORLD …] [--most N] [--output reports/advice]

Twelve worlds, three stages, three seeds (`worlds`); criterion in reports/advice/criterion.md. A
cell is one line of cells.jsonl and is not run again; `--verdict` only reads the file.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import tyro

from analyses.advice.run import append, run_cell
from analyses.advice.verdict import write_verdict
from analyses.advice.worlds import STAGES, WORLDS


def main(
    only: tuple[str, ...] = (),
    most: int | None = None,
    verdict: bool = False,
    folder: Path = Path("runs/advice"),
    output: Path = Path("reports/advice"),
) -> None:
    """
    Args:
        only: worlds; all without any.
        most: new cells, at the most.
        verdict: judge what is there, and run nothing.
        folder: of networks and measurements.
        output: of cells.jsonl, the figure and the verdict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "cells.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["world"], row["stage"], row["seed"]) for row in rows}
    wanted = itertools.product(range(3), only or WORLDS, STAGES)
    cells = [(name, stage, WORLDS[name].seeds[k]) for k, name, stage in wanted]
    missing = [cell for cell in cells if cell not in done]
    for name, stage, seed in [] if verdict else missing[:most]:
        begun = time.monotonic()
        row = run_cell(name, stage, seed, folder)
        append(path, row)
        rows.append(row)
        what = " ".join(map(str, row["recommended"] or ["keep"]))
        took = time.monotonic() - begun
        print(f"{name} {stage} {seed}: {what}, {row['updates']} updates ({took:.0f} s)", flush=True)
    if rows:
        print(write_verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
