"""What a test of remedies means: which one to take, and what each does at equal time.

A gain that is there at equal steps and not at equal fitting time is an optimiser's: the baseline
has it, too, when it is fitted for as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradlab.runs.decision_rules import LogRatio
from gradlab.runs.remedies.arms import NAMES, STEPS, TIME
from gradlab.runs.remedies.ratios import more_trials, ratio
from gradlab.runs.remedies.run import Remedies
from gradlab.runs.remedies.values import CLIPPED, SMOOTH, Key, Pair
from gradlab.statistics.comparison import difference, more_samples
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.verdicts.phrases import further, inverse
from gradlab.verdicts.remedies.variance_and_bias import best_horizon, by, remedy
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import times

CEILING = "sobolev"  # needs what no method on data has
GAIN = "gain"
UNKNOWN = Estimate(np.nan, np.full(2, np.nan))


@dataclass(frozen=True, eq=False)
class OfTrials:
    """Errors of a pair of models over the trials of a run."""

    run: Remedies
    pair: Pair

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
            return UNKNOWN, UNKNOWN
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
        return Sentence(GAIN, False, text)
    order = sorted(ratios, key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0 and arm != CEILING]
    limit = _limit(ratios[CEILING]) if CEILING in ratios else ""
    if shown:
        first, rest = shown[0], shown[1:]
        more = "".join(f", then {NAMES[arm]} {by(ratios[arm])}" for arm in rest)
        text = f"Take {NAMES[first]}: {where} it lowers the least error of the gradient "
        return Sentence(GAIN, True, f"{text}{by(ratios[first])}{more}.{limit}")
    return Sentence(GAIN, False, _none(judged, ratios, order, where) + limit)


def _limit(ratio: LogRatio) -> str:
    """What a loss that knows the simulator would do."""
    moved = f"lowers it {by(ratio)}" if ratio.value > 0 else f"raises it {by(inverse(ratio))}"
    return f" The ceiling, {NAMES[CEILING]}, {moved}."


def _none(
    judged: Sequence[OfTrials], ratios: dict[str, LogRatio], order: list[str], where: str
) -> str:
    """No remedy is shown to help, and the one that looks best."""
    text = f"Take none yet: {where} no remedy is shown to lower the least error of the gradient"
    best = next((arm for arm in order if arm != CEILING and ratios[arm].value > 0), None)
    if best is None:
        return f"{text}; none even looks better."
    evidence = next(each for each in judged if each.pair.arm == best)
    looks = f"{NAMES[best]} looks best, {by(ratios[best])}"
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
    return remedy(evidence, f"{NAMES[arm]} ({arm})", "; ".join(clauses))


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
    alone = OfTrials(run, Pair(arm, STEPS, pairs[0].first, longer)).least()
    if alone is not None and alone.low > 0:
        return [f"{gain}: the gain is an optimiser's, {by(alone)} by fitting for as long alone"]
    return [f"{gain}: the gain may be an optimiser's"]
