"""The result of a certification: findings, numbers, verdict.

The four blocks of J = ∂(s', r)/∂(s, a), and names for rows and columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from gradlab import validation
from gradlab.errors import InputError, imported
from gradlab.verdicts.recommendation import unsaid
from gradlab.wording import below, listed

_MANY = 0.25  # of the rollouts, which ran off
BLOCKS = ("A", "B", "r_s", "r_a")
SYMBOLS = {
    "A": "∂s′/∂s", "B": "∂s′/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a", "parameters": "∂s′/∂p",
    "y": "∂y/∂x",  # of a map that is no simulator
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
        after, reward = slice(0, ds), slice(ds, ds + 1)
        rows = after if name in ("A", "B") else reward
        return rows, slice(0, ds) if name in ("A", "r_s") else slice(ds, None)


def percentage(share: float) -> str:
    """A relative error in per cent."""
    if share < 0.995:
        return f"{100 * share:.2g}%"
    return f"{100 * share:,.0f}%" if share <= 100 else "over 10,000%"


Kind = Literal[
    "wrong", "dead", "not finite", "single precision", "rows mix", "place", "stale", "random",
    "arguments changed", "result changed", "rough", "rare", "stairs", "not judged", "zero",
    "ran off",
]  # fmt: skip
_Severity = Literal["wrong", "rough", "note"]
_COLUMNS = (
    "source", "block", "stratum", "states", "judged", "median", "p95", "largest", "flagged",
)  # fmt: skip


@dataclass(frozen=True)
class WrongEntry:
    """One entry of a block that is wrong, over the states where it is.

    Attributes:
        row, column: names of the output and of the input.
        error: root mean square of J − D over that of D; 1 where D = 0.
        absolute: root mean square of J − D, in units of output per input.
        zero: "J": given as exactly 0, "D": should be exactly 0, "": neither.
    """

    row: str
    column: str
    error: float
    absolute: float
    zero: Literal["J", "D", ""]


@dataclass(frozen=True)
class Finding:
    """One deviation of the derivatives from what they should be.

    Attributes:
        severity: "wrong" fails the certificate, "rough" is a property of the step, "note" neither.
        size: relative error, ‖J − D‖ / ‖D‖ of the worst entry over the states; 1 where D = 0.
        block: "A" (∂s′/∂s), "B" (∂s′/∂a), "r_s", "r_a", "parameters"; None: of
            the step itself.
        stratum: where; None: everywhere.
        row, column: name of the output and of the input, where it is one.
        sign_kept: J has the sign of D; None where one of them is 0, or nobody asks.
        source: "step" (autograd of it), "linearize", "both"; "" where neither is meant.
        entries: that are wrong, the largest absolute error first; () where none is one by itself.
    """

    kind: Kind
    severity: _Severity
    sentence: str
    size: float = 1.0
    block: str | None = None
    stratum: str | None = None
    row: str | None = None
    column: str | None = None
    sign_kept: bool | None = None
    source: str = ""
    entries: tuple[WrongEntry, ...] = ()


@dataclass(frozen=True)
class Certification:
    """What `gradlab.certify` returns.

    Attributes:
        system: its name.
        fail_above: relative error from which a finding of severity "wrong" fails the certificate.
        findings: the gravest first.
        rows: block × stratum with quantiles of the relative error, see `table`.
        facts: settings, counts and further numbers, as JSON has them.
    """

    system: str
    fail_above: float
    findings: tuple[Finding, ...]
    rows: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """No finding of severity "wrong" above `fail_above`."""
        return not any(
            finding.severity == "wrong" and finding.size > self.fail_above
            for finding in self.findings
        )

    @property
    def headline(self) -> str:
        """The verdict, and which states show it where no law of starts gives them."""
        care = "" if self.shown else " with care"
        todo = f"Use the derivatives of {self.system}{care}"
        todo = todo if self.passed else f"Fix {self.wrong} of {self.system} first"
        errors = f"95% of the relative errors are below {self.within}, at {self.where}."
        said = (f"{todo}: {self.why}.", errors * self.shown, self.kinks, self.drawn)
        return " ".join(filter(None, said))

    @property
    def drawn(self) -> str:
        """Which states show it where no law of starts gives them; "" where one does."""
        states = self.facts.get("drawn states")
        if states is None:
            return ""
        lowest, highest = states
        return (
            f"The states, from {lowest:.2g} to {highest:.2g}, were drawn without a law of starts: "
            f"certify a Task to examine its own."
        )

    @property
    def wrong(self) -> str:
        """The blocks that are, or the step; "" where nothing is."""
        wrong = [finding for finding in self.findings if finding.severity == "wrong"]
        if any(each.block is None for each in wrong):
            return "the step"
        ways = {each.source for each in wrong}
        alone = len({row["source"] for row in self.rows}) > 1 and len(ways) == 1
        by = {"step": " by autograd", "linearize": " by `linearize`"} if alone else {}
        named = listed(list(dict.fromkeys(SYMBOLS[str(each.block)] for each in wrong)), len(BLOCKS))
        return f"{named}{by.get(next(iter(ways)), '')}" if wrong else ""

    @property
    def why(self) -> str:
        """What the derivatives are, or are not."""
        if not self.passed:
            blocks = {each.block for each in self.findings if each.severity == "wrong"}
            if None in blocks:
                return "it is no pure function of its arguments"
            they = "it is not that" if len(blocks) == 1 else "they are not those"
            return f"{they} of {self._whose}"
        vague = [each.block for each in self.findings if each.kind == "not judged"]
        n, lost = self.facts["states"], self.facts["not finite"]
        if None in vague:
            examined = f"{n} of {n + lost} {self.examined}"
            return f"{self._whose} is finite at {examined}, too few to judge them"
        if self._stairs:
            return f"{self._whose} moves in stairs, where no derivative says how far"
        if vague:
            unknown = ", ".join(dict.fromkeys(SYMBOLS[str(each)] for each in vague))
            return f"{unknown} could not be judged in most states"
        if rare := [finding for finding in self.findings if finding.kind == "rare"]:
            them = ", ".join(dict.fromkeys(SYMBOLS[str(each.block)] for each in rare))
            return f"{them} may be wrong in a few of its states"
        if self._ran_off:
            gone = f"{self.facts['ran off']} of {self.facts['rollouts']} rollouts ran off"
            return f"{gone}, and no state was examined there"
        if not self.shown:
            return (
                f"differences of {self._whose} err by up to {self.within}, more than the tolerated "
                f"{self.fail_above:g}"
            )
        return f"they are those of {self._whose}"

    @property
    def examined(self) -> str:
        return "inputs" if self.of_function else "states"

    @property
    def within(self) -> str:
        """`largest` in words, and where the errors are judged."""
        away = " away from kinks" if {row["stratum"] for row in self.rows} > {"onset"} else ""
        return f"{below(max(1e-16, self.largest))}{away}"

    @property
    def where(self) -> str:
        """How many states show it."""
        n, lost = self.facts["states"], self.facts["not finite"]
        if not lost:
            return f"{n} {self.examined}"
        return f"the {n} of {n + lost} {self.examined} where it is finite"

    @property
    def kinks(self) -> str:
        """What sound derivatives do not say; "" where no rollout crosses a kink."""
        if not (self.shown and self.facts["kinks crossed"]) or self.of_function:
            return ""
        return (
            "Rollouts cross kinks or jumps: ask `gradlab measure` whether the return follows these "
            "derivatives."
        )

    @property
    def shown(self) -> bool:
        """Passed, and its differences are precise enough to tell."""
        vague = any(finding.kind in ("not judged", "rare") for finding in self.findings)
        precise = not (vague or self._stairs) and not self.largest > self.fail_above
        return self.passed and precise and not self._ran_off

    @property
    def _stairs(self) -> bool:
        """Some output is rounded."""
        return any(finding.kind == "stairs" for finding in self.findings)

    @property
    def _ran_off(self) -> bool:
        """So many rollouts that usual states may be elsewhere."""
        return bool(self.facts.get("ran off", 0) >= _MANY * self.facts.get("rollouts", 1))

    @property
    def largest(self) -> float:
        """What 95% of the relative errors of the worst block are below, away from kinks where there
        are such states; NaN where nothing was judged."""
        smooth = [row for row in self.rows if row["stratum"] != "onset"] or self.rows
        return max((row["p95"] for row in smooth if math.isfinite(row["p95"])), default=math.nan)

    @property
    def of_function(self) -> bool:
        """Of a map y = f(x) that is no step."""
        return any(row["block"] == "y" for row in self.rows)

    @property
    def _whose(self) -> str:
        return "the function" if self.of_function else "its step"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict: the headline, then every finding without what an earlier one has said."""
        texts = unsaid([finding.sentence for finding in self.findings], self.headline)
        return (self.headline, *filter(None, texts))

    def table(self) -> pd.DataFrame:
        """One row per source, block and stratum: states, share judged, quantiles of the relative
        error of the block, and the share of the judged states that is flagged as wrong."""
        return pd.DataFrame(list(self.rows), columns=list(_COLUMNS))

    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "passed": self.passed,
            "system": self.system,
            "fail_above": self.fail_above,
            "sentences": list(self.sentences),
            "findings": [asdict(finding) for finding in self.findings],
            "table": [dict(row) for row in self.rows],
            "facts": dict(self.facts),
        }

    def save(self, path: str | Path) -> Path:
        """Write it, as JSON or as an HTML page by the suffix.

        Raises:
            InputError: another suffix, or a folder that cannot be written.
        """
        target = validation.path("path", path)
        if target.suffix not in (".json", ".html"):
            raise InputError(f"path is {target}: name a file that ends in .json or .html")
        if target.suffix == ".html":
            from gradlab.reporting.output import named, write

            return write(named(target), imported("gradlab.tools.certify.page:page")(self))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(to_json(self.document()) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{target} cannot be written ({error.strerror or error})") from error
        return target


def to_json(document: Mapping[str, Any]) -> str:
    """JSON in which numbers that are not finite are null."""
    return json.dumps(_plain(document), ensure_ascii=False, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
