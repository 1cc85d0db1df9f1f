"""RULE-W: are the rule-based weights what the papers print, and where do they change hands?

    claim       w_i = softmax(1 / e_i), e_i = λ^i, then (2 − λ)^(H−i); λ from 1 − η to 1 + η in T
    paper       MPG, eq. 10, Table VI; MPG-J, eq. 10, 11
    criterion   within 1e-6, η = 0.1, H = 25, T = 9000 and 4000: w_H = 0.9999976 at λ = 0.9, w = ½
                at T/2, w_H = 0.99 at λ = 0.93344, which is iteration 1505 and 669, and w_0 = 0.99
                at 0.833 T; MPG-J with the same T is the same rule

    python -m analyses.horizons.rule_w [--small] [--output reports/horizon-claims]

The rule that training uses (`training.parts.context`) beside the formulas in 40-digit decimals, and
beside the λ, and so the iterations, at which a weight is reached, solved for in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.harness.verdicts import Verdict, study
from gradlab.training.parts.context import MpgJournalWeights, MpgWeights

FOLDER = Path("reports/horizon-claims")
ETA, H = 0.1, 25
RAMPS = (9000, 4000)  # path tracking, inverted pendulum (MPG Table VI)
DIGITS = 40
TOLERANCE = 1e-6


def measure(small: bool = False) -> Verdict:
    every = 250 if small else 10
    table = pd.concat(compared(T, every) for T in RAMPS)
    return judge(table)


def compared(T: int, every: int) -> pd.DataFrame:
    """w_H by the rule and by decimals, from the first iteration to a fifth beyond the ramp."""
    rows = []
    for iteration in range(0, T + T // 5 + 1, every):
        mpg = MpgWeights(ETA, T)(iteration, (0, H))
        journal = MpgJournalWeights(ETA, T)(iteration, (0, H))
        rows.append(
            {
                "T": T,
                "iteration": iteration,
                "mpg": mpg[1],
                "mpg_journal": journal[1],
                "by_decimals": model_weight(iteration, T),
                "journal_by_decimals": journal_model_weight(iteration, T),
            }
        )
    return pd.DataFrame(rows)


def model_weight(iteration: int, T: int) -> float:
    """w_H of MPG eq. 10, as printed, in 40 digits."""
    with localcontext() as context:
        context.prec = DIGITS
        eta = Decimal(1) / 10
        base = min(1 - eta + 2 * eta * iteration / T, 1 + eta)
        if base <= 1:
            return _logistic(1 / base**H - 1)
        return _logistic(1 - 1 / (2 - base) ** H)


def journal_model_weight(iteration: int, T: int) -> float:
    """w_model of MPG-J eq. 10, 11, as printed; beyond its last iteration the rule stays."""
    with localcontext() as context:
        context.prec = DIGITS
        eta, half = Decimal(1) / 10, Decimal(T) / 2
        i = Decimal(min(iteration, T))
        if i <= half:
            return _logistic(1 / (1 - eta + 2 * i * eta / T) ** H - 1)
        return _logistic(1 - 1 / (1 - 2 * (i - half) * eta / T) ** H)


def _logistic(x: Decimal) -> float:
    """Softmax of two is a logistic function of their difference."""
    return float(1 / (1 + (-x).exp()))


def base_of(weight: float) -> float:
    """λ ≤ 1 at which w_H is `weight`: 1/λ^H − 1 = log w/(1 − w)."""
    return float((1 + math.log(weight / (1 - weight))) ** (-1 / H))


def iteration_of(base: float, T: int) -> float:
    """Where the ramp is at λ."""
    return (base - (1 - ETA)) * T / (2 * ETA)


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from both evaluations at every iteration."""
    gaps = {
        "mpg": np.abs(table["mpg"] - table["by_decimals"]).max(),
        "mpg_journal": np.abs(table["mpg_journal"] - table["journal_by_decimals"]).max(),
        "journal_against_mpg": np.abs(table["mpg_journal"] - table["mpg"]).max(),
    }
    base = base_of(0.99)
    points = pd.DataFrame(stated(base))
    gaps["stated"] = np.abs(points["found"] - points["expected"]).max()
    holds = max(gaps.values()) < TOLERANCE
    sentence = f"{'True' if holds else 'Not so'}. {_sentence(len(table), gaps, base)}"
    numbers = {f"largest_gap_{name}": float(gap) for name, gap in gaps.items()}
    numbers |= {
        "model_weight_at_0": model_weight(0, RAMPS[0]),
        "base_at_0.99": base,
        "iteration_at_0.99_T9000": iteration_of(base, 9000),
        "iteration_at_0.99_T4000": iteration_of(base, 4000),
        "share_of_ramp_mixed": 1 - 2 * iteration_of(base, 1),
    }
    return Verdict(
        "RULE-W",
        "MPG, eq. 10, Table VI; MPG-J, eq. 10, 11",
        "|Δ| < 1e-6 at every iteration and at the stated points; MPG-J is MPG with the same T",
        bool(holds),
        sentence,
        numbers,
        table,
    )


def _sentence(count: int, gaps: Mapping[str, float], base: float) -> str:
    within = {T: 1 - 2 * iteration_of(base, T) / T for T in RAMPS}
    changes = round(iteration_of(base, RAMPS[0])), round(iteration_of(base, RAMPS[1]))
    return (
        f"Over {count} iterations the rule differs from the "
        f"printed formulas in 40 digits by at most {gaps['mpg']:.1g} (MPG) and "
        f"{gaps['mpg_journal']:.1g} (MPG-J), MPG-J with the same T from MPG by "
        f"{gaps['journal_against_mpg']:.1g}. w_H = {model_weight(0, RAMPS[0]):.7f} at λ = 0.9, ½ "
        f"at T/2, 0.99 at λ = {base:.5f}: iteration {changes[0]} of T = 9000, {changes[1]} of "
        f"4000; w_0 = 0.99 at {1 - iteration_of(base, 1):.3f} T. All the mixing is between: for "
        f"{within[RAMPS[0]]:.0%} of T, {RAMPS[0] - 2 * changes[0]} and {RAMPS[1] - 2 * changes[1]} "
        f"iterations; w_H is between 0.1 and 0.9 for "
        f"{1 - 2 * iteration_of(base_of(0.9), 1):.0%} of T. T is the ramp in MPG and the whole run "
        f"in MPG-J: with 20,000 iterations MPG-J's rule changes hands at 10,000 on both tasks, "
        f"MPG's at 4500 and 2000."
    )


def stated(base: float) -> Iterator[dict[str, float]]:
    """What the rule of training gives at the points that are known in closed form."""
    e = 0.9**-H
    for T in RAMPS:
        rule = MpgWeights(ETA, T)
        crossing = iteration_of(base, T)
        yield {"found": rule(0, (0, H))[1], "expected": 1 / (1 + math.exp(1 - e))}
        yield {"found": rule(T // 2, (0, H))[1], "expected": 0.5}
        yield {"found": rule(T, (0, H))[0], "expected": 1 / (1 + math.exp(1 - e))}
        # The rule takes any real iteration.
        yield {"found": rule(crossing, (0, H))[1], "expected": 0.99}  # type: ignore[arg-type]
        yield {"found": rule(T - crossing, (0, H))[0], "expected": 0.99}  # type: ignore[arg-type]


if __name__ == "__main__":
    study(measure, FOLDER)
