"""The page of a certificate: verdict, findings, errors by block and stratum, how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gradlab import figures
from gradlab.figures import drawing, style
from gradlab.figures.style import DERIVATIVES, GRID, INK, MUTED
from gradlab.reporting.page import Page, Section, method, panel
from gradlab.reporting.shell import folded
from gradlab.tools.certify.result import SYMBOLS, Certification
from gradlab.verdicts.recommendation import Field, Light, Recommendation

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
    note = "marker: median, tick: 95% are below, end of the line: largest"
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
    "source": "derivatives by",
    "block": "block",
    "stratum": "where",
    "states": "states",
    "judged": "share judged",
    "median": "median error",
    "p95": "95% are below",
    "largest": "largest",
    "flagged": "share wrong",
}
_NUMBERS = "Numbers"
_RANGES = {"coordinate": "coordinate", "lowest": "lowest", "highest": "highest"}
_ORIGINS = {
    "given": "given", "starts": "starts", "visited": "visited by rollouts",
    "random": "moved off these",
    "limits": "on limits of the actions, or with a coordinate at 0",
    "kinks": "on both sides of kinks and jumps",
}  # fmt: skip
_STRATA = {
    "free": "free", "contact": "in contact", "onset": "at a kink or jump within the stencil",
    "limit": "with an action on its limit, or a joint beyond",
    "saturation": "with an input that is clipped there (its derivative of 0 is right)",
}  # fmt: skip
_ELSEWHERE = ("compared", "ranges", "origins", "strata", "starts", "command", "versions")
_QUESTION = "Are these derivatives those of {} itself?"


def _named(strata: Iterable[str]) -> str:
    """Saturation: with an input that is clipped there …, as the rows of the figure."""
    return " ".join(f"{each.capitalize()}: {_STRATA.get(each, each)}." for each in strata)


def page(certificate: Certification) -> Page:
    """What the page of a certificate shows."""
    table, facts = certificate.table(), certificate.facts
    findings = certificate.sentences[1:]
    met = (each for each in dict.fromkeys(table["stratum"]) if each != "free")
    caption = (
        "Left of the line: sound. Right of it: too near the errors of the differences, or at too "
        f"few states, to be called wrong, unless a finding names it. {_named(met)}"
    ).rstrip()
    limit, draw = certificate.fail_above, figures.certified_errors
    drawn = (panel("errors", _NUMBERS, caption, draw, table, fail_above=limit),)
    shown = table.assign(block=table["block"].map(SYMBOLS))
    ranges = pd.DataFrame(facts["ranges"], columns=list(_RANGES))
    counted = ", ".join(f"{n:,} {_ORIGINS[name]}" for name, n in facts["origins"].items())
    strata = ", ".join(f"{n:,} {_STRATA[name]}" for name, n in facts["strata"].items() if n)
    lines = (*facts["compared"], f"States: {counted}; {facts['starts']}. Of them {strata}.")
    settings: dict[str, object] = {}
    for key, value in facts.items():
        if key not in _ELSEWHERE and value not in ({}, None):
            shorter = value
            if isinstance(value, Sequence) and not isinstance(value, str):
                texts = (f"{x:.2g}" if isinstance(x, float) else str(x) for x in value)
                shorter = ", ".join(texts)
            settings[key] = shorter
    sections = (
        Section("Findings", lines=findings, note=str(len(findings)), opened=bool(findings)),
        Section(_NUMBERS, body=folded("Relative errors by block and stratum", shown, _HEADINGS)),
        Section(
            "What was compared, and where",
            lines=lines,
            body=folded("Ranges of states and actions", ranges, _RANGES),
        ),
        method(
            facts["command"],
            {
                "Settings and counts": settings,
                "Versions": facts["versions"],
            },
        ),
    )
    line = {
        "system": certificate.system,
        certificate.examined: facts["states"],
    }
    question = _QUESTION.format("the function" if certificate.of_function else "the step")
    return Page(certificate.system, question, line, advice(certificate), drawn, sections,
                apart=False)  # fmt: skip


def advice(certificate: Certification) -> Recommendation:
    """Is it usable, where is it not, by how much?"""
    light: Light = "act" if certificate.shown else "choose" if certificate.passed else "none"
    word = {"none": "Not sound", "act": "Sound", "choose": "Not shown"}[light]
    lead = {"act": "yes: ", "choose": "with care: "}.get(
        light, f"no: fix {certificate.wrong} first, "
    )
    few = certificate.passed and any(each.kind == "rare" for each in certificate.findings)
    wrong = certificate.wrong if light == "none" else "none"
    wrong += f" by more than {certificate.fail_above:g}"
    wrong += ", except perhaps in a few states" * few
    how = (
        "‖J − D‖ / ‖D‖ of a block, rows and columns in spreads of outputs and inputs, J the "
        "simulator's, D certified differences of its step"
    )
    errors = f"95% of the worst block's below {certificate.within}"
    fields = (
        Field("usable", f"{lead}{certificate.why}"),
        Field("wrong", wrong),
        Field("errors", errors, how),
        Field("examined", certificate.where, str(certificate.facts["starts"])),
        Field("next", " ".join(filter(None, (certificate.kinks, certificate.drawn)))),
    )
    shown = tuple(each for each in fields if each.text)
    return Recommendation(light, shown, "errors", word=word)
