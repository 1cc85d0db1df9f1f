"""What was found out: a code, what it is about, a number with its limit, and a decision.

Checks, statuses, certificates and verdicts are findings, rows of a run's tree. Words come from the
table of codes (`gradlab.findings`) when they are shown; decisions read codes and numbers alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from typing import Literal

from gradlab.wording import Writer, counted, with_interval

Decision = Literal["pass", "fail", "undecided", "skipped"]
Severity = Literal["premise", "error", "warning", "note"]
MARKS: dict[Decision, str] = {"pass": "✓", "fail": "✗", "undecided": "◐", "skipped": "–"}
_GRAVEST: tuple[Severity, ...] = ("premise", "error", "warning", "note")
_ORDER: tuple[Decision, ...] = ("fail", "undecided", "skipped", "pass")


@dataclass(frozen=True)
class Code:
    """How a finding of one code is shown.

    Attributes:
        title: in a few words, of a row.
        sentence: with {subject}, {at}, {value} (with its interval), {number} (without), {low},
            {high}, {threshold}, {n} and {unit} of the finding; limit and samples that it does not
            name stand at its end, unless it is `whole`. One that begins with ":" goes on from the
            title; "": title, subject and value, then where.
        remedy: what to do where it does not pass; the same names are filled in.
        severity: "premise": while it fails nothing can be decided.
        write: a number with so many digits, as `wording.percent`.
    """

    title: str
    sentence: str = ""
    remedy: str = ""
    severity: Severity = "warning"
    write: Writer = counted
    whole: bool = False


CODES: dict[str, Code] = {}


def register(codes: dict[str, Code]) -> None:
    """Adds a section of the table.

    Raises:
        ValueError: a code is there already.
    """
    if twice := CODES.keys() & codes.keys():
        raise ValueError(f"codes that are there already: {', '.join(sorted(twice))}")
    CODES.update(codes)


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        code: of the table; one that this version does not know is shown raw.
        subject: what it is about, as "model, BPTT"; at: where, as "h = 3" or "∂s′₁/∂a₂".
        value, low, high: NaN where there is none, or no interval; threshold: what it is held
            against; unit: of all four. n: samples behind it.
        more: further samples that would decide it; 0: it is decided, −1: nobody knows.
        text: its own words, of a finding whose author keeps them (a loop's own checks, an audit).
    """

    code: str
    decision: Decision
    subject: str = ""
    value: float = field(default=nan)
    low: float = field(default=nan)
    high: float = field(default=nan)
    threshold: float = field(default=nan)
    unit: str = ""
    n: int = 0
    at: str = ""
    more: int = 0
    text: str = ""

    @property
    def known(self) -> Code:
        return CODES.get(self.code) or Code(self.code)

    @property
    def title(self) -> str:
        return self.known.title

    @property
    def severity(self) -> Severity:
        return self.known.severity

    @property
    def mark(self) -> str:
        return MARKS[self.decision]

    @property
    def sentence(self) -> str:
        """What was found, with value and limit."""
        return self._said(self.title, self.measured)

    @property
    def beside(self) -> str:
        """The same where title and value have columns of their own; and the remedy."""
        return " ".join(filter(None, (self._said(), self.remedy)))

    def _said(self, title: str = "", value: str = "") -> str:
        known, rest = self.known, self._rest
        text = self.text or self._filled(known.sentence)
        if not text:
            text = ", ".join(filter(None, (self.subject, value)))
            text = ":" * bool(text) + text
            rest = ", ".join(filter(None, (self.at, rest)))
        if text[:1] in ("", ":"):
            text = ": ".join(filter(None, (title, text[1:].removesuffix("."))))
            text = text and f"{text[:1].upper()}{text[1:]}."
        if rest:
            text = f"{text.removesuffix('.')} ({rest})." if text else rest
        if self.decision != "undecided" or not self.more:
            return text
        enough = f"about {self.more:,} more samples" if self.more > 0 else "many more samples"
        return f"{text} Not decided: {enough} would tell."

    @property
    def _rest(self) -> str:
        """Limit and samples that the sentence does not name, behind it."""
        known = self.known
        if self.text or known.whole:
            return ""
        # 0 and 1 are what differences and ratios are held against.
        limited = isfinite(self.threshold) and self.threshold not in (0.0, 1.0)
        limited = limited and "{threshold}" not in known.sentence
        sampled = self.n and "{n}" not in known.sentence
        rest = [f"limit {known.write(self.threshold, 2)}"] if limited else []
        rest += [f"N = {self.n:,}"] if sampled else []
        return ", ".join(rest)

    @property
    def remedy(self) -> str:
        """What to do; "" where it passes."""
        return "" if self.decision == "pass" else self._filled(self.known.remedy)

    @property
    def said(self) -> str:
        """The sentence, and the remedy behind it."""
        return " ".join(filter(None, (self.sentence, self.remedy)))

    @property
    def headed(self) -> str:
        """The sentence behind its title, and behind a subject that it does not name; one that is
        whole stands alone."""
        known = self.known
        subject = "" if "{subject}" in known.sentence else self.subject
        alone = known.whole or known.sentence[:1] in ("", ":")
        head = "" if alone else " ".join(filter(None, (subject, known.title)))
        return f"{head}: {self.sentence}" if head else self.sentence

    @property
    def document(self) -> dict[str, object]:
        """As JSON has it: what is known of it, its sentence and its remedy."""
        known = {name: value for name, value in asdict(self).items() if value == value}
        return known | {"sentence": self.sentence, "remedy": self.remedy}

    @property
    def measured(self) -> str:
        """The value with its interval; "" where there is none."""
        return "" if self.value != self.value else self._measured

    @property
    def limit(self) -> str:
        """What the value is held against; "" where there is nothing."""
        known = self.threshold == self.threshold
        return self.known.write(self.threshold, 2) + self.unit if known else ""

    @property
    def _measured(self) -> str:
        write = self.known.write
        if isfinite(self.low) or isfinite(self.high):
            return with_interval(self.value, self.low, self.high, self.unit, write=write)
        return write(self.value, 2) + self.unit

    def _filled(self, template: str) -> str:
        write = self.known.write
        text = template.format(
            subject=self.subject,
            at=self.at,
            number=write(self.value, 2) + self.unit,
            value=self._measured,
            low=write(self.low, 2),
            high=write(self.high, 2),
            threshold=write(self.threshold, 2),
            n=f"{self.n:,}",
            unit=self.unit,
        )
        return f"{text[:1].upper()}{text[1:]}"


def within(
    code: str, value: float, limit: float, subject: str = "", *, n: int = 0, at: str = "",
    unit: str = "",
) -> Finding:  # fmt: skip
    """A number without an interval against its limit."""
    decision: Decision = "pass" if value <= limit else "fail"
    return Finding(code, decision, subject, value, threshold=limit, unit=unit, n=n, at=at)


def in_order(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Failures first, then what is undecided, was skipped, passed; the gravest first of each."""
    return tuple(
        sorted(
            findings,
            key=lambda each: (_ORDER.index(each.decision), _GRAVEST.index(each.severity)),
        )
    )


def failed(findings: tuple[Finding, ...] | None, *codes: str) -> tuple[Finding, ...]:
    """Those of these codes, or of all, that failed."""
    return tuple(
        each
        for each in findings or ()
        if each.decision == "fail" and (not codes or each.code in codes)
    )
