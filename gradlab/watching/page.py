"""The page of a live view: one document that requests the states of its own run only.

Style and script are inside and named by their hashes; the script sets values of a run as text,
never as HTML. The look is that of the reports.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def document() -> str:
    """The page, the same for every run."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>gradlab watch</title>
<style>{_style()}</style>
</head>
<body>
<main>
<header>
<p class="kind">Live: how good are the gradients of this run?</p>
<h1 id="title">…</h1>
<dl class="facts" id="facts"></dl>
</header>
<section id="state" aria-label="State">
<p id="told"><span id="phase" role="status">connecting …</span> <span id="age"></span></p>
<p id="far" hidden><progress id="bar" max="1" aria-label="Share of the run"></progress>
<span id="count"></span></p>
</section>
<section aria-label="Alarms and events"><h2>Alarms and events<span id="number"></span></h2>
<p id="quiet">None so far.</p>
<ol id="events" reversed tabindex="0" aria-label="Latest first"></ol></section>
<section aria-label="Latest values"><h2>Latest values</h2><dl id="latest"></dl></section>
<section aria-label="Through the run"><h2>Through the run</h2>
<p class="hint">Point at a curve, or focus a chart and use the arrow keys, to read values.</p>
<div class="figures" id="charts"></div><p class="hint" id="constant"></p></section>
<section aria-label="By horizon" hidden><h2>By horizon, as last measured</h2>
<div class="figures" id="horizons"></div></section>
<section id="tensors" aria-label="Tensors of the policy" hidden><h2>Tensors of the policy</h2>
<div class="wide" tabindex="0"><table><thead><tr><th scope="col">tensor</th>
<th scope="col">gradient norm</th><th scope="col">update ratio</th>
<th scope="col">non-finite updates</th><th scope="col">updates with gradient 0</th></tr></thead>
<tbody id="layers"></tbody></table></div>
</section>
<noscript><p>This page draws itself by a script of its own, which is switched off here:
<code>gradlab watch</code> without --web shows the same on a terminal.</p></noscript>
</main>
<script>{_script()}</script>
</body>
</html>
"""


def policy() -> str:
    """What the page may do (Content-Security-Policy): run itself, and ask its own server."""
    return (
        f"default-src 'none'; style-src '{_hash(_style())}'; script-src '{_hash(_script())}'; "
        f"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'"
    )


def _style() -> str:
    return _asset("reporting", "page.css") + _asset("watching", "live.css")


def _script() -> str:
    return '"use strict";\n' + _asset("watching", "charts.js") + _asset("watching", "live.js")


def _asset(package: str, name: str) -> str:
    # Not files("gradlab.reporting"), which would import all that draws reports.
    return resources.files("gradlab").joinpath(package, name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
