"""The page of a certificate: errors by block and stratum, how it was made."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab import figures
from gradlab.figures import style
from gradlab.figures.plots import bars
from gradlab.figures.style import DERIVATIVES
from gradlab.reporting.output import Kind
from gradlab.reporting.page import Page, Section, method, panel
from gradlab.reporting.shell import folded
from gradlab.tools.certify.result import SYMBOLS, WHERE, Certification

_LEAST = 1e-16  # an error of 0 is drawn there


def certified_errors(
    table: pd.DataFrame, ax: Axes | None = None, *, fail_above: float = np.nan
) -> Axes:
    """The error that 95% are below of each block in each stratum, in a line from the median to the
    largest; of two sources of derivatives the worse. `fail_above`: drawn as a line."""
    ax = style.new_axes() if ax is None else ax
    errors = ["median", "p95", "largest"]
    worst = table.groupby(["stratum", "block"], sort=False)[errors].max().reset_index()
    worst = worst[worst["median"].notna()]
    drawn = worst[errors].astype(float).clip(lower=_LEAST)
    drawn.columns = ["ci_low", "value", "ci_high"]
    drawn = drawn.assign(output=worst["stratum"].map(WHERE), block=worst["block"])
    series = {DERIVATIVES[str(block)]: own for block, own in drawn.groupby("block", sort=False)}
    ax.set_yscale("log" if series else "linear")
    return bars(
        series, ax, "Relative error of every block", "‖J − D‖ / ‖D‖", along="median, 95%, largest",
        level=fail_above, empty="no state could be judged",
    )  # fmt: skip


_NUMBERS = "Numbers"
_ELSEWHERE = ("ranges", "command", "versions")


def page(certificate: Certification) -> Page:
    """What the page of a certificate shows."""
    table, facts = certificate.table(), certificate.facts
    drawn = panel(
        "errors", _NUMBERS, "Below the line: sound.", figures.certified_errors, table,
        fail_above=certificate.fail_above,
    )  # fmt: skip
    errors, entries = (
        each.assign(block=each["block"].map(SYMBOLS).fillna(""), stratum=each["stratum"].map(WHERE))
        for each in (table, certificate.table("entries"))
    )
    ranges = pd.DataFrame(facts["ranges"], columns=["coordinate", "lowest", "highest"])
    settings = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in facts.items() if key not in _ELSEWHERE and value not in ({}, None, "")
    }  # fmt: skip
    body = folded("Relative errors", errors)
    body += folded("Entries", entries.drop(columns="finding"))
    sections = (
        Section(_NUMBERS, body=body + folded("Ranges of the states", ranges)),
        method(
            facts["command"], {"Settings": settings, "Versions": facts["versions"]}
        ),
    )  # fmt: skip
    line = {"system": certificate.system, "states": facts["states"]}
    question = "Are these derivatives those of the step itself?"
    return Page(certificate.system, question, line, certificate.recommendation, (drawn,), sections,
                apart=False)  # fmt: skip


KIND = Kind(
    lambda certificate, *_: page(certificate), lambda certificate: certificate.recommendation
)
