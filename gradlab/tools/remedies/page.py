"""The page of a test of remedies: which one to take, what it changes, what it costs, and why.

A gain at equal steps that is not there at equal fitting time is an optimiser's: the baseline has it
too, when it is fitted for as long. Of horizons that are named as better or worse at most 5% are
expected to be there by chance (Benjamini & Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from html import escape
from math import exp, log
from typing import Any

import pandas as pd
import scipy

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.findings import Decision, Finding
from gradlab.reporting import shell
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
from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.comparison import difference, more_samples
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Array
from gradlab.tools.remedies.figures import QUANTITIES
from gradlab.tools.remedies.result import (
    ABOUT,
    STEPS,
    TIME,
    Key,
    ModelPair,
    Remedies,
    over_trials,
    ratio,
)
from gradlab.verdicts.phrases import further, inverse, same
from gradlab.verdicts.recommendation import MOST, Field, Light, Recommendation
from gradlab.wording import horizons, listed, percent, span, times

_FALSE = 0.05  # share of named horizons that chance may have named
_WIDE = log(1e6)  # a ratio's interval that says nothing of it
_CEILING = "sobolev"  # needs what no method on data has
_FIGURE = "least_mse"
_NAMED = 2


@dataclass(frozen=True, eq=False)
class _OfTrials:
    """Errors of a pair of models over the trials of a run."""

    run: Remedies
    pair: ModelPair

    @property
    def samples(self) -> str:
        return "1 fit" if self.run.trials == 1 else f"{self.run.trials} fits"

    def more(self, ratio: LogRatio) -> int | None:
        """Further fits that would decide about a ratio."""
        return more_samples(ratio.value, ratio.se, self.run.trials)

    @property
    def groups(self) -> int:
        return len(self._pair("mse", self.horizons[0])[0])

    @property
    def horizons(self) -> list[int]:
        """Those at which both errors are known, with intervals."""
        every = range(1, int(self.run.config["horizon"]) + 1)
        return [h for h in every if len(self._pair("mse", h)[0]) > 1]

    @property
    def nearest(self) -> int:
        """The horizon of the least error without the remedy."""
        return min(self.horizons, key=lambda h: float(self._pair("mse", h)[0].mean()))

    def ratio(self, quantity: str, horizon: int = -1) -> LogRatio | None:
        """log(with / without) of any number."""
        return ratio(*self._pair(quantity, horizon))

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        first, second = map(over_trials, self._pair(quantity, horizon))
        return second.value - first.value, difference(second, first)

    def least(self) -> LogRatio | None:
        """log(without / with) of the least error over the horizons."""
        found = self.ratio("least_mse")
        return None if found is None else inverse(found)

    def _pair(self, quantity: str, at: int) -> Array:
        """[2, K]: without and with, of the trials that have both."""
        return self.run.of((self.pair.first, self.pair.second), Key(quantity, at=at))


def _of_remedy(evidence: _OfTrials) -> Iterator[Finding]:
    """Whether it lowers the error, where, by what, and at what price."""
    who, at, least = evidence.pair.arm, evidence.samples, evidence.least()
    if not evidence.horizons:
        yield Finding("remedy_unknown", "undecided", who, at=at)
        return
    better, worse = sides(evidence)
    decision: Decision = "pass" if better or worse else "undecided"
    if least is None:
        yield Finding("remedy_unknown", decision, who, at=at)
    elif same(least) or least.low <= 0 <= least.high:
        more = evidence.more(least) if decision == "undecided" and not same(least) else 0
        found = _times("remedy_alike", decision, who, inverse(least), at)
        yield replace(found, more=-1 if more is None else more)
    elif least.value > 0:
        yield _times("remedy_lowers", decision, who, least, at)
    else:
        yield _times("remedy_raises", "fail", who, inverse(least), at)
    if better:
        yield Finding("remedy_better", "pass", who, at=horizons(better))
    if worse:
        yield Finding("remedy_worse", "fail", who, at=horizons(worse))
    nearest = evidence.nearest
    for quantity, code, power in (("variance", "variance", 1.0), ("bias2", "bias", 0.5)):
        change = evidence.ratio(quantity, nearest)
        if change is not None and change.high - change.low < _WIDE:
            moved: Decision = "pass" if change.high < 0 else "undecided"
            moved = "fail" if change.low > 0 else moved
            root = LogRatio(*(power * each for each in astuple(change)))
            yield _times(f"remedy_{code}", moved, who, root, f"h = {nearest}")
    cost = _step_cost(evidence.run, evidence.pair.arm)
    yield Finding("remedy_price", "pass", who, cost, unit="×")
    yield from _optimiser(evidence)


def _times(code: str, decision: Decision, who: str, ratio: LogRatio, at: str = "") -> Finding:
    return Finding(code, decision, who, *ratio.estimate, threshold=1, unit="×", at=at)


def sides(evidence: Any) -> tuple[list[int], list[int]]:
    """Horizons at which the error is clearly smaller, and clearly larger, with the remedy."""
    moved: dict[int, LogRatio] = {}
    chance = []  # how often no change at all would look as large
    for h in evidence.horizons:
        each = evidence.ratio("mse", h)
        if each is None:  # no logarithm is known: of the error itself
            value, gap = evidence.change("mse", h)
            each = LogRatio(value, gap.low, gap.high, gap.se)
        moved[h] = each
        p = 1.0 if each.value == 0 else 0.0
        if each.se > 0:
            p = float(2 * scipy.stats.t.sf(abs(each.value) / each.se, evidence.groups - 1))
        chance.append(p)
    adjusted = scipy.stats.false_discovery_control(chance)
    sure = {h: each for (h, each), p in zip(moved.items(), adjusted, strict=True) if p <= _FALSE}
    better = [h for h, each in sure.items() if each.high < 0]
    return better, [h for h, each in sure.items() if each.low > 0]


def _optimiser(evidence: _OfTrials) -> Iterator[Finding]:
    """Where only equal steps show a gain: it, and what the baseline gains by as long a fit."""
    run, (arm, _, longer, _) = evidence.run, evidence.pair
    pairs = [pair for pair in run.pairs if pair.arm == arm and pair.budget == STEPS]
    steps, time = _OfTrials(run, pairs[0]).least(), evidence.least()
    if steps is None or steps.low <= 0 or (time is not None and time.low > 0):
        return
    yield _times("remedy_steps", "undecided", arm, steps)
    alone = _OfTrials(run, ModelPair(arm, STEPS, pairs[0].first, longer)).least()
    if alone is not None and alone.low > 0:
        yield _times("remedy_optimiser", "fail", arm, alone)


def verdict(run: Remedies) -> list[Finding]:
    """What each remedy does at equal time, and how far to trust the truth."""
    judged = [_OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME]
    found = [each for one in judged for each in _of_remedy(one)]
    truths = [each["truth"] for each in run.notes["trials"]]
    short = [each for each in truths if each["status"] != "converged"]
    if short:
        first = short[0]
        found.append(Finding("remedy_truth", "undecided", str(first["status"]), len(short),
                             n=len(truths), at=str(first["reason"])))  # fmt: skip
    return found


def advice(run: Remedies) -> Recommendation:
    """The remedy that lowers the least error most at equal time, or that none is shown to."""
    rest = tuple(verdict(run))
    judged = {pair.arm: _OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME}
    ratios = {arm: least for arm, each in judged.items() if (least := each.least()) is not None}
    if not ratios:
        reasons = {str(each["truth"]["reason"]) for each in run.notes["trials"]} - {""}
        few = ["one fit has no interval: take more --trials"] * (run.trials == 1)
        why = ". ".join(["no remedy's error can be compared", *few, *sorted(reasons)[:1]])
        fields = [Field("use", _PLAIN), Field("why", why)]
        # No figure: a ratio of variances, which needs no truth, would be read as one of errors.
        return Recommendation("none", tuple(fields), None, rest)
    order = sorted((arm for arm in ratios if arm != _CEILING), key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0]
    best = next(iter(shown or order), None)
    promising = best is not None and ratios[best].value > 0
    light: Light = "choose"
    if shown:
        alike = [arm for arm in order if arm != best and ratios[arm].high >= ratios[shown[0]].low]
        worse = [arm for arm, ratio in ratios.items() if ratio.high < 0 and arm != _CEILING]
        use = shown[0]
        if alike:
            use += f"; not excluded: {listed(alike, _NAMED)}"
        fields, light = [Field("use", use)], "choose" if alike else "act"
        if worse:
            named = listed(worse, _NAMED)
            fields.append(Field("avoid", f"{named}: worse than no remedy"))
    elif best is None or not promising:
        light = "act"
        fields = [Field("use", _PLAIN), Field("why", "no remedy even looks better")]
    else:
        fields = [Field("use", _PLAIN), Field("why", "no remedy is shown to help")]
        more = further(judged[best].more(ratios[best]), "fits")
        fields.append(Field("decide", f"{best}, the best guess: {more} decide"))
    if best is not None and promising:
        with_best = "" if shown else f" with {best}"
        how = (
            f"exp of the mean of log(least MSE without / with {best}) over "
            f"{judged[best].samples}, at equal fitting time."
        )
        trials = run.notes.get("trials", ())
        planned = int(trials[0].get("planned", run.trials)) if trials else run.trials
        fits = judged[best].samples
        if run.trials > planned:
            fits += f", extended from {planned} after looking"
        value = ratios[best].value
        by = times(exp(value)) if times(exp(value)) != "1×" else percent(1 - exp(-value))
        ends = f"(CI {span(*ratios[best].estimate[1:])}, {fits})"
        gain = f"error lower by {by} at equal time{with_best} {ends}"
        price = f"{times(_step_cost(run, best))} the time per step of fitting"
        fields += [Field("gain", gain, how), Field("price", price)]
    return Recommendation(light, tuple(fields)[:MOST], _FIGURE, rest)


_PLAIN = "the plain fit"


def _step_cost(run: Remedies, arm: str) -> float:
    return float(run.config["costs"].get(arm, 1.0))


_GAIN = "What each remedy changes, beside what it costs"
_HORIZON = "Over the horizon"
_MODEL = "The models themselves"


def panels(run: Remedies) -> list[Panel]:
    """Gains beside prices, then what they are made of."""
    table, levels = run.table(), run.levels()
    at, known = int(run.config["horizon"]), set(table["quantity"])
    effects = (("least_mse", None), ("mse", at), ("bias2", at), ("variance", at),
               ("held_out_mse", None))  # fmt: skip
    return [
        *(
            panel(quantity, _GAIN, _CAPTIONS.get(quantity, ""), figures.remedy_effects, table,
                  quantity=quantity, at=at)
            for quantity, at in effects if quantity in known
        ),
        *_horizons(table, levels),
        panel("prediction", _MODEL, "", figures.remedy_levels, levels, along="steps predicted",
              quantity="prediction_error", one="as wrong as predicting no change"),
        panel("jacobians", _MODEL, "", figures.remedy_jacobians, table, high=1.4 * SIZE[1]),
    ]  # fmt: skip


_CAPTIONS = {
    "least_mse": "Circles below 1: worth its time.",
    "bias2": "No number of samples removes this part of the error.",
    "variance": "Four times the batch divide it by four.",
    "held_out_mse": "Above 1 the model predicts worse.",
}


def _horizons(table: pd.DataFrame, levels: pd.DataFrame) -> list[Panel]:
    level: dict[str, Any] = {"quantity": "mse"}
    if (levels["quantity"] == "relative_mse").any():  # the truth's norm is known
        level = {"quantity": "relative_mse", "one": "zero gradient: worse above"}
    return [
        panel("levels-error", _HORIZON, "", figures.remedy_levels, levels, **level),
        *(
            panel(f"horizon-{name}", _HORIZON, "", figures.remedy_horizons, table, quantity=name)
            for name in ("mse", "bias2", "variance")
        ),
    ]


def page(run: Remedies, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a test of remedies shows; `name` stands for a task that is not known."""
    drawn, config = tuple(panels(run)), run.config
    numbers = f"""<p>Every remedy against the baseline under both budgets:</p>
{tables(run.table(), titles=QUANTITIES)}
<p>Every model by itself:</p>
{tables(run.levels(), titles=QUANTITIES)}"""
    trials = ""
    for notes in run.notes.get("trials", ()):
        rest, truth = dict(notes), notes.get("truth", {})
        trial = f"Trial {int(rest.pop('trial', 0)) + 1}: truth {truth.get('status')}"
        trials += (
            f"<details><summary>{escape(trial)}</summary>"
            f'<div class="wide">{shell.definitions(rest)}</div></details>'
        )
    arms = {arm: ABOUT.get(arm, "") for arm in run.arms}
    sections = (
        *folded("Figures", drawn),
        Section("The remedies", body=shell.definitions(arms)),
        Section("Every number", body=numbers),
        method_of(config, run.environment, more=trials),
    )
    settings = config.get("settings", {})
    widths = "×".join(str(each) for each in settings.get("hidden", ()))
    facts = facts_of(run, "rows", "starts", "horizon", "batch") | {
        "networks": f"{settings.get('members')} × {widths} {settings.get('activation')}",
        "trials": run.trials,
    }
    title = f"Remedies on {config.get('task') or name}"
    question = "Which remedy helps, and what does it cost?"
    return Page(title, question, facts, advice(run), drawn, sections, source)


KIND = Kind(page, advice)
