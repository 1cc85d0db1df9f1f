"""ADVICE: does what a measurement recommends hold when it is followed?

    python -m analyses.advice [--only WORLD …] [--most N] [--output reports/advice]

Twelve worlds, three stages, three seeds (`worlds`); criterion in reports/advice/criterion.md. A
cell is one line of cells.jsonl and is not run again; `--verdict` only reads the file.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import tyro

from analyses.advice.run import run_cell
from analyses.advice.verdict import write_verdict
from analyses.advice.worlds import STAGES, WORLDS
from analyses.harness.running import grown


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
    wanted = itertools.product(range(3), only or WORLDS, STAGES)
    rows = grown(
        output / "cells.jsonl",
        ((name, stage, WORLDS[name].seeds[k]) for k, name, stage in wanted),
        ("world", "stage", "seed"),
        lambda *cell: run_cell(*cell, folder),
        lambda row: (
            f"{' '.join(map(str, row['recommended'] or ['keep']))}, {row['updates']} updates"
        ),
        0 if verdict else most,
    )
    if rows:
        print(write_verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
