"""A command's document on standard output: sentences and tables, or one JSON document."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gradlab.cli.arguments import Document
from gradlab.cli.streams import bars, utf8
from gradlab.errors import Failure, InputError
from gradlab.wording import percent, signed, two, with_ends

if TYPE_CHECKING:
    from rich.console import Console

    from gradlab.verdicts.recommendation import Light, Recommendation


_ROUNDING = 1e-12  # a share of the total's upper end that rounding explains
_NONE = 5e-5  # a share of rounding size
_Rows = Sequence[Mapping[str, Any]]


def _print_checks(checks: list[dict[str, Any]]) -> None:
    width = max(len(check["name"]) for check in checks)
    print(f"{'':4}  {'':{width}}  {'known':>11} {'measured':>11}  {'interval':25} mistake gives")
    for check in checks:
        mark = "ok" if check["passed"] else "FAIL"
        interval = f"[{check['low']:.4g}, {check['high']:.4g}]"
        mistake = "" if check["mistake"] is None else f"{check['mistake']:.4g}"
        numbers = f"{check['known']:11.4g} {check['measured']:11.4g}  {interval:25} {mistake}"
        print(f"{mark:4}  {check['name']:{width}}  {signed(numbers)}")
    failed = sum(not check["passed"] for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")


def _print_attribution(rows: _Rows) -> None:
    from rich.console import Console
    from rich.table import Table

    from gradlab.runs.attribution import CAUSES, SOURCES

    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    for account, kind, names, what in (
        ("bias", "shapley", CAUSES, "squared bias, Shapley shares"),
        ("variance", "source", SOURCES, "variance"),
    ):
        chosen = [row for row in rows if row["account"] == account]
        for estimator in dict.fromkeys(row["estimator"] for row in chosen):
            rows_of_it = [row for row in chosen if row["estimator"] == estimator]
            totals = {row["horizon"]: row for row in rows_of_it if row["kind"] == "total"}
            table = Table(
                title=f"{estimator}: {what}", title_justify="left", box=None, pad_edge=False
            )
            table.add_column("", overflow="fold")
            for horizon in totals:
                table.add_column(f"h = {horizon}", justify="right", overflow="fold")
            table.add_row("total", *(_with_interval(row) for row in totals.values()))
            for name, label in names.items():
                parts = [row for row in rows_of_it if (row["kind"], row["cause"]) == (kind, name)]
                table.add_row(label, *(_share(part, totals[part["horizon"]]) for part in parts))
            console.print(table)


def _with_interval(row: Mapping[str, Any]) -> str:
    value, low, high = (two(row[name]) for name in ("value", "ci_low", "ci_high"))
    return signed(f"{value}\n[{low}, {high}]")


def _share(row: Mapping[str, Any], total: Mapping[str, Any]) -> str:
    """The fraction with its interval, or the value where the total is not distinguishable from 0;
    0 is exact."""
    if row["value"] == 0 and row["se"] == 0:
        return "0"
    if math.isnan(row["fraction"]):
        rounding = max(map(abs, (row["ci_low"], row["ci_high"]))) < _ROUNDING * total["ci_high"]
        return "≈ 0" if rounding else _with_interval(row)
    ends = row["fraction"], row["fraction_low"], row["fraction_high"]
    if max(map(abs, ends)) < _NONE:
        return "0%"
    share, between = with_ends(*ends, percent)
    return signed(f"{share}\n{between}")


WIDTH, NAMES = 80, 20  # columns of a list, and those of its names
_LINES = {
    "train": "train", "untrained": "train", "policy": "policy", "run": "run", "report": "report",
}  # fmt: skip
_HEADINGS = {
    "tasks": "tasks:",
    "estimators": "estimators:",
    "measure --also": "estimators of `gradlab measure --also`:",
    "named estimators": "estimators of gradlab.gradients.named, in Python:",
    "algorithms": "algorithms: source; policy, gradient, critic's target; model, data",
    "losses": "losses of a learned model, `--loss` of fit and train (sobolev: of fit alone):",
    "remedies": "remedies of a learned model:",
}


def of_advice(shown: Recommendation) -> Document:
    """A recommendation as plain values: its fields by name; "findings" holds the others."""
    notice: Document = {"notice": shown.notice} if shown.notice else {}
    return notice | {
        "recommendation": {each.name: each.text for each in shown.fields},
        "light": shown.light,
        "lit": shown.lit,
        "findings": [each.document for each in shown.rest],
    }


def of_run(run: Path, page: bool, more: Sequence[Document] = ()) -> Document:
    """The recommendation of a run that was just written, and its page if `page` is set.

    Args:
        more: sentences about what the command chose, below the findings.
    """
    from gradlab.reporting.output import advice_of, check_page, page_of, write

    document: Document = {"run": str(run)}
    if page:
        shown = page_of(run)
        try:
            with bars() as progress:
                document["report"] = str(write(check_page(run), shown, progress))
        except (InputError, OSError) as error:
            raise Failure(f"the run is in {run}, its page failed: {error}") from error
        advice = shown.advice
    else:
        advice = advice_of(run)
    findings = [*(each.document for each in advice.rest), *more]
    return of_advice(advice) | {"findings": findings} | document


def answer(document: Document, as_json: bool, explain: bool = False) -> None:
    """Print a command's document; `explain`: what stands below the recommendation, too."""
    if as_json:
        print(json.dumps(_plain(document), allow_nan=False, ensure_ascii=not utf8()))
        return
    headline = str(document.get("headline", ""))
    if headline:
        bold(headline)
    if "text" in document:
        print(str(document["text"]).removeprefix(headline).lstrip("\n"))
    if "recommendation" in document:
        _print_advice(document)
    if explain or "recommendation" not in document:
        _print_verdict(document)
    causes = document.get("causes")
    if isinstance(causes, dict):
        _print_advice(causes)
        if explain:
            _print_verdict(causes)
    if explain or "recommendation" not in document:
        checks, shares = document.get("checks"), document.get("ledger")
        if isinstance(checks, list):
            _print_checks(checks)
        if isinstance(shares, list):
            _print_attribution(shares)
    for kind, shown in _LINES.items():
        if kind in document:
            print(f"{shown + ':':8}{document[kind]}")
    _print_lists(document)
    if "recommendation" in document and not explain:
        print("--explain prints the rest.")


def _print_lists(document: Document) -> None:
    """Names with their lines; a star marks those that are taken where nothing is chosen."""
    defaults = document.get("by default")
    taken = defaults if isinstance(defaults, dict) else {}
    for kind, heading in _HEADINGS.items():
        entries = document.get(kind)
        if isinstance(entries, dict):
            print(f"\n{heading}")
            for name, entry in entries.items():
                mark = "*" if name in taken.get(kind, ()) else " "
                first = f"{mark} {name:{NAMES}}"
                if isinstance(entry, str):
                    print(_filled(f"{first} {entry}"))
                    continue
                # An algorithm with its source, and below it its parts.
                print(_filled(f"{first} {entry['source']}"))
                for part in (
                    f"{entry['policy']}; {entry['gradient']}; target: {entry['target']}",
                    f"{entry['model']}; data: {entry['data']}",
                ):
                    print(_filled(f"{'':{NAMES + 2}} {part}"))


def _filled(text: str) -> str:
    indent = " " * (NAMES + 3)
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _print_advice(document: Document) -> None:
    from gradlab.verdicts.recommendation import light_line

    console, fields = _console(), cast("dict[str, str]", document["recommendation"])
    if "notice" in document:
        console.print(signed(str(document["notice"])), style="bold red")
    console.print(light_line(cast("Light", document["light"]), str(document["lit"])), style="bold")
    width = max(map(len, fields))
    for k, (name, text) in enumerate(fields.items()):
        filled = textwrap.fill(
            f"  {name:{width}}  {signed(text)}", max(console.width, WIDTH // 2),
            subsequent_indent=" " * (width + 4), break_on_hyphens=False,
        )  # fmt: skip
        console.print(filled, style=None if k else "bold")
    if "networks" in document:
        console.print(str(document["networks"]))
    console.print()


def bold(sentence: str) -> None:
    _console().print(signed(sentence), style="bold")


def _console() -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:  # where rich would exit with 1
            raise BrokenPipeError

    return Piped(soft_wrap=False, highlight=False, markup=False, emoji=False)


def _print_verdict(document: Document) -> None:
    """Findings with a blank line between them, each once: those that are decided in bold, and the
    first one where it is the answer."""
    from gradlab.verdicts.recommendation import unsaid

    console = _console()
    rows = cast("list[dict[str, Any]]", document.get("verdict") or document.get("findings") or [])
    fields = document.get("recommendation", {})
    above = " ".join([str(document.get("notice", "")), *cast("dict[str, str]", fields).values()])
    said = [" ".join(filter(None, (each["sentence"], each.get("remedy", "")))) for each in rows]
    texts = unsaid(said, above)
    if rows and "recommendation" not in document and "headline" not in document:
        bold(texts[0])
        console.print()
        rows, texts = rows[1:], texts[1:]
    for row, text in zip(rows, texts, strict=True):
        if text:
            decided = row.get("decision") in ("pass", "fail")
            console.print(f"• {signed(text)}", style="bold" if decided else None)
            console.print()


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
