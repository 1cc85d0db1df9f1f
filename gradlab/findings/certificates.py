"""Derivatives of a simulator, and audits of a loss."""

from gradlab.findings.finding import Code, register
from gradlab.wording import below, percent

_CUT = "Look for a detach, a copy through numpy or a constant."
_GUARD = (
    "Divisions, roots, powers, logarithms: `x.clamp(min=1e-9)`. If actions have bounds of their "
    "own, as [0, 1], map them in the step: docs/own_task.md#actions-with-other-bounds."
)
_SMOOTH = "Certify and differentiate it without its rounding."


def relative(value: float, digits: int = 2) -> str:
    """In per cent, also of what is no share."""
    if value < 0.995:
        return percent(value, digits)
    return f"{100 * value:,.0f}%" if value <= 100 else "over 10,000%"


def _by(title: str, remedy: str = "") -> Code:
    return Code(title, ":{subject}, by {number} ({at}).", remedy, "error", relative)


register({
    "wrong": Code(
        "wrong derivative", ":{subject}, {number} in {n} states ({at}).", _CUT, "error", relative
    ),
    "dead": Code("dead derivative", "", _CUT, "error"),
    "not_finite": Code("not finite", "", _GUARD, "error"),
    "stale": _by("depends on earlier calls", "Look for a buffer."),
    "restless": _by(
        "differs between equal calls", "Look for a generator, clock, average or warm start."
    ),
    "random": _by("depends on a hidden seed"),
    "rows_mix": _by("depends on other rows"),
    "place": _by("depends on its row", "Look for a mask or parameters by row."),
    "arguments_changed": Code("writes into its argument", severity="error"),
    "result_changed": Code("overwrites earlier results", "", "Return a copy.", "error"),
    "rare": Code(
        "perhaps wrong", ":{subject}, {number} in {n} states ({at}).",
        "Certify it at such `states`.", write=relative,
    ),
    "not_judged": Code("not judged", ":{subject} but in {number} of the states.", write=relative),
    "few_finite": Code("too few finite points", "", _GUARD),
    "imprecise": Code("imprecise differences"),
    "stairs": Code("moves in stairs", "", _SMOOTH),
    "stairs_beside": Code("stairs beside a slope", "", _SMOOTH, write=relative),
    "many_ran_off": Code(
        "runaway rollouts", "{number} of {n} rollouts ran off, unexamined.",
        "Give a Task, or `states`.",
    ),
    "ran_off": Code("runaways left out", severity="note"),
    "left_out": Code("not finite, left out", "", _GUARD, "note"),
    "coupled": Code("rows within a tolerance", severity="note", write=relative),
    "rough": Code("kinks, jumps, coarse rounding", severity="note"),
    "zero": Code(
        "zero", "{subject} is 0; {number} would be seen.", severity="note",
        write=lambda value, _: below(value),
    ),
    "single_precision": Code(
        "float32 error, 95th percentile", remedy="Use float64.", severity="note", write=relative
    ),
    "low_precision": Code("low precision", severity="note"),
})  # fmt: skip
