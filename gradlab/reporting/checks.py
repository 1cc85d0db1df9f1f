"""The section of a measurement's page on the checks beside it.

Checks that ask for attention are in sight, those that passed one click away.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gradlab.reporting.page import Section
from gradlab.runs.check_results import CheckResult

_SANITY = "Sanity"
_CHECK_HEADINGS = ("check", "result", "what it means", "")


def sanity(results: Sequence[CheckResult] | None) -> Section:
    """Every check, those that need attention in sight; says so where none was recorded."""
    if not results:
        missing = "Not recorded: this run was measured without checks."
        return Section(_SANITY, name="sanity", missing=missing)
    attention = [each for each in results if not each.passed]
    passed = [each for each in results if each.passed]
    body = (
        f"{_headline(len(attention), len(results))}"
        f"{_check_table(attention) if attention else ''}{_folded(passed) if passed else ''}"
    )
    note = f"{len(passed)} of {len(results)} passed"
    return Section(_SANITY, body=body, note=note, name="sanity", opened=bool(attention))


def _headline(attention: int, total: int) -> str:
    if not attention:
        return f'<p><span class="tag pass">pass</span> All {total} checks passed.</p>'
    asks = "asks" if attention == 1 else "ask"
    text = f"{attention} of {total} checks {asks} for attention before the rest is believed."
    return f'<p><span class="tag attention">attention</span> {text}</p>'


def _folded(results: Sequence[CheckResult]) -> str:
    count = f"{len(results)} checks" if len(results) > 1 else "1 check"
    return f"<details><summary>{count} passed</summary>{_check_table(results)}</details>"


def _check_table(results: Sequence[CheckResult]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _CHECK_HEADINGS)
    rows = "\n".join(_check_row(each) for each in results)
    return (
        f'<div class="wide tall"><table class="prose"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _check_row(result: CheckResult) -> str:
    cells = (result.check, result.result, result.meaning)
    mark = "pass" if result.passed else "attention"
    text = "".join(f"<td>{escape(each)}</td>" for each in cells)
    return f'<tr>{text}<td><span class="tag {mark}">{mark}</span></td></tr>'
