"""The page of a measurement: the recommendation, then checks, error, direction, numbers.

A section that a file has no numbers for says in one line how to get them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gradlab import figures
from gradlab.findings import Finding
from gradlab.gradients.ways import WAYS
from gradlab.reporting import shell
from gradlab.reporting.page import NOWHERE, Page, PageSource, Panel, Section, method_of, panel
from gradlab.reporting.shell import tables
from gradlab.runs.decision_rules import best_horizons
from gradlab.runs.profile import Profile
from gradlab.runs.stages import central, trimmed_share
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice import statements
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.measurement.verdict import Basis, every_check
from gradlab.verdicts.recommendation import Recommendation
from gradlab.wording import label, states_each, stepping

_GAIN = "Gain of a step"
_LASTING = "For how many updates it lasts"
_ERROR = "Bias, variance and error"
_DIRECTION = "Direction and noise"
_SOURCE = "Where the error comes from"
_GROWTH = "Growth with the horizon"
_CONTEST = "Estimators and weights"
_ORDER = (_GAIN, _LASTING, _ERROR, _DIRECTION, _SOURCE, _GROWTH, _CONTEST)
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
    drawn = tuple(panels(profile, evidence))
    absent = _absent(profile, evidence)
    numbers = f"<p>Click a heading to sort.</p>{tables(profile.table())}"
    told = () if evidence.choice is None else statements(evidence.choice)
    lines = {_CONTEST: tuple(each.said for each in told)}
    of_finding = {each.name for each in fields(Finding)}  # a row says these
    truth = {key: value for key, value in profile.truth.items() if key not in of_finding}
    sections = (
        *(
            Section(name, lines.get(name, ()), missing=absent.get(name, ""), opened=name == _ERROR)
            for name in _ORDER
        ),
        Section("Every number", body=numbers),
        method_of(profile.config, profile.environment, {"Truth": truth}),
    )
    findings = tuple(each for each in every_check(profile) if each not in first.rest)
    question, facts = "Does a step help?", _facts(profile)
    return Page(title, question, facts, first, drawn, sections, source, findings)


def _facts(profile: Profile) -> dict[str, object]:
    """The header line: what was measured, on how much, how exactly."""
    config, environment, truth = profile.config, profile.environment, profile.truth
    error = truth.get("relative_se")
    method = str(truth.get("method", ""))
    if isinstance(error, int | float):
        method += f" ± {error:.1%}" if math.isfinite(error) else ", lost in its own noise"
    return {
        "task": config.get("task"),
        "policy": shell.short(config.get("policy_hash")),
        "iteration": config.get("iteration"),
        "starts": _starts(config),
        "judged at": _LAWS.get(str(config.get("law", "start")), config.get("law")),
        "batch N′": profile.batch,
        "seed": config.get("seed"),
        "truth": method if truth.get("admissible", True) else "none admissible",
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }


def _starts(config: Mapping[str, Any]) -> str:
    """How many were asked for, how many were affordable, and the states visited from each."""
    wanted, used, visits = (config.get(name) for name in ("starts", "starts_used", "visits"))
    text = f"{used} of {wanted}" if used not in (None, wanted) else f"{wanted}"
    if share := trimmed_share(config):
        text += f", {central(share)}"
    return f"{text}, {visits} visited each" if visits and config.get("law") == "visited" else text


def panels(profile: Profile, evidence: Basis = _NOTHING) -> list[Panel]:
    """The figures of `profile` in the order of the sections."""
    table, facts = profile.table(), evidence.facts
    best = None if facts is None or not facts.gains else advise(facts).cell
    chosen = None if best is None else best[0]
    return [
        *_gain(profile, table, facts, best),
        *_lasting(profile, table, best),
        *_error(profile, table, evidence, chosen),
        *_direction(profile, table, chosen),
        *_source(profile, evidence),
        *_growth(profile, table, chosen),
    ]


def _absent(profile: Profile, evidence: Basis = _NOTHING) -> dict[str, str]:
    """Section → how to get what this file does not hold."""
    facts, reasons = evidence.facts, {}
    if facts is None or not (facts.gains or facts.realised):
        reasons[_GAIN] = "Not measured: `gradlab measure TASK` does, at visited states."
    if profile.rehearsal is None:
        reasons[_LASTING] = "Not rehearsed."
    if evidence.attribution is None or not evidence.attribution.bias:
        reasons[_SOURCE] = "Not attributed: `gradlab measure --attribute` does."
    if facts is not None and facts.void:
        reasons[_CONTEST] = "Nothing is chosen, for the reason at the top."
    elif evidence.choice is None or not any(
        each and each.mixed for each in (evidence.choice.mse, evidence.choice.best)
    ):
        reasons[_CONTEST] = "No weights: they need a truth."
    return reasons


def _gain(
    profile: Profile, table: pd.DataFrame, facts: Facts | None, best: tuple[str, int] | None
) -> list[Panel]:
    """Gains to first order with realised ones on them; alone where there is no truth."""
    realised = None if profile.realised is None else profile.realised.table()
    if realised is not None:
        realised.attrs |= table.attrs
    if facts is not None and facts.gains:
        close = () if best is None else facts.close(best)
        steps: dict[str, Any] = {"realised": realised, "chosen": best, "close": close}
        caption = "Above 0 a step helps; 100% is the best step of its length."
        return [panel("gain", _GAIN, caption, figures.gain, table, **steps)]
    if realised is None:
        return []
    caption = "Change of the return by one step of equal length along each gradient."
    return [panel("realised_gains", _GAIN, caption, figures.realised_gains, realised)]


def _lasting(profile: Profile, measured: pd.DataFrame, best: tuple[str, int] | None) -> list[Panel]:
    """Where the gradients' own updates led."""
    rehearsed = profile.rehearsal
    if rehearsed is None:
        return []
    table = rehearsed.table()
    table.attrs |= measured.attrs
    caption = (
        f"Updates by {stepping(rehearsed.optimizer, rehearsed.rate)}, batches of "
        f"{states_each(rehearsed.batch, profile.batch)}, {rehearsed.draws} draws, "
        f"{rehearsed.judges} starts."
    )
    draw = figures.return_over_updates
    return [panel("return_over_updates", _LASTING, caption, draw, table, chosen=best)]


def _error(
    profile: Profile, table: pd.DataFrame, evidence: Basis, chosen: str | None
) -> list[Panel]:
    """Every gradient's error, then one figure per estimator with a horizon, the advised first."""
    every = [str(name) for name in dict.fromkeys(table["estimator"])]
    names = [name for name in every if not profile.identities[name].data]
    names.sort(key=lambda name: name != chosen)
    levels: dict[str, Any] = {
        "truth_norm2": _zero_level(table, every), "truth_error2": _truth_error(profile, every),
    }  # fmt: skip
    compare = "Below the level of data, unrolling pays."
    drawn = [panel("mse", _ERROR, compare, figures.mse, table, chosen=chosen, **levels)]
    for number, name in enumerate(names, 1):
        kept = () if evidence.facts is None else best_horizons(profile, name)
        caption = f"{label(name, profile.identities)}: squared bias, variance / N′ and their sum."
        drawn.append(panel(
            f"error-{number}-{_file_name(name)}", _ERROR, caption, figures.bias_variance, table,
            estimator=name, batch=profile.batch, truth_norm2=_zero_level(table, [name]),
            truth_error2=_truth_error(profile, [name]), kept=kept,
        ))  # fmt: skip
    return drawn


def _direction(profile: Profile, table: pd.DataFrame, chosen: str | None) -> list[Panel]:
    rows: list[tuple[str, str, Callable[..., Axes], dict[str, Any]]] = [
        ("cosine", "1 is the true direction.", figures.cosine, {}),
        ("sign_agreement", "One half is chance.", figures.sign_agreement, {}),
        ("snr", "Below 1 / N′ one batch is mostly noise.", figures.snr, {"batch": profile.batch}),
    ]
    here = set(table["quantity"]) | {"cosine", "snr"}
    return [
        panel(name, _DIRECTION, caption, draw, table, chosen=chosen, **more)
        for name, caption, draw, more in rows
        if name in here
    ]


def _source(profile: Profile, evidence: Basis) -> list[Panel]:
    """Shares of the squared bias over the horizon, and the entries of the derivatives."""
    if evidence.attribution is None or not evidence.attribution.bias:
        return []
    table, drawn_panels = evidence.attribution.table(), []
    table.attrs |= profile.table().attrs
    names = list(dict.fromkeys(each.estimator for each in evidence.attribution.bias))
    for number, name in enumerate(names, 1):
        shares = "shares of the squared bias; one below 0 hides another."
        entries = "derivatives whose errors move the gradient most."
        file = f"{number}-{_file_name(name)}"
        for what, caption, draw in (
            ("ledger", shares, figures.ledger), ("entries", entries, figures.entries),
        ):  # fmt: skip
            caption = f"{label(name, profile.identities)}: {caption}"
            drawn_panels.append(
                panel(f"{what}-{file}", _SOURCE, caption, draw, table, estimator=name)
            )
    return drawn_panels


def _growth(profile: Profile, table: pd.DataFrame, chosen: str | None) -> list[Panel]:
    rate, discount = profile.truth.get("lyapunov"), profile.config.get("discount")
    exponent = None
    if isinstance(rate, int | float) and isinstance(discount, int | float) and discount > 0:
        exponent = rate + math.log(discount)
    caption = "A straight rise is an explosion."
    rates: dict[str, Any] = {"exponent": exponent, "chosen": chosen}
    return [panel("sample_norm", _GROWTH, caption, figures.sample_norm, table, **rates)]


def _truth_error(profile: Profile, names: Sequence[str]) -> float | None:
    """Squared standard error of the truth, where all named estimators share one truth."""
    actions = profile.config.get("actions")
    carried = actions if isinstance(actions, Mapping) else {}
    every = {WAYS[carried[name]].all_actions for name in names if name in carried}
    if len(every) > 1:
        return None
    separate = every == {True} and "all_standard_error" in profile.truth
    error = profile.truth.get("all_standard_error" if separate else "standard_error")
    return float(error) ** 2 if isinstance(error, int | float) else None


def _zero_level(table: pd.DataFrame, names: Sequence[str]) -> float | None:
    """|truth|², the error of a zero gradient, where all named estimators share one truth."""
    rows = table[table["estimator"].isin(names)]
    error = rows[rows["quantity"] == "mse"].set_index(["estimator", "horizon"])["value"]
    relative = rows[rows["quantity"] == "relative_mse"].set_index(["estimator", "horizon"])["value"]
    levels = (error / relative).dropna()
    if levels.empty or levels.max() > levels.min() * (1 + 1e-6):
        return None
    return float(levels.iloc[0])


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
