"""What the words of a page mean, each in at most 15 words, shown where a word stands first.

A term is looked for as a whole word, longer terms first, and marked once in a text. The mark can
be reached by keyboard; a reader of screens hears its title.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

_TERMS = {
    "data gradient": "The critic alone, no model step: its gradient in the first action (h = 0).",
    "model gradient": "Backpropagation through steps of a model, then the critic.",
    "mixed gradient": "States from the simulator, derivatives from the model.",
    "true dynamics": "States and derivatives from the simulator: what no learned model can beat.",
    "squared bias": "The part of the error that no batch size removes.",
    "variance": "The part of the error that a larger batch divides.",
    "gain": "What one small step adds to the return, in % of the best step.",
    "cosine": "1: the true direction; 0: a step gains nothing; below 0: it harms.",
    "horizon": "Model steps before the critic takes over.",
    "usable horizon": "Longest horizon whose direction is reliable at every shorter one, too.",
    "usable horizons": "Where direction and error are good; they need not begin at h = 1.",
    "Jacobian": "Derivatives of the next state and the reward in state and action.",
    "Jacobians": "Derivatives of the next state and the reward in state and action.",
    "Lyapunov exponent": "Growth of a small disturbance per step; above 0 it grows.",
    "saturated": "At its limit: no gradient passes.",
    "median": "Half of the seeds lie above, half below.",
    "replay": "The transitions that training has stored and draws its batches from.",
    "score": "Likelihood-ratio gradient: unbiased without any model, and noisy.",
    "critic": "The network that values states and actions.",
    "truth": "The reference of every bias, from the simulator, with its own error.",
    "MSE": "Mean squared error of one batch's gradient: squared bias + variance / batch.",
    "shown": "Its 95% interval excludes the contrary.",
}
_ANY = re.compile(r"(?<![\w-])(" + "|".join(sorted(map(re.escape, _TERMS), key=len, reverse=True))
                  + r")(?![\w-])")  # fmt: skip


def with_commands(text: str, words: Callable[[str], str] = escape) -> str:
    """`text` as HTML, by `words`; what stands between backticks is a command."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return words(text)
    return "".join(
        f"<code>{escape(part)}</code>" if k % 2 else words(part) for k, part in enumerate(parts)
    )


def marked(text: str) -> str:
    """`text` as HTML, the first of each term with its meaning."""
    met: set[str] = set()

    def mark(found: re.Match[str]) -> str:
        term = found.group()
        if term in met:
            return term
        met.add(term)
        return f'<abbr title="{escape(_TERMS[term])}" tabindex="0">{term}</abbr>'

    return with_commands(text, lambda part: _ANY.sub(mark, escape(part)))
