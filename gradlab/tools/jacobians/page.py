"""A comparison of Jacobians: what to correct first, how far one may chain, and every number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import exp, hypot, inf, isfinite, log, nan

import pandas as pd

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.findings import Decision, Finding, failed
from gradlab.findings.tools import phrase
from gradlab.reporting.output import Kind
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    facts_of,
    folded,
    method_of,
    panel,
)
from gradlab.reporting.shell import tables
from gradlab.runs.long_table import number_of
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.intervals import Z
from gradlab.tools.jacobians.result import MEANING, JacobianRun
from gradlab.verdicts.recommendation import MOST, Field, Light, Recommendation
from gradlab.wording import listed, percent, rounded_up, steps, with_ends

_CONCENTRATED = 0.9  # of the squared error in 5% of the samples
_NOTABLE = 1.1  # growth of an error from which it is worth the word
_FEW = 0.1  # of the starts, that carry 90% of the gradient
_NAMED = 3  # entries that are not told apart, the others being counted
_SHORT = 8  # steps of a path, in fewer of which turning modes pass for decay
_NO_BETTER = 0.9  # error of a product, of which zeros have 1
_WORST = "share of the squared error in the worst 5%"
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
        yield _finding("jacobians.flagged", "pass", share)
    for who in ("simulator", "model"):
        if lost := notes.get(f"{who}_not_finite", 0):
            yield Finding("jacobians.not finite", "fail", who, value=lost,
                          n=int(notes["samples"]), at=str(notes[f"{who}_first_loss"]))  # fmt: skip


def _model(run: JacobianRun) -> Iterator[Finding]:
    """The entry whose error moves the gradient most, and errors away from the data."""
    if (row := _largest(run)) is not None:
        carry, effect, rivals = _carried(run), number_of(row), _rivals(run, row)
        yield from carry
        if not _unknown(effect, bool(carry)):
            shown = effect.low > 0 and not rivals and not carry
            found = _finding("jacobians.entry", _decided(shown), effect, _named(row))
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
    """Of the products and of the variance, by the products alone and as it was measured; and of the
    model's own error."""
    for loop in ("closed", "open"):
        rate = _lyapunov(run, loop)
        if rate is not None and isfinite(rate.value):
            decision = _decided(rate.low > 0 or rate.high < 0)
            yield replace(_finding("jacobians.growth", decision, rate), at=loop)
    end = run.number("horizon", "product leaves float32", block="closed")
    if end is not None and end.value <= int(run.config["horizon"]):
        yield _finding("jacobians.float32", "fail", end)
    measured = run.numbers("horizon", "measured doubling of the variance")
    every = run.numbers("horizon", _DOUBLING) | {f"{x}, measured": y for x, y in measured.items()}
    for subject, rate in every.items():  # in so many steps; its ends, where both are known
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
        yield _finding("jacobians.condition", decision, k)


def _lyapunov(run: JacobianRun, loop: str) -> Number | None:
    """Growth of the product per step, closed or open loop."""
    return run.number("exponent", "λ", block=loop, output="1")


def _decided(good: bool, bad: bool = False) -> Decision:
    return "fail" if bad else "pass" if good else "undecided"


def _finding(code: str, decision: Decision, found: Number, subject: str = "") -> Finding:
    return Finding(code, decision, subject, *found.estimate, n=found.n)


_Said = tuple[str, str, str, Light]  # use, fix first, evidence


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
    use, fix_first, evidence, light = _rollout(run) if alone else _correction(run)
    unsure = [each for each in rest if each.code in _UNSURE]
    if light != "none" and unsure:
        light, evidence = "choose", ". ".join((evidence, *(each.said for each in unsure)))
    exponent = _lyapunov(run, "closed")
    figure = "entries-effect"
    if alone:  # what the first field is about
        figure = "entries-size" if exponent is None else "growth"
    said = (Field("use", use), Field("fix first", fix_first), Field("evidence", evidence))
    facts = (*_error(run), *_chain(run), *_exponent(run, exponent))
    fields = tuple(each for each in (*said, *facts) if each.text)[:MOST]
    return Recommendation(light, fields, figure, rest)


def _error(run: JacobianRun) -> Iterator[Field]:
    """The largest of a block; its median, where few samples make its mean square."""
    errors = run.numbers("block", "relative error")
    known = {block: errors[block] for block in MEANING if block in errors}
    if not known:
        return
    block, found = max(known.items(), key=lambda each: each[1].value)
    share, typical = (
        run.number("block", name, block=block) for name in (_WORST, "median relative error")
    )
    code, shown = "jacobians.error", found
    if share and typical and share.value > _CONCENTRATED and isfinite(typical.high):
        code, shown = "jacobians.median error", typical
    how = phrase("jacobians.how error", n=found.n)
    ranged = Field.ranged("error", shown.estimate, how, percent)
    # An interval over decades is no number.
    text = f"unknown ({shown.n} steps)" if shown.spans_decades else ranged.text
    said = phrase(code, subject=text, at=MEANING[block], value=found.value)
    yield replace(ranged, text=said)


def _chain(run: JacobianRun) -> Iterator[Field]:
    if products := run.numbers("product", "relative error", "step"):
        last = max(products)
        field = Field.ranged("chain", products[last].estimate, phrase("jacobians.how chain"))
        yield replace(field, text=phrase("jacobians.chain", subject=field.text, value=last))


def _exponent(run: JacobianRun, rate: Number | None) -> Iterator[Field]:
    if rate is not None and isfinite(rate.value):
        field, shift = Field.ranged("growth", rate.estimate, ""), -log(run.config["discount"])
        counts = shift > 0 and run.config.get("model") is None
        code = "jacobians.discounted" if counts else "jacobians.closed"
        yield replace(field, text=phrase(code, subject=field.text, threshold=shift))


def _correction(run: JacobianRun) -> _Said:
    """What to correct first, and how far the model's chain is better than zeros."""
    use, light = _reach(run)
    if run.rows("entry", quantity="effect").empty:
        light = "none" if light == "none" else "choose"
        return use, phrase("jacobians.frozen"), phrase("jacobians.unmeasured"), light
    row = _largest(run)
    if row is None:
        return use, "", phrase("jacobians.no effect"), light
    subject, effect, rivals = _named(row), number_of(row), _rivals(run, row)
    few, n = bool(_carried(run)), effect.n
    unknown = _unknown(effect, few)
    if light == "act" and (few or unknown or rivals or effect.low <= 0):
        light = "choose"
    if effect.low <= 0 and not unknown:
        bound = phrase("jacobians.at most", subject=percent(effect.high))
        return use, phrase("jacobians.none shown", subject=subject), bound, light
    if rivals:
        subject, more = listed([subject, *rivals], _NAMED), 0 if few else _further(run, rivals)
        evidence = phrase(f"jacobians.{'more' if more else 'not apart'}", n=n, value=more)
        return use, phrase("jacobians.rivals", subject=subject), evidence, light
    fix = phrase("jacobians.one first", subject=subject)
    if unknown:
        return use, fix, phrase("jacobians.unknown", n=n), light
    ends = with_ends(*effect.estimate, percent)[1]
    return use, fix, phrase("jacobians.share", subject=ends), light


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


def _rollout(run: JacobianRun) -> _Said:
    """How long a rollout of the simulator may be."""
    rate, H = _lyapunov(run, "closed"), int(run.config["horizon"])
    if rate is None or not isfinite(rate.value):
        return phrase("jacobians.no product"), "", phrase("jacobians.no rate"), "none"
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
    use = phrase(f"jacobians.{code}", subject=whose, unit=" steps", **known)
    value, low, high = rate.estimate
    return use, "", phrase("jacobians.rate", value=value, low=low, high=high), light


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
_SIDE = 0.42  # inches per row of a large map
_MAPS = {  # quantity: its section and caption
    "effect": (_ERROR, "Correct the full colours first."),
    "error": (_ERROR, "Errors of the model."),
    "size": (_SIMULATOR, "Empty: no effect at all."),
}
# Panel: section, caption, figure, and the rows without which it is left out.
_CURVES = (
    ("time", _ERROR, "At 100% a model knows nothing.", "jacobian_time", "time", "relative error"),
    ("distance", _ERROR, "Rising: record more there.", "jacobian_distance", "distance", ""),
    ("flags", _SIMULATOR, "Starts left out.", "jacobian_flags", "time", "share"),
    ("growth", _GROWTH, "Growth of a gradient.", "product_growth", "growth", ""),
    ("exponents", _GROWTH, "The first decides.", "lyapunov", "exponent", ""),
    ("chain-error", _GROWTH, "Beyond 1 a zero is better.", "chain_error", "product", ""),
    ("model-error", _GROWTH, "Condition 1 of MPG: a line.", "model_error", "model_error", ""),
)


def panels(run: JacobianRun) -> list[Panel]:
    """The figures of a comparison that have numbers."""
    table = run.table()
    height = max(SIZE[1], min(_SIDE * (len(run.state_names) + 3), 2 * SIZE[1]))
    maps = [
        panel(f"entries-{name}", section, caption, figures.jacobian_entries, table, high=height,
              quantity=name)
        for name, (section, caption) in _MAPS.items()
        if not run.rows("entry", quantity=name).empty
    ]  # fmt: skip
    for name, section, caption, draw, where, ending in _CURVES:
        rows = run.rows(where)
        if rows["value"][rows["quantity"].str.endswith(ending)].fillna(0).any():
            maps.append(panel(name, section, caption, getattr(figures, draw), table))
    return maps


def page(run: JacobianRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a comparison shows; `name` is its title where no task is known."""
    drawn, config = tuple(panels(run)), run.config
    table = run.table()
    shown = table[table["section"].isin(_TABLES)]
    sections = (
        *folded("Figures", drawn),
        Section("Numbers", body=tables(shown, "section", _TABLES)),
        method_of(config, run.environment, {"Samples left out": run.notes}),
    )
    more = {"model": config.get("model") or "none", "steps": config.get("horizon")}
    facts = facts_of(run, "simulator", "starts") | more
    title, question = str(config.get("task") or name), "How good are these Jacobians?"
    return Page(title, question, facts, advice(run), drawn, sections, source)


KIND = Kind(page, advice)
