"""Findings in words."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.tools.certify.chains import Smoothed
from gradlab.tools.certify.result import SYMBOLS, WrongEntry
from gradlab.wording import listed

_Counted = tuple[int, int]
_NAMED = 8  # entries of a sentence; all of them are in the JSON
_DEVIATIONS = {
    "J": ("which is zero", "which are zero"), "D": ("which should be zero",) * 2,
}  # fmt: skip
_CAUSES = (
    "a derivative that is exactly zero is usually cut off by a detach, a copy through numpy, or an "
    "integer or constant in its place"
)
_WHERE = {
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
    entries: Sequence[WrongEntry],
    whole: float,
    kept: bool | None,
    states: _Counted,
) -> str:
    """Entries of a block that differ from the differences of the step, the largest absolute error
    first, beside the error of the `whole` block; `kept` None: the worst one has no sign."""
    sign = {True: ", sign kept", False: ", with the wrong sign", None: ""}[kept]
    worst = max(each.error for each in entries)
    count = "one entry" if len(entries) == 1 else f"{len(entries)} entries"
    most = "by" if len(entries) == 1 else "by up to"
    cause = f"; {_CAUSES}" if any(each.zero == "J" for each in entries) else ""
    # Entries that share an input and a deviation together: s3′ and s0′ by s2, which are zero.
    shown: dict[tuple[str, str], list[str]] = {}
    for each in entries[:_NAMED]:
        deviation = each.zero or f"by {percent(each.error)}"
        shown.setdefault((each.column, deviation), []).append(each.row)
    parts = [
        f"{listed(rows, _NAMED)} by {column}, {words[0] if len(rows) == 1 else words[1]}"
        for (column, kind), rows in shown.items()
        for words in [_DEVIATIONS.get(kind, (kind, kind))]
    ]
    rest = len(entries) - _NAMED
    more = f"; and {rest} more, which the certificate's JSON names" if rest > 0 else ""
    order = "Largest absolute error first: " if len(entries) > 1 else "It is "
    return (
        f"{SYMBOLS[block]} is wrong{_WHERE[stratum]} ({states[0]} of {states[1]} states): {count} "
        f"{most} {percent(worst)}{sign}, the whole block by {percent(whole)} (median). "
        f"{order}{'; '.join(parts)}{more}{cause}."
    )


def dead(
    block: str, kind: str, index: int, name: str, stratum: str | None, states: _Counted
) -> str:
    """A row or column without derivative."""
    return (
        f"{SYMBOLS[block]} {kind} {index} ({name}) is zero{_WHERE[stratum]} but should not be "
        f"({states[0]} of {states[1]} states); {_CAUSES}."
    )


def not_finite(block: str, row: str, column: str, stratum: str, states: _Counted, step: int) -> str:
    """NaN or infinite derivatives of finite outputs; `step` of a rollout, −1 where it is none."""
    first = f"first at step {step}, {row} by {column}" if step >= 0 else f"first {row} by {column}"
    return (
        f"{SYMBOLS[block]} is not finite{_WHERE[stratum]}, though the step's values are "
        f"({states[0]} of {states[1]} states; {first})."
    )


def not_judged(block: str, share: float) -> str:
    """A block that differences decide in few states."""
    return (
        f"{SYMBOLS[block]} could be judged in {percent(share)} of the states only: elsewhere the "
        f"step is too rough or too noisy for differences."
    )


def lost(rollouts: _Counted, step: int, output: str) -> str:
    """A step that returns numbers that are not finite."""
    return (
        f"The step itself leaves the finite numbers in {rollouts[0]} of {rollouts[1]} rollouts, "
        f"first at step {step}, output {output}."
    )


def sign(horizon: int, agree: float, certain: float, needed: float) -> str:
    """A chained gradient that turns; `needed`: share of right signs that counts as right."""
    return (
        f"From {horizon + 1} steps on the sign of the chained gradient is right in less than "
        f"{percent(needed)} of the directions: in {100 * agree:.4g}% at {horizon + 1} "
        f"({percent(certain)} of them can be decided)."
    )


def no_sign(constant: bool) -> str:
    """A chained gradient whose sign nothing decides."""
    why = "the reward is constant" if constant else "differences of the return are lost in rounding"
    return f"The sign of the chained gradient is not decidable ({why})."


def rough(states: _Counted, smoothed: Smoothed, steps: int, decided: bool) -> str:
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
