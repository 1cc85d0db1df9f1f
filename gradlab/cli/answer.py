"""A command's document on standard output: sentences and tables, or one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gradlab.cli.streams import Document, bars, utf8
from gradlab.errors import Failure, InputError
from gradlab.wording import signed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gradlab.runs.run import Run
    from gradlab.verdicts.recommendation import Light


WIDTH = 78  # columns of a list: combining signs take none, and a terminal has 80
_ALGORITHM = "{source}\n{policy}; {gradient}; target: {target}; {model}; data: {data}"
_LINES = {
    "train": "train", "untrained": "train", "next": "next", "policy": "policy", "run": "run",
    "report": "report",
}  # fmt: skip
_HEADINGS = {
    "tasks": "tasks:",
    "estimators": "estimators:",
    "measure --also": "estimators of `gradlab measure --also`:",
    "algorithms": "algorithms: source; policy, gradient, critic's target; model, data",
    "losses": "losses of a learned model, `--loss` of fit and train (sobolev: of fit alone):",
    "remedies": "remedies of a learned model:",
}


def of_run(
    run: Path, page: bool, more: Sequence[Document] = (), found: Run | None = None
) -> Document:
    """The recommendation of a run that was just written, and its page if `page` is set.

    Args:
        more: sentences about what the command chose, below the findings.
        found: the run itself; None: it is read.
    """
    from gradlab.reporting.output import advice_of, check_page, page_of, write

    document: Document = {"run": str(run)}
    if page:
        shown = page_of(run, found)
        try:
            with bars() as progress:
                document["report"] = str(write(check_page(run), shown, progress))
        except (InputError, OSError) as error:
            raise Failure(f"the run is in {run}, its page failed: {error}") from error
        advice = shown.advice
    else:
        advice = advice_of(run) if found is None else found.recommendation
    findings = [*(each.document for each in advice.rest), *more]
    return advice.document | {"findings": findings} | document


def answer(document: Document, as_json: bool, explain: bool = False) -> None:
    """Print a command's document; `explain`: what stands below the recommendation, too."""
    if as_json:
        print(as_text(document, ensure_ascii=not utf8()))
        return
    headline = str(document.get("headline", ""))
    if headline:
        bold(headline)
    if "text" in document:
        print(str(document["text"]).removeprefix(headline).lstrip("\n"))
    parts = [document, *filter(None, [cast("Document", document.get("causes"))])]
    for each in parts:
        if "recommendation" in each:
            _print_advice(each)
        if explain or not {"recommendation", "text"} & each.keys():
            _print_findings(each)
    for kind, shown in _LINES.items():
        if kind in document:
            print(f"{shown + ':':8}{document[kind]}")
    _print_lists(document)
    if "recommendation" in document and not explain:
        print("--explain prints the rest.")


def _print_lists(document: Document) -> None:
    """Names with their lines; a star marks those that are taken where nothing is chosen."""
    from rich.table import Table

    taken = cast("dict[str, list[str]]", document.get("by default", {}))
    for kind in (kind for kind in _HEADINGS if kind in document):
        print(f"\n{_HEADINGS[kind]}")
        table = Table.grid(padding=(0, 1))
        table.width = WIDTH
        for name, entry in cast("dict[str, Any]", document[kind]).items():
            if not isinstance(entry, str):  # an algorithm: its source, and below it its parts
                entry = _ALGORITHM.format(**entry)
            table.add_row("*" if name in taken.get(kind, ()) else " ", name, entry)
        _print_grid(_console(), table)


def _print_advice(document: Document) -> None:
    from rich.table import Table

    from gradlab.verdicts.recommendation import light_line

    console, fields = _console(), cast("dict[str, str]", document["recommendation"])
    if "notice" in document:
        console.print(signed(str(document["notice"])), style="bold red")
    console.print(light_line(cast("Light", document["light"]), str(document["lit"])), style="bold")
    table = Table.grid(padding=(0, 2))
    for k, (name, text) in enumerate(fields.items()):
        table.add_row("", name, signed(text), style="" if k else "bold")
    _print_grid(console, table)
    if "networks" in document:
        console.print(str(document["networks"]))
    console.print()


def _print_grid(console: Console, table: Table) -> None:
    """Without the spaces that fill its cells up to the end of a line."""
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def bold(sentence: str) -> None:
    _console().print(signed(sentence), style="bold")


def _console() -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:  # where rich would exit with 1
            raise BrokenPipeError

    return Piped(soft_wrap=False, highlight=False, markup=False, emoji=False)


def _print_findings(document: Document) -> None:
    """Findings with a blank line between them: those that are decided in bold."""
    console = _console()
    rows = cast("list[dict[str, Any]]", document.get("findings") or [])
    fields = cast("dict[str, str]", document.get("recommendation", {}))
    above = " ".join([str(document.get("notice", "")), *fields.values()])
    for row in rows:
        text = f"{row['sentence']} {row.get('remedy', '')}".rstrip()
        if text not in above:
            decided = row.get("decision") in ("pass", "fail")
            console.print(f"• {signed(text)}", style="bold" if decided else None)
            console.print()


def as_text(document: Document, **layout: Any) -> str:
    """JSON in which numbers that are not finite are null."""
    return json.dumps(_plain(document), allow_nan=False, **layout)


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
