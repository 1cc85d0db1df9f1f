"""The first screen of a test of remedies: which to take, its price, and more samples beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

import pandas as pd

from gradlab.runs.decision_rules import LogRatio
from gradlab.tools.remedies.batches import larger_batches
from gradlab.tools.remedies.findings import CEILING, OfTrials, verdict
from gradlab.tools.remedies.result import Remedies
from gradlab.tools.remedies.values import BASELINE, TIME, called
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.wording import listed, span, times

_FIGURE = "least_mse"
_LARGER = 4  # times the batch, beside the remedies
_NAMED = 2


def screen(run: Remedies) -> Screen:
    """The remedy that lowers the least error most at equal time, or that none is shown to."""
    rest = tuple(verdict(run))
    judged = {pair.arm: OfTrials(run, pair) for pair in run.pairs if pair.budget == TIME}
    ratios = {arm: least for arm, each in judged.items() if (least := each.least()) is not None}
    beside = _larger_batch(run)
    if not ratios:
        text = "Take none: no remedy's gradient error can be compared here."
        return Screen(text, "none", "no admissible truth", tuple(beside), _FIGURE, rest)
    order = sorted((arm for arm in ratios if arm != CEILING), key=lambda arm: -ratios[arm].value)
    shown = [arm for arm in order if ratios[arm].low > 0]
    if not shown:
        text, light, sure = _none(judged, ratios, order)
        best = order[0] if order else None
    else:
        text, light, sure = _take(run, ratios, shown, order)
        best = shown[0]
    facts = [
        *(_gain(judged[best], ratios[best], best) if best else ()),
        *_price(run, best),
        *beside,
    ]
    return Screen(text, light, sure, tuple(facts[:3]), _FIGURE, rest)


def _take(
    run: Remedies, ratios: Mapping[str, LogRatio], shown: Sequence[str], order: Sequence[str]
) -> tuple[str, Light, str]:
    """The best that is shown; others whose interval reaches its lower end are not excluded."""
    best = shown[0]
    gain = times(exp(ratios[best].value))
    text = f"Take {called(best)}: at equal fitting time the gradient's error falls {gain}"
    text += f" (price: {times(_step_cost(run, best))} the time per step)."
    alike = [arm for arm in order if arm != best and ratios[arm].high >= ratios[best].low]
    worse = [called(arm) for arm, ratio in ratios.items() if ratio.high < 0 and arm != CEILING]
    text += f" Not excluded: {listed([called(arm) for arm in alike], _NAMED)}." if alike else ""
    text += f" Leave {listed(worse, _NAMED)}: worse than no remedy." if worse else ""
    sure = f"shown ({_ends(ratios[best])}× lower, {_fits(run)})"
    return text, "choose" if alike else "act", sure


def _none(
    judged: Mapping[str, OfTrials], ratios: Mapping[str, LogRatio], order: Sequence[str]
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


def _gain(judged: OfTrials, ratio: LogRatio, arm: str) -> list[Fact]:
    how = (
        f"exp of the mean of log(least MSE without / with {arm}) over {judged.samples}, least over "
        f"the horizons, at equal fitting time."
    )
    ends = _ends(ratio)
    return [Fact(f"lower error with {called(arm)}, {ends}", times(exp(ratio.value)), how)]


def _price(run: Remedies, arm: str | None) -> list[Fact]:
    if arm is None:
        return []
    how = f"Seconds per step of fitting {arm} over those of {BASELINE} (config costs)."
    return [Fact(f"time per step of fitting, {arm}", times(_step_cost(run, arm)), how)]


def _step_cost(run: Remedies, arm: str) -> float:
    return float(run.config["costs"].get(arm, 1.0))


def _larger_batch(run: Remedies) -> list[Fact]:
    """What four times the samples would do instead."""
    rows: pd.DataFrame = larger_batches(run)
    mine = rows[(rows["arm"] == f"batch × {_LARGER}") & (rows["quantity"] == "least_mse")]
    if mine.empty or not mine["ratio"].iloc[0] > 0:
        return []
    row = mine.iloc[0]
    how = "MSE = bias² + variance / N′ with 4 N′ in the place of N′, least over the horizons."
    ends = span(*sorted((1 / row["ratio_high"], 1 / row["ratio_low"])))
    text = times(1 / float(row["ratio"]))
    return [Fact(f"lower error by {_LARGER}× the batch instead, {ends}", text, how)]


def _ends(ratio: LogRatio) -> str:
    return span(exp(ratio.low), exp(ratio.high))
