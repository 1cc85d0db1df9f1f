"""The page of a measurement: the recommendation, then checks, error, direction, numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gradlab.reporting import panels, shell
from gradlab.reporting.first_fold import NOWHERE, PageSource
from gradlab.reporting.numbers import tables
from gradlab.reporting.page import Page, Section, method
from gradlab.runs.check_results import CheckResult
from gradlab.runs.derived_checks import derived_checks
from gradlab.runs.profile import Profile
from gradlab.runs.trimmed_starts import central, trimmed_share
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice.sentences import statements
from gradlab.verdicts.measurement.verdict import Evidence, evidence, first_screen
from gradlab.verdicts.screen import Screen

_LAWS = {"visited": "visited states, by the gradient of the return", "start": "the given starts"}


def page(profile: Profile, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a measurement shows; `name` is its title where no task is known."""
    evident = evidence(profile)
    read = derived_checks(profile, None if evident.facts is None else advise(evident.facts).cell)
    first = first_screen(profile, evident)
    title = str(profile.config.get("task") or name)
    return shown(profile, first, title, evident, read, source)


def shown(
    profile: Profile,
    first: Screen,
    title: str,
    evidence: Evidence = panels.NOTHING,
    read: tuple[CheckResult, ...] = (),
    source: PageSource = NOWHERE,
) -> Page:
    """The page of a measurement whose first screen is known.

    Args:
        evidence: choice and attribution of the profile; read: checks read from its numbers.
    """
    drawn = tuple(panels.panels(profile, evidence))
    absent = panels.absent(profile, evidence)
    checks = None if profile.sanity is None else (*profile.sanity, *read)
    numbers = (
        "<p>Click a heading to sort. Values are for the gradient in the policy's parameters.</p>"
        + tables(profile.table())
    )
    said: dict[str, tuple[str, ...]] = {}
    if evidence.choice is not None:
        said[panels.CONTEST] = tuple(each.text for each in statements(evidence.choice))
    sections = (
        _sanity(checks),
        *(
            Section(name, lines=said.get(name, ()), missing=absent.get(name, ""))
            for name in panels.ORDER
        ),
        Section("Every number", body=numbers),
        _method(profile),
    )
    question = "Does a step help?"
    facts = _facts(profile)
    return Page(title, question, facts, first, drawn, sections, source, compact=False)


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
    parts = [f"{used} of {wanted}" if used not in (None, wanted) else f"{wanted}"]
    if share := trimmed_share(config):
        parts.append(f"of the {central(share)} of their law")
    if visits and config.get("law") == "visited":
        parts.append("1 visited state each" if visits == 1 else f"{visits} visited states each")
    return ", ".join(parts)


def _method(profile: Profile) -> Section:
    truth = profile.truth
    reason = str(truth.get("reason", ""))
    admissible = {True: "The truth is admissible", False: "No admissible truth"}
    verdict = admissible.get(bool(truth.get("admissible", True)), "")
    why = f"<p>{escape(verdict)}{escape(f': {reason}' if reason else '')}.</p>" if truth else ""
    rest = {key: value for key, value in profile.config.items() if key != "command"}
    estimate = {key: value for key, value in truth.items() if key not in ("reason", "admissible")}
    columns = {
        "Truth and its error": estimate,
        "Samples and settings": rest,
        "Versions and machine": profile.environment,
    }
    return method(profile.config.get("command"), columns, why)


_SANITY = "Sanity"
_CHECK_HEADINGS = ("check", "result", "what it means", "")


def _sanity(results: Sequence[CheckResult] | None) -> Section:
    """Every check, those that need attention in sight; says so where none was recorded."""
    if not results:
        missing = "Not recorded: this run was measured without checks."
        return Section(_SANITY, name="sanity", missing=missing)
    attention = [each for each in results if not each.passed]
    passed = [each for each in results if each.passed]
    body = f'<p><span class="tag pass">pass</span> All {len(results)} checks passed.</p>'
    if attention:
        asks = "asks" if len(attention) == 1 else "ask"
        text = f"{len(attention)} of {len(results)} checks {asks} for attention before the rest is "
        body = f'<p><span class="tag attention">attention</span> {text}believed.</p>'
        body += _check_table(attention)
    if passed:
        count = f"{len(passed)} checks" if len(passed) > 1 else "1 check"
        body += f"<details><summary>{count} passed</summary>{_check_table(passed)}</details>"
    note = f"{len(passed)} of {len(results)} passed"
    return Section(_SANITY, body=body, note=note, name="sanity", opened=bool(attention))


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
