"""What a test of remedies means: which one to take, and what each does at equal time.

A gain that is there at equal steps and not at equal fitting time is an optimiser's: the baseline
has it, too, when it is fitted for as long.

Form 10: what a remedy does to variance and bias, horizon by horizon, and whether it matters.

The evidence is errors of one policy's gradient without the remedy and with it, on common samples:
of two measurements (`OfProfiles`), or of repeated fits (`gradlab.tools.remedies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Protocol

import numpy as np
import scipy

from gradlab.runs.comparison import Comparison
from gradlab.runs.decision_rules import LogRatio, least_ratio
from gradlab.statistics.comparison import difference, log_ratio, more_samples
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.tools.remedies.result import Remedies
from gradlab.tools.remedies.tables import more_trials, ratio
from gradlab.tools.remedies.values import CLIPPED, SMOOTH, STEPS, TIME, Key, ModelPair, called
from gradlab.verdicts.phrases import capital, further, inverse, same
from gradlab.verdicts.screen import Sentence
from gradlab.wording import horizons, span, times, two
from gradlab.wording import ratio as sized

_ABOUT = "remedy"
_FALSE = 0.05  # share of named horizons that chance may have named
_WIDE = log(1e6)  # a ratio's interval that says nothing of it


class _RemedyErrors(Protocol):
    """Errors without a remedy and with it: mse, variance, bias2 at horizons."""

    @property
    def samples(self) -> str:
        """How a sentence tells their number."""

    def more(self, ratio: LogRatio) -> str:
        """How many more of them would tell a ratio from 1."""

    @property
    def groups(self) -> int:
        """Independent samples behind each number."""

    @property
    def horizons(self) -> Sequence[int]:
        """Those at which both errors are known."""

    def error(self, horizon: int) -> float:
        """Mean squared error without the remedy."""

    def ratio(self, quantity: str, horizon: int) -> LogRatio | None:
        """log(with / without); None where a number is not known to be above 0."""

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        """With less without."""

    def least(self) -> LogRatio | None:
        """log(least error over the horizons without / with); None where it cannot be told."""


@dataclass(frozen=True, eq=False)
class OfProfiles:
    """Two measurements: without the remedy, and with it; `name`: the estimator that is judged."""

    comparison: Comparison
    name: str = "model"

    @property
    def samples(self) -> str:
        return f"N = {self.comparison.samples}"

    def more(self, ratio: LogRatio) -> str:
        count = more_samples(ratio.value, ratio.se, self.comparison.samples)
        return f"{further(count)} decide"

    @property
    def groups(self) -> int:
        return len(self._pair("mse", self.horizons[0])[0].left_out)

    @property
    def horizons(self) -> list[int]:
        comparison = self.comparison
        if self.name not in comparison.estimators or "mse" not in comparison.quantities:
            return []
        return [
            h
            for h in comparison.measured(self.name, "mse")
            if h and all(np.isfinite(e.left_out).all() for e in self._pair("mse", h))
        ]

    def error(self, horizon: int) -> float:
        return self._pair("mse", horizon)[0].value

    def ratio(self, quantity: str, horizon: int) -> LogRatio | None:
        first, second = self._pair(quantity, horizon)
        logarithm = log_ratio(second, first)
        if logarithm is None:
            return None
        return LogRatio(
            log(second.value / first.value), logarithm.low, logarithm.high, logarithm.se
        )

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        first, second = self._pair(quantity, horizon)
        return second.value - first.value, difference(second, first)

    def _pair(self, quantity: str, horizon: int) -> tuple[Estimate, Estimate]:
        return self.comparison.estimates(self.name, quantity, horizon)

    def least(self) -> LogRatio | None:
        pairs = [self._pair("mse", h) for h in self.horizons]
        return least_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def remedy(evidence: _RemedyErrors, what: str, also: str = "") -> Sentence:
    """Whether a remedy is worth it: better for some horizons, worse below, or not shown to matter.

    Args:
        what: the remedy's name, at the beginning of the sentence.
        also: what stands beside the gain, such as its price; a clause.
    """
    n, over = evidence.samples, evidence.horizons
    if not over:
        return Sentence(_ABOUT, False, f"Undecided: {what} has no error to compare ({n}).")
    better, worse = _sides(evidence)
    moved, tail = f"{what} {_parts(evidence)}", f"; {also}" if also else ""
    if not better and not worse:
        text = f"{capital(moved)} ({n}): not shown to matter here{_missing(evidence)}{tail}."
        return Sentence(_ABOUT, False, text)
    sides = [f"better at h = {horizons(better)}"] if better else []
    sides += [f"worse at h = {horizons(worse)}"] if worse else []
    text = f"{capital(moved)} ({n}): {', '.join(sides)}{_least(evidence)}{tail}."
    return Sentence(_ABOUT, True, text)


def best_horizon(evidence: _RemedyErrors) -> int:
    """The horizon of least error without the remedy."""
    return min(evidence.horizons, key=evidence.error)


def _sides(evidence: _RemedyErrors) -> tuple[list[int], list[int]]:
    """Horizons at which the error is clearly smaller, and clearly larger, with the remedy.

    Of many horizons some differ by chance: of those that are named at most 5% are expected to
    (Benjamini and Hochberg, 1995; errors of neighbouring horizons go together, as it allows).
    """
    moved = {h: _moved(evidence, h) for h in evidence.horizons}
    chance = [_chance(each, evidence.groups - 1) for each in moved.values()]
    adjusted = scipy.stats.false_discovery_control(chance)
    sure = {h: each for (h, each), p in zip(moved.items(), adjusted, strict=True) if p <= _FALSE}
    better = [h for h, each in sure.items() if each.high < 0]
    return better, [h for h, each in sure.items() if each.low > 0]


def _moved(evidence: _RemedyErrors, horizon: int) -> LogRatio:
    """The change of the error: of its logarithm where that is known, else of itself."""
    ratio = evidence.ratio("mse", horizon)
    if ratio is not None:
        return ratio
    value, gap = evidence.change("mse", horizon)
    return LogRatio(value, gap.low, gap.high, gap.se)


def _chance(moved: LogRatio, freedom: int) -> float:
    """How often no change at all would look as large."""
    if not moved.se > 0:
        return 1.0 if moved.value == 0 else 0.0
    return float(2 * scipy.stats.t.sf(abs(moved.value) / moved.se, freedom))


def _parts(evidence: _RemedyErrors) -> str:
    """Changes of variance and of |bias| at the horizon of least error without the remedy."""
    at = best_horizon(evidence)
    changes = [
        _change(evidence, "variance", at, "variance"),
        _change(evidence, "bias2", at, "bias"),
    ]
    return f"{' and '.join(changes)} at h = {at}"


def _missing(evidence: _RemedyErrors) -> str:
    """How many more samples would tell the least errors apart, were they what they seem."""
    ratio = evidence.least()
    return "" if ratio is None or same(ratio) else f"; {evidence.more(ratio)}"


def _change(evidence: _RemedyErrors, quantity: str, at: int, word: str) -> str:
    """cuts variance 31× / raises bias 1.1×; what is in doubt is given as a difference."""
    ratio = evidence.ratio(quantity, at)
    if ratio is None or not ratio.high - ratio.low < _WIDE:
        value, gap = evidence.change(quantity, at)
        squared = "squared " if quantity == "bias2" else ""
        return f"changes the {squared}{word} by {two(value)} (CI {span(gap.low, gap.high)})"
    power = 0.5 if quantity == "bias2" else 1.0
    change = LogRatio(*(power * each for each in (ratio.value, ratio.low, ratio.high, ratio.se)))
    if change.low <= 0 <= change.high:
        return f"leaves {word} at {by(change)}"
    if change.value < 0:
        return f"cuts {word} {by(inverse(change))}"
    return f"raises {word} {by(change)}"


def _least(evidence: _RemedyErrors) -> str:
    """What becomes of the smallest error over the horizons."""
    ratio = evidence.least()
    if ratio is None or same(ratio) or ratio.low <= 0 <= ratio.high:
        return "; the least error over the horizons is not shown to change"
    word, shown = ("lower", ratio) if ratio.value > 0 else ("higher", inverse(ratio))
    return f"; the least error over the horizons is {by(shown)} {word}"


def by(ratio: LogRatio) -> str:
    """3.2× (CI 2.1–4.9), or the end that is known."""
    return sized(exp(ratio.value), exp(ratio.low), exp(ratio.high))


CEILING = "sobolev"  # needs what no method on data has
_GAIN = "gain"
_UNKNOWN = Estimate(np.nan, np.full(2, np.nan))


@dataclass(frozen=True, eq=False)
class OfTrials:
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


def verdict(run: Remedies) -> list[Sentence]:
    """Which remedy to take, one sentence for each at equal time, and how far to trust them."""
    judged = [OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME]
    return [_choice(run, judged), *(_judged(each) for each in judged), *_truth(run)]


def setting(run: Remedies) -> str:
    """5 fits of 2×64 silu units to 3000 rows"""
    settings = run.config["settings"]
    widths = settings["hidden"]
    network = "×".join(map(str, (len(widths), widths[0]) if len(set(widths)) == 1 else widths))
    count = "1 fit" if run.trials == 1 else f"{run.trials} fits"
    return f"{count} of {network} {settings['activation']} units to {run.config['rows']} rows"


def _choice(run: Remedies, judged: Sequence[OfTrials]) -> Sentence:
    """The remedies that are shown to lower the least error at equal time, the best first."""
    ratios = {each.pair.arm: least for each in judged if (least := each.least()) is not None}
    where = f"at equal fitting time ({setting(run)}, {run.config['task']})"
    if not ratios:
        text = f"Undecided: no remedy's gradient error can be compared {where}{_why(run)}."
        return Sentence(_GAIN, False, text)
    order = sorted(ratios, key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0 and arm != CEILING]
    limit = _limit(ratios[CEILING]) if CEILING in ratios else ""
    if shown:
        first, rest = shown[0], shown[1:]
        more = "".join(f", then {called(arm)} {by(ratios[arm])}" for arm in rest)
        text = f"Take {called(first)}: {where} it lowers the least error of the gradient "
        return Sentence(_GAIN, True, f"{text}{by(ratios[first])}{more}.{limit}")
    return Sentence(_GAIN, False, _none(judged, ratios, order, where) + limit)


def _limit(ratio: LogRatio) -> str:
    """What a loss that knows the simulator would do."""
    moved = f"lowers it {by(ratio)}" if ratio.value > 0 else f"raises it {by(inverse(ratio))}"
    return f" The ceiling, {called(CEILING)}, {moved}."


def _none(
    judged: Sequence[OfTrials], ratios: dict[str, LogRatio], order: list[str], where: str
) -> str:
    """No remedy is shown to help, and the one that looks best."""
    text = f"Take none yet: {where} no remedy is shown to lower the least error of the gradient"
    best = next((arm for arm in order if arm != CEILING and ratios[arm].value > 0), None)
    if best is None:
        return f"{text}; none even looks better."
    evidence = next(each for each in judged if each.pair.arm == best)
    looks = f"{called(best)} looks best, {by(ratios[best])}"
    return f"{text}; {looks}, and {evidence.more(ratios[best])}."


def _why(run: Remedies) -> str:
    reasons = [str(each["truth"]["reason"]) for each in run.notes["trials"]]
    return f": {reasons[0]}" if reasons else ""


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


def _judged(evidence: OfTrials) -> Sentence:
    arm = evidence.pair.arm
    clauses = [*_jacobians(evidence), *_price(evidence), *_optimiser(evidence)]
    return remedy(evidence, f"{called(arm)} ({arm})", "; ".join(clauses))


def _jacobians(evidence: OfTrials) -> list[str]:
    """Errors of ∂f/∂s and ∂f/∂a, with over without; where there are clips, away from them."""
    keys = evidence.run.cells.keys(evidence.pair.second)
    apart = any(key.region == CLIPPED for key in keys)
    blocks = []
    for block, name in (("A", "∂f/∂s"), ("B", "∂f/∂a")):
        change = evidence.ratio_of(Key("jacobian_error", block, region=SMOOTH))
        if change is not None:
            blocks.append(f"{name} {by(change)}")
    where = " away from clips and limits" if apart else ""
    return [f"errors of {' and '.join(blocks)}{where}"] if blocks else []


def _price(evidence: OfTrials) -> list[str]:
    """Error of predictions, and time of a fit."""
    clauses, over = [], evidence.horizons
    if over:
        at = best_horizon(evidence)
        change = evidence.ratio("prediction_error", at)
        if change is not None:
            clauses.append(f"its predictions at step {at} err {by(change)} as much")
    cost = float(evidence.run.config["costs"].get(evidence.pair.arm, 1.0))
    return [*clauses, f"fitting takes {times(cost)} the time per step"]


def _optimiser(evidence: OfTrials) -> list[str]:
    """Said where only equal steps show a gain: what the baseline gains by as long a fit."""
    run, (arm, _, longer, _) = evidence.run, evidence.pair
    pairs = [pair for pair in run.pairs if pair.arm == arm and pair.budget == STEPS]
    steps, time = OfTrials(run, pairs[0]).least(), evidence.least()
    if steps is None or steps.low <= 0 or (time is not None and time.low > 0):
        return []
    gain = f"at equal steps the least error is {by(steps)} lower, at equal time that is not shown"
    alone = OfTrials(run, ModelPair(arm, STEPS, pairs[0].first, longer)).least()
    if alone is not None and alone.low > 0:
        return [f"{gain}: the gain is an optimiser's, {by(alone)} by fitting for as long alone"]
    return [f"{gain}: the gain may be an optimiser's"]
