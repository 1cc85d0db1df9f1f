"""Theory: which of the papers' theorems apply here, and how far they are from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from gradlab.reporting import shell
from gradlab.reporting.page import Section
from gradlab.reporting.panels import THEORY
from gradlab.runs.bound_comparison import BoundComparison, absence, compared_bounds
from gradlab.runs.profile import Profile

HEADINGS = (
    "theorem", "about", "bounds its", "applies", "where the measured value is least",
    "smallest bound", "why",
)  # fmt: skip


def theory(profile: Profile) -> Section:
    """The figures, a row per bound, and the constants; or why there are none."""
    if profile.theory is None or not profile.theory.bounds:
        return Section(THEORY, name="theory", missing=absence(profile))
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADINGS)
    rows = "\n".join(_row(each) for each in compared_bounds(profile))
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


def _row(compared: BoundComparison) -> str:
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
