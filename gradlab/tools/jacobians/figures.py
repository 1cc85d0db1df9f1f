"""Where a model's Jacobians are wrong, and how chained Jacobians and the model's errors grow.

Each figure takes the long table of a comparison (see `gradlab.tools.jacobians.result`).
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, log
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures import style
from gradlab.figures.plots import Series, lines, marks, matrix, rows, scaled
from gradlab.figures.style import BLUE, INK, MUTED, VERMILION, Look
from gradlab.wording import signed, two

_BLOCKS = {
    **style.DERIVATIVES,
    "next_state": Look("predicted next state", MUTED, (0, (9, 2)), "v"),
    "reward": Look("predicted reward", style.OCHRE, (0, (3, 1.2, 1, 1.2)), "P"),
}
_LOOPS = {
    "closed": Look("closed loop, A + B K", BLUE, "-", "o"),
    "open": Look("open loop, A", VERMILION, (0, (5, 1.6)), "s"),
}
_FLAGS = {
    "flagged share": Look("failed the certificate", VERMILION, "-", "s"),
    "not finite share": Look("not finite", INK, (0, (1.2, 1.4)), "^"),
    "terminated share": Look("after termination", MUTED, (0, (5, 1.6)), ""),
}
_MEDIAN = Look("median over starts", BLUE, "-", "o")
_OWN = Look("model's rollout against the simulator's", BLUE, "-", "o")
_LINEAR = Look("linear from the first step", MUTED, (0, (2, 2)), "")
_UNITS = {
    "error": ("Error of each derivative", "σ of the output per σ of the input"),
    "size": ("Size of each derivative", "σ of the output per σ of the input"),
    "effect": ("Effect of each error", "change of the policy gradient, relative to its norm"),
}
_TOP = 1e3  # relative errors beyond are drawn here
_RELATIVE: dict[str, Any] = {"x": "step", "level": 1, "log": True, "decades": 6, "percent": True}


def jacobian_entries(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "error"
) -> Axes:
    """Every entry of [A B; r_s r_a] as a map. `quantity`: "error" of the model or "size" of the
    simulator's own entries, in standard deviations of output and input; "effect" of the errors on
    the policy gradient."""
    title, unit = _UNITS[quantity]
    return matrix(rows(table, "entry", quantity), ax, title, unit, decades=4, least=1e-3)


def jacobian_time(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of every block along the rollout."""
    return lines(_errors(table, "time"), ax, "Error along the rollout", "relative error",
                 along="step t", **_RELATIVE)  # fmt: skip


def jacobian_flags(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shares of starts whose Jacobians are left out, along the rollout."""
    shown = {look: rows(table, "time", name) for name, look in _FLAGS.items()}
    return lines(shown, ax, "Steps left out", "share of the starts", x="step", along="step t",
                 percent=True)  # fmt: skip


def jacobian_distance(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of every block over the distance from the nearest data."""
    return lines(_errors(table, "distance"), ax, "Error away from the data", "relative error",
                 along="distance from the data [standard deviations]",
                 **_RELATIVE | {"x": "x"})  # fmt: skip


def product_growth(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Largest singular value of the chained Jacobians, in powers of ten."""
    shown = {}
    for loop, look in _LOOPS.items():
        rate = rows(table, "exponent", "λ", block=loop, output="1")["value"]
        known = f": λ = {signed(two(rate.iloc[0]))} per step" if len(rate) else ""
        grown = rows(table, "growth", "ln σ", block=loop, output="1")
        shown[replace(look, label=look.label + known)] = scaled(grown, 1 / log(10))
    return lines(shown, ax, "Growth of the chained Jacobians", "log₁₀ of the singular value",
                 x="step", along="steps chained")  # fmt: skip


def lyapunov(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Finite-time Lyapunov exponents with their intervals, both loops."""
    shown = {look: rows(table, "exponent", "λ", block=loop) for loop, look in _LOOPS.items()}
    top = max((float(each["value"].max()) for each in shown.values() if len(each)), default=0.0)
    return marks(ax, "Lyapunov exponents", shown, "λ per step", along="direction, fastest first",
                 least=-3 * max(0.3, top))  # fmt: skip


def chain_error(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of the model's chained product; above 1, zero is the better guess."""
    product = rows(table, "product", "relative error")
    return lines({_MEDIAN: product[product["step"] > 0]}, ax, "Error of the chained Jacobians",
                 "relative error", along="steps chained", limits=(-inf, _TOP),
                 **_RELATIVE | {"percent": False})  # fmt: skip


def model_error(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Error of the model's own rollout beside a straight line (Condition 1 of MPG)."""
    own = rows(table, "model_error", "error").sort_values("step")
    first = own["step"] * (own["value"] / own["step"]).head(1).sum()
    straight = own.assign(value=first, ci_low=first, ci_high=first)
    return lines({_LINEAR: straight, _OWN: own}, ax, "Error of the model's own rollout",
                 "distance [standard deviations]", x="step", along="steps", log=True,
                 decades=6)  # fmt: skip


def _errors(table: pd.DataFrame, section: str) -> Series:
    return {look: rows(table, section, "relative error", block=x) for x, look in _BLOCKS.items()}
