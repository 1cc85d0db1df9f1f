"""A comparison of Jacobians: what to correct first, how far one may chain, and every number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import exp, hypot, inf, isfinite, log, nan
from typing import Any

import pandas as pd

from gradlab import figures
from gradlab.figures import style
from gradlab.figures.plots import Series, bars, lines, rows, scaled
from gradlab.figures.style import BLUE, INK, MUTED, SIZE, VERMILION, Look
from gradlab.findings import Decision, Finding, failed
from gradlab.findings.tools import phrase
from gradlab.reporting.long_page import Plot, drawn, each, long_page
from gradlab.reporting.output import Kind
from gradlab.reporting.page import NOWHERE, Page, PageSource, Panel, panel
from gradlab.runs.long_table import number_of
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.intervals import Z
from gradlab.tools.jacobians.result import MEANING, JacobianRun
from gradlab.verdicts.phrases import row
from gradlab.verdicts.recommendation import MOST, Field, Light, Recommendation
from gradlab.wording import listed, percent, rounded_up, signed, steps, two, with_ends

_NOTABLE = 1.1  # growth of an error from which it is worth the word
_FEW = 0.1  # of the starts, that carry 90% of the gradient
_NAMED = 3  # entries that are not told apart, the others being counted
_SHORT = 8  # steps of a path, in fewer of which turning modes pass for decay
_NO_BETTER = 0.9  # error of a product, of which zeros have 1
_DOUBLING = "predicted doubling of the variance"
_UNSURE = ("jacobians.policy", "jacobians.off", "jacobians.untested")


def verdict(run: JacobianRun) -> tuple[Finding, ...]:
    """The rows of a report: what is masked, what is wrong, how far one may chain."""
    return tuple(each for part in (_simulator, _model, _growth) for each in part(run))


def _simulator(run: JacobianRun) -> Iterator[Finding]:
    """Are the simulator's Jacobians those of its step, and which are left out?"""
    if "networks" in run.config:
        yield Finding("jacobians.policy", "skipped")
    known, notes = run.numbers("certificate", "95th percentile"), run.notes
    tested, subject = notes.get("tested"), str(run.config.get("certify", "gradlab certify"))
    if not known:
        yield Finding("jacobians.none", "fail", n=int(notes["samples"]))
    elif notes["derivatives"] != "exact":
        worst, block = max((found.value, block) for block, found in known.items())
        yield Finding("jacobians.certified", "pass", value=worst, at=MEANING[block])
    elif tested == "sound":
        yield Finding("jacobians.sound", "pass", n=notes["tested_states"])
    elif tested in ("open", "wrong"):
        yield Finding(
            "jacobians.wrong" if tested == "wrong" else "jacobians.off",
            "fail" if tested == "wrong" else "undecided", subject, value=notes["tested_off"],
            n=notes["tested_states"], at=notes["tested_at"],
        )  # fmt: skip
    else:
        yield Finding("jacobians.untested", "skipped", subject)
    share = run.number("certificate", "flagged share")
    if share is not None and share.value > 0:
        yield row("jacobians.flagged", "pass", share)
    for who in ("simulator", "model"):
        if lost := notes.get(f"{who}_not_finite", 0):
            yield Finding("jacobians.not finite", "fail", who, value=lost,
                          n=int(notes["samples"]), at=str(notes[f"{who}_first_loss"]))  # fmt: skip


def _model(run: JacobianRun) -> Iterator[Finding]:
    """The entry whose error moves the gradient most, and errors away from the data."""
    if (largest := _largest(run)) is not None:
        carry, effect, rivals = _carried(run), number_of(largest), _rivals(run, largest)
        yield from carry
        if not _unknown(effect, bool(carry)):
            shown = effect.low > 0 and not rivals and not carry
            found = row("jacobians.entry", _decided(shown), effect, _named(largest))
            yield replace(found, more=0 if shown else _further(run, rivals))
    ratios = []
    for block in ("A", "B"):
        rows = run.rows("distance", block=block).sort_values("x")
        if len(rows) > 1 and (rows["value"] > 0).all():
            near, far = rows.iloc[0], rows.iloc[-1]
            half = Z * hypot(near["se"] / near["value"], far["se"] / far["value"])
            ratios.append((log(far["value"] / near["value"]), half, MEANING[block]))
    if ratios:
        ratio, half, subject = max(ratios)
        decision = _decided(not ratio + half > log(2), ratio - half > log(_NOTABLE))
        ends = exp(ratio), exp(ratio - half), exp(ratio + half)
        yield Finding("jacobians.distance", decision, subject, *ends, unit="×")


def _unknown(effect: Number, few: bool) -> bool:
    """Is its interval no number? Not even a bound, where few starts carry it."""
    return effect.spans_decades or (few and effect.low <= 0)


def _carried(run: JacobianRun) -> list[Finding]:
    """Says that few starts carry the gradient."""
    carry = run.number("gradient", "starts that carry 90%")
    if carry is None or carry.value > _FEW * carry.n:
        return []
    return [Finding("jacobians.carried", "undecided", value=carry.value, n=carry.n)]


def _rivals(run: JacobianRun, largest: pd.Series) -> list[str]:
    """The entries whose effect is not told apart from the largest, by their intervals together."""
    share = run.rows("entry", quantity="share")
    near = share[(share["value"] != 0) & ~(share["ci_high"] < 1)].sort_values("value")
    return [name for _, row in near[::-1].iterrows() if (name := _named(row)) != _named(largest)]


def _further(run: JacobianRun, rivals: list[str]) -> int:
    """How many more starts would tell the largest from its rivals; 0 where nobody knows."""
    share = run.rows("entry", quantity="share").iterrows()
    # By the interval, which holds for all entries together and for the directions that were drawn.
    near = [replace(number_of(row), se=nan) for _, row in share if _named(row) in rivals]
    counts = [decide(each, 1.0).more for each in near]
    known = [each for each in counts if each is not None]
    return rounded_up(max(known)) if known and len(known) == len(counts) else 0


def _largest(run: JacobianRun) -> pd.Series | None:
    """The entry with the largest effect, if any may be above 0."""
    rows = run.rows("entry", quantity="effect")
    positive = rows[rows["ci_high"] > 0]
    return None if positive.empty else positive.sort_values(["value", "ci_high"]).iloc[-1]


def _named(row: pd.Series) -> str:
    """Output by input."""
    return f"{row['output']} by {row['input']}"


def _growth(run: JacobianRun) -> Iterator[Finding]:
    """Of the products, of the variance by these, and of the model's own error."""
    for loop in ("closed", "open"):
        rate = _lyapunov(run, loop)
        if rate is not None and isfinite(rate.value):
            decision = _decided(rate.low > 0 or rate.high < 0)
            yield replace(row("jacobians.growth", decision, rate), at=loop)
    for subject, rate in run.numbers("horizon", _DOUBLING).items():  # in so many steps
        code = "jacobians.doubles" if rate.value > 0 else "jacobians.halves"
        low, high = sorted(abs(each) for each in (rate.low, rate.high))
        known = isfinite(high) and isfinite(low)
        ends = (low, high) if known else (nan, nan)
        yield Finding(
            code, _decided(known), subject, abs(rate.value), *ends, unit=" steps", n=rate.n
        )
    k, law = run.number("horizon", "exponent of the model's error"), run.notes.get("condition_1")
    if k is not None:
        decision = _decided(law in ("linear", "slower"), law in ("faster", "exponential"))
        yield row("jacobians.condition", decision, k)


def _lyapunov(run: JacobianRun, loop: str) -> Number | None:
    """Growth of the product per step, closed or open loop."""
    return run.number("exponent", "λ", block=loop, output="1")


def _decided(good: bool, bad: bool = False) -> Decision:
    return "fail" if bad else "pass" if good else "undecided"


def advice(run: JacobianRun) -> Recommendation:
    """What to correct in a model, and how far it may be chained; without a model, what the
    simulator's chains do."""
    rest, alone = verdict(run), run.config.get("model") is None
    if run.number("certificate", "95th percentile", block="A") is None:
        none = Field("use", phrase("jacobians.uncertified"))
        return Recommendation("none", (none,), "entries-size", rest)
    if wrong := failed(rest, "jacobians.wrong"):
        fix = Field("fix first", phrase("jacobians.wrong", at=wrong[0].at))
        return Recommendation("none", (fix,), "entries-size", rest)
    use, light = _rollout(run) if alone else _reach(run)
    first, sure = ("", True) if alone else _correction(run)
    unsure = [each.said for each in rest if each.code in _UNSURE]
    if light == "act" and (unsure or not sure):
        light = "choose"
    said = {"use": use, "fix first": first, "but": " ".join(unsure)}
    fields = [*(Field(name, text) for name, text in said.items() if text), *_numbers(run, alone)]
    figure = "entries-effect"
    if alone:  # what the first field is about
        figure = "entries-size" if _lyapunov(run, "closed") is None else "growth"
    return Recommendation(light, tuple(fields[:MOST]), figure, rest)


def _numbers(run: JacobianRun, alone: bool) -> Iterator[Field]:
    """The largest error of a block, that of the whole chain, and the growth per step."""
    errors = run.numbers("block", "relative error")
    if known := [(errors[block], MEANING[block]) for block in MEANING if block in errors]:
        found, at = max(known, key=lambda each: each[0].value)
        how = phrase("jacobians.how error", n=found.n)
        ranged = Field.ranged("error", found.estimate, how, percent)
        # An interval over decades is no number.
        text = f"unknown ({found.n} steps)" if found.spans_decades else ranged.text
        yield replace(ranged, text=phrase("jacobians.error", subject=text, at=at))
    if products := run.numbers("product", "relative error", "step"):
        last = max(products)
        field = Field.ranged("chain", products[last].estimate, phrase("jacobians.how chain"))
        yield replace(field, text=phrase("jacobians.chain", subject=field.text, value=last))
    rate = _lyapunov(run, "closed")
    if rate is not None and isfinite(rate.value):
        field, shift = Field.ranged("growth", rate.estimate, ""), -log(run.config["discount"])
        code = "jacobians.discounted" if alone and shift > 0 else "jacobians.closed"
        yield replace(field, text=phrase(code, subject=field.text, threshold=shift))


def _correction(run: JacobianRun) -> tuple[str, bool]:
    """What to correct first, and whether that is sure."""
    if run.rows("entry", quantity="effect").empty:
        return phrase("jacobians.frozen"), False
    if (largest := _largest(run)) is None:
        return "", True
    subject, effect, rivals = _named(largest), number_of(largest), _rivals(run, largest)
    few, n = bool(_carried(run)), effect.n
    unknown = _unknown(effect, few)
    if effect.low <= 0 and not unknown:
        at = percent(effect.high)
        return phrase("jacobians.none shown", subject=subject, at=at), False
    if rivals:
        subject, more = listed([subject, *rivals], _NAMED), 0 if few else _further(run, rivals)
        code = "jacobians.more" if more else "jacobians.not apart"
        return phrase(code, subject=subject, n=n, value=more), False
    if unknown:
        return phrase("jacobians.unknown", subject=subject, n=n), False
    at = with_ends(*effect.estimate, percent)[1]
    return phrase("jacobians.one first", subject=subject, at=at), not few


def _reach(run: JacobianRun) -> tuple[str, Light]:
    """For how many steps the model's chain is better than zeros."""
    H, chain = int(run.config["horizon"]), run.number("horizon", "model's product informs")
    if chain is None:
        return "", "act"
    far = int(min(chain.value, H))
    if not far:
        return phrase("jacobians.no chain"), "none"
    products = run.numbers("product", "relative error", "step")
    if far == H and products[max(products)].low <= _NO_BETTER:
        return phrase("jacobians.chain holds", subject=steps(H)), "act"
    code = "jacobians.chain weak" if far == H else "jacobians.chain ends"
    return phrase(code, subject=steps(far)), "choose"


def _rollout(run: JacobianRun) -> tuple[str, Light]:
    """How long a rollout of the simulator may be."""
    rate, H = _lyapunov(run, "closed"), int(run.config["horizon"])
    if rate is None or not isfinite(rate.value):
        return phrase("jacobians.no product"), "none"
    later, doubling = (
        run.numbers("horizon", quantity)
        for quantity in ("growth on a path of twice the length", _DOUBLING)
    )
    typical, square = (doubling.get(block) for block in ("typical start", "mean square"))
    leading = "mean square" if _grows(square) else "typical start"
    light: Light = "choose"
    known: dict[str, float] = {"threshold": 2 * H}
    if _grows(doubling.get(leading)):
        known |= dict(zip(("value", "low", "high"), doubling[leading].estimate, strict=True))
        slows = leading in later and later[leading].value <= 0
        code = "slows" if slows else "grows" if _grows(typical) else "few grow"
    elif not _shrinks(typical):
        code = "undecided"
    elif not _shrinks(square):
        code = "few may grow"
    elif H < _SHORT:
        code = "decays so far"
    else:
        code, light = "decays", "act"
    # "a …, fitted here; give yours …"
    origin = str(run.config.get("networks", "this policy"))
    whose = origin.partition(";")[0].partition(", fitted")[0]
    return phrase(f"jacobians.{code}", subject=whose, unit=" steps", **known), light


def _grows(doubling: Number | None) -> bool:
    return doubling is not None and doubling.low > 0 and doubling.high < inf


def _shrinks(doubling: Number | None) -> bool:
    return doubling is not None and doubling.high < 0 and doubling.low > -inf


_ERROR = "Where the model's derivatives are wrong"
_SIMULATOR = "The simulator's derivatives"
_GROWTH = "How far they can be chained"
_TABLES = {
    "block": "Errors of blocks",
    "certificate": "Certificate",
    "horizon": "What follows",
    "exponent": "Lyapunov exponents",
    "distance": "Errors by distance",
}
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
_SIDE = 0.42  # inches per row of a large map
_SIGMAS = "σ of the output per σ of the input"
_MAPS = {  # quantity: its section, caption, title and unit
    "effect": (_ERROR, "Correct the full colours first.", "Effect of each error",
               "change of the policy gradient, relative to its norm"),
    "error": (_ERROR, "Errors of the model.", "Error of each derivative", _SIGMAS),
    "size": (_SIMULATOR, "Empty: no effect at all.", "Size of each derivative", _SIGMAS),
}  # fmt: skip
_TOP = 1e3  # relative errors beyond are drawn here
_RELATIVE: dict[str, Any] = {"level": 1, "log": True, "decades": 6, "percent": True}


def _grown(table: pd.DataFrame) -> Series:
    """Largest singular values in powers of ten, with their exponents."""
    shown = {}
    for loop, look in _LOOPS.items():
        rate = rows(table, "exponent", "λ", block=loop, output="1")["value"]
        known = f": λ = {signed(two(rate.iloc[0]))} per step" if len(rate) else ""
        grown = rows(table, "growth", "ln σ", block=loop, output="1")
        shown[replace(look, label=look.label + known)] = scaled(grown, 1 / log(10))
    return shown


def _beside_a_line(table: pd.DataFrame) -> Series:
    """Error of the model's own rollout beside a straight line (Condition 1 of MPG)."""
    own = rows(table, "model_error", "error").sort_values("step")
    first = own["step"] * (own["value"] / own["step"]).head(1).sum()
    return {_LINEAR: own.assign(value=first, ci_low=first, ci_high=first), _OWN: own}


PLOTS = (
    Plot("time", _ERROR, "At 100% a model knows nothing.", lines, "Error along the rollout",
         "relative error", each(_BLOCKS, "time", "relative error"),
         {"along": "step t", **_RELATIVE}),
    Plot("distance", _ERROR, "Rising: record more there.", lines, "Error away from the data",
         "relative error", each(_BLOCKS, "distance", "relative error"),
         {"x": "x", "along": "distance from the data [standard deviations]", **_RELATIVE}),
    Plot("flags", _SIMULATOR, "Starts left out.", lines, "Steps left out", "share of the starts",
         each(_FLAGS, "time"), {"along": "step t", "percent": True}),
    Plot("growth", _GROWTH, "Growth of a gradient.", lines, "Growth of the chained Jacobians",
         "log₁₀ of the singular value", _grown, {"along": "steps chained"}),
    Plot("exponents", _GROWTH, "The first decides.", bars, "Lyapunov exponents", "λ per step",
         each(_LOOPS, "exponent", "λ"), {"along": "direction, fastest first", "least": -1.0}),
    Plot("chain-error", _GROWTH, "Beyond 1 a zero is better.", lines,
         "Error of the chained Jacobians", "relative error",
         # From the first step on: before, both are the identity.
         lambda table: {_MEDIAN: rows(table, "product", "relative error").query("step > 0")},
         {"along": "steps chained", "limits": (-inf, _TOP), **_RELATIVE, "percent": False}),
    Plot("model-error", _GROWTH, "Condition 1 of MPG: a line.", lines,
         "Error of the model's own rollout", "distance [standard deviations]", _beside_a_line,
         {"along": "steps", "log": True, "decades": 6}),
)  # fmt: skip


def panels(run: JacobianRun) -> list[Panel]:
    """The figures of a comparison that have numbers."""
    table = run.table()
    height = max(SIZE[1], min(_SIDE * (len(run.state_names) + 3), 2 * SIZE[1]))
    maps = [
        panel(f"entries-{name}", section, caption, figures.matrix, found, height, title=title,
              unit=unit, decades=4, least=1e-3, apart=True)
        for name, (section, caption, title, unit) in _MAPS.items()
        if not (found := run.rows("entry", quantity=name)).empty
    ]  # fmt: skip
    return [*maps, *drawn(PLOTS, table)]


def page(run: JacobianRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a comparison shows; `name` is its title where no task is known."""
    facts = {"simulator": None, "starts": None, "model": run.config.get("model") or "none",
             "steps": run.config.get("horizon")}  # fmt: skip
    question = "How good are these Jacobians?"
    return long_page(run, question, advice(run), panels(run), _TABLES, facts, source, name)


KIND = Kind(page, advice)
