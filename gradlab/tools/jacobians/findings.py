"""The first screen of a comparison of Jacobians: what to mend first, and how far one may chain.

What a comparison of Jacobians means, in plain sentences, each with its interval and N.
"""

from __future__ import annotations

from math import exp, hypot, isfinite, log

import numpy as np
import pandas as pd

from gradlab.statistics.intervals import Z
from gradlab.statistics.number import Number
from gradlab.tools.jacobians.result import JacobianRun
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence, finding
from gradlab.wording import percent, span, steps, two

_BLOCKS = ("A", "B", "r_s", "r_a")
_MEANING = {"A": "∂s'/∂s", "B": "∂s'/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a"}
_CONCENTRATED = 0.9  # of the squared error in 5% of the samples
_NOTABLE = 1.1  # growth of an error from which it is worth the word
_SLOW = 1000  # steps per factor of ten from which growth is not worth the word


def verdict(run: JacobianRun) -> tuple[Sentence, ...]:
    """The findings of a report: what is masked, what is wrong, how far one may chain."""
    parts = (
        _certificate, _blocks, _entry, _distance, _product, _growth, _variance, _condition,
    )  # fmt: skip
    return tuple(each for part in parts if (each := part(run)) is not None)


def _certificate(run: JacobianRun) -> Sentence:
    counts = {who: run.notes.get(f"{who}_not_finite", 0) for who in ("simulator", "model")}
    lost = [
        f"{who}: not finite on {count} (first: {run.notes.get(f'{who}_first_loss')})"
        for who, count in counts.items()
        if count
    ]
    what = "Simulator's Jacobians"
    samples = f"{run.notes.get('samples')} steps from {run.config.get('starts')} starts"
    known = [
        (found.value, block)
        for block in _BLOCKS
        if (found := number(run, "certificate", "95th percentile", block=block)) is not None
    ]
    if not known:
        return finding("certificate", False, what, "none can be used", samples, *lost)
    worst, block = max(known)
    quality = f"certified to {worst:.1g} ({block}, 95th percentile)"
    if run.notes.get("derivatives") == "exact":
        quality = "exact derivatives"
    share = number(run, "certificate", "flagged share")
    failed = "none failed"
    if share is not None and share.value > 0:
        failed = f"{_percent(share)} failed and are left out"
    return finding("certificate", not lost, what, quality, failed, *lost, samples)


def _blocks(run: JacobianRun) -> Sentence | None:
    errors = {block: number(run, "block", "relative error", block=block) for block in _BLOCKS}
    measured = {block: each for block, each in errors.items() if each is not None}
    if not measured:
        return None
    clipped = [
        f"{100 * share.value:.0f}% of the square of {_MEANING[block]} is of the worst 5% of samples"
        for block in measured
        if (share := number(run, "block", _WORST, block=block)) is not None
        and share.value > _CONCENTRATED
    ]
    parts = [f"{_MEANING[block]} {_percent(each)}" for block, each in measured.items()]
    n = next(iter(measured.values())).n
    what = "Model against simulator, relative Frobenius error"
    return finding("blocks", True, what, *parts, *clipped, n=n)


_WORST = "share of the squared error in the worst 5%"


def _entry(run: JacobianRun) -> Sentence | None:
    """The entry whose error moves the gradient most, and the one of largest error."""
    effect, error = (_largest(run, quantity) for quantity in ("effect", "error"))
    if effect is None or error is None:
        return None
    share, low, high = (100 * effect[name] for name in ("value", "ci_low", "ci_high"))
    return finding(
        "entry", True, f"Most effect on the gradient, the error of {named(effect)}",
        f"{share:.3g}% of its norm (CI {_span(low, high)})",
        f"largest standardised error, {named(error)}: {error['value']:.2g} "
        f"(CI {_span(error['ci_low'], error['ci_high'])})",
    )  # fmt: skip


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
    grows, open_ = ratio - half > log(_NOTABLE), ratio + half > log(2)
    word = "grows" if grows else "undecided," if open_ else "hardly depends on it,"
    return finding(
        "distance", grows or not open_,
        f"Error of {name} by distance from the data, {near_x:.2g} to {far_x:.2g} deviations",
        f"{word} {exp(ratio):.2g}× (CI {_span(exp(ratio - half), exp(ratio + half))})",
    )  # fmt: skip


def _product(run: JacobianRun) -> Sentence | None:
    informs = number(run, "horizon", "model's product informs")
    if informs is None or run.notes.get("compared") == 0:
        return None
    H, what = int(run.config["horizon"]), "Model's chained Jacobians, relative error (zero has 1)"
    if informs.value >= H:
        last = run.rows("product").sort_values("step").iloc[-1]
        value = f"{_three(last['value'])} (CI {_span(last['ci_low'], last['ci_high'])})"
        decided = bool(last["ci_high"] <= 1)
        return finding("product", decided, what, f"{value} after {H} steps", n=informs.n)
    ends = f"CI {informs.low:.0f}–{informs.high:.0f}" + ("+" if informs.high >= H else "")
    return finding(
        "product", True, what, f"below 1 up to {informs.value:.0f} steps ({ends})", n=informs.n
    )


def _growth(run: JacobianRun) -> Sentence:
    closed, open_ = lyapunov(run, "closed"), lyapunov(run, "open")
    loops = ("closed",) if closed == open_ else ("closed", "open")
    decided = closed is not None and (closed.low > 0 or closed.high < 0)
    what = f"Growth of chained Jacobians, second half of {run.config['horizon']} steps"
    parts = [_one_growth(run, loop) for loop in loops]
    return finding("growth", decided, what, *parts, n=None if closed is None else closed.n)


def _one_growth(run: JacobianRun, loop: str) -> str:
    rate = lyapunov(run, loop)
    if rate is None or not isfinite(rate.value):
        return f"{loop} loop singular or lost"
    text = f"{loop} loop λ = {rate.value:.3g} per step (CI {_span(rate.low, rate.high)})"
    decade = number(run, "horizon", "steps per factor of ten", block=loop)
    if rate.low <= 0 <= rate.high or decade is None or abs(decade.value) > _SLOW:
        return text
    sign = "times" if rate.value > 0 else "divided by"
    leaves = number(run, "horizon", "product leaves float32", block=loop)
    end = f", beyond float32 at step {leaves.value:.0f}" if leaves and rate.value > 0 else ""
    return f"{text}, {sign} 10 in {abs(decade.value):.3g} steps{end}"


def _variance(run: JacobianRun) -> Sentence | None:
    """Doubling times by the products alone, and those of a measurement that was given."""
    called = {"typical start": "by the typical start", "mean square": "by the mean square"}
    predicted = {
        words: number(run, "horizon", "predicted doubling of the variance", block=block)
        for block, words in called.items()
    }
    known = [f"{words} {_pace(each)}" for words, each in predicted.items() if each is not None]
    if len(known) < len(predicted):
        return None
    measured = [
        f"{row['block']} measured {_pace(Number(row['value'], row['ci_low'], row['ci_high'], 0))}"
        for _, row in run.rows("horizon", quantity="measured doubling of the variance").iterrows()
    ]
    hint = ["measured: give a measurement of the policy"]
    what = "Variance of the discounted gradient"
    return finding("variance", True, what, *known, *(measured or hint))


def _pace(rate: Number) -> str:
    """doubles in 12 steps (CI 10–14)"""
    text = f"{'doubles' if rate.value > 0 else 'halves'} in {abs(rate.value):.3g} steps"
    if not isfinite(rate.low) or not isfinite(rate.high):
        return f"{text} or not at all"
    ends = sorted(abs(each) for each in (rate.low, rate.high))
    return f"{text} (CI {_span(ends[0], ends[1])})"


def _condition(run: JacobianRun) -> Sentence | None:
    k = number(run, "horizon", "exponent of the model's error")
    if k is None:
        return None
    laws = {
        "linear": "holds", "slower": "its bound holds, slower than linear", "faster": "rejected",
        "exponential": "rejected, exponential",
    }  # fmt: skip
    law = str(run.notes.get("condition_1"))
    rate = number(run, "horizon", "rate of the model's error") if law == "exponential" else None
    return finding(
        "condition", law in laws, "Condition 1 of MPG, the model's error grows linearly",
        laws.get(law, "undecided"), f"exponent {k.value:.2g} (CI {_span(k.low, k.high)})",
        "" if rate is None else f"{_percent(rate)} per step", n=k.n,
    )  # fmt: skip


def lyapunov(run: JacobianRun, loop: str) -> Number | None:
    """Growth of the product per step, closed or open loop."""
    return number(run, "exponent", "λ", block=loop, output="1")


def number(run: JacobianRun, section: str, quantity: str, **where: str) -> Number | None:
    """The first row that fits; None without one, or where it is lost."""
    for row in run.rows(section, quantity=quantity, **where).itertuples():
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
    facts: list[Fact] = []
    known = {
        block: found
        for block in _BLOCKS
        if (found := number(run, "block", "relative error", block=block)) is not None
    }
    if known:
        block, found = max(known.items(), key=lambda each: each[1].value)
        how = (
            f"|model − simulator| / |simulator|, Frobenius, over {found.n} steps ({_FILE}: block)."
        )
        lost = found.spans_decades  # an interval over decades is no number
        text = f"unknown ({found.n} steps)" if lost else percent(found.value)
        ends = "" if lost else f", {percent(found.low)}–{percent(found.high)}"
        label = f"error of {_MEANING[block]}, the largest of a block{ends}"
        facts.append(Fact(label, text, how))
    rows = run.rows("product")
    if not rows.empty and run.config.get("model") is not None:
        last = rows.sort_values("step").iloc[-1]
        ends = span(float(last["ci_low"]), float(last["ci_high"]))
        label = f"error of the chain after {steps(int(last['step']))} (1: worth nothing), {ends}"
        how = "Median over starts of |P̂ − P| / |P|, P the product of closed-loop Jacobians"
        facts.append(Fact(label, two(float(last["value"])), f"{how} ({_FILE})."))
    exponent = lyapunov(run, "closed")
    if exponent is not None and isfinite(exponent.value):
        label = f"growth λ per step in closed loop, {span(exponent.low, exponent.high)}"
        how = f"Largest Lyapunov exponent of the closed loop, second half of the rollout ({_FILE})."
        facts.append(Fact(label, two(exponent.value), how))
    if run.config.get("model") is None:
        return Screen(*_simulator(run), tuple(facts), "entries-size", rest)
    return Screen(*_model(run), tuple(facts), "entries-effect", rest)


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
