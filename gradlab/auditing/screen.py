"""An audit on one screen: findings, then the gradient of every parameter by path."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gradlab.wording import two

if TYPE_CHECKING:
    from gradlab.auditing.findings import Finding
    from gradlab.auditing.lengths import Scale

WIDTH = 100  # columns
ROWS = 14  # parameters, above which they are summed up by module
TITLES = {
    "model": "model", "critic": "critic", "model and critic": "both", "neither": "neither",
}  # fmt: skip
MARKS = {"wrong": "×", "note": "·"}

Norms = Mapping[str, Mapping[str, Sequence[float]]]


def screen(
    findings: Sequence[Finding], parameters: Sequence[str], norms: Norms, scales: Sequence[Scale]
) -> str:
    """The text."""
    parts = [_verdict(findings), *map(_finding, findings), "", *_table(parameters, norms)]
    if scales:
        words = "; ".join(dict.fromkeys(scale.words for scale in scales))
        parts += ["", _filled(f"One step's weight at the longer segment: {words}.", "")]
    return "\n".join(parts)


def _verdict(findings: Sequence[Finding]) -> str:
    wrong = sum(finding.severity == "wrong" for finding in findings)
    if not wrong:
        return "The actor's gradient is whole: no finding is wrong."
    return f"The actor's loss has {'a fault' if wrong == 1 else f'{wrong} faults'}."


def _finding(finding: Finding) -> str:
    return _filled(f"{finding.sentence}.", f"{MARKS[finding.severity]} ")


def _filled(text: str, mark: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False
    )


def _table(parameters: Sequence[str], norms: Norms) -> list[str]:
    """Norms of the gradient: a row for each parameter or module, a column for each path."""
    columns = {
        (term, path): values
        for term, paths in norms.items()
        for path, values in paths.items()
        if any(values) or len(norms) == 1
    }
    if not columns:
        return []
    several = len(norms) > 1
    groups = _groups(parameters)
    heads = [f"{term}: {TITLES[path]}" if several else TITLES[path] for term, path in columns]
    rows = [
        [name, *(_size([values[k] for k in members]) for values in columns.values())]
        for name, members in groups.items()
    ]
    return _blocks([["gradient through", *heads], *rows])


def _blocks(lines: Sequence[Sequence[str]]) -> list[str]:
    """The table, or several under each other where its columns exceed the width."""
    columns = [list(column) for column in zip(*lines, strict=True)]
    names = _justified(columns[0], str.ljust)
    texts = list(names)
    done: list[str] = []
    for column in columns[1:]:
        cells = _justified(column, str.rjust)
        if len(texts[0]) + 2 + len(cells[0]) > WIDTH and texts != names:
            done += [*texts, ""]
            texts = list(names)
        texts = [f"{text}  {cell}" for text, cell in zip(texts, cells, strict=True)]
    return done + texts


def _justified(cells: Sequence[str], side: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, cells))
    return [side(cell, width) for cell in cells]


def _size(values: Sequence[float]) -> str:
    """The norm of several together; an exact zero is 0."""
    norm = sum(value**2 for value in values) ** 0.5
    return "0" if norm == 0 else two(norm)


def _groups(parameters: Sequence[str]) -> dict[str, list[int]]:
    """Parameters by name, or by as long a prefix as fits the screen."""
    for parts in (99, 3, 2, 1):
        groups: dict[str, list[int]] = {}
        for k, name in enumerate(parameters):
            pieces = name.split(".")
            short = ".".join(pieces[:parts]) + (".*" if len(pieces) > parts else "")
            groups.setdefault(short, []).append(k)
        if len(groups) <= ROWS:
            return groups
    most = list(groups.items())
    rest = [k for _, members in most[ROWS - 1 :] for k in members]
    return dict(most[: ROWS - 1]) | {f"{len(most) - ROWS + 1} more": rest}
