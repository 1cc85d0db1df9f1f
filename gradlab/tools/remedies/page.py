"""The page of a test of remedies: which one to take, what it changes, what it costs, and why.

A gain at equal steps that is not there at equal fitting time is an optimiser's: the baseline has it
too, when it is fitted for as long. Of horizons that are named as better or worse at most 5% are
expected to be there by chance (Benjamini & Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import exp, log
from typing import Any

import numpy as np
import pandas as pd
import scipy

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
from gradlab.reporting.shell import folded as table_of
from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.comparison import difference, more_samples
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.tools.remedies.figures import QUANTITIES
from gradlab.tools.remedies.result import (
    ABOUT,
    CLIPPED,
    SMOOTH,
    STEPS,
    TIME,
    Key,
    ModelPair,
    Remedies,
    called,
    larger_batches,
    load,
    more_trials,
    ratio,
)
from gradlab.verdicts.phrases import capital, further, inverse, same
from gradlab.verdicts.recommendation import MOST, Field, Light, Recommendation, worded
from gradlab.wording import horizons, listed, percent, samples, span, times, with_interval
from gradlab.wording import ratio as sized

_FALSE = 0.05  # share of named horizons that chance may have named
_WIDE = log(1e6)  # a ratio's interval that says nothing of it
_CEILING = "sobolev"  # needs what no method on data has
_UNKNOWN = Estimate(np.nan, np.full(2, np.nan))
_FIGURE = "least_mse"
_LARGER = 4  # times the batch, beside the remedies
_NAMED = 2


@dataclass(frozen=True, eq=False)
class _OfTrials:
    """Errors of a pair of models over the trials of a run."""

    run: Remedies
    pair: ModelPair

    @property
    def samples(self) -> str:
        one = f"1 fit, {samples(self.run.config)} starts"
        return one if self.run.trials == 1 else f"{self.run.trials} fits"

    def more(self, ratio: LogRatio) -> str:
        """What would decide about a ratio."""
        if self.run.trials == 1:
            starts = int(self.run.config["starts"])
            return f"{further(more_samples(ratio.value, ratio.se, starts), 'starts')} decide"
        return f"{further(more_trials(ratio, self.run.trials), 'fits')} decide"

    @property
    def groups(self) -> int:
        return len(self._pair(Key("mse", at=self.horizons[0]))[0].left_out)

    @property
    def horizons(self) -> list[int]:
        """Those at which both errors are known, with intervals."""
        over = [Key("mse", at=h) for h in range(1, int(self.run.config["horizon"]) + 1)]
        known = (np.isfinite([each.left_out for each in self._pair(key)]).all() for key in over)
        return [key.at for key, both in zip(over, known, strict=True) if both]

    def error(self, horizon: int) -> float:
        return self._pair(Key("mse", at=horizon))[0].value

    def ratio(self, quantity: str, horizon: int = -1, **where: str) -> LogRatio | None:
        """log(with / without) of any number."""
        pair = self._pair(Key(quantity, at=horizon, **where))
        return ratio(*pair, trials=self.run.trials > 1)

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        first, second = self._pair(Key(quantity, at=horizon))
        return second.value - first.value, difference(second, first)

    def least(self) -> LogRatio | None:
        """log(without / with) of the least error over the horizons."""
        found = self.ratio("least_mse")
        return None if found is None else inverse(found)

    def _pair(self, key: Key) -> tuple[Estimate, Estimate]:
        """Without and with; NaN where no trial has both."""
        pair = self.run.cells.estimates((self.pair.first, self.pair.second), key)
        return (_UNKNOWN, _UNKNOWN) if pair is None else (pair[0], pair[1])


def remedy(evidence: _OfTrials, what: str, also: Sequence[str] = ()) -> Finding:
    """Whether a remedy is worth it: better for some horizons, worse below, or not shown to matter.
    `what`: the remedy's name, at the beginning of the sentence; also: further sentences."""
    over, least = evidence.horizons, evidence.least()
    if not over:
        text = f"{capital(what)} has no error to compare ({evidence.samples})."
        return worded("remedy", False, text)
    better, worse = _sides(evidence)
    decided = bool(better or worse)
    if least is None or same(least) or least.low <= 0 <= least.high:
        texts = [f"{capital(what)} is not shown to change the least error ({evidence.samples})."]
    else:
        lower = least.value > 0
        size = _by(least if lower else inverse(least))
        verb = "lowers" if lower else "raises"
        texts = [f"{capital(what)} {verb} the least error {size} ({evidence.samples})."]
    texts += [f"It is better at h = {horizons(better)}."] if better else []
    texts += [f"It is worse at h = {horizons(worse)}."] if worse else []
    if not decided and least is not None and not same(least):
        texts.append(f"{capital(evidence.more(least))}.")
    at = min(over, key=evidence.error)
    for quantity, word in (("variance", "variance"), ("bias2", "bias")):
        texts.append(f"It {_change(evidence, quantity, at, word)} at h = {at}.")
    return worded("remedy", decided, " ".join([*texts, *also]))


def _sides(evidence: _OfTrials) -> tuple[list[int], list[int]]:
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


def _change(evidence: _OfTrials, quantity: str, at: int, word: str) -> str:
    """cuts the variance 31× / raises the bias 1.1×; what is in doubt is given as a difference."""
    ratio = evidence.ratio(quantity, at)
    if ratio is None or not ratio.high - ratio.low < _WIDE:
        value, gap = evidence.change(quantity, at)
        squared = "squared " if quantity == "bias2" else ""
        return f"changes the {squared}{word} by {with_interval(value, gap.low, gap.high)}"
    power = 0.5 if quantity == "bias2" else 1.0
    change = LogRatio(*(power * each for each in (ratio.value, ratio.low, ratio.high, ratio.se)))
    if change.low <= 0 <= change.high:
        return f"leaves the {word} at {_by(change)}"
    verb = "cuts" if change.value < 0 else "raises"
    return f"{verb} the {word} {_by(inverse(change) if change.value < 0 else change)}"


def _by(ratio: LogRatio) -> str:
    """3.2× (CI 2.1–4.9), or the end that is known."""
    return sized(*ratio.estimate)


def _lower(ratio: LogRatio) -> str:
    """by 1.5×; by 2% where that would be 1×."""
    gain = times(exp(ratio.value))
    return f"by {gain if gain != '1×' else percent(1 - exp(-ratio.value))}"


def verdict(run: Remedies) -> list[Finding]:
    """What each remedy does at equal time, and how far to trust the truth."""
    judged = [_OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME]
    sentences = [
        remedy(
            each, f"{called(each.pair.arm)} ({each.pair.arm})", [*_price(each), *_optimiser(each)]
        )
        for each in judged
    ]
    truths = [each["truth"] for each in run.notes["trials"]]
    short = [each for each in truths if each["status"] != "converged"]
    if short:
        many = f"in {len(short)} of {len(truths)} trials" if len(truths) > 1 else "here"
        states = " or ".join(sorted({str(each["status"]) for each in short}))
        text = f"The truth is {states} {many}. In the first of them: {short[0]['reason']}."
        sentences.append(worded("truth", True, text))
    return sentences


def _price(evidence: _OfTrials) -> list[str]:
    """Errors of Jacobians (away from clips where there are some) and predictions; fitting time."""
    keys, texts = evidence.run.cells.keys(evidence.pair.second), []
    where = " away from clips and limits" * any(key.region == CLIPPED for key in keys)
    for block, name in (("A", "∂f/∂s"), ("B", "∂f/∂a")):
        change = evidence.ratio("jacobian_error", block=block, region=SMOOTH)
        if change is not None:
            texts.append(f"The error of {name}{where} is {_by(change)} that without it.")
    at = min(evidence.horizons, key=evidence.error, default=0)
    change = evidence.ratio("prediction_error", at) if at else None
    if change is not None:
        texts.append(f"The error of predictions at step {at} is {_by(change)} that without it.")
    cost = times(_step_cost(evidence.run, evidence.pair.arm))
    return [*texts, f"A step of its fit takes {cost} the time."]


def _optimiser(evidence: _OfTrials) -> list[str]:
    """Said where only equal steps show a gain: what the baseline gains by as long a fit."""
    run, (arm, _, longer, _) = evidence.run, evidence.pair
    pairs = [pair for pair in run.pairs if pair.arm == arm and pair.budget == STEPS]
    steps, time = _OfTrials(run, pairs[0]).least(), evidence.least()
    if steps is None or steps.low <= 0 or (time is not None and time.low > 0):
        return []
    text = f"At equal steps it lowers the least error {_by(steps)}, which equal time does not show."
    alone = _OfTrials(run, ModelPair(arm, STEPS, pairs[0].first, longer)).least()
    if alone is not None and alone.low > 0:
        return [text, f"The gain is the optimiser's: fitting for as long alone gives {_by(alone)}."]
    return [text, "The gain may be the optimiser's."]


def advice(run: Remedies) -> Recommendation:
    """The remedy that lowers the least error most at equal time, or that none is shown to."""
    rest = tuple(verdict(run))
    judged = {pair.arm: _OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME}
    ratios = {arm: least for arm, each in judged.items() if (least := each.least()) is not None}
    if not ratios:
        reasons = {str(each["truth"]["reason"]) for each in run.notes["trials"]} - {""}
        why = "; ".join(["no remedy's error can be compared", *sorted(reasons)[:1]])
        fields = (Field("use", _PLAIN), Field("why", why), *_larger_batch(run))
        # No figure: a ratio of variances, which needs no truth, would be read as one of errors.
        return Recommendation("none", fields, None, rest)
    order = sorted((arm for arm in ratios if arm != _CEILING), key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0]
    best = next(iter(shown or order), None)
    light: Light = "choose"
    fields = (Field("use", _PLAIN), Field("why", "no remedy is shown to help"))
    if shown:
        alike = [arm for arm in order if arm != best and ratios[arm].high >= ratios[shown[0]].low]
        worse = [arm for arm, ratio in ratios.items() if ratio.high < 0 and arm != _CEILING]
        use = called(shown[0])
        use += f"; not excluded: {listed([called(arm) for arm in alike], _NAMED)}" if alike else ""
        light = "choose" if alike else "act"
        avoid = f"{listed([called(arm) for arm in worse], _NAMED)}: worse than no remedy"
        fields = (Field("use", use), Field("avoid", avoid if worse else ""))
    elif best is None or not ratios[best].value > 0:
        light, fields = "act", (Field("use", _PLAIN), Field("why", "no remedy even looks better"))
    else:
        more = judged[best].more(ratios[best])
        fields = (*fields, Field("decide", f"{called(best)}, the best guess: {more}"))
    if best is not None and ratios[best].value > 0:
        how = (
            f"exp of the mean of log(least MSE without / with {best}) over "
            f"{judged[best].samples}, least over the horizons, at equal fitting time."
        )
        gain = f"error lower {_lower(ratios[best])} at equal time"
        gain += "" if shown else f" with {called(best)}"
        ends = f"(CI {_ends(ratios[best])}, {_fits(run)})"
        price = f"{times(_step_cost(run, best))} the time per step of fitting"
        fields = (*fields, Field("gain", f"{gain} {ends}", how), Field("price", price))
    every = (*fields, *_larger_batch(run))
    return Recommendation(light, tuple(each for each in every if each.text)[:MOST], _FIGURE, rest)


_PLAIN = "the plain fit"


def _larger_batch(run: Remedies) -> list[Field]:
    """What more samples would do instead, where that is shown."""
    rows = larger_batches(run)
    mine = rows[(rows["arm"] == f"batch × {_LARGER}") & (rows["quantity"] == "least_mse")]
    if mine.empty or not mine["ratio_low"].iloc[0] > 0:
        return []
    row = mine.iloc[0]
    how = "MSE = bias² + variance / N′ with 4 N′ in the place of N′, least over the horizons."
    less = (1 / row["ratio"], 1 / row["ratio_high"], 1 / row["ratio_low"])
    lower = with_interval(*less, "×")
    return [Field("instead", f"{_LARGER}× the batch: error lower by {lower}", how)]


def _fits(run: Remedies) -> str:
    """How many, and from how many they were extended after a first look."""
    trials = run.notes.get("trials", ())
    planned = int(trials[0].get("planned", run.trials)) if trials else run.trials
    count = "1 fit" if run.trials == 1 else f"{run.trials} fits"
    return f"{count}, extended from {planned} after looking" if run.trials > planned else count


def _step_cost(run: Remedies, arm: str) -> float:
    return float(run.config["costs"].get(arm, 1.0))


def _ends(ratio: LogRatio) -> str:
    return span(*ratio.estimate[1:])


_GAIN = "What each remedy changes, beside what it costs"
_HORIZON = "Over the horizon"
_MODEL = "The models themselves"
_HEADINGS = {
    "arm": "remedy",
    "budget": "budget",
    "block": "block",
    "at": "step or horizon",
    "region": "samples",
    "first": "without",
    "second": "with",
    "difference": "difference",
    "ci_low": "95 % from",
    "ci_high": "to",
    "ratio": "ratio",
    "ratio_low": "95 % from",
    "ratio_high": "to",
    "n": "n",
}
_LEVELS = {"model": "model", "value": "value"} | _HEADINGS


def panels(run: Remedies) -> list[Panel]:
    """Gains beside prices, then what they are made of."""
    table, levels = pd.concat([run.table(), larger_batches(run)], ignore_index=True), run.levels()
    return [
        *_gains(table, levels, int(run.config["horizon"])),
        *_horizons(table, levels),
        *_models(table, levels),
    ]


def page(run: Remedies, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a test of remedies shows; `name` stands for a task that is not known."""
    drawn = tuple(panels(run))
    arms = {arm: ABOUT.get(arm, "") for arm in run.arms}
    numbers = f"""<p>Click a heading to sort. Every remedy against the baseline under both
budgets:</p>
{_tables(run.table(), _HEADINGS)}
<p>Every model by itself:</p>
{_tables(run.levels(), _LEVELS)}"""
    trials = ""
    for notes in run.notes.get("trials", ()):
        rest, truth = dict(notes), notes.get("truth", {})
        trial = f"Trial {int(rest.pop('trial', 0)) + 1}: truth {truth.get('status')}"
        trials += (
            f"<details><summary>{escape(trial)}</summary>"
            f'<div class="wide">{shell.definitions(rest)}</div></details>'
        )
    sections = (
        *folded("Figures", drawn),
        Section("The remedies", body=shell.definitions(arms)),
        Section("Every number", body=numbers),
        method_of(run.config, run.environment, more=trials),
    )
    title = f"Remedies on {run.config.get('task') or name}"
    question = "Which remedy helps, and what does it cost?"
    config = run.config
    settings = config.get("settings", {})
    members = settings.get("members")
    widths = "×".join(str(each) for each in settings.get("hidden", ()))
    units = f"{widths} {settings.get('activation')} units"  # 64×64 silu units
    facts = {
        "task": config.get("task"),
        "policy": shell.short(config.get("policy_hash")),
        "networks": f"{members} member{'s' * (members != 1)} of {units}",
        "rows of data": config.get("rows"),
        "trials": run.trials,
        "starts per trial": config.get("starts"),
        "horizon": config.get("horizon"),
        "batch N′": config.get("batch"),
        "seed": config.get("seed"),
    }
    return Page(title, question, facts, advice(run), drawn, sections, source)


def _gains(table: pd.DataFrame, levels: pd.DataFrame, H: int) -> list[Panel]:
    captions: list[tuple[str, int | None, str]] = [
        ("least_mse", None, "Filled left of 1: worth its time. Only open: an optimiser's gain."),
        ("mse", H, "The same at the longest horizon; a larger batch stands beside the remedies."),
        ("bias2", H, "No number of samples removes this part of the error."),
        ("variance", H, "More samples divide it: four times the batch, a quarter."),
        ("held_out_mse", None, "The price in prediction: right of 1 the model predicts worse."),
    ]
    far = panel(
        "usable", _GAIN, "How far each model may be unrolled; star: least error.",
        figures.remedy_marks, levels, quantity="usable_horizon", unit="steps",
        beside="best_horizon",
    )  # fmt: skip
    effects = [
        panel(quantity, _GAIN, caption, figures.remedy_effects, table, quantity=quantity, at=at)
        for quantity, at, caption in captions
        if (table["quantity"] == quantity).any()
    ]  # fmt: skip
    return [*effects, far]


def _horizons(table: pd.DataFrame, levels: pd.DataFrame) -> list[Panel]:
    relative, caption = bool((levels["quantity"] == "relative_mse").any()), "Lower is better."
    level: dict[str, Any] = {"quantity": "mse"}
    if relative:  # the truth's norm is known
        level = {"quantity": "relative_mse", "one": "zero gradient: worse above"}
        caption = "Above the line a zero gradient is better."
    ratios = {
        "mse": "Where the band is off 1, the remedy changes the error by more than chance.",
        "bias2": "No number of samples removes this part of the error.",
        "variance": "Exploding chains: a remedy that shortens them falls with the horizon.",
    }
    return [
        panel("levels-error", _HORIZON, caption, figures.remedy_levels, levels, **level),
        *(
            panel(f"horizon-{name}", _HORIZON, horizon_rows, figures.remedy_horizons, table,
                  quantity=name)
            for name, horizon_rows in ratios.items()
        ),
    ]  # fmt: skip


def _models(table: pd.DataFrame, levels: pd.DataFrame) -> list[Panel]:
    blocks = "Points on a clip or in contact, often most of the error, stand apart."
    return [
        panel("prediction", _MODEL, "Open loop: the price of a remedy over many steps.",
              figures.remedy_levels, levels, quantity="prediction_error", along="steps predicted",
              one="as wrong as predicting no change"),
        panel("exponents", _MODEL, "Right of the simulator's the model's chains grow too fast.",
              figures.remedy_marks, levels, quantity="lyapunov", unit="λ per step"),
        panel("jacobians", _MODEL, blocks, figures.remedy_jacobians, table, high=1.4 * SIZE[1]),
    ]  # fmt: skip


def _tables(table: pd.DataFrame, headings: Mapping[str, str]) -> str:
    """A table per quantity, without the columns that say nothing there."""
    tables, quantities = [], list(dict.fromkeys(table["quantity"]))
    order = [name for name in QUANTITIES if name in quantities]
    for name in [*order, *(name for name in quantities if name not in QUANTITIES)]:
        rows = table[table["quantity"] == name]
        kept = {
            column: heading
            for column, heading in headings.items()
            if column in rows
            and not rows[column].isin(["", "all"]).all()
            and not rows[column].isna().all()
        }
        tables.append(table_of(QUANTITIES.get(str(name), str(name)), rows, kept, str(name)))
    return "\n".join(tables)


KIND = Kind(load, page, advice)
