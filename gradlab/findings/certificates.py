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


def _bound(value: float, digits: int = 2) -> str:
    return below(value)


def _fails(title: str, sentence: str, remedy: str = "") -> Code:
    return Code(title, sentence, remedy, "error", relative)


register({
    "wrong": _fails("Wrong derivative", "{subject} errs by {number} in {n} states ({at}).", _CUT),
    "dead": _fails("Dead derivative", "{subject} is 0 but should not be ({at}).", _CUT),
    "not_finite": _fails("Not finite", "{subject} is not finite in {n} states ({at}).", _GUARD),
    "stale": _fails(
        "Earlier calls", "{subject} depends on earlier calls, by {number} ({at}).",
        "Look for a buffer.",
    ),
    "restless": _fails(
        "Equal calls", "{subject} changes between equal calls, by {number} ({at}).",
        "Look for a generator, clock, average or warm start.",
    ),
    "random": _fails("Hidden seed", "{subject} depends on a hidden seed, by {number} ({at})."),
    "rows_mix": _fails("Rows mix", "{subject} of a row depends on others, by {number} ({at})."),
    "place": _fails(
        "Place of a row", "{subject} of a row depends on its place, by {number} ({at}).",
        "Look for a mask or parameters by row.",
    ),
    "arguments_changed": _fails("Arguments", "{subject} writes into its argument {at}."),
    "result_changed": _fails(
        "Results", "{subject} overwrites the {at} of the call before.", "Return a copy."
    ),
    "rare": Code(
        "Perhaps wrong", "{subject} may be wrong by {number} in {n} states ({at}).",
        "Certify it at such `states`.", write=relative,
    ),
    "not_judged": Code(
        "Not judged", "{subject} could be judged in {number} of the states: elsewhere it is too "
        "rough or noisy.", write=relative,
    ),
    "few_finite": Code(
        "Too few states", "{subject} is finite at {n} points, too few ({at}).", _GUARD
    ),
    "imprecise": Code(
        "Imprecise differences", "Differences err by up to {number}, tolerated is {threshold}."
    ),
    "stairs": Code("Stairs", "{subject} moves in stairs: its derivative is 0.", _SMOOTH),
    "stairs_beside": Code(
        "Stairs", "{subject} moves in stairs: its derivative is {number} of the slope.", _SMOOTH,
        write=relative,
    ),
    "many_ran_off": Code(
        "Runaway rollouts", "{number} of {n} rollouts ran off, unexamined.",
        "Give a Task, or `states`.",
    ),
    "ran_off": Code("Left out", "{n} states of runaways are left out ({at}).", severity="note"),
    "left_out": Code(
        "Not finite", "{subject} is not finite at {n} points, left out ({at}).", _GUARD, "note"
    ),
    "coupled": Code(
        "Rows mix", "{subject} of a row moves with others by {number}, as within a solver's "
        "tolerance ({at}).", severity="note", write=relative,
    ),
    "rough": Code(
        "Kinks", "{subject} has kinks, jumps or coarse rounding at {n} states ({at}).",
        severity="note",
    ),
    "zero": Code("Zero", "{subject} is 0; {number} would be seen.", severity="note", write=_bound),
    "single_precision": Code(
        "Single precision", "{subject} in float32 is off by {number} (95th percentile): use "
        "float64.", severity="note", write=relative,
    ),
    "low_precision": Code(
        "Low precision", "{subject} computes in {at}, precise to {number}.", severity="note"
    ),
})  # fmt: skip
