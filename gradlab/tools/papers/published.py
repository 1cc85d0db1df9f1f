"""What the papers trained, at their own length, and the numbers that they print (`published.toml`).

A part is one task with its rows; iterations are critic updates, five seeds of a row are one run.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradlab.errors import InputError

RETURNS = "table-returns"


@dataclass(frozen=True)
class ItemPart:
    """One task of an item.

    Attributes:
        task, settings: its name in `gradlab list tasks`, or an environment's, and its options.
        iterations, transitions: the paper's length, by one or the other.
        printed: row → the paper's cells under `columns`.
        options: of `gradlab train`, for every row, by their names in Python.
        measured: how often a run measures its gradient; 0: as the options have it.
        variants: row → the algorithm that it is, and further options.
        preset: what the paper prints for a row on this task (`training.algorithms`) is taken; MPG's
            rows have the numbers of its Table VI, in one process.
    """

    task: str
    rows: tuple[str, ...]
    settings: tuple[str, ...] = ()
    iterations: int | None = None
    transitions: int | None = None
    columns: tuple[str, ...] = ()
    printed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    measured: int = 0
    variants: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    preset: bool = False

    def trained(self, row: str) -> tuple[str, Mapping[str, Any]]:
        """The algorithm of a row, and its options."""
        algorithm, own = self.variants.get(row, (row, {}))
        return algorithm, {**self.options, **own}


@dataclass(frozen=True)
class Item:
    """A table or a figure of a paper: its parts, the table that is written and the figures that
    are drawn of their runs."""

    title: str
    parts: tuple[ItemPart, ...]
    figures: tuple[str, ...] = ("learning-curves",)
    table: str = RETURNS


def _read() -> dict[str, dict[str, Item]]:
    papers = _frozen(tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8")))
    return {
        paper: {
            name: Item(**{**item, "parts": tuple(_parts(items, name))})
            for name, item in items.items()
        }
        for paper, items in papers.items()
    }


def _frozen(value: Any) -> Any:
    """Lists as tuples."""
    if isinstance(value, dict):
        return {name: _frozen(each) for name, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _parts(items: Mapping[str, Any], name: str) -> Iterator[ItemPart]:
    """Of an item: its own, and those of the items that it names."""
    for each in items[name]["parts"]:
        if isinstance(each, str):
            yield from _parts(items, each)
            continue
        rest = {key: value for key, value in each.items() if key not in ("tasks", "variants")}
        rest["variants"] = {
            row: (own["algorithm"], {key: own[key] for key in own if key != "algorithm"})
            for row, own in each.get("variants", {}).items()
        }
        for task, transitions in each.get("tasks", {}).items():
            yield ItemPart(task=task, transitions=transitions, preset=True, **rest)
        if "task" in each:
            yield ItemPart(**rest)


ITEMS: Mapping[str, Mapping[str, Item]] = _read()

# Items that no training fills: the commands that do.
_COMMANDS = {
    ("ddppo", "figure-2"): "its left: `gradlab fit TASK --jacobians --loss nll` and `--loss dd`, "
    "then `gradlab figure fit-errors FITS…`; its right is that of figure-5",
    ("ddppo", "figure-4"): "figure-7 has it, with all tasks",
    ("rp-pgm", "figure-3"): "`gradlab measure TASK --model MODEL --surface 3 15`, then "
    "`gradlab figure loss-surface RUNS…`",
}  # fmt: skip


def printed(table: str, task: str, row: str) -> dict[str, str]:
    """The paper's cells of a table, by "paper: column"; {} where it prints none."""
    for item in (item for items in ITEMS.values() for item in items.values()):
        for part in item.parts if item.table == table else ():
            if part.task == task and row in part.printed:
                cells = zip(part.columns, part.printed[row], strict=True)
                return {f"paper: {column}": cell for column, cell in cells}
    return {}


def find(paper: str, item: str) -> Item:
    """The item of a paper."""
    if paper not in ITEMS:
        raise InputError(f"paper is {paper!r}, expected one of {', '.join(ITEMS)}")
    if (paper, item) in _COMMANDS:
        raise InputError(
            f"item is {item!r}, for which {paper} needs no run of its own: {_COMMANDS[paper, item]}"
        )
    if item not in ITEMS[paper]:
        raise InputError(f"item is {item!r}, expected one of {', '.join(ITEMS[paper])} of {paper}")
    return ITEMS[paper][item]


def narrowed(item: Item, rows: tuple[str, ...], tasks: tuple[str, ...]) -> Item:
    """The item with some of its rows and tasks."""
    every = list(dict.fromkeys(row for part in item.parts for row in part.rows))
    for name, given, known in (
        ("rows", rows, every), ("tasks", tasks, [part.task for part in item.parts]),
    ):  # fmt: skip
        if unknown := sorted(set(given) - set(known)):
            raise InputError(
                f"{name} has {unknown[0]!r}, expected some of {', '.join(known)} of {item.title}"
            )
    parts = tuple(
        dataclasses.replace(part, rows=tuple(row for row in part.rows if not rows or row in rows))
        for part in item.parts
        if not tasks or part.task in tasks
    )
    return dataclasses.replace(item, parts=parts)
