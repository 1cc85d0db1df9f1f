"""The first screen of a comparison of Jacobians: what to mend first, and how far one may chain."""

from __future__ import annotations

from math import isfinite

from gradlab.runs.jacobians import JacobianRun
from gradlab.statistics.number import Number as Estimated
from gradlab.verdicts.jacobians.sentences import (
    BLOCKS,
    MEANING,
    largest,
    lyapunov,
    named,
    number,
    verdict,
)
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.wording import percent, span, steps, two

FILE = "long table of the run"


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
    entry = largest(run, "effect")
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
        for block in BLOCKS
        if (found := number(run, "block", "relative error", block=block)) is not None
    }
    if not known:
        return None
    block = max(known, key=lambda each: known[each].value)
    found = known[block]
    how = f"|model − simulator| / |simulator|, Frobenius, over {found.n} steps ({FILE}: block)."
    lost = Estimated(found.value, found.low, found.high, found.n).spans_decades
    text = f"unknown ({found.n} steps)" if lost else percent(found.value)
    ends = "" if lost else f", {percent(found.low)}–{percent(found.high)}"
    return Fact(f"error of {MEANING[block]}, the largest of a block{ends}", text, how)


def _chain(run: JacobianRun) -> Fact | None:
    rows = run.rows("product")
    if rows.empty or run.config.get("model") is None:
        return None
    last = rows.sort_values("step").iloc[-1]
    how = f"Median over starts of |P̂ − P| / |P|, P the product of closed-loop Jacobians ({FILE})."
    return Fact(
        f"error of the chain after {steps(int(last['step']))} (1: worth nothing), "
        f"{span(float(last['ci_low']), float(last['ci_high']))}",
        two(float(last["value"])), how,
    )  # fmt: skip


def _rate(run: JacobianRun) -> Fact | None:
    exponent = lyapunov(run, "closed")
    if exponent is None or not isfinite(exponent.value):
        return None
    how = f"Largest Lyapunov exponent of the closed loop, second half of the rollout ({FILE})."
    ends = span(exponent.low, exponent.high)
    return Fact(f"growth λ per step in closed loop, {ends}", two(exponent.value), how)
