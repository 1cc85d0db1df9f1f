"""Measured weights beside the rule's, in sentences."""

from __future__ import annotations

from math import exp

import numpy as np

from gradlab.runs.training.measured_weights import (
    FEWEST,
    LOST,
    NO_TRUTH,
    SWITCHED,
    by_gain,
    gains_over_rule,
    interval_of_mean,
    logs_over_rule,
)
from gradlab.runs.training.results import Floats, Training
from gradlab.verdicts.screen import Sentence
from gradlab.wording import percent, span, times, two


def measured(run: Training, name: str) -> list[Sentence]:
    """What was followed in the place of the rule, its errors, and when the data took over."""
    if not run.weights:
        return []
    return [_weights(run, name), *_order(run, name)]


def _weights(run: Training, name: str) -> Sentence:
    found, last = run.weights, int(run.weights["iteration"][-1])
    force, rule = (np.median(found["in_force"][-1], axis=0), found["rule"][-1])
    named = ", ".join(
        f"w_{h} = {two(w)} (rule: {two(r)})"
        for h, w, r in zip(run.horizons, force, rule, strict=True)
    )
    over, decided = _gain(run) if by_gain(run) else _error(run)
    outcome = found["outcome"]
    lost = ", ".join(
        f"{(outcome == code).sum()} {words}"
        for code, words in ((NO_TRUTH, "had no true gradient"), (LOST, "were of lost seeds"))
        if (outcome == code).any()
    )
    parts = [
        f"{name}: measured {run.config['algorithm']['weights']['follow']} at iteration {last}: "
        f"{named}{', medians of the seeds' if len(run.seeds) > 1 else ''}",
        over,
        f"{(outcome == SWITCHED).sum()} of {outcome.size} measurements put others in force"
        f"{f' ({lost})' if lost else ''}",
        f"measuring took {percent(float(found['share'][-1]))} of the time",
    ]
    return Sentence("weights", decided, f"{'; '.join(parts)}.")


def _error(run: Training) -> tuple[str, bool]:
    """MSE of what was in force over the rule's, where the two differ; is it below or above 1?"""
    logs = logs_over_rule(run)
    count, each = sum(map(len, logs)), [float(log.mean()) for log in logs if len(log)]
    starts = f"on N = {int(run.weights['starts'][-1])} starts of replay that did not choose it"
    if not each:
        return "its MSE beside the rule's is not known yet", False
    ratio = f"its MSE was {times(exp(np.mean(each)))} that of the rule's weights"
    if len(each) < FEWEST:
        return f"{ratio} ({count} measurements, {len(each)} seeds: no interval, {starts})", False
    low, high = interval_of_mean(np.array(each))
    return (
        f"{ratio} (95% interval {span(exp(low), exp(high))} over {len(each)} seeds, {count} "
        f"measurements {starts})",
        low > 0 or high < 0,
    )


def _gain(run: Training) -> tuple[str, bool]:
    """Gain of what was in force less that of the rule, where the two differ: above or below 0?"""
    gaps = gains_over_rule(run)
    count, each = sum(map(len, gaps)), [float(gap.mean()) for gap in gaps if len(gap)]
    starts = f"on N = {int(run.weights['starts'][-1])} starts that did not choose it"
    if not each:
        return "its gain beside the rule's is not known yet", False
    text = (
        f"a step along it gained {np.mean(each):+.0%} of the best possible more than along the "
        f"rule's weights"
    )
    if len(each) < FEWEST:
        return f"{text} ({count} measurements, {len(each)} seeds: no interval, {starts})", False
    low, high = interval_of_mean(np.array(each))
    return (
        f"{text} (95% interval {low:+.0%} to {high:+.0%} over {len(each)} seeds, {count} "
        f"measurements {starts})",
        low > 0 or high < 0,
    )


def _order(run: Training, name: str) -> list[Sentence]:
    """When the model's part falls below one half: by the rule, and in every seed."""
    if 0 not in run.horizons or len(run.weights["iteration"]) < 2:
        return []
    zero, at = run.horizons.index(0), run.weights["iteration"]
    rule = _first(at, run.weights["rule"][:, zero])
    seeds = [_first(at, run.weights["in_force"][:, k, zero]) for k in range(len(run.seeds))]
    there = [when for when in seeds if when is not None]
    by_rule = "does not within the run" if rule is None else f"does at iteration {rule}"
    when = "in no seed"
    if there:
        most = "" if len(there) == 1 else f" to {max(there)}"
        when = f"in {len(there)} of {len(seeds)} seeds, at iterations {min(there)}{most}"
    return [
        Sentence(
            "order", True,
            f"{name}: what is in force gives the data's gradient more than half {when}; the rule "
            f"{by_rule} (looked at every {int(at[1] - at[0])} iterations).",
        )
    ]  # fmt: skip


def _first(at: Floats, weight: Floats) -> int | None:
    above = np.flatnonzero(weight > 0.5)
    return int(at[above[0]]) if len(above) else None
