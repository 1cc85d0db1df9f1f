"""The first screen of every kind of run: one recommendation, how sure, one figure, three numbers.

    light   act      an action, and nothing else can be excluded any more
            choose   the best guess, what is not excluded, and what would decide
            none     no truth, or checks that failed

Page and terminal show the same `Screen`; what it leaves out is in `rest`, one click or `--explain`
away. `WORDS` and `NUMBERS` is what a reader takes in before the figure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradlab.wording import Writer, signed, with_ends


@dataclass(frozen=True)
class Sentence:
    """One sentence: what it is about, whether its test passed, and its text."""

    about: str
    decided: bool
    text: str


def finding(about: str, decided: bool, what: str, *values: str, n: int | None = None) -> Sentence:
    """What was measured, its numbers with intervals and thresholds, and on how many samples."""
    count = "" if n is None else f" (N = {n:,})"
    return Sentence(about, decided, f"{what}: {'; '.join(filter(None, values))}{count}.")


Light = Literal["act", "choose", "none"]
LIGHTS: dict[Light, str] = {"act": "Act", "choose": "Choose", "none": "Caution"}
_MARKS: dict[Light, str] = {"act": "●", "choose": "◐", "none": "○"}
WORDS, NUMBERS, FACTS = 60, 8, 3
NOTHING = "nothing is decided"  # where the premises of every decision fail
# A range such as 10–25 counts as two numbers, the minus of −20 belongs to its number.
_NUMBER = re.compile(r"(?<![\w.])[−-]?\d+(?:[.,]\d+)*(?:e[−+-]?\d+)?")
_END = re.compile(r"(?<=[.!?]) (?=[^a-z])")


@dataclass(frozen=True)
class Fact:
    """One number of the first screen: what it is, its text, its formula and source."""

    label: str
    text: str
    how: str

    @staticmethod
    def ranged(label: str, estimate: tuple[float, float, float], how: str, *write: Writer) -> Fact:
        """Of a value and its two ends, which stand behind the label where they are two."""
        value, ends = with_ends(*estimate, *write)
        return Fact(label if ends == value else f"{label}, {ends}", value, how)


@dataclass(frozen=True)
class Screen:
    """What a reader sees first.

    Attributes:
        headline: the recommendation, in the words of who trains policies.
        sure: how sure it is, a word with its number, such as "sure (97%)".
        numbers: at most three.
        figure: name of the panel that is shown first; None where no panel is.
        rest: every sentence of the verdict, in order of use.
        notice: what stands before all else, such as that the run was interrupted; may be empty.
        word: of the light, where its own does not fit, as of a certificate.
    """

    headline: str
    light: Light
    sure: str
    numbers: tuple[Fact, ...] = ()
    figure: str | None = None
    rest: tuple[Sentence, ...] = ()
    notice: str = ""
    word: str = ""

    def __post_init__(self) -> None:
        if len(self.numbers) > FACTS:
            raise ValueError(f"a screen has {len(self.numbers)} numbers, expected at most {FACTS}")


def lines(screen: Screen) -> list[str]:
    """The first screen as plain text: recommendation, how sure it is, and its numbers."""
    width = max((len(fact.text) for fact in screen.numbers), default=0)
    found = [
        *([screen.notice] if screen.notice else []),
        screen.headline,
        light_line(screen.light, screen.sure),
        *(f"  {fact.text:>{width}}  {fact.label}" for fact in screen.numbers),
    ]
    return [signed(each) for each in found]


def light_line(light: Light, sure: str) -> str:
    """The light with its mark, and how sure it is."""
    return f"{_MARKS[light]} {LIGHTS[light]}: {sure}"


def unsaid(texts: Sequence[str], said: str) -> list[str]:
    """Each text without the sentences that stand in `said` or in a text before it; "" where none
    is left."""
    seen = set(_sentences(said))
    found = []
    for text in texts:
        new = [each for each in dict.fromkeys(_sentences(text)) if each not in seen]
        seen.update(new)
        found.append(" ".join(new))
    return found


def _sentences(text: str) -> list[str]:
    return [each.strip() for each in _END.split(text)]


def counted(text: str) -> tuple[int, int]:
    """Words and numbers of a text."""
    return len(text.split()), len(_NUMBER.findall(text))
