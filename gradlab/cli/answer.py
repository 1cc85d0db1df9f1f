"""What a command says: words for a reader, one JSON document for a machine."""

from __future__ import annotations

import json
import math
from typing import Any

from gradlab.cli.arguments import Document


def answer(document: Document, as_json: bool) -> None:
    """Print the document of a command on standard output."""
    if as_json:
        print(json.dumps(_plain(document), allow_nan=False, ensure_ascii=False))
        return
    if "text" in document:
        print(document["text"])
    _print_verdict(document.get("verdict"))
    checks = document.get("checks")
    if isinstance(checks, list):
        _print_checks(checks)
    ledger = document.get("ledger")
    if isinstance(ledger, list):
        from gradlab.cli.ledger_tables import print_ledger

        print_ledger(ledger)
    if "what if" in document:
        from gradlab.cli.choice_tables import print_choice

        print_choice(document)
    for kind in ("run", "report"):
        if kind in document:
            print(f"{kind + ':':8}{document[kind]}")
    for kind in ("tasks", "estimators", "named estimators", "algorithms", "remedies"):
        entries = document.get(kind)
        if isinstance(entries, dict):
            print(f"{kind}:")
            for name, line in entries.items():
                print(f"  {name:21}{line}")


def _print_verdict(verdict: object) -> None:
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False, markup=False)
    for sentence in verdict if isinstance(verdict, list) else []:
        console.print(f"• {sentence['text']}", style="bold" if sentence["decided"] else None)


def _print_checks(checks: list[dict[str, Any]]) -> None:
    width = max(len(check["name"]) for check in checks)
    print(f"{'':4}  {'':{width}}  {'known':>11} {'measured':>11}  {'interval':25} mistake gives")
    for check in checks:
        mark = "ok" if check["passed"] else "FAIL"
        span = f"[{check['low']:.4g}, {check['high']:.4g}]"
        mistake = "" if check["mistake"] is None else f"{check['mistake']:.4g}"
        numbers = f"{check['known']:11.4g} {check['measured']:11.4g}  {span:25} {mistake}"
        print(f"{mark:4}  {check['name']:{width}}  {numbers}")
    failed = sum(not check["passed"] for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")


def _plain(value: Any) -> Any:
    """What JSON can say: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
