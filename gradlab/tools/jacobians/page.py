"""A comparison of Jacobians: what to correct first, how far one may chain, and every number."""

from __future__ import annotations

from dataclasses import replace
from math import exp, hypot, inf, isfinite, log

import numpy as np
import pandas as pd

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.findings import Finding
from gradlab.reporting import shell
from gradlab.reporting.output import Kind
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    folded,
    method_of,
    panel,
)
from gradlab.reporting.shell import by_section
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.intervals import Z
from gradlab.tools.jacobians.result import MEANING, JacobianRun
from gradlab.verdicts.recommendation import MOST, Field, Light, Recommendation, finding
from gradlab.wording import below, listed, percent, rounded_up, steps, two, with_ends, with_interval
from gradlab.wording import ratio as sized

_CONCENTRATED = 0.9  # of the squared error in 5% of the samples
_NOTABLE = 1.1  # growth of an error from which it is worth the word
_FEW = 0.1  # of the starts, that carry 90% of the gradient
_NAMED = 3  # entries that are not told apart, the others being counted
_SHORT = 8  # steps of a path, in fewer of which turning modes pass for decay
_SLOW = 1000  # steps per factor of ten from which growth is not worth the word


def verdict(run: JacobianRun) -> tuple[Finding, ...]:
    """The findings of a report: what is masked, what is wrong, how far one may chain."""
    parts = (
        _certificate, _blocks, _entry, _distance, _product, _growth, _variance, _condition,
    )  # fmt: skip
    return tuple(each for part in parts if (each := part(run)) is not None)


def _certificate(run: JacobianRun) -> Finding:
    counts = {who: run.notes.get(f"{who}_not_finite", 0) for who in ("simulator", "model")}
    lost = [
        f"{who}: not finite on {count} (first: {run.notes.get(f'{who}_first_loss')})"
        for who, count in counts.items()
        if count
    ]
    what = "Simulator's Jacobians"
    samples = f"{run.notes.get('samples')} steps from {run.config.get('starts')} starts"
    known = _of_blocks(run, "certificate", "95th percentile")
    if not known:
        return finding("certificate", False, what, "none can be used", samples, *lost)
    worst, block = max((found.value, block) for block, found in known.items())
    share = number(run, "certificate", "flagged share")
    left = f"{_percent(share)} failed and are left out" if share and share.value > 0 else ""
    parts = [f"certified to {below(worst)} ({block}, 95th percentile)", left or "none failed"]
    open_ = _untested(run)
    if run.notes.get("derivatives") == "exact":
        parts = ["its own derivatives", open_ or f"tested: {run.notes['test']}", left]
    return finding("certificate", not lost and not open_, what, *parts, *lost, samples)


def _untested(run: JacobianRun) -> str:
    """Why the simulator's own derivatives are not shown to be those of its step, and what shows
    it; "" where they are, or where differences are certified."""
    tested, said = run.notes.get("tested"), str(run.notes.get("test", "")).removesuffix(".")
    if run.notes.get("derivatives") != "exact" or tested == "sound":
        return ""
    if tested == "wrong":
        return f"wrong: {said}"
    word = "not shown" if tested == "open" else "not tested"
    return f"{word}{said and f' ({said})'}: `{run.config.get('certify', 'gradlab certify')}`"


def _blocks(run: JacobianRun) -> Finding | None:
    measured = _of_blocks(run, "block", "relative error")
    if not measured:
        return None
    clipped = [
        f"{100 * share.value:.0f}% of the square of {MEANING[block]} is of the worst 5% of samples"
        for block in measured
        if (share := number(run, "block", _WORST, block=block)) is not None
        and share.value > _CONCENTRATED
    ]
    parts = [f"{MEANING[block]} {_percent(each)}" for block, each in measured.items()]
    n = next(iter(measured.values())).n
    what = "Model against simulator, relative Frobenius error"
    return finding("blocks", True, what, *parts, *clipped, n=n)


_WORST = "share of the squared error in the worst 5%"


def _entry(run: JacobianRun) -> Finding | None:
    """The entry whose error moves the gradient most, and the one of largest error."""
    effect, error = (_largest(run, quantity) for quantity in ("effect", "error"))
    if effect is None or error is None:
        return None
    found, rivals, few = _of(effect), _rivals(run, effect), _few(run)
    share = f"unknown ({found.n:,} starts{few})"
    if not _unknown(run, found):
        share = f"{_percent(found)} of its norm ({found.n:,} starts{few})"
    return finding(
        "entry", found.low > 0 and not rivals and not few,
        f"Error of {named(effect)}, of most effect on the gradient", share,
        f"not told apart from {listed(rivals, _NAMED)}" if rivals else "",
        f"largest standardised error, {named(error)}: {_ci(with_ends(*_of(error).estimate))}",
    )  # fmt: skip


def _rivals(run: JacobianRun, largest: pd.Series) -> list[str]:
    """The entries whose effect is not told apart from the largest, by their intervals together."""
    share = run.rows("entry", quantity="share")
    if share.empty:  # of a run before these were compared
        share = run.rows("entry", quantity="effect").assign(ci_high=inf)
    near = share[(share["value"] != 0) & ~(share["ci_high"] < 1)].sort_values("value")
    return [name for _, row in near[::-1].iterrows() if (name := named(row)) != named(largest)]


def _further(run: JacobianRun, rivals: list[str]) -> str:
    """How many more starts would tell the largest from its rivals."""
    counts = [
        decide(_of(row), 1.0).more
        for _, row in run.rows("entry", quantity="share").iterrows()
        if named(row) in rivals
    ]
    known = [each for each in counts if each is not None]
    if not known or len(known) < len(counts):
        return ""
    return f"; about {rounded_up(max(known)):,} more would"


def _few(run: JacobianRun) -> str:
    """What says that few starts carry the gradient; "" where many do."""
    carry = number(run, "gradient", "starts that carry 90%")
    if carry is None or carry.value > _FEW * carry.n:
        return ""
    return f", {carry.value:.0f} of which carry 90% of the gradient"


def _unknown(run: JacobianRun, effect: Number) -> bool:
    """Is its interval no number? Not even a bound, where few starts carry it."""
    return effect.spans_decades or bool(_few(run) and effect.low <= 0)


def _largest(run: JacobianRun, quantity: str) -> pd.Series | None:
    """The entry with the largest value, if any may be above 0."""
    rows = run.rows("entry", quantity=quantity)
    positive = rows[rows["ci_high"] > 0]
    return None if positive.empty else positive.sort_values(["value", "ci_high"]).iloc[-1]


def named(row: pd.Series) -> str:
    """Output by input."""
    return f"{row['output']} by {row['input']}"


def _distance(run: JacobianRun) -> Finding | None:
    found = []
    for block in ("A", "B"):
        rows = run.rows("distance", block=block).sort_values("x")
        if len(rows) < 2 or not (rows["value"] > 0).all():
            continue
        near, far = rows.iloc[0], rows.iloc[-1]
        ratio = log(far["value"] / near["value"])
        half = Z * hypot(near["se"] / near["value"], far["se"] / far["value"])
        found.append((ratio, half, MEANING[block], near["x"], far["x"]))
    if not found:
        return None
    ratio, half, name, near_x, far_x = max(found)
    grows, open_ = ratio - half > log(_NOTABLE), ratio + half > log(2)
    word = "grows" if grows else "undecided," if open_ else "hardly depends on it,"
    return finding(
        "distance", grows or not open_,
        f"Error of {name} by distance from the data, {near_x:.2g} to {far_x:.2g} deviations",
        f"{word} {sized(exp(ratio), exp(ratio - half), exp(ratio + half))}",
    )  # fmt: skip


def _product(run: JacobianRun) -> Finding | None:
    informs = number(run, "horizon", "model's product informs")
    if informs is None or run.notes.get("compared") == 0:
        return None
    H, what = int(run.config["horizon"]), "Model's chained Jacobians, relative error (zero has 1)"
    if informs.value >= H:
        last = run.rows("product").sort_values("step").iloc[-1]
        decided = bool(last["ci_high"] <= 1)
        error = _ci(with_ends(*_of(last).estimate))
        return finding("product", decided, what, f"{error} after {H} steps", n=informs.n)
    ends = f"CI {informs.low:.0f}–{informs.high:.0f}" + ("+" if informs.high >= H else "")
    return finding(
        "product", True, what, f"below 1 up to {informs.value:.0f} steps ({ends})", n=informs.n
    )


def _growth(run: JacobianRun) -> Finding:
    closed, open_ = lyapunov(run, "closed"), lyapunov(run, "open")
    loops = ("closed",) if closed == open_ else ("closed", "open")
    decided = closed is not None and (closed.low > 0 or closed.high < 0)
    half = f"second half of {run.config['horizon']} steps"
    what = f"Growth of chained Jacobians without the discount, {half}"
    parts = [_one_growth(run, loop) for loop in loops]
    return finding("growth", decided, what, *parts, n=None if closed is None else closed.n)


def _one_growth(run: JacobianRun, loop: str) -> str:
    rate = lyapunov(run, loop)
    if rate is None or not isfinite(rate.value):
        return f"{loop} loop singular or lost"
    text = f"{loop} loop λ = {_ci(with_ends(*rate.estimate))} per step"
    decade = number(run, "horizon", "steps per factor of ten", block=loop)
    if rate.low <= 0 <= rate.high or decade is None or abs(decade.value) > _SLOW:
        return text
    sign = "times" if rate.value > 0 else "divided by"
    leaves = number(run, "horizon", "product leaves float32", block=loop)
    end = f", beyond float32 at step {leaves.value:.0f}" if leaves and rate.value > 0 else ""
    return f"{text}, {sign} 10 in {two(abs(decade.value))} steps{end}"


_DOUBLING = "predicted doubling of the variance"
_BY = ("typical start", "mean square")
_LATER = "growth on a path of twice the length"


def _variance(run: JacobianRun) -> Finding | None:
    """Doubling times by the products alone, and those of a measurement that was given."""
    predicted = {f"by the {by}": number(run, "horizon", _DOUBLING, block=by) for by in _BY}
    known = [f"{words} {_pace(each)}" for words, each in predicted.items() if each is not None]
    if len(known) < len(predicted):
        return None
    measured = [
        f"{row['block']} measured {_pace(_of(row))}"
        for _, row in run.rows("horizon", quantity="measured doubling of the variance").iterrows()
    ]
    hint = ["measured: give a measurement of the policy"]
    what = "Variance of the discounted gradient"
    return finding("variance", True, what, *known, *(measured or hint))


def _pace(rate: Number) -> str:
    """doubles in 12 steps (CI 10–14)"""
    verb = "doubles" if rate.value > 0 else "halves"
    if not isfinite(rate.low) or not isfinite(rate.high):
        return f"{verb} in {two(abs(rate.value))} steps or not at all"
    low, high = sorted(abs(each) for each in (rate.low, rate.high))
    return f"{verb} in {with_interval(abs(rate.value), low, high, ' steps')}"


def _condition(run: JacobianRun) -> Finding | None:
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
        laws.get(law, "undecided"), f"exponent {_ci(with_ends(*k.estimate))}",
        "" if rate is None else f"{_percent(rate)} per step", n=k.n,
    )  # fmt: skip


def lyapunov(run: JacobianRun, loop: str) -> Number | None:
    """Growth of the product per step, closed or open loop."""
    return number(run, "exponent", "λ", block=loop, output="1")


def number(run: JacobianRun, section: str, quantity: str, **where: str) -> Number | None:
    """The first row that fits; None without one, or where it is lost."""
    rows = run.rows(section, quantity=quantity, **where)
    return None if rows.empty or np.isnan(rows["value"].iloc[0]) else _of(rows.iloc[0])


def _of_blocks(run: JacobianRun, section: str, quantity: str) -> dict[str, Number]:
    """Those blocks of which it is known."""
    found = {block: number(run, section, quantity, block=block) for block in MEANING}
    return {block: each for block, each in found.items() if each is not None}


def _of(row: pd.Series) -> Number:
    value, low, high = (float(row[end]) for end in ("value", "ci_low", "ci_high"))
    return Number(value, low, high, int(row["n"]))


def _percent(share: Number) -> str:
    return _ci(with_ends(*share.estimate, percent))


def _ci(found: tuple[str, str]) -> str:
    """1.4 (CI 1.2–1.6); the value alone where both ends are one number."""
    value, ends = found
    return value if value == ends else f"{value} (CI {ends})"


_FILE = "long table of the run"


def advice(run: JacobianRun) -> Recommendation:
    """What to correct in a model, and how far it may be chained; without a model, what the
    simulator's chains do."""
    rest = verdict(run)
    if number(run, "certificate", "95th percentile", block="A") is None:
        none = Field("use", "none of its Jacobians: no sample passed its certificate")
        return Recommendation("none", (none,), "entries-size", rest)
    if run.notes.get("tested") == "wrong":
        wrong = Field("fix first", str(run.notes["test_headline"]))
        return Recommendation("none", (wrong,), "entries-size", rest)
    facts: list[Field] = []
    if known := _of_blocks(run, "block", "relative error"):
        block, found = max(known.items(), key=lambda each: each[1].value)
        how = (
            f"|model − simulator| / |simulator|, Frobenius, over {found.n} steps ({_FILE}: block)."
        )
        what = f"{MEANING[block]}, the largest of a block"
        share, typical = (
            number(run, "block", name, block=block) for name in (_WORST, "median relative error")
        )
        if share and typical and share.value > _CONCENTRATED and isfinite(typical.high):
            what = f"the median of {what}; root mean square {percent(found.value)}, by few steps"
            how = f"Median over starts of each one's median step. {how}"
            found = typical
        lost = found.spans_decades  # an interval over decades is no number
        ranged = Field.ranged("error", found.estimate, how, percent)
        text = f"unknown ({found.n} steps)" if lost else ranged.text
        facts.append(replace(ranged, text=f"{text} in {what}"))
    rows = run.rows("product")
    if not rows.empty and run.config.get("model") is not None:
        last = rows.sort_values("step").iloc[-1]
        after = f"after {steps(int(last['step']))} (1: a zero gradient's)"
        how = "Median over starts of |P̂ − P| / |P|, P the product of closed-loop Jacobians"
        chain = Field.ranged("chain", _of(last).estimate, f"{how} ({_FILE}).")
        facts.append(replace(chain, text=f"error {chain.text} {after}"))
    exponent = lyapunov(run, "closed")
    if exponent is not None and isfinite(exponent.value):
        label = "λ per step in closed loop"
        if run.config.get("model") is None and (discount := float(run.config["discount"])) < 1:
            label += f" (a discount of {discount:g} makes up for {two(-log(discount))})"
        how = f"Largest Lyapunov exponent of the closed loop, second half of the rollout ({_FILE})."
        growth = Field.ranged("growth", exponent.estimate, how)
        facts.append(replace(growth, text=f"{growth.text} {label}"))
    alone = run.config.get("model") is None
    use, fix, light, sure = _simulator(run) if alone else _model(run)
    if light != "none" and "networks" in run.config:
        light, sure = "choose", f"{sure}, of a policy that is not yours: give it with --policy"
    if light != "none" and (untested := _untested(run)):
        light, sure = "choose", f"{sure}; the simulator's derivatives are {untested}"
    figure = "entries-effect"
    if alone:  # what the first field is about
        figure = "entries-size" if exponent is None else "growth"
    told = (Field("use", use), Field("fix first", fix), Field("evidence", sure))
    fields = tuple(each for each in (*told, *facts) if each.text)[:MOST]
    return Recommendation(light, fields, figure, rest)


def _model(run: JacobianRun) -> tuple[str, str, Light, str]:
    """What to correct first, and how far the model's chain is better than zeros."""
    entry = _largest(run, "effect")
    H, chain = int(run.config["horizon"]), number(run, "horizon", "model's product informs")
    reach, measured = "", ""
    light: Light = "act"
    if chain is not None:
        far = int(min(chain.value, H))
        reach = f"at most {steps(far)}: beyond, its chained Jacobians are worse than none"
        reach = f"all {steps(H)}: its chained Jacobians hold over the path" if far == H else reach
        product = run.rows("product").sort_values("step")
        if far == H and _of(product.iloc[-1]).low > _NO_BETTER:
            reach = (
                f"fewer than {steps(H)}: there its chained Jacobians are hardly better than none"
            )
            light, measured = "choose", "; whether so many steps help: `gradlab measure`"
        if far < H:
            light, measured = "choose", "; whether so many steps help: `gradlab measure`"
        if not far:
            light, measured = "none", ""
            reach = "no chain of its Jacobians: one step is worse than none"
    if run.rows("entry", quantity="effect").empty:
        text = "the policy: this one has no trainable parameters, so no gradient"
        return reach, text, "none" if light == "none" else "choose", "no effect is measured"
    if entry is None:
        return reach, "", light, f"no error of this model changes the gradient{measured}"
    name, effect, rivals, few = named(entry), _of(entry), _rivals(run, entry), _few(run)
    unknown = _unknown(run, effect)
    if light == "act" and (few or unknown or rivals or effect.low <= 0):
        light = "choose"
    if effect.low <= 0 and not unknown:
        text = f"the derivative of {name}, perhaps: no error is shown to matter"
        return reach, text, light, f"at most {percent(effect.high)} of the gradient"
    if rivals:
        together = listed([name, *rivals], _NAMED)
        text = f"the derivatives of {together}: which one changes the gradient most is open"
        more = few or _further(run, rivals)
        return reach, text, light, f"not told apart with {effect.n:,} starts{more}"
    text = f"the derivative of {name}: its error changes the gradient most"
    if unknown:
        return reach, text, light, f"by how much is unknown ({effect.n:,} starts{few})"
    ends = f"{with_ends(*effect.estimate, percent)[1]} of its norm"
    few = few and f"; {effect.n:,} starts{few}"
    return reach, text, light, f"by {ends}{few}{measured}"


def _simulator(run: JacobianRun) -> tuple[str, str, Light, str]:
    """How long a rollout may be."""
    rate = lyapunov(run, "closed")
    if rate is None or not isfinite(rate.value):
        text = "no product of its Jacobians: they are singular or not finite"
        return text, "", "none", "no growth rate"
    found = f"λ = {_ci(with_ends(*rate.estimate))}"
    typical, square = (number(run, "horizon", _DOUBLING, block=block) for block in _BY)
    discounted = float(run.config["discount"]) < 1
    gradient = "discounted gradient" if discounted else "gradient"
    later = [number(run, "horizon", _LATER, block=block) for block in _BY]
    longer = f"a longer path to know, --horizon {2 * int(run.config['horizon'])}: on this one the"
    slower = f"not shown to go on: {found}"
    leading, then = (square, later[1]) if _grows(square) else (typical, later[0])
    if leading is not None and _grows(leading):
        grows = f"variance of the {gradient} {_pace(leading)}"
        if then is not None and then.value <= 0:
            return f"{longer} {grows}, ever more slowly", "", "choose", slower
        text = f"short rollouts: the {grows}"
        if _grows(typical):
            return text, "", "choose", f"{found}; which length helps: `gradlab measure`"
        own = "it is undecided"
        if typical is not None and _shrinks(typical):
            own = _pace(typical)
        return text, "", "choose", f"in the mean square over starts; in the typical start {own}"
    if not _shrinks(typical):
        text = f"a longer path to know: this one shows neither growth nor decay of the {gradient}"
        return text, "", "choose", f"not shown: {found}"
    if not _shrinks(square):
        text = f"long rollouts after `gradlab measure` only: the {gradient} of the typical start "
        return f"{text}decays, that of the mean square may grow", "", "choose", f"open: {found}"
    if int(run.config["horizon"]) < _SHORT:
        return f"{longer} {gradient} decays, but these are few steps", "", "choose", slower
    origin = str(run.config.get("networks", "this policy"))  # "a …, fitted here; give yours …"
    whose = origin.partition(";")[0].partition(", fitted")[0]
    damped = f"in the closed loop of {whose} the {gradient} decays"
    return f"any horizon: {damped}", "", "act", found


def _grows(doubling: Number | None) -> bool:
    return doubling is not None and doubling.low > 0 and doubling.high < inf


def _shrinks(doubling: Number | None) -> bool:
    return doubling is not None and doubling.high < 0 and doubling.low > -inf


_ERROR = "Where the model's derivatives are wrong"
_SIMULATOR = "The simulator's derivatives"
_NO_BETTER = 0.9  # error of a product, of which zeros have 1
_GROWTH = "How far they can be chained"
_NUMBERS = "Numbers"
_TABLES = {
    "block": "Errors of blocks",
    "certificate": "Certificate of the simulator's Jacobians",
    "horizon": "What follows",
    "exponent": "Lyapunov exponents",
    "distance": "Errors by distance from the data",
}
_HEADINGS = {
    "block": "block",
    "output": "direction",
    "quantity": "quantity",
    "x": "distance",
    "value": "value",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "n",
    "method": "interval by",
}
_SIDE = 0.42  # inches per row of a large map


def panels(run: JacobianRun) -> list[Panel]:
    """The figures of a comparison; those of a model only where there was one."""
    table, H = run.table(), int(run.config["horizon"])
    size = "Which input moves which output at all, on the simulator."
    time = "Constant: the model. Falling or rising: where on the way it is wrong."
    growth = "A gradient through h steps grows like the upper curve at h."
    exponents = "Each direction's growth per step; the first decides."
    drawn = [
        _map_panel("entries-size", _SIMULATOR, size, run, "size"),
        panel("growth", _GROWTH, growth, figures.product_growth, table),
        panel("exponents", _GROWTH, exponents, figures.lyapunov, table),
    ]
    if run.config.get("model") is None:
        flags = "Where contacts or limits spoil the differences, and where rollouts have ended."
        flags_panel = panel("time", _SIMULATOR, flags, figures.jacobian_time, table)
        return [drawn[0], flags_panel, *drawn[1:]]
    error = "Full colour: what the model should learn first, and which data would teach it."
    chain = f"Beyond the line at 1 the model's Jacobians say nothing after so many of {H} steps."
    caption = "Along the dashed line the error grows linearly, as Condition 1 of MPG supposes."
    effect = "Full colour: the errors that move the gradient; the others cost nothing here."
    errors = [
        _map_panel("entries-effect", _ERROR, effect, run, "effect"),
        _map_panel("entries-error", _ERROR, error, run, "error"),
        replace(drawn[0], section=_ERROR),
        panel("time", _ERROR, time, figures.jacobian_time, table),
    ]
    if not run.rows("distance").empty:
        away = "Rising: more data would help where the policy goes; flat: they would not."
        errors.append(panel("distance", _ERROR, away, figures.jacobian_distance, table))
    chains = [
        panel("chain-error", _GROWTH, chain, figures.chain_error, table),
        panel("model-error", _GROWTH, caption, figures.model_error, table),
    ]
    return [*errors, *drawn[1:], *chains]


def page(run: JacobianRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a comparison shows; `name` is its title where no task is known."""
    drawn = tuple(panels(run))
    numbers = (
        "<p>Click a heading to sort. Every entry, step and singular value is in the file.</p>"
        + by_section(run.table(), _TABLES, _HEADINGS)
    )
    sections = (
        *folded(_NUMBERS, drawn),
        Section(_NUMBERS, body=numbers),
        method_of(run.config, run.environment, {"What was masked": run.notes}),
    )
    title = str(run.config.get("task") or name)
    question = "How good are these Jacobians?"
    config, environment = run.config, run.environment
    facts = {
        "task": config.get("task"),
        "simulator": config.get("simulator"),
        "model": config.get("model") or "none",
        "policy": config.get("policy") or shell.short(config.get("policy_hash")),
        "starts": config.get("starts"),
        "steps": config.get("horizon"),
        "seed": config.get("seed"),
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }
    return Page(title, question, facts, advice(run), drawn, sections, source)


def _map_panel(name: str, section: str, caption: str, run: JacobianRun, quantity: str) -> Panel:
    """A map as high as its rows need."""
    height = max(SIZE[1], min(_SIDE * (len(run.state_names) + 3), 2 * SIZE[1]))
    draw = figures.jacobian_entries
    return panel(name, section, caption, draw, run.table(), high=height, quantity=quantity)


KIND = Kind(page, advice)
