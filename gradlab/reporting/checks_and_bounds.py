"""Two sections of a measurement's page: the checks beside it, and the bounds of the papers.

Checks that ask for attention are in sight, those that passed one click away. Of each bound the page
has whether it applies, and how far it is from what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from gradlab.reporting import shell
from gradlab.reporting.page import Section
from gradlab.reporting.panels import THEORY
from gradlab.runs.bound_comparison import BoundComparison, absence, compared_bounds
from gradlab.runs.check_results import CheckResult
from gradlab.runs.profile import Profile

SANITY = "Sanity"
CHECK_HEADINGS = ("check", "result", "what it means", "")
BOUND_HEADINGS = (
    "theorem", "about", "bounds its", "applies", "where the measured value is least",
    "smallest bound", "why",
)  # fmt: skip


def sanity(results: Sequence[CheckResult] | None) -> Section:
    """Every check, those that need attention in sight; says so where none was recorded."""
    if not results:
        missing = "Not recorded: this run was measured without checks."
        return Section(SANITY, name="sanity", missing=missing)
    attention = [each for each in results if not each.passed]
    passed = [each for each in results if each.passed]
    body = (
        f"{_headline(len(attention), len(results))}"
        f"{_check_table(attention) if attention else ''}{_folded(passed) if passed else ''}"
    )
    note = f"{len(passed)} of {len(results)} passed"
    return Section(SANITY, body=body, note=note, name="sanity", opened=bool(attention))


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
    head = "".join(f'<th scope="col">{name}</th>' for name in CHECK_HEADINGS)
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


def theory(profile: Profile) -> Section:
    """The figures, a row per bound, and the constants; or why there are none."""
    if profile.theory is None or not profile.theory.bounds:
        return Section(THEORY, name="theory", missing=absence(profile))
    head = "".join(f'<th scope="col">{name}</th>' for name in BOUND_HEADINGS)
    rows = "\n".join(_bound_row(each) for each in compared_bounds(profile))
    body = f"""<p>Bounds on the norm of the bias and on the variance of one gradient, from constants
measured along {profile.theory.starts} paths: the largest value that was seen is a lower estimate of
the supremum that a theorem asks for.</p>
<div class="wide tall"><table class="prose"><thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<details><summary>{len(profile.theory.constants)} constants</summary>
<div class="columns">{_constants(profile.theory.constants)}</div></details>"""
    return Section(THEORY, body=body, name="theory")


def _constants(constants: Mapping[str, float]) -> str:
    """A list per estimator and theorem: names are "estimator, theorem: constant"."""
    lists: dict[str, dict[str, object]] = {}
    for name, value in constants.items():
        about, _, constant = name.rpartition(": ")
        lists.setdefault(about, {})[constant] = value
    return "".join(
        f"<div><h3>{escape(about)}</h3>{shell.definitions(values)}</div>"
        for about, values in lists.items()
    )


def _bound_row(compared: BoundComparison) -> str:
    mark = "pass" if compared.applies else "attention"
    word = "yes" if compared.applies else "no"
    cells = (compared.theorem, compared.estimator, compared.quantity)
    rest = (compared.looseness, compared.least, compared.why)
    return (
        "<tr>"
        + "".join(f"<td>{escape(each)}</td>" for each in cells)
        + f'<td><span class="tag {mark}">{word}</span></td>'
        + "".join(f"<td>{escape(each)}</td>" for each in rest)
        + "</tr>"
    )
