"""The result of a certification: findings, wrong entries, errors by block and stratum.

The four blocks of J = ∂(s', r)/∂(s, a), and names for rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from gradlab.findings import Decision, Finding
from gradlab.findings.certificates import relative
from gradlab.runs.layout import attribute, nested, stored
from gradlab.runs.run import Run
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import below, listed

SYMBOLS = {
    "A": "∂s′/∂s", "B": "∂s′/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a",
}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """Of state and action coordinates."""

    state: tuple[str, ...]
    action: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        return (*(f"{name}′" for name in self.state), "r")

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.state, *self.action)

    def block(self, name: str) -> tuple[slice, slice]:
        """Rows and columns of one block."""
        ds = len(self.state)
        rows = slice(ds, ds + 1) if name in ("r_s", "r_a") else slice(0, ds)
        return rows, slice(0, ds) if name in ("A", "r_s") else slice(ds, None)


@dataclass(frozen=True)
class Entry:
    """One entry of a block, over the states where it is wrong.

    Attributes:
        row, column: names of the output and of the input; "all" of a dead column or row.
        error: root mean square of J − D over that of D; 1 where D = 0.
        absolute: root mean square of J − D, in units of output per input.
        ratio: of J to D, by least squares: 0 where J is 0, infinite where D is.
        flipped: share of the states in which J has the other sign; NaN where J or D is 0.
    """

    row: str
    column: str
    error: float = math.nan
    absolute: float = math.nan
    ratio: float = math.nan
    flipped: float = math.nan


# Dependences on more than the arguments, which fail whatever their size.
LOOSE = ("stale", "random", "rows_mix", "place")
_OF: dict[Decision, tuple[str, ...]] = {
    "fail": (
        "wrong", "dead", "not_finite", "restless", "arguments_changed",
        "result_changed", *LOOSE,
    ),
    "undecided": (
        "rare", "not_judged", "few_finite", "imprecise", "stairs", "stairs_beside", "many_ran_off",
    ),
    "skipped": ("ran_off", "left_out"),
}  # fmt: skip
_DECISIONS = {code: decision for decision, codes in _OF.items() for code in codes}
_JUDGED = ("wrong", "dead", "rare", "imprecise")  # by `fail_above`
_ORDER = ("fail", "undecided", "skipped", "pass")
WHERE = {
    "": "", "free": "where the step is smooth", "contact": "in contact", "onset": "at kinks",
    "limit": "on limits", "saturation": "in saturation",
}  # fmt: skip
_BY = {"": "", "step": "by autograd", "linearize": "by `linearize`",
       "both": "by autograd and `linearize`"}  # fmt: skip
_NAMED = 8  # entries of a sentence


@dataclass(frozen=True)
class Deviation:
    """What is to be a finding, and where it is.

    Attributes:
        value: relative error, ‖J − D‖ / ‖D‖ of the worst entry over the states; 1 where D = 0.
        n: states where it is so.
        block: of SYMBOLS; "": of the step itself.
        stratum: "": everywhere.
        source: "step" (autograd of it), "linearize", "both"; "" where neither is meant.
        entries: the largest absolute error first.
        detail: where else, in words.
    """

    code: str
    value: float = math.nan
    n: int = 0
    block: str = ""
    stratum: str = ""
    source: str = ""
    entries: tuple[Entry, ...] = ()
    detail: str = ""

    @property
    def decision(self) -> Decision:
        return _DECISIONS.get(self.code, "pass")

    def finding(self, fail_above: float) -> Finding:
        subject = SYMBOLS.get(self.block, "the step")
        if self.entries:
            # Those that share an input together: s3′ and s0′ by s2.
            rows: dict[str, list[str]] = {}
            for each in self.entries[:_NAMED]:
                rows.setdefault(each.column, []).append(each.row)
            parts = [
                f"{listed(of, _NAMED)}{column and f' by {column}'}" for column, of in rows.items()
            ]
            rest = len(self.entries) - _NAMED
            parts += [f"{rest} more"] if rest > 0 else []
            subject += f" ({', '.join(parts)})"
        at = (WHERE[self.stratum], _BY[self.source], self.detail)
        return Finding(
            self.code, self.decision, subject, self.value, n=self.n,
            threshold=fail_above if self.code in _JUDGED else math.nan,
            at=", ".join(filter(None, at)),
        )  # fmt: skip


def merged(found: Iterable[Deviation]) -> list[Deviation]:
    """The gravest first; one of both sources where they agree. Of a derivative that depends on more
    than its arguments nothing else is said."""
    found = list(found)
    loose = {(each.block, each.source) for each in found if each.block and each.code in LOOSE}
    kept: dict[tuple[object, ...], Deviation] = {}
    for each in found:
        if (each.block, each.source) in loose and each.code not in LOOSE:
            continue
        entries = tuple((one.row, one.column) for one in each.entries)
        key = each.code, each.block, each.stratum, entries, f"{each.value:.2g}", each.n
        kept[key] = replace(kept[key], source="both") if key in kept else each

    def gravity(each: Deviation) -> tuple[int, bool, float]:
        size = math.inf if each.code in LOOSE else each.value
        return _ORDER.index(each.decision), each.code != "rare", -size if size == size else 0.0

    return sorted(kept.values(), key=gravity)


@dataclass(frozen=True)
class BlockErrors:
    """Relative errors of a block in a stratum.

    Attributes:
        source: which derivative: of the step by autograd, or of linearize.
        block: of the derivative.
        stratum: which states: free (smooth), contact, onset (at a kink or jump), limit, saturation
            (an input without effect).
        states: how many; judged: share of them that differences can judge.
        median: of the relative error; p95: 95% of the relative errors are below.
        largest: relative error; flagged: share of the judged states that is wrong.
    """

    source: str
    block: str
    stratum: str
    states: int
    judged: float
    median: float
    p95: float
    largest: float
    flagged: float


@dataclass(frozen=True)
class _WrongEntry:
    """Where a finding is: an entry of a block in a stratum, as of `BlockErrors` and `Entry`.

    Attributes:
        finding: number of the finding; code: of the finding.
        row: output; column: input.
        error: relative, root mean square; absolute: root mean square error, output per input.
        ratio: of the derivative to differences; flipped: share of states with the other sign.
    """

    finding: int
    code: str
    source: str
    block: str
    stratum: str
    row: str
    column: str
    error: float
    absolute: float
    ratio: float
    flipped: float


@dataclass(frozen=True, eq=False, repr=False)
class Certification(Run):
    """What `gradlab.certify` returns.

    Attributes:
        system: its name.
        fail_above: relative error from which a derivative is wrong.
        deviations: the findings, the gravest first.
        entries: where they are.
        rows: block × stratum with quantiles of the relative error.
        facts: settings, counts and further numbers, as JSON has them.
    """

    system: Annotated[str, stored()]
    fail_above: Annotated[float, stored()]
    deviations: Annotated[tuple[Finding, ...], nested("findings")]
    entries: Annotated[tuple[_WrongEntry, ...], nested("entries", "number")]
    rows: Annotated[tuple[BlockErrors, ...], nested("errors", "number")]
    facts: Annotated[Mapping[str, Any], attribute()]
    file: Path | None = None

    kind = "certificate"
    noun = "certificate"

    @property
    def config(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What was asked for."""
        asked = ("command", "seed", "states", "fail_above")
        return {"task": self.system, **{k: self.facts[k] for k in asked if k in self.facts}}

    @property
    def environment(self) -> Mapping[str, str]:  # type: ignore[override]
        """What it ran on."""
        return {key: str(each) for key, each in self.facts.get("versions", {}).items()}

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.deviations

    def _said(self) -> tuple[Finding, ...]:
        return ()  # they are a field

    @property
    def passed(self) -> bool:
        """No finding fails."""
        return not any(each.decision == "fail" for each in self.findings)

    @property
    def shown(self) -> bool:
        """Passed, and nothing is undecided."""
        return all(each.decision in ("pass", "skipped") for each in self.findings)

    @property
    def wrong(self) -> str:
        """The blocks that are, or the step; "" where nothing is."""
        rows = [x for x in self.entries if self.findings[x.finding].decision == "fail"]
        if any(not each.block for each in rows):
            return "the step"
        ways = {each.source for each in rows}
        alone = len(ways) == 1 < len({row.source for row in self.rows}) and "both" not in ways
        by = _BY[ways.pop()] if alone else ""
        symbols = list(dict.fromkeys(SYMBOLS[each.block] for each in rows))
        return f"{listed(symbols, len(symbols))} {by}".rstrip()

    @property
    def largest(self) -> float:
        """What 95% of the relative errors of the worst block are below, away from kinks where there
        are such states; NaN where nothing was judged."""
        return largest(self.rows)

    @cached_property
    def recommendation(self) -> Recommendation:
        """Is it usable, where is it not, by how much, and what next?"""
        light: Light = "act" if self.shown else "choose" if self.passed else "none"
        word = {"none": "Not sound", "act": "Sound", "choose": "Not shown"}[light]
        vague = [each.title.lower() for each in self.findings if each.decision == "undecided"]
        care = f"with care: {', '.join(dict.fromkeys(vague))}"
        failing = [each.value for each in self.findings if each.decision == "fail"]
        size = max((each for each in failing if each == each), default=math.nan)
        within, states = "", f"{self.facts['states']:,} states"
        if self.largest == self.largest:
            within = f"95% of errors below {below(max(1e-16, self.largest))}, at {states}"
        how = "‖J − D‖ / ‖D‖ of a block, in spreads of outputs and inputs"
        todo, drawn = [] if self.passed else [f"fix {self.wrong} first"], None
        if self.passed:
            drawn = self.facts.get("drawn states")
            crosses = self.shown and self.facts["kinks crossed"]
            todo = ["`gradlab measure`: rollouts cross kinks"] if crosses else []
        if drawn is not None:
            todo.append(f"certify a Task: states from {drawn[0]:.2g} to {drawn[1]:.2g} were drawn")
        fields = (
            Field("usable", {"none": "no", "act": "yes"}.get(light, care)),
            Field("wrong", self.wrong or f"none above {self.fail_above:g}"),
            Field("by how much", f"{relative(size)} at most" if size == size else ""),
            Field("within", within, how),
            Field("next", "; ".join(todo)),
        )
        shown = tuple(each for each in fields if each.text)
        return Recommendation(light, shown, "errors", rest=self.findings, word=word)

    def __str__(self) -> str:
        return str(self.recommendation)

    def table(self, name: str | None = "errors") -> pd.DataFrame:
        """One row per source, block and stratum: states, share judged, quantiles of the relative
        error of the block, and the share of the judged states that is flagged as wrong.

        Args:
            name: "entries": a row per finding and entry, with its block, stratum, source, row and
                column, relative and absolute error, ratio of J to D, share of flipped signs.
        """
        return super().table(name).drop(columns="number", errors="ignore")

    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return self.recommendation.document | {
            "passed": self.passed,
            "system": self.system,
            "fail_above": self.fail_above,
            "entries": [asdict(row) for row in self.entries],
            "table": [asdict(row) for row in self.rows],
            "facts": dict(self.facts),
        }


def largest(rows: Sequence[BlockErrors]) -> float:
    smooth = [row for row in rows if row.stratum != "onset"] or rows
    return max((row.p95 for row in smooth if math.isfinite(row.p95)), default=math.nan)


def certification(
    system: str,
    fail_above: float,
    found: Iterable[Deviation],
    rows: Sequence[BlockErrors],
    facts: Mapping[str, Any],
) -> Certification:
    """Deviations as findings, and as a table of entries."""
    shown = merged(found)
    worst = largest(rows)
    if worst > fail_above and all(each.decision != "fail" for each in shown):
        shown = merged([*shown, Deviation("imprecise", worst)])
    entries = tuple(
        _WrongEntry(k, each.code, each.source, each.block, each.stratum, *astuple(one))
        for k, each in enumerate(shown) for one in each.entries or (Entry("", ""),)
    )  # fmt: skip
    findings = tuple(each.finding(fail_above) for each in shown)
    return Certification(system, fail_above, findings, entries, tuple(rows), facts)
