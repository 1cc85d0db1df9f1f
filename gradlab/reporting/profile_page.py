"""The page of a measurement: the recommendation, then checks, error, direction, numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gradlab.reporting import panels, shell
from gradlab.reporting.numbers import tables
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, method
from gradlab.runs.check_results import CheckResult
from gradlab.runs.profile import Profile
from gradlab.runs.trimmed_starts import central, trimmed_share
from gradlab.verdicts.choice.sentences import statements
from gradlab.verdicts.measurement.verdict import Evidence, evidence, first_screen
from gradlab.verdicts.screen import Screen
from gradlab.wording import percent

_LAWS = {"visited": "visited states, by the gradient of the return", "start": "the given starts"}


def page(profile: Profile, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a measurement shows; `name` is its title where no task is known."""
    evident = evidence(profile)
    first = first_screen(profile, evident)
    title = str(profile.config.get("task") or name)
    return shown(profile, first, title, evident, source)


def shown(
    profile: Profile,
    first: Screen,
    title: str,
    evidence: Evidence = panels.NOTHING,
    source: PageSource = NOWHERE,
) -> Page:
    """The page of a measurement whose first screen is known.

    Args:
        evidence: choice and attribution of the profile.
    """
    drawn = tuple(panels.panels(profile, evidence))
    absent = panels.absent(profile, evidence)
    checks = None if profile.sanity is None else (*profile.sanity, *_taken(profile))
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


_WHY = {
    "step": "the return bends within the step: no error of the gradients",
    "jump": "the return jumps within the step, which derivatives along a path do not see",
    "boundary": "episodes end, which derivatives along a path do not see",
    "law": "gradients and returns are of different problems: look at law and truth first",
}


def _taken(profile: Profile) -> tuple[CheckResult, ...]:
    """Whether realised gains are those to first order, within their intervals."""
    taken = profile.realised
    if taken is None or not taken.best_is_known:
        return ()
    check, n = "realised gains against first order", f"{taken.judges} fresh starts"
    apart = taken.disagreements(profile.table(), profile.jumps)
    if not apart:
        shown = f"agree at {len(taken.stepped)} gradients ({n})"
        return (CheckResult(check, shown, "a step does what its direction promises", True),)
    worst = max(apart, key=lambda each: abs(each.realised - each.predicted))
    result = (
        f"differ at {len(apart)} of {len(taken.stepped)}: {worst.cell[0]} at h = {worst.cell[1]} "
        f"realised {percent(worst.realised)}, expected {percent(worst.predicted)} ({n})"
    )
    bent = all(each.reason == "step" for each in apart)
    return (CheckResult(check, result, _WHY[worst.reason], bent),)


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
