"""What logs and a model said without a simulator: one long table, in one file.

Reading needs neither the data nor torch. `block` names whose number it is, `step` a horizon or a
step, `output` a coordinate. The sections:

    policy      are the actions the policy's own? Standardised residuals, per action
    gradient    of "score" and "model" at every horizon: mean_norm, variance, cosine_self (of the
                mean with its own expectation); of the model also variance_critics and, where it
                sets in, variance_slope per step; of "whole" the score of the whole recorded return
    agreement   the model's gradient less the score's, of one and the same return ("same"), and of
                the whole recorded return ("whole"): bias2, relative_bias2, excess over what is
                called agreement, cosine, variance_ratio; none where the model's is exactly 0
    critic      per critic: Bellman residual, calibration against observed returns, values beyond
                the return bound
    direction   the model's directional derivatives against held-out neighbours, per output
    prediction  the model's error after k steps under the recorded actions

Numbers of a run of logs, as sentences and figures need them.

A horizon's status is agree, disagree or undecided (`logs.agreement`); none agrees where the
score's own norm is not known to be above 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any, ClassVar, Literal

from gradlab.runs.long_table import LongTable
from gradlab.statistics.comparison import Number, more_samples


class LogsRun(LongTable):
    """What `measure_logs` found; its notes: what was left out and why, laws of growth."""

    kind: ClassVar = "logs"
    called: ClassVar = "comparison of logs with a model"
    units: ClassVar = {"step": "steps", "n": "samples"}


load = LogsRun.load


_Status = Literal["agree", "disagree", "undecided"]
TOLERANCE = 0.5  # largest difference, relative to the score, that is called agreement
SUPPORTED = 0.9  # cosine of a score's mean with its expectation from which it can referee


@dataclass(frozen=True)
class Agreement:
    """The model's gradient against a score at one horizon.

    Attributes:
        gap: relative difference |E M − E S| / |E S|, squared; cosine: of the means; NaN where the
            score is not distinguishable from zero.
        n: trajectories.
        more: trajectories that would tell, where undecided; None: no affordable number.
    """

    horizon: int
    status: _Status
    gap: Number
    cosine: Number
    n: int
    more: int | None


def numbers(run: LogsRun, section: str, quantity: str, block: str = "") -> dict[int, Number]:
    """Step → number, of one block of a section; those without a value are left out."""
    table = run.table()
    chosen = (table["section"] == section) & (table["quantity"] == quantity)
    rows = table[chosen & (table["block"] == block)].to_dict("records")
    return {int(row["step"]): _number(row) for row in rows if isfinite(row["value"])}


def by_output(run: LogsRun, section: str, quantity: str) -> dict[str, Number]:
    """Coordinate → number."""
    rows = run.rows(section, quantity=quantity).to_dict("records")
    return {str(row["output"]): _number(row) for row in rows if isfinite(row["value"])}


def agreements(run: LogsRun, block: str) -> list[Agreement]:
    """Every horizon against scores of the "same" or of the "whole" return."""
    excess, bias2, gap, cosine = (
        numbers(run, "agreement", quantity, block)
        for quantity in ("excess", "bias2", "relative_bias2", "cosine")
    )
    name = "score" if block == "same" else block
    norms = numbers(run, "gradient", "mean_norm", name)
    lost = Number(nan, nan, nan, 0)
    results = []
    for h in sorted(excess.keys() & bias2.keys()):
        nonzero = norms[h if block == "same" else int(run.config["reach"])].low > 0
        parts = excess[h], bias2[h], gap.get(h, lost)
        nearer = excess[h] if excess[h].value < 0 else bias2[h]  # of the two answers
        results.append(
            Agreement(
                horizon=h,
                status=_status(*parts, nonzero),
                gap=parts[2],
                cosine=cosine.get(h, lost),
                n=excess[h].n,
                more=more_samples(abs(nearer.value), nearer.se, nearer.n),
            )
        )
    return results


def _status(excess: Number, bias2: Number, gap: Number, nonzero: bool) -> _Status:
    if nonzero and excess.high < 0 and gap.high < TOLERANCE**2:
        return "agree"
    return "disagree" if bias2.low > 0 else "undecided"


def supported(results: list[Agreement]) -> int:
    """The longest horizon up to which every one from 1 on agrees; 0: none does."""
    longest = 0
    for each in results:
        if each.horizon == 0:
            continue
        if each.status != "agree":
            return longest
        longest = each.horizon
    return longest


def referee(cosine: Number) -> tuple[int | None, int | None, int | None]:
    """Trajectories at which the mean's cosine with its expectation is `SUPPORTED`: estimate, and
    from the ends of the interval; None: nobody knows."""
    goal = SUPPORTED**2 / (1 - SUPPORTED**2)

    def needed(c: float) -> int | None:
        return None if not 0 < c < 1 else max(1, round(cosine.n * goal * (1 - c**2) / c**2))

    return needed(cosine.value), needed(cosine.high), needed(cosine.low)


def critics(run: LogsRun) -> dict[str, Mapping[str, Number]]:
    """Critic → quantity → number."""
    rows = run.rows("critic")
    return {
        str(name): {str(row["quantity"]): _number(row) for row in own.to_dict("records")}
        for name, own in rows.groupby("block", sort=False)
    }


def _number(row: Mapping[Hashable, Any]) -> Number:
    value, se, low, high = (float(row[name]) for name in ("value", "se", "ci_low", "ci_high"))
    return Number(value, low, high, int(row["n"]), se)
