"""The page of a certificate: verdict, findings, errors by block and stratum, how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from gradlab import figures
from gradlab.reporting.numbers import folded
from gradlab.reporting.page import Page, Section, method, panel
from gradlab.tools.certify.result import SYMBOLS, Certification
from gradlab.verdicts.recommendation import Field, Light, Recommendation

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
