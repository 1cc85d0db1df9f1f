"""Derivatives of a simulator, and audits of a loss."""

from gradlab.findings.finding import Code, register
from gradlab.wording import below, percent

_CUT = (
    "An entry that is exactly 0 is usually left out by hand, or cut off by a detach, a copy "
    "through numpy or a constant."
)
_GUARD = (
    "Clamp what a division, root, power or logarithm takes, as `x.clamp(min=1e-9)`. If actions "
    "have bounds of their own, as [0, 1], map them in the step: "
    "docs/howto/own_task.md#actions-with-other-bounds."
)


def relative(value: float, digits: int = 2) -> str:
    """In per cent, also of what is no share."""
    if value < 0.995:
        return percent(value, digits)
    return f"{100 * value:,.0f}%" if value <= 100 else "over 10,000%"


def _bound(value: float, digits: int = 2) -> str:
    return below(value)


def _fails(title: str, sentence: str, remedy: str = "") -> Code:
    return Code(title, sentence, remedy, "error", relative)


register({
    "wrong": _fails(
        "Wrong derivative", "{subject} is wrong by {number} in {n} states ({at}).", _CUT
    ),
    "dead": _fails("Dead derivative", "{subject} is 0 but should not be ({at}).", _CUT),
    "not_finite": _fails(
        "Not finite", "{subject} is not finite in {n} states, though the values are ({at}).", _GUARD
    ),
    "stale": _fails(
        "Earlier calls", "{subject} depends on earlier calls, by {number} ({at}).",
        "Look for a buffer that keeps their values.",
    ),
    "restless": _fails(
        "Equal calls", "{subject} is another one when it is called again, by {number} ({at}).",
        "Look for a generator of its own, a clock, an average or a warm start.",
    ),
    "first_call": _fails("First call", "{subject} depends on its first call, by {number}."),
    "random": _fails("Hidden seed", "{subject} depends on a hidden seed, by {number} ({at})."),
    "rows_mix": _fails(
        "Rows mix", "{subject} of one row depends on the other rows, by {number} ({at})."
    ),
    "place": _fails(
        "Place of a row", "{subject} of a row depends on its place, by {number} ({at}).",
        "Look for a mask by the row's number, or parameters of each row.",
    ),
    "arguments_changed": _fails("Arguments", "{subject} writes into its argument {at}."),
    "result_changed": _fails(
        "Results", "{subject} overwrites the {at} of the call before.", "Return a copy."
    ),
    "rare": Code(
        "Perhaps wrong", "{subject} may be wrong by {number} in {n} states ({at}).",
        "Certify it at `states` near that one.", write=relative,
    ),
    "not_judged": Code(
        "Not judged",
        "{subject} could be judged in {number} of the states: elsewhere the step is too rough or "
        "too noisy for differences.", write=relative,
    ),
    "few_finite": Code(
        "Too few states", "{subject} is finite at {n} points, too few to judge it ({at}).", _GUARD
    ),
    "imprecise": Code(
        "Imprecise differences", "Differences err by up to {number}, more than the tolerated "
        "{threshold}.",
    ),
    "stairs": Code(
        "Stairs", "{subject} moves in stairs, between which its derivative is 0.",
        "Certify and differentiate it without its rounding.",
    ),
    "stairs_beside": Code(
        "Stairs",
        "{subject} moves in stairs beside a smooth part: the derivative is {number} of the slope.",
        "Certify and differentiate it without its rounding.", write=relative,
    ),
    "many_ran_off": Code(
        "Runaway rollouts", "{number} of {n} rollouts ran off, where no state was examined.",
        "Give a Task, or `states`.",
    ),
    "ran_off": Code(
        "Left out", "{n} states of rollouts that ran off were left out ({at}).", severity="note"
    ),
    "left_out": Code(
        "Not finite", "{subject} is not finite at {n} points, which are left out ({at}).", _GUARD,
        "note",
    ),
    "coupled": Code(
        "Rows mix", "{subject} of one row moves with the others by {number}, as within a solver's "
        "tolerance ({at}).", severity="note", write=relative,
    ),
    "rough": Code(
        "Kinks", "{subject} has kinks, jumps or coarse rounding at {n} states ({at}): no "
        "derivative is wrong there.", severity="note",
    ),
    "zero": Code(
        "Zero", "{subject} is 0; a derivative above {number} would be seen.", severity="note",
        write=_bound,
    ),
    "single_precision": Code(
        "Single precision", "{subject} in float32 is off by {number} (95th percentile): use "
        "float64.", severity="note", write=relative,
    ),
    "low_precision": Code(
        "Low precision", "{subject} computes in {at}: its values are precise to {number}.",
        severity="note",
    ),
})  # fmt: skip
