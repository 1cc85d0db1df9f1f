"""The page a reader decides from: verdict, checks, error, direction, theory, numbers, method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from gradlab.choice.words import statements
from gradlab.findings import Finding
from gradlab.profile import Profile
from gradlab.reporting import panels, shell
from gradlab.reporting.numbers import tables
from gradlab.reporting.panels import Panel
from gradlab.reporting.promises import theory
from gradlab.reporting.soundness import sanity
from gradlab.verdict import SHOWN, Evidence, Sentence


def render(
    profile: Profile,
    verdict: Sequence[Sentence],
    title: str,
    drawn: Sequence[Panel] | None = None,
    known: Evidence = panels.NOTHING,
    read: Sequence[Finding] = (),
) -> str:
    """The whole page as text.

    Args:
        drawn: the panels, where they have been drawn already.
        known: choice and ledger of the profile; read: checks read from its numbers.
    """
    drawn = panels.panels(profile, known) if drawn is None else drawn
    bounds = [panel for panel in drawn if panel.section == panels.THEORY]
    checks = None if profile.sanity is None else (*profile.sanity, *read)
    body = f"""{shell.verdict_box(verdict, SHOWN)}
{sanity(checks)}
{_sections(drawn, panels.absent(profile, known), known)}
{theory(profile, bounds)}
<section><h2>Every number</h2>
<p>Click a heading to sort. Values are for the gradient in the policy's parameters.</p>
{tables(profile.table())}
</section>
{_method(profile)}"""
    return shell.document(title, "How good is this policy gradient?", _facts(profile), body)


def _sections(drawn: Sequence[Panel], absent: Mapping[str, str], known: Evidence) -> str:
    """The panels in their order; a section without numbers says how to get them."""
    found: list[str] = []
    for section in panels.ORDER:
        mine = [panel for panel in drawn if panel.section == section]
        lines = [absent[section]] if section in absent else []
        folded = []
        if section == panels.CONTEST and known.choice is not None:
            folded = [each.text for each in statements(known.choice)]
        found.append(shell.section(section, mine, lines, folded, first=len(found) * 20))
    return "\n".join(found)


def _facts(profile: Profile) -> dict[str, object]:
    """The header line: what was measured, on how much, how exactly."""
    config, environment, truth = profile.config, profile.environment, profile.truth
    error = _float(truth.get("relative_se"))
    method = str(truth.get("method", ""))
    if error is not None:
        method += f" ± {error:.1%}" if math.isfinite(error) else ", lost in its own noise"
    return {
        "task": config.get("task"),
        "policy": shell.short(config.get("policy_hash")),
        "iteration": config.get("iteration"),
        "gradients": config.get("starts"),
        "batch N′": profile.batch,
        "seed": config.get("seed"),
        "truth": method if truth.get("admissible", True) else "none admissible",
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }


def _method(profile: Profile) -> str:
    again = shell.reproduce(profile.config.get("command"))
    truth = profile.truth
    reason = str(truth.get("reason", ""))
    admissible = {True: "The truth is admissible", False: "No admissible truth"}
    verdict = admissible.get(bool(truth.get("admissible", True)), "")
    why = f"<p>{escape(verdict)}{escape(f': {reason}' if reason else '')}.</p>" if truth else ""
    rest = {key: value for key, value in profile.config.items() if key != "command"}
    told = {key: value for key, value in truth.items() if key not in ("reason", "admissible")}
    return f"""<section id="method"><h2>How this was computed</h2>
{again}
<div class="columns">
<div><h3>Truth and its error</h3>{why}{shell.definitions(told)}</div>
<div><h3>Samples and settings</h3>{shell.definitions(rest)}</div>
<div><h3>Versions and machine</h3>{shell.definitions(profile.environment)}</div>
</div>
</section>"""


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
