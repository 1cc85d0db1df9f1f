"""How a study runs: its cells are lines of a file.

What is there is not made again; a cell is one line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gradlab.provenance import environment

Row = dict[str, Any]


def lines_of(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, row: Row) -> None:
    """One line, all or nothing."""
    line = json.dumps(row, default=str) + "\n"
    with open(path, "a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def grown(
    path: Path,
    cells: Iterable[tuple[Any, ...]],
    fields: Sequence[str],
    make: Callable[..., Row],
    said: Callable[[Row], str],
    most: int | None = None,
) -> list[Row]:
    """All rows, once those that are missing are made, each with its commit.

    Args:
        cells: arguments of `make`, of which the first ones are a row's `fields`.
        said: what is printed of a new row.
        most: new rows, at the most.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = lines_of(path)
    done = {tuple(row[field] for field in fields) for row in rows}
    missing = [cell for cell in cells if cell[: len(fields)] not in done]
    for cell in missing[:most]:
        begun = time.monotonic()
        row = make(*cell) | {"commit": environment()["commit"]}
        append(path, row)
        rows.append(row)
        name, took = " · ".join(map(str, cell)), time.monotonic() - begun
        print(f"{name} ({took:.0f} s): {said(row)}", flush=True)
    return rows


def example(name: str) -> Any:
    """A file of `examples/` as a module."""
    spec = importlib.util.spec_from_file_location(
        name, Path(__file__).parents[2] / f"examples/{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
