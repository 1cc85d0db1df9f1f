"""Findings in words."""

from __future__ import annotations

from gradlab.certification.blocks import SYMBOLS

Counted = tuple[int, int]
WHERE = {
    None: "", "free": " in free motion", "contact": " in contact", "onset": " at an onset",
    "limit": " on a limit", "saturation": " in saturation",
}  # fmt: skip


def percent(share: float) -> str:
    """A relative error in per cent, or as a factor from 1000% on."""
    if share >= 10:
        return f"a factor of {share:.2g}"
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"


def wrong(
    block: str,
    stratum: str | None,
    overall: float,
    worst: float,
    where: str,
    kept: bool,
    states: Counted,
) -> str:
    """A block that differs from the differences of the step."""
    sign = "sign kept" if kept else "with the wrong sign"
    most = f"; most in {where}, by {percent(worst)}"
    return (
        f"{SYMBOLS[block]} is wrong by {percent(overall)}{WHERE[stratum]}, {sign} "
        f"({states[0]} of {states[1]} states{most})."
    )


def dead(block: str, kind: str, index: int, name: str, stratum: str | None, states: Counted) -> str:
    """A row or column without derivative."""
    return (
        f"{SYMBOLS[block]} {kind} {index} ({name}) is zero{WHERE[stratum]} but should not be "
        f"({states[0]} of {states[1]} states)."
    )


def not_finite(block: str, row: str, column: str, stratum: str, states: Counted) -> str:
    """NaN or infinite derivatives of finite outputs."""
    return (
        f"{SYMBOLS[block]} is not finite{WHERE[stratum]} where the step is "
        f"({states[0]} of {states[1]} states; first {row} by {column})."
    )


def dependence(kind: str, block: str | None, size: float, detail: str) -> str:
    """Results that depend on more than the row of the arguments."""
    subject = "The step" if block is None else SYMBOLS[block]
    by = f" (by {percent(size)} of its size)"
    return {
        "stale": f"{subject} depends on earlier calls{by}: a buffer keeps their values.",
        "random": f"{subject} depends on a hidden random seed{by}.",
        "rows mix": f"{subject} of one row depends on the other rows of its batch{by}.",
        "arguments changed": f"The step writes into its argument {detail}.",
    }[kind]


def single_precision(block: str, error: float) -> str:
    """A block that float32 spoils."""
    return (
        f"In single precision {SYMBOLS[block]} is off by {percent(error)} "
        f"(95th percentile): use float64 there."
    )
