"""One sentence of a verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """One sentence: what it is about, whether its test passed, and its text."""

    about: str
    decided: bool
    text: str
