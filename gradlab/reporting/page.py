"""The page a reader decides from: verdict first, then figures, numbers, and how they were made.

Text from the file is hostile and escaped without exception. The page's own policy forbids every
request and every script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from gradlab.profile import Profile
from gradlab.reporting import panels, svg
from gradlab.reporting.numbers import number, tables
from gradlab.reporting.panels import Panel
from gradlab.verdict import Sentence

GENERATOR = '<meta name="generator" content="gradlab">'
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(
    profile: Profile,
    verdict: Sequence[Sentence],
    title: str,
    drawn: Sequence[Panel] | None = None,
) -> str:
    """The whole page as text. `drawn`: the panels, where they have been drawn already."""
    drawn = panels.panels(profile) if drawn is None else drawn
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{GENERATOR}
<link rel="icon" href="data:,">
<title>{escape(title)} · gradlab</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="kind">How good is this policy gradient?</p>
<h1>{escape(title)}</h1>
{_facts(profile)}
</header>
{_verdict(verdict)}
{_figures(drawn)}
<section><h2>Every number</h2>
<p>Click a heading to sort. Values are for the gradient in the policy's parameters.</p>
{tables(profile.table())}
</section>
{_method(profile)}
</main>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("gradlab.reporting").joinpath(name).read_text("utf-8")


def _facts(profile: Profile) -> str:
    """The header line: what was measured, on how much, how exactly."""
    config, environment, truth = profile.config, profile.environment, profile.truth
    error = _float(truth.get("relative_se"))
    method = str(truth.get("method", "")) + (f" ± {error:.1%}" if error is not None else "")
    facts = {
        "task": config.get("task"),
        "policy": _short(config.get("policy_hash")),
        "iteration": config.get("iteration"),
        "gradients": config.get("starts"),
        "batch N′": profile.batch,
        "seed": config.get("seed"),
        "truth": method if truth.get("admissible", True) else "none admissible",
        "precision": environment.get("precision"),
        "wall time": _seconds(environment.get("wall_seconds")),
    }
    items = "".join(
        f"<div><dt>{name}</dt><dd>{number(value)}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f'<dl class="facts">{items}</dl>'


def _verdict(sentences: Sequence[Sentence]) -> str:
    items = "".join(
        f'<li class="{"decided" if each.decided else "undecided"}">{escape(each.text)}</li>'
        for each in sentences
    )
    items = items or "<li>These numbers support no verdict.</li>"
    return f'<section id="verdict" aria-label="Verdict"><h2>Verdict</h2><ul>{items}</ul></section>'


def _figures(drawn: Sequence[Panel]) -> str:
    sections = dict.fromkeys(panel.section for panel in drawn)
    return "\n".join(
        f'<section><h2>{escape(section)}</h2><div class="figures">'
        + "\n".join(_figure(i, p) for i, p in enumerate(drawn) if p.section == section)
        + "</div></section>"
        for section in sections
    )


def _figure(number: int, panel: Panel) -> str:
    image = svg.inline(panel.figure, f"f{number}-", panel.caption)
    return f"<figure>{image}<figcaption>{escape(panel.caption)}</figcaption></figure>"


def _method(profile: Profile) -> str:
    command = profile.config.get("command")
    again = f'<pre id="command">{escape(str(command))}</pre>' if command else ""
    truth = profile.truth
    reason = str(truth.get("reason", ""))
    admissible = {True: "The truth is admissible", False: "No admissible truth"}
    verdict = admissible.get(bool(truth.get("admissible", True)), "")
    why = f"<p>{escape(verdict)}{escape(f': {reason}' if reason else '')}.</p>" if truth else ""
    rest = {key: value for key, value in profile.config.items() if key != "command"}
    told = {key: value for key, value in truth.items() if key not in ("reason", "admissible")}
    return f"""<section id="method"><h2>How this was computed</h2>
{"<h3>Reproduce</h3>" + again if again else ""}
<div class="columns">
<div><h3>Truth and its error</h3>{why}{_list(told)}</div>
<div><h3>Samples and settings</h3>{_list(rest)}</div>
<div><h3>Versions and machine</h3>{_list(profile.environment)}</div>
</div>
</section>"""


def _list(values: Mapping[str, object]) -> str:
    items = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{_value(value)}</dd>"
        for key, value in values.items()
    )
    return f'<dl class="list">{items}</dl>'


def _value(value: object) -> str:
    if isinstance(value, Mapping) and value:
        return "<br>".join(f"{escape(str(key))}: {_value(each)}" for key, each in value.items())
    if isinstance(value, Mapping | list | tuple):
        return escape(json.dumps(value, ensure_ascii=False, default=str))
    return "–" if value is None else number(value)


def _short(digest: object) -> str | None:
    return None if digest is None else str(digest)[:12]


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _seconds(value: object) -> str | None:
    try:
        return None if value is None else f"{float(str(value)):.0f} s"
    except ValueError:
        return str(value)
