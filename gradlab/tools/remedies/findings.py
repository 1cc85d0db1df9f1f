"""What a test of remedies means: which one to take, its price, and what each does at equal time.

A gain that is there at equal steps and not at equal fitting time is an optimiser's: the baseline
has it, too, when it is fitted for as long.

Form 10: what a remedy does to variance and bias, horizon by horizon, and whether it matters. The
evidence is errors of one policy's gradient without the remedy and with it, over repeated fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np
import scipy

from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.comparison import difference, more_samples
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.tools.remedies.result import (
    BASELINE,
    CLIPPED,
    SMOOTH,
    STEPS,
    TIME,
    Key,
    ModelPair,
    Remedies,
    called,
    larger_batches,
    more_trials,
    ratio,
)
from gradlab.verdicts.phrases import capital, further, inverse, same
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import horizons, listed, span, times, two
from gradlab.wording import ratio as sized

_ABOUT, _GAIN = "remedy", "gain"
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
        one = f"1 fit, N = {self.run.config['starts']} starts"
        return one if self.run.trials == 1 else f"{self.run.trials} fits"

    def more(self, ratio: LogRatio) -> str:
        if self.run.trials == 1:
            starts = int(self.run.config["starts"])
            return f"{further(more_samples(ratio.value, ratio.se, starts), 'starts')} decide"
        return f"{further(more_trials(ratio, self.run.trials), 'fits')} decide"

    @property
    def groups(self) -> int:
        return len(self._pair(Key("mse", at=self.horizons[0]))[0].left_out)

    @property
    def horizons(self) -> list[int]:
        over = range(1, int(self.run.config["horizon"]) + 1)
        return [h for h in over if self.knows(Key("mse", at=h))]

    def error(self, horizon: int) -> float:
        return self._pair(Key("mse", at=horizon))[0].value

    def ratio(self, quantity: str, horizon: int) -> LogRatio | None:
        return self.ratio_of(Key(quantity, at=horizon))

    def ratio_of(self, key: Key) -> LogRatio | None:
        """log(with / without) of any number."""
        return ratio(*self._pair(key), trials=self.run.trials > 1)

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        first, second = self._pair(Key(quantity, at=horizon))
        return second.value - first.value, difference(second, first)

    def least(self) -> LogRatio | None:
        ratio = self.ratio_of(Key("least_mse"))
        return None if ratio is None else inverse(ratio)

    def knows(self, key: Key) -> bool:
        """Do both have it, with an interval?"""
        return all(np.isfinite(each.left_out).all() for each in self._pair(key))

    def _pair(self, key: Key) -> tuple[Estimate, Estimate]:
        """Without and with; NaN where no trial has both."""
        pair = self.run.cells.estimates((self.pair.first, self.pair.second), key)
        if pair is None:
            return _UNKNOWN, _UNKNOWN
        return pair[0], pair[1]


def remedy(evidence: _OfTrials, what: str, also: str = "") -> Sentence:
    """Whether a remedy is worth it: better for some horizons, worse below, or not shown to matter.

    Args:
        what: the remedy's name, at the beginning of the sentence.
        also: what stands beside the gain, such as its price; a clause.
    """
    n, over, least = evidence.samples, evidence.horizons, evidence.least()
    if not over:
        return Sentence(_ABOUT, False, f"Undecided: {what} has no error to compare ({n}).")
    better, worse = _sides(evidence)
    at = _best_horizon(evidence)
    changes = (
        _change(evidence, quantity, at, word)
        for quantity, word in (("variance", "variance"), ("bias2", "bias"))
    )
    moved = capital(f"{what} {' and '.join(changes)} at h = {at}")
    tail = f"; {also}" if also else ""
    if not better and not worse:
        missing = "" if least is None or same(least) else f"; {evidence.more(least)}"
        text = f"{moved} ({n}): not shown to matter here{missing}{tail}."
        return Sentence(_ABOUT, False, text)
    sides = [f"better at h = {horizons(better)}"] if better else []
    sides += [f"worse at h = {horizons(worse)}"] if worse else []
    if least is None or same(least) or least.low <= 0 <= least.high:
        change = "not shown to change"
    else:
        lower = least.value > 0
        change = f"{_by(least if lower else inverse(least))} {'lower' if lower else 'higher'}"
    over_all = f"; the least error over the horizons is {change}"
    return Sentence(_ABOUT, True, f"{moved} ({n}): {', '.join(sides)}{over_all}{tail}.")


def _best_horizon(evidence: _OfTrials) -> int:
    """The horizon of least error without the remedy."""
    return min(evidence.horizons, key=evidence.error)


def _sides(evidence: _OfTrials) -> tuple[list[int], list[int]]:
    """Horizons at which the error is clearly smaller, and clearly larger, with the remedy.

    Of many horizons some differ by chance: of those that are named at most 5% are expected to
    (Benjamini and Hochberg, 1995; errors of neighbouring horizons go together, as it allows).
    """
    moved = {h: _moved(evidence, h) for h in evidence.horizons}
    chance = []  # how often no change at all would look as large
    for each in moved.values():
        p = 1.0 if each.value == 0 else 0.0
        if each.se > 0:
            p = float(2 * scipy.stats.t.sf(abs(each.value) / each.se, evidence.groups - 1))
        chance.append(p)
    adjusted = scipy.stats.false_discovery_control(chance)
    sure = {h: each for (h, each), p in zip(moved.items(), adjusted, strict=True) if p <= _FALSE}
    better = [h for h, each in sure.items() if each.high < 0]
    return better, [h for h, each in sure.items() if each.low > 0]


def _moved(evidence: _OfTrials, horizon: int) -> LogRatio:
    """The change of the error: of its logarithm where that is known, else of itself."""
    ratio = evidence.ratio("mse", horizon)
    if ratio is not None:
        return ratio
    value, gap = evidence.change("mse", horizon)
    return LogRatio(value, gap.low, gap.high, gap.se)


def _change(evidence: _OfTrials, quantity: str, at: int, word: str) -> str:
    """cuts variance 31× / raises bias 1.1×; what is in doubt is given as a difference."""
    ratio = evidence.ratio(quantity, at)
    if ratio is None or not ratio.high - ratio.low < _WIDE:
        value, gap = evidence.change(quantity, at)
        squared = "squared " if quantity == "bias2" else ""
        return f"changes the {squared}{word} by {two(value)} (CI {span(gap.low, gap.high)})"
    power = 0.5 if quantity == "bias2" else 1.0
    change = LogRatio(*(power * each for each in (ratio.value, ratio.low, ratio.high, ratio.se)))
    if change.low <= 0 <= change.high:
        return f"leaves {word} at {_by(change)}"
    if change.value < 0:
        return f"cuts {word} {_by(inverse(change))}"
    return f"raises {word} {_by(change)}"


def _by(ratio: LogRatio) -> str:
    """3.2× (CI 2.1–4.9), or the end that is known."""
    return sized(exp(ratio.value), exp(ratio.low), exp(ratio.high))


def verdict(run: Remedies) -> list[Sentence]:
    """Which remedy to take, one sentence for each at equal time, and how far to trust them."""
    judged = [_OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME]
    sentences = [_choice(run, judged)]
    for each in judged:
        clauses = [*_jacobians(each), *_price(each), *_optimiser(each)]
        what = f"{called(each.pair.arm)} ({each.pair.arm})"
        sentences.append(remedy(each, what, "; ".join(clauses)))
    return sentences + _truth(run)


def setting(run: Remedies) -> str:
    """5 fits of 2×64 silu units to 3000 rows"""
    settings = run.config["settings"]
    widths = settings["hidden"]
    network = "×".join(map(str, (len(widths), widths[0]) if len(set(widths)) == 1 else widths))
    count = "1 fit" if run.trials == 1 else f"{run.trials} fits"
    return f"{count} of {network} {settings['activation']} units to {run.config['rows']} rows"


def _choice(run: Remedies, judged: Sequence[_OfTrials]) -> Sentence:
    """The remedies that are shown to lower the least error at equal time, the best first."""
    ratios = {each.pair.arm: least for each in judged if (least := each.least()) is not None}
    where = f"at equal fitting time ({setting(run)}, {run.config['task']})"
    if not ratios:
        reasons = [str(each["truth"]["reason"]) for each in run.notes["trials"]]
        why = f": {reasons[0]}" if reasons else ""
        text = f"Undecided: no remedy's gradient error can be compared {where}{why}."
        return Sentence(_GAIN, False, text)
    order = sorted(ratios, key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0 and arm != _CEILING]
    limit = ""
    if _CEILING in ratios:  # what a loss that knows the simulator would do
        ratio = ratios[_CEILING]
        moved = f"lowers it {_by(ratio)}" if ratio.value > 0 else f"raises it {_by(inverse(ratio))}"
        limit = f" The ceiling, {called(_CEILING)}, {moved}."
    if shown:
        first, rest = shown[0], shown[1:]
        more = "".join(f", then {called(arm)} {_by(ratios[arm])}" for arm in rest)
        text = f"Take {called(first)}: {where} it lowers the least error of the gradient "
        return Sentence(_GAIN, True, f"{text}{_by(ratios[first])}{more}.{limit}")
    return Sentence(_GAIN, False, _none(judged, ratios, order, where) + limit)


def _none(
    judged: Sequence[_OfTrials], ratios: dict[str, LogRatio], order: list[str], where: str
) -> str:
    """No remedy is shown to help, and the one that looks best."""
    text = f"Take none yet: {where} no remedy is shown to lower the least error of the gradient"
    best = next((arm for arm in order if arm != _CEILING and ratios[arm].value > 0), None)
    if best is None:
        return f"{text}; none even looks better."
    evidence = next(each for each in judged if each.pair.arm == best)
    looks = f"{called(best)} looks best, {_by(ratios[best])}"
    return f"{text}; {looks}, and {evidence.more(ratios[best])}."


def _truth(run: Remedies) -> list[Sentence]:
    """Said where the truth is not what it should be, with the first trial's reason."""
    truths = [each["truth"] for each in run.notes["trials"]]
    short = [each for each in truths if each["status"] != "converged"]
    if not short:
        return []
    many = f"in {len(short)} of {len(truths)} trials" if len(truths) > 1 else "here"
    states = " or ".join(sorted({str(each["status"]) for each in short}))
    text = f"The truth is {states} {many}; in the first of them: {short[0]['reason']}."
    return [Sentence("truth", True, text)]


def _jacobians(evidence: _OfTrials) -> list[str]:
    """Errors of ∂f/∂s and ∂f/∂a, with over without; where there are clips, away from them."""
    keys = evidence.run.cells.keys(evidence.pair.second)
    apart = any(key.region == CLIPPED for key in keys)
    blocks = []
    for block, name in (("A", "∂f/∂s"), ("B", "∂f/∂a")):
        change = evidence.ratio_of(Key("jacobian_error", block, region=SMOOTH))
        if change is not None:
            blocks.append(f"{name} {_by(change)}")
    where = " away from clips and limits" if apart else ""
    return [f"errors of {' and '.join(blocks)}{where}"] if blocks else []


def _price(evidence: _OfTrials) -> list[str]:
    """Error of predictions, and time of a fit."""
    clauses, over = [], evidence.horizons
    if over:
        at = _best_horizon(evidence)
        change = evidence.ratio("prediction_error", at)
        if change is not None:
            clauses.append(f"its predictions at step {at} err {_by(change)} as much")
    cost = float(evidence.run.config["costs"].get(evidence.pair.arm, 1.0))
    return [*clauses, f"fitting takes {times(cost)} the time per step"]


def _optimiser(evidence: _OfTrials) -> list[str]:
    """Said where only equal steps show a gain: what the baseline gains by as long a fit."""
    run, (arm, _, longer, _) = evidence.run, evidence.pair
    pairs = [pair for pair in run.pairs if pair.arm == arm and pair.budget == STEPS]
    steps, time = _OfTrials(run, pairs[0]).least(), evidence.least()
    if steps is None or steps.low <= 0 or (time is not None and time.low > 0):
        return []
    gain = f"at equal steps the least error is {_by(steps)} lower, at equal time that is not shown"
    alone = _OfTrials(run, ModelPair(arm, STEPS, pairs[0].first, longer)).least()
    if alone is not None and alone.low > 0:
        return [f"{gain}: the gain is an optimiser's, {_by(alone)} by fitting for as long alone"]
    return [f"{gain}: the gain may be an optimiser's"]


def screen(run: Remedies) -> Screen:
    """The remedy that lowers the least error most at equal time, or that none is shown to."""
    rest = tuple(verdict(run))
    judged = {pair.arm: _OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME}
    ratios = {arm: least for arm, each in judged.items() if (least := each.least()) is not None}
    # What four times the samples would do instead.
    rows, beside = larger_batches(run), list[Fact]()
    mine = rows[(rows["arm"] == f"batch × {_LARGER}") & (rows["quantity"] == "least_mse")]
    if not mine.empty and mine["ratio"].iloc[0] > 0:
        row = mine.iloc[0]
        how = "MSE = bias² + variance / N′ with 4 N′ in the place of N′, least over the horizons."
        ends = span(*sorted((1 / row["ratio_high"], 1 / row["ratio_low"])))
        label = f"lower error by {_LARGER}× the batch instead, {ends}"
        beside.append(Fact(label, times(1 / float(row["ratio"])), how))
    if not ratios:
        text = "Take none: no remedy's gradient error can be compared here."
        return Screen(text, "none", "no admissible truth", tuple(beside), _FIGURE, rest)
    order = sorted((arm for arm in ratios if arm != _CEILING), key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0]
    if not shown:
        text, light, sure = _take_none(judged, ratios, order)
        best = order[0] if order else None
    else:
        text, light, sure = _take(run, ratios, shown, order)
        best = shown[0]
    facts: list[Fact] = []
    if best is not None:
        lower = times(exp(ratios[best].value))
        how = (
            f"exp of the mean of log(least MSE without / with {best}) over "
            f"{judged[best].samples}, least over the horizons, at equal fitting time."
        )
        facts.append(Fact(f"lower error with {called(best)}, {_ends(ratios[best])}", lower, how))
        how = f"Seconds per step of fitting {best} over those of {BASELINE} (config costs)."
        price = times(_step_cost(run, best))
        facts.append(Fact(f"time per step of fitting, {best}", price, how))
    return Screen(text, light, sure, (*facts, *beside)[:3], _FIGURE, rest)


def _take(
    run: Remedies, ratios: Mapping[str, LogRatio], shown: Sequence[str], order: Sequence[str]
) -> tuple[str, Light, str]:
    """The best that is shown; others whose interval reaches its lower end are not excluded."""
    best = shown[0]
    gain = times(exp(ratios[best].value))
    text = f"Take {called(best)}: at equal fitting time the gradient's error falls {gain}"
    text += f" (price: {times(_step_cost(run, best))} the time per step)."
    alike = [arm for arm in order if arm != best and ratios[arm].high >= ratios[best].low]
    worse = [called(arm) for arm, ratio in ratios.items() if ratio.high < 0 and arm != _CEILING]
    text += f" Not excluded: {listed([called(arm) for arm in alike], _NAMED)}." if alike else ""
    text += f" Leave {listed(worse, _NAMED)}: worse than no remedy." if worse else ""
    sure = f"shown ({_ends(ratios[best])}× lower, {_fits(run)})"
    return text, "choose" if alike else "act", sure


def _take_none(
    judged: Mapping[str, _OfTrials], ratios: Mapping[str, LogRatio], order: Sequence[str]
) -> tuple[str, Light, str]:
    best = next((arm for arm in order if ratios[arm].value > 0), None)
    if best is None:
        return "Take none: no remedy even looks better than the plain fit.", "act", "none better"
    gain = f"{times(exp(ratios[best].value))} lower error"
    text = f"Take none yet; the best guess is {called(best)}: {gain} at equal fitting time."
    run = judged[best].run
    return text, "choose", f"not shown ({_fits(run)}); {judged[best].more(ratios[best])}"


def _fits(run: Remedies) -> str:
    """How many, and from how many they were extended after a first look."""
    trials = run.notes.get("trials", ())
    planned = int(trials[0].get("planned", run.trials)) if trials else run.trials
    count = "1 fit" if run.trials == 1 else f"{run.trials} fits"
    return f"{count}, extended from {planned} after looking" if run.trials > planned else count


def _step_cost(run: Remedies, arm: str) -> float:
    return float(run.config["costs"].get(arm, 1.0))


def _ends(ratio: LogRatio) -> str:
    return span(exp(ratio.low), exp(ratio.high))
