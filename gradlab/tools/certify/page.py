"""The page of a certificate: errors by block and stratum, how it was made."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gradlab import figures
from gradlab.figures import drawing, style
from gradlab.figures.style import DERIVATIVES, GRID, INK, MUTED
from gradlab.reporting.output import Kind
from gradlab.reporting.page import Page, Section, method, panel
from gradlab.reporting.shell import folded
from gradlab.tools.certify.result import SYMBOLS, Certification

_LEAST = 1e-16  # an error of 0 is drawn there
_APART = 0.18  # between the blocks of one stratum


def certified_errors(
    table: pd.DataFrame, ax: Axes | None = None, *, fail_above: float = np.nan
) -> Axes:
    """Median (marker), 95th percentile (tick) and largest error (end of the line) of each block in
    each stratum; of two sources of derivatives the worse. `fail_above`: drawn as a line."""
    ax = style.new_axes() if ax is None else ax
    errors = ["median", "p95", "largest"]
    worst = table.groupby(["stratum", "block"], sort=False)[errors].max().reset_index()
    strata = list(dict.fromkeys(table["stratum"]))
    if worst["median"].notna().sum() == 0:
        drawing.nothing(ax, "no state could be judged")
    named: set[str] = set()
    blocks = list(dict.fromkeys(table["block"]))
    places = zip(worst["stratum"], worst["block"], worst[errors].to_numpy(float), strict=True)
    for stratum, block, row in places:
        y = strata.index(stratum) + _APART * (blocks.index(block) - (len(blocks) - 1) / 2)
        look, (median, p95, largest) = DERIVATIVES[block], np.maximum(row, _LEAST)
        if not np.isfinite(median):
            continue
        label = "_" if block in named else look.label
        named.add(block)
        ax.plot([median, largest], [y, y], color=look.colour, linewidth=1.2, label="_")
        ax.plot([p95], [y], marker="|", markersize=9, color=look.colour, label="_")
        ax.plot([median], [y], look.marker, markersize=5, color=look.colour, label=label)
    if np.isfinite(fail_above):
        ax.axvline(fail_above, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), label="_")
        ax.annotate("tolerated", (fail_above, 1), (3, -2), ("data", "axes fraction"),
                    "offset points", color=MUTED, va="top", fontsize=9)  # fmt: skip
    note = "marker: median, tick: 95%, end of the line: largest"
    style.dress(ax, "Relative error of every block", "", [note])
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=8))
    ax.xaxis.set_major_formatter(FuncFormatter(style.tick))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, axis="x", color=GRID, linewidth=0.8)
    ax.grid(False, axis="y")
    ax.set_yticks(range(len(strata)), strata)
    ax.set_ylim(len(strata) - 0.4, -0.6)
    ax.set_xlabel("relative error ‖J − D‖ / ‖D‖", color=INK)
    return ax


_HEADINGS = {
    "source": "derivatives by", "block": "block", "stratum": "where", "states": "states",
    "judged": "share judged", "median": "median error", "p95": "95% are below",
    "largest": "largest", "flagged": "share wrong",
}  # fmt: skip
_ENTRIES = {
    "code": "finding", "source": "derivatives by", "block": "block", "stratum": "where",
    "row": "output", "column": "input", "error": "relative error", "absolute": "absolute error",
    "ratio": "J / D", "flipped": "share of wrong signs",
}  # fmt: skip
_NUMBERS = "Numbers"
_RANGES = {"coordinate": "coordinate", "lowest": "lowest", "highest": "highest"}
_ELSEWHERE = ("compared", "ranges", "starts", "command", "versions")


def page(certificate: Certification) -> Page:
    """What the page of a certificate shows."""
    table, facts = certificate.table(), certificate.facts
    drawn = panel(
        "errors", _NUMBERS, "Left of the line: sound.", figures.certified_errors, table,
        fail_above=certificate.fail_above,
    )  # fmt: skip
    errors, entries = (
        each.assign(block=each["block"].map(SYMBOLS).fillna(""))
        for each in (table, certificate.table("entries"))
    )
    ranges = pd.DataFrame(facts["ranges"], columns=list(_RANGES))
    settings = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in facts.items() if key not in _ELSEWHERE and value not in ({}, None)
    }  # fmt: skip
    body = folded("Relative errors", errors, _HEADINGS)
    body += folded("Entries", entries, _ENTRIES)
    sections = (
        Section(_NUMBERS, body=body),
        Section(
            "What was compared",
            lines=(*facts["compared"], f"States: {facts['starts']}."),
            body=folded("Ranges", ranges, _RANGES),
        ),
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
