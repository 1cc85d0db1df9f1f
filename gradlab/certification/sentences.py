"""Findings in words."""

from __future__ import annotations

from gradlab.certification.blocks import SYMBOLS
from gradlab.certification.smoothed import Smoothed

Counted = tuple[int, int]
WHERE = {
    None: "", "free": " where the step is smooth", "contact": " in contact",
    "onset": " at an onset", "limit": " on a limit", "saturation": " in saturation",
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
    most: str,
    kept: bool | None,
    states: Counted,
) -> str:
    """A block that differs from the differences of the step, `most` in one entry; `kept` None: that
    entry has no sign."""
    sign = {True: ", sign kept", False: ", with the wrong sign", None: ""}[kept]
    return (
        f"{SYMBOLS[block]} is wrong by {percent(overall)}{WHERE[stratum]}{sign} "
        f"({states[0]} of {states[1]} states; most in {most})."
    )


def deviation(worst: float, given_zero: bool, true_zero: bool) -> str:
    """Of one entry: a relative error, or that J or D is 0."""
    if given_zero:
        return "which is zero"
    return "which should be zero" if true_zero else f"by {percent(worst)}"


def dead(block: str, kind: str, index: int, name: str, stratum: str | None, states: Counted) -> str:
    """A row or column without derivative."""
    return (
        f"{SYMBOLS[block]} {kind} {index} ({name}) is zero{WHERE[stratum]} but should not be "
        f"({states[0]} of {states[1]} states)."
    )


def not_finite(block: str, row: str, column: str, stratum: str, states: Counted, step: int) -> str:
    """NaN or infinite derivatives of finite outputs; `step` of a rollout, −1 where it is none."""
    first = f"first at step {step}, {row} by {column}" if step >= 0 else f"first {row} by {column}"
    return (
        f"{SYMBOLS[block]} is not finite{WHERE[stratum]} where the step is "
        f"({states[0]} of {states[1]} states; {first})."
    )


def not_judged(block: str, share: float) -> str:
    """A block that differences decide in few states."""
    return (
        f"{SYMBOLS[block]} could be judged in {percent(share)} of the states only: elsewhere the "
        f"step is too rough or too noisy for differences."
    )


def lost(rollouts: Counted, step: int, output: str) -> str:
    """A step that returns numbers that are not finite."""
    return (
        f"The step itself leaves the finite numbers in {rollouts[0]} of {rollouts[1]} rollouts, "
        f"first at step {step}, output {output}."
    )


def sign(horizon: int, agree: float, certain: float) -> str:
    """A chained gradient that turns."""
    until = f"up to {horizon} steps" if horizon else "at no horizon"
    return (
        f"The sign of the chained gradient is right {until}; at {horizon + 1} steps it is in "
        f"{100 * agree:.1f}% of the directions ({percent(certain)} of them can be decided)."
    )


def rough(states: Counted, smoothed: Smoothed, steps: int, decided: bool) -> str:
    """Kinks, with the gradient of the smoothed return beside that of the return."""
    head = (
        f"The step has a kink or a jump at {states[0]} of {states[1]} states, where no derivative "
        f"is wrong"
    )
    if not smoothed.points:
        return f"{head}."
    if not decided:
        return (
            f"{head}; the gradient of the {steps}-step return does not differ there from that of "
            f"the smoothed return by more than its noise ({percent(smoothed.noise)}, median of "
            f"{smoothed.points} states)."
        )
    return (
        f"{head}; the gradient of the {steps}-step return is off from that of the smoothed return "
        f"there by {percent(smoothed.gap)} (median of {smoothed.points} states, cosine "
        f"{smoothed.cosine:.2f})."
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


def parameter(name: str, error: float, kept: bool, dead: bool) -> str:
    """A gradient in a parameter of the step."""
    if dead:
        return f"The gradient in the parameter {name} is zero but should not be."
    sign = "sign kept" if kept else "with the wrong sign"
    return f"The gradient in the parameter {name} is wrong by {percent(error)}, {sign}."
