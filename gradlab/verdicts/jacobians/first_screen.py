"""The first screen of a comparison of Jacobians: what to mend first, and how far one may chain.

What a comparison of Jacobians means, in plain sentences, each with its interval and N.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, hypot, isfinite, log

import numpy as np
import pandas as pd

from gradlab.runs.jacobians import JacobianRun
from gradlab.statistics.intervals import Z
from gradlab.statistics.number import Number
from gradlab.statistics.number import Number as Estimated
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.wording import percent, span, steps, two

_BLOCKS = ("A", "B", "r_s", "r_a")
_MEANING = {"A": "∂s'/∂s", "B": "∂s'/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a"}
_CONCENTRATED = 0.9  # of the squared error in 5% of the samples
_NOTABLE = 1.1  # growth of an error from which it is worth the word
_SLOW = 1000  # steps per factor of ten from which growth is not worth the word


def verdict(run: JacobianRun) -> tuple[Sentence, ...]:
    """The sentences that head a report."""
    sentences = (
        _certificate(run),
        _blocks(run),
        _entry(run),
        _distance(run),
        _product(run),
        _growth(run),
        _doubling(run),
        _condition(run),
    )
    return tuple(sentence for sentence in sentences if sentence is not None)


def _certificate(run: JacobianRun) -> Sentence:
    notes = run.notes
    exact = notes.get("derivatives") == "exact"
    share = number(run, "certificate", "flagged share")
    known = [
        (found.value, block)
        for block in _BLOCKS
        if (found := number(run, "certificate", "95th percentile", block=block)) is not None
    ]
    if not known:
        samples = f"{notes.get('samples')} steps from {run.config.get('starts')} starts"
        text = f"None of the simulator's Jacobians can be used, of {samples}{_losses(run)}."
        return Sentence("certificate", False, text)
    worst, block = max(known)
    quality = (
        "exact derivatives"
        if exact
        else f"certified to {worst:.1g} ({block}, 95th percentile of the samples)"
    )
    masked = "none failed its certificate"
    if share is not None and share.value > 0:
        masked = (
            f"{_percent(share)} failed their certificate (contacts or limits switch inside the "
            f"differences) and are left out"
        )
    lost = _losses(run)
    samples = f"{notes.get('samples')} steps from {run.config.get('starts')} starts"
    text = f"The simulator's Jacobians are {quality}; of {samples} {masked}{lost}."
    return Sentence("certificate", not lost, text)


def _losses(run: JacobianRun) -> str:
    text = ""
    for who in ("simulator", "model"):
        count = run.notes.get(f"{who}_not_finite", 0)
        if count:
            first = run.notes.get(f"{who}_first_loss")
            text += f"; the {who}'s are not finite on {count} (first: {first})"
    return text


def _blocks(run: JacobianRun) -> Sentence | None:
    errors = {block: number(run, "block", "relative error", block=block) for block in _BLOCKS}
    measured = {block: each for block, each in errors.items() if each is not None}
    if not measured:
        return None
    parts = [f"{_MEANING[block]} {_percent(each)}" for block, each in measured.items()]
    n = next(iter(measured.values())).n
    clipped = [
        f"{_MEANING[block]} ({100 * share.value:.0f}%)"
        for block in measured
        if (share := number(run, "block", _WORST, block=block)) is not None
        and share.value > _CONCENTRATED
    ]
    warning = ""
    if clipped:
        names = " and ".join(clipped)
        warning = f" A twentieth of the samples makes almost all of the squared error of {names}:"
        warning += " clips or contacts, rather than the model at large."
    text = (
        f"At the simulator's states the model's derivatives are off by (relative Frobenius error, "
        f"N = {n}): {', '.join(parts)}.{warning}"
    )
    return Sentence("blocks", True, text)


_WORST = "share of the squared error in the worst 5%"


def _entry(run: JacobianRun) -> Sentence | None:
    """The entry whose error moves the gradient most, and the largest error where it is another."""
    effects, errors = (_largest(run, quantity) for quantity in ("effect", "error"))
    if effects is None or errors is None:
        return None
    text = (
        f"What moves the gradient most is the error of {named(effects)}: by "
        f"{100 * effects['value']:.3g}% of its norm "
        f"(CI {_span(100 * effects['ci_low'], 100 * effects['ci_high'])}, first action, "
        f"{run.config['horizon']} steps, no critic)."
    )
    where = "it is also" if named(effects) == named(errors) else f"that of {named(errors)} is"
    text += (
        f" Standardised by what the path varies, {where} the largest error: "
        f"{errors['value']:.2g} (CI {_span(errors['ci_low'], errors['ci_high'])})."
    )
    return Sentence("entry", True, text)


def _largest(run: JacobianRun, quantity: str) -> pd.Series | None:
    """The entry with the largest value, if any is above 0."""
    rows = run.rows("entry", quantity=quantity)
    positive = rows[rows["value"] > 0]
    return None if positive.empty else positive.sort_values("value").iloc[-1]


def named(row: pd.Series) -> str:
    """Output by input."""
    return f"{row['output']} by {row['input']}"


def _distance(run: JacobianRun) -> Sentence | None:
    found = []
    for block in ("A", "B"):
        rows = run.rows("distance", block=block).sort_values("x")
        if len(rows) < 2 or not (rows["value"] > 0).all():
            continue
        near, far = rows.iloc[0], rows.iloc[-1]
        ratio = log(far["value"] / near["value"])
        half = Z * hypot(near["se"] / near["value"], far["se"] / far["value"])
        found.append((ratio, half, _MEANING[block], near["x"], far["x"]))
    if not found:
        return None
    ratio, half, name, near_x, far_x = max(found)
    where = f"from {near_x:.2g} to {far_x:.2g} standard deviations away from the data"
    numbers = f"{exp(ratio):.2g}× (CI {_span(exp(ratio - half), exp(ratio + half))})"
    if ratio - half > log(_NOTABLE):
        return Sentence("distance", True, f"The error of {name} grows {numbers} {where}.")
    text = f"The model's error hardly depends on the distance: {name} {numbers} {where}."
    if ratio + half > log(2):
        text = f"Undecided whether the model's error grows with distance: {name} {numbers} {where}."
    return Sentence("distance", ratio + half <= log(2), text)


def _product(run: JacobianRun) -> Sentence | None:
    informs = number(run, "horizon", "model's product informs")
    if informs is None or run.notes.get("compared") == 0:
        return None
    H, n = int(run.config["horizon"]), f"N = {informs.n}"
    if informs.value >= H:
        last = run.rows("product").sort_values("step").iloc[-1]
        text = (
            f"The model's chained Jacobians still inform after {H} steps: relative error "
            f"{_three(last['value'])} (median over starts, "
            f"CI {_span(last['ci_low'], last['ci_high'])}, {n}; above 1, zero is the better guess)."
        )
        return Sentence("product", bool(last["ci_high"] <= 1), text)
    span = f"CI {informs.low:.0f}–{informs.high:.0f}" + ("+" if informs.high >= H else "")
    text = (
        f"The model's chained Jacobians inform up to {informs.value:.0f} steps ({span}, {n}); "
        f"beyond, their relative error exceeds 1 and zero is the better guess."
    )
    return Sentence("product", True, text)


def _growth(run: JacobianRun) -> Sentence:
    closed, open_ = lyapunov(run, "closed"), lyapunov(run, "open")
    loops = ("closed",) if closed == open_ else ("closed", "open")
    parts = [_one_growth(run, loop) for loop in loops]
    n = "" if closed is None else f" (N = {closed.n}, second half of {run.config['horizon']} steps)"
    decided = closed is not None and (closed.low > 0 or closed.high < 0)
    return Sentence("growth", decided, f"{'; '.join(parts)}{n}.")


def _one_growth(run: JacobianRun, loop: str) -> str:
    rate, what = lyapunov(run, loop), "in open loop it"
    if loop == "closed":
        what = "In closed loop the product of Jacobians"
    if rate is None or not isfinite(rate.value):
        return f"{what} is singular or lost"
    exponent = f"λ = {rate.value:.3g} per step, CI {_span(rate.low, rate.high)}"
    decade = number(run, "horizon", "steps per factor of ten", block=loop)
    if rate.low <= 0 <= rate.high:
        return f"{what} shows neither growth nor decay ({exponent})"
    if decade is None or abs(decade.value) > _SLOW:
        return f"{what} hardly changes ({exponent})"
    steps = f"10 every {abs(decade.value):.3g} steps ({exponent})"
    if rate.value < 0:
        return f"{what} is divided by {steps}"
    leaves = number(run, "horizon", "product leaves float32", block=loop)
    end = "" if leaves is None else f" and leaves float32 at about step {leaves.value:.0f}"
    return f"{what} is multiplied by {steps}{end}"


def _doubling(run: JacobianRun) -> Sentence | None:
    predicted = [
        number(run, "horizon", "predicted doubling of the variance", block=block)
        for block in ("typical start", "mean square")
    ]
    measured = run.rows("horizon", quantity="measured doubling of the variance")
    if predicted[0] is None or predicted[1] is None:
        return None
    typical, square = predicted[0], predicted[1]
    expected = [_pace(each, ("double", "halve")) for each in (typical, square)]
    what = f"{expected[0]} by the typical start and {expected[1]} by the mean square"
    if typical.value * square.value > 0 and abs(log(typical.value / square.value)) < log(_NOTABLE):
        what = expected[1]
    text = f"From the products alone the variance of the discounted gradient should {what}"
    told = []
    for _, row in measured.iterrows():
        found = Number(row["value"], row["ci_low"], row["ci_high"], row["n"])
        told.append(f"{row['block']} {_pace(found, ('doubles', 'halves'))}")
    hint = "give a measurement of the same policy to compare"
    return Sentence(
        "variance", True, f"{text}; {'measured: ' + '; '.join(told) if told else hint}."
    )


def _pace(rate: Number, verbs: tuple[str, str]) -> str:
    verb = verbs[0] if rate.value > 0 else verbs[1]
    if not isfinite(rate.low) or not isfinite(rate.high):
        return f"{verb} every {abs(rate.value):.3g} steps or not at all"
    ends = sorted(abs(each) for each in (rate.low, rate.high))
    return f"{verb} every {abs(rate.value):.3g} steps (CI {_span(ends[0], ends[1])})"


def _condition(run: JacobianRun) -> Sentence | None:
    k = number(run, "horizon", "exponent of the model's error")
    if k is None:
        return None
    law = run.notes.get("condition_1")
    rate = number(run, "horizon", "rate of the model's error")
    exponent = f"exponent {k.value:.2g}, CI {_span(k.low, k.high)}, N = {k.n}"
    laws = {
        "linear": f"Condition 1 of MPG holds: the model's error grows linearly ({exponent}).",
        "slower": f"The bound of Condition 1 of MPG holds: the model's error grows more slowly "
        f"than linearly ({exponent}).",
        "faster": f"Condition 1 of MPG is rejected: the model's error outgrows a line ({exponent})",
        "exponential": "Condition 1 of MPG is rejected: the model's error grows exponentially, "
        + ("" if rate is None else f"by {_percent(rate)} per step."),
    }
    text = laws.get(str(law), f"Undecided whether the model's error grows linearly ({exponent}).")
    return Sentence("condition", law in laws, text if text.endswith(".") else text + ".")


def lyapunov(run: JacobianRun, loop: str) -> Number | None:
    """Growth of the product per step, closed or open loop."""
    return number(run, "exponent", "λ", block=loop, output="1")


def number(run: JacobianRun, section: str, quantity: str, **where: str) -> Number | None:
    """The first row that fits; None without one, or where it is lost."""
    return _first(run.rows(section, quantity=quantity, **where).itertuples())


def _first(rows: Iterable[object]) -> Number | None:
    for row in rows:
        value, low, high, n = (getattr(row, name) for name in ("value", "ci_low", "ci_high", "n"))
        return None if np.isnan(value) else Number(float(value), float(low), float(high), int(n))
    return None


def _percent(share: Number) -> str:
    low, high = 100 * share.low, 100 * share.high
    return f"{_three(100 * share.value)}% (CI {_span(low, high)})"


def _span(low: float, high: float) -> str:
    joint = " to " if low < 0 or high < 0 else "–"
    return f"{_three(low)}{joint}{_three(high)}"


def _three(value: float) -> str:
    """Three digits, and no exponent where a reader would rather have none."""
    return f"{value:.0f}" if 1000 > abs(value) >= 100 else f"{value:.3g}"


_FILE = "long table of the run"


def screen(run: JacobianRun) -> Screen:
    """The finding of a model's errors; without a model, what the simulator's chains do."""
    rest = verdict(run)
    if number(run, "certificate", "95th percentile", block="A") is None:
        text = "Do not use this simulator's Jacobians: none passed its certificate."
        return Screen(text, "none", "no usable sample", (), "entries-size", rest)
    facts = tuple(each for each in (_block(run), _chain(run), _rate(run)) if each is not None)
    if run.config.get("model") is None:
        return Screen(*_simulator(run), facts, "entries-size", rest)
    return Screen(*_model(run), facts, "entries-effect", rest)


def _model(run: JacobianRun) -> tuple[str, Light, str]:
    """What to mend first, and how far the model's chain informs."""
    entry = _largest(run, "effect")
    H, chain = int(run.config["horizon"]), number(run, "horizon", "model's product informs")
    reach = ""
    if chain is not None:
        far = int(min(chain.value, H))
        reach = f" Chained, its Jacobians inform for {'all ' * (far == H)}{steps(far)}."
    if entry is None:
        text = f"Nothing to mend: no error of this model moves the gradient.{reach}"
        return text, "act", "every effect is 0"
    name, low = named(entry), float(entry["ci_low"])
    if not isfinite(low) or low <= 0:
        text = f"No error is shown to move the gradient; {name} is the first suspect.{reach}"
        return text, "choose", f"not shown (at most {percent(float(entry['ci_high']))})"
    ends = f"{percent(low)}–{percent(float(entry['ci_high']))} of its norm"
    text = f"Mend the derivative of {name} first: no other error moves the gradient as much.{reach}"
    return text, "act", f"shown (by {ends})"


def _simulator(run: JacobianRun) -> tuple[str, Light, str]:
    rate = lyapunov(run, "closed")
    if rate is None or not isfinite(rate.value):
        return "These products of Jacobians are singular or lost.", "none", "no growth rate"
    decade = number(run, "horizon", "steps per factor of ten", block="closed")
    if rate.low > 0 and decade is not None:
        text = f"Keep horizons well below {abs(decade.value):.0f} steps: gradients grow tenfold in"
        return f"{text} so many in closed loop.", "act", f"shown (λ {span(rate.low, rate.high)})"
    if rate.high < 0:
        text = "Chain as far as you like: this policy's closed loop damps gradients."
        return text, "act", f"shown (λ {span(rate.low, rate.high)})"
    text = "Neither growth nor decay of gradients is shown over this horizon."
    return text, "choose", f"not shown (λ {span(rate.low, rate.high)})"


def _block(run: JacobianRun) -> Fact | None:
    """The block that is most wrong; an interval over decades is no number."""
    known = {
        block: found
        for block in _BLOCKS
        if (found := number(run, "block", "relative error", block=block)) is not None
    }
    if not known:
        return None
    block = max(known, key=lambda each: known[each].value)
    found = known[block]
    how = f"|model − simulator| / |simulator|, Frobenius, over {found.n} steps ({_FILE}: block)."
    lost = Estimated(found.value, found.low, found.high, found.n).spans_decades
    text = f"unknown ({found.n} steps)" if lost else percent(found.value)
    ends = "" if lost else f", {percent(found.low)}–{percent(found.high)}"
    return Fact(f"error of {_MEANING[block]}, the largest of a block{ends}", text, how)


def _chain(run: JacobianRun) -> Fact | None:
    rows = run.rows("product")
    if rows.empty or run.config.get("model") is None:
        return None
    last = rows.sort_values("step").iloc[-1]
    how = f"Median over starts of |P̂ − P| / |P|, P the product of closed-loop Jacobians ({_FILE})."
    return Fact(
        f"error of the chain after {steps(int(last['step']))} (1: worth nothing), "
        f"{span(float(last['ci_low']), float(last['ci_high']))}",
        two(float(last["value"])), how,
    )  # fmt: skip


def _rate(run: JacobianRun) -> Fact | None:
    exponent = lyapunov(run, "closed")
    if exponent is None or not isfinite(exponent.value):
        return None
    how = f"Largest Lyapunov exponent of the closed loop, second half of the rollout ({_FILE})."
    ends = span(exponent.low, exponent.high)
    return Fact(f"growth λ per step in closed loop, {ends}", two(exponent.value), how)
