"""The page of a measurement: the recommendation, then error, gain, direction, causes, numbers.

A section that a file has no numbers for says in one line how to get them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gradlab import figures
from gradlab.findings import Finding
from gradlab.gradients.ways import WAYS
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    facts_of,
    method_of,
    panel,
)
from gradlab.reporting.shell import tables
from gradlab.runs.decision_rules import best_horizons
from gradlab.runs.profile import Profile
from gradlab.runs.stages import central, trimmed_share
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice import statements
from gradlab.verdicts.measurement.verdict import Basis, every_check
from gradlab.verdicts.recommendation import Recommendation
from gradlab.wording import label, states_each, stepping

_GAIN, _LASTING = "Gain of a step", "For how many updates it lasts"
_ERROR, _DIRECTION = "Bias, variance and error", "Direction and noise"
_SOURCE, _GROWTH = "Where the error comes from", "Growth with the horizon"
_CONTEST = "Estimators and weights"
_SECTIONS = {  # in order, each with what is said where it is empty
    _GAIN: "Not measured: `gradlab measure TASK` does, at visited states.",
    _LASTING: "Not rehearsed.",
    _ERROR: "",
    _DIRECTION: "",
    _SOURCE: "Not attributed: `gradlab measure --attribute` does.",
    _GROWTH: "",
    _CONTEST: "No weights: they need a truth.",
}
_NOTHING = Basis(None, None)
_LAWS = {"visited": "visited states", "start": "the given starts"}


def page(profile: Profile, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a measurement shows; `name` is its title where no task is known."""
    title = str(profile.config.get("task") or name)
    return shown(profile, profile.recommendation, title, profile.evidence, source)


def shown(
    profile: Profile,
    first: Recommendation,
    title: str,
    evidence: Basis = _NOTHING,
    source: PageSource = NOWHERE,
) -> Page:
    """The page of a measurement whose recommendation is known.

    Args:
        evidence: choice and attribution of the profile.
    """
    told = () if evidence.choice is None else statements(evidence.choice)
    lines = {_CONTEST: tuple(each.said for each in told)}
    of_finding = {each.name for each in fields(Finding)}  # a row says these
    truth = {key: value for key, value in profile.truth.items() if key not in of_finding}
    sections = (
        *(
            Section(name, lines.get(name, ()), missing=absent, opened=name == _ERROR)
            for name, absent in _SECTIONS.items()
        ),
        Section("Every number", body=f"<p>Click a heading to sort.</p>{tables(profile.table())}"),
        method_of(profile.config, profile.environment, {"Truth": truth}),
    )
    findings = tuple(each for each in every_check(profile) if each not in first.rest)
    drawn, question = tuple(panels(profile, evidence)), "Does a step help?"
    return Page(title, question, _facts(profile), first, drawn, sections, source, findings)


def _facts(profile: Profile) -> dict[str, object]:
    """The header line: what was measured, on how much, how exactly."""
    config, truth = profile.config, profile.truth
    error, starts, visits = (
        truth.get("relative_se"),
        f"{config.get('starts')}",
        config.get("visits"),
    )
    method = str(truth.get("method", ""))
    if isinstance(error, int | float):
        method += f" ± {error:.1%}" if math.isfinite(error) else ", lost in its own noise"
    if share := trimmed_share(config):
        starts += f", {central(share)}"
    if visits and config.get("law") == "visited":
        starts += f", {visits} visited each"
    return facts_of(profile, "iteration") | {
        "starts": starts,
        "judged at": _LAWS.get(str(config.get("law", "start")), config.get("law")),
        "batch N′": profile.batch,
        "truth": method if truth.get("admissible", True) else "none admissible",
    }


def panels(profile: Profile, evidence: Basis = _NOTHING) -> list[Panel]:
    """The figures of `profile` in the order of the sections."""
    table, facts, known = profile.table(), evidence.facts, profile.identities
    best = None if facts is None or not facts.gains else advise(facts).cell
    chosen, every = None if best is None else best[0], [str(x) for x in table["estimator"].unique()]
    drawn: list[Panel] = []

    def add(
        name: str, section: str, caption: str, draw: Callable[..., Axes],
        rows: pd.DataFrame = table, **settings: Any,
    ) -> None:  # fmt: skip
        rows.attrs |= table.attrs
        drawn.append(panel(name, section, caption, draw, rows, **settings))

    realised = None if profile.realised is None else profile.realised.table()
    if facts is not None and facts.gains:
        add("gain", _GAIN, "Above 0 a step helps; 100% is the best step of its length.",
            figures.gain, realised=realised, chosen=best,
            close=() if best is None else facts.close(best))  # fmt: skip
    elif realised is not None:
        add("realised_gains", _GAIN, "One step of equal length along each gradient.",
            figures.realised_gains, realised)  # fmt: skip
    if (told := profile.rehearsal) is not None:
        caption = (
            f"Updates by {stepping(told.optimizer, told.rate)}, batches of "
            f"{states_each(told.batch, profile.batch)}, {told.draws} draws, {told.judges} starts."
        )
        draw = figures.return_over_updates
        add("return_over_updates", _LASTING, caption, draw, told.table(), chosen=best)
    add("mse", _ERROR, "Below the level of data, unrolling pays.", figures.mse, chosen=chosen,
        **_levels(profile, table, every))  # fmt: skip
    names = sorted((x for x in every if not known[x].data), key=lambda name: name != chosen)
    for number, name in enumerate(names, 1):
        add(f"error-{number}-{_file_name(name)}", _ERROR, label(name, known), figures.bias_variance,
            estimator=name, batch=profile.batch, **_levels(profile, table, [name]),
            kept=() if facts is None else best_horizons(profile, name))  # fmt: skip
    add("cosine", _DIRECTION, "1 is the true direction.", figures.cosine, chosen=chosen)
    if "sign_agreement" in set(table["quantity"]):
        add("sign_agreement", _DIRECTION, "One half is chance.", figures.sign_agreement,
            chosen=chosen)  # fmt: skip
    add("snr", _DIRECTION, "Below 1 / N′ one batch is mostly noise.", figures.snr, chosen=chosen,
        batch=profile.batch)  # fmt: skip
    if (causes := evidence.attribution) is not None and causes.bias:
        parts = causes.table()
        for number, name in enumerate(dict.fromkeys(each.estimator for each in causes.bias), 1):
            for what, draw in (("ledger", figures.ledger), ("entries", figures.entries)):
                file = f"{what}-{number}-{_file_name(name)}"
                add(file, _SOURCE, label(name, known), draw, parts, estimator=name)
    rate, discount = profile.truth.get("lyapunov"), profile.config.get("discount")
    exponent = None
    if isinstance(rate, int | float) and isinstance(discount, int | float) and discount > 0:
        exponent = rate + math.log(discount)
    add("sample_norm", _GROWTH, "A straight rise is an explosion.", figures.sample_norm,
        exponent=exponent, chosen=chosen)  # fmt: skip
    return drawn


def _levels(profile: Profile, table: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """|truth|², the error of a zero gradient, and the truth's own squared standard error; None
    where the named estimators do not share one truth."""
    rows = table[table["estimator"].isin(names)].set_index(["estimator", "horizon"])
    error, relative = (rows.loc[rows["quantity"] == x, "value"] for x in ("mse", "relative_mse"))
    zero = (error / relative).dropna()
    shared = len(zero) and zero.max() <= zero.min() * (1 + 1e-6)
    actions, truth = profile.config.get("actions"), profile.truth
    carried = actions if isinstance(actions, dict) else {}
    every = {WAYS[carried[name]].all_actions for name in names if name in carried}
    separate = every == {True} and "all_standard_error" in truth
    own = truth.get("all_standard_error" if separate else "standard_error")
    known = len(every) < 2 and isinstance(own, int | float)
    return {
        "truth_norm2": float(zero.iloc[0]) if shared else None,
        "truth_error2": float(own) ** 2 if known and own is not None else None,
    }


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
