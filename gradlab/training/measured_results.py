"""Measured weights beside the rule's, as a table for figures and as sentences; without torch."""

from __future__ import annotations

from math import exp

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.statistics.intervals import skewness_corrected
from gradlab.statistics.moments import Estimate
from gradlab.training.measured_outcomes import LOST, NO_TRUTH, SWITCHED
from gradlab.training.results import Floats, Training
from gradlab.verdict import Sentence
from gradlab.wording import percent, span, times, two

FEWEST = 3  # seeds that make an interval
SAME = 1e-6  # of a weight: closer weights have the same error


def table(run: Training) -> pd.DataFrame:
    """One row per measurement, seed, quantity and horizon, for the figures.

    Quantities: "in force", "measured" (the best ones) and "rule", weights of a horizon; "over
    rule", the MSE of what was in force before, over that of the rule's weights, with its 95%
    interval, at horizon −1; "switched", 1 or 0, likewise; and where weights are measured by gain
    "gain over rule", the gain of what was in force less that of the rule's weights.
    """
    found, parts = run.weights, []
    for k, seed in enumerate(run.seeds):
        for j, horizon in enumerate(run.horizons):
            columns = {
                "in force": found["in_force"][:, k, j],
                "measured": found["measured"][:, k, j],
                "rule": found["rule"][:, j],
            }
            parts += [_part(run, seed, name, horizon, value) for name, value in columns.items()]
        ratio, low, high = (found[f"over_rule{end}"][:, k] for end in ("", "_low", "_high"))
        parts.append(_part(run, seed, "over rule", -1, ratio, low, high))
        if by_gain(run):
            gap = (found[f"gain_over_rule{end}"][:, k] for end in ("", "_low", "_high"))
            parts.append(_part(run, seed, "gain over rule", -1, *gap))
        switched = (found["outcome"][:, k] == SWITCHED).astype(float)
        parts.append(_part(run, seed, "switched", -1, switched))
    return pd.concat(parts, ignore_index=True)


def _part(
    run: Training,
    seed: int,
    quantity: str,
    horizon: int,
    value: Floats,
    low: Floats | float = np.nan,
    high: Floats | float = np.nan,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "iteration": run.weights["iteration"], "seed": int(seed), "quantity": quantity,
            "horizon": int(horizon), "value": value, "ci_low": low, "ci_high": high,
        }
    )  # fmt: skip


def by_gain(run: Training) -> bool:
    """Did gains decide, rather than errors?"""
    return str(run.config["algorithm"]["weights"].get("by", "mse")) == "gain"


def measured(run: Training, name: str) -> list[Sentence]:
    """What was followed in the place of the rule, its errors, and when the data took over."""
    if not run.weights:
        return []
    return [_weights(run, name), *_order(run, name)]


def _weights(run: Training, name: str) -> Sentence:
    found, last = run.weights, int(run.weights["iteration"][-1])
    force, rule = (np.median(found["in_force"][-1], axis=0), found["rule"][-1])
    told = ", ".join(
        f"w_{h} = {two(w)} (rule: {two(r)})"
        for h, w, r in zip(run.horizons, force, rule, strict=True)
    )
    over, decided = _gain(run) if by_gain(run) else _error(run)
    outcome = found["outcome"]
    parts = [
        f"{name}: measured {run.config['algorithm']['weights']['follow']} at iteration {last}: "
        f"{told}{', medians of the seeds' if len(run.seeds) > 1 else ''}",
        over,
        f"{(outcome == SWITCHED).sum()} of {outcome.size} measurements put others in force"
        f"{_without(outcome)}",
        f"measuring took {percent(float(found['share'][-1]))} of the time",
    ]
    return Sentence("weights", decided, f"{'; '.join(parts)}.")


def _without(outcome: Floats) -> str:
    lost = [
        f"{(outcome == code).sum()} {words}"
        for code, words in ((NO_TRUTH, "had no true gradient"), (LOST, "were of lost seeds"))
        if (outcome == code).any()
    ]
    return f" ({', '.join(lost)})" if lost else ""


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
    told = (
        f"a step along it gained {np.mean(each):+.0%} of the best possible more than along the "
        f"rule's weights"
    )
    if len(each) < FEWEST:
        return f"{told} ({count} measurements, {len(each)} seeds: no interval, {starts})", False
    low, high = interval_of_mean(np.array(each))
    return (
        f"{told} (95% interval {low:+.0%} to {high:+.0%} over {len(each)} seeds, {count} "
        f"measurements {starts})",
        low > 0 or high < 0,
    )


def gains_over_rule(run: Training) -> list[Floats]:
    """Of each seed gain in force − gain of the rule at measurements where weights differed."""
    gap = run.weights["gain_over_rule"]
    return [gap[differ & np.isfinite(gap[:, k]), k] for k, differ in enumerate(differing(run))]


def differing(run: Training) -> list[NDArray[np.bool_]]:
    """Of each seed, the measurements at which other weights than the rule's were in force."""
    found, masks = run.weights, []
    for k in range(len(run.seeds)):
        before = np.concatenate([found["rule"][:1], found["in_force"][:-1, k]])
        differ = np.abs(before - found["rule"]).max(axis=1) > SAME
        # A seed that follows the rule has the rule's weights of now, not those of the last time.
        own = np.cumsum(found["outcome"][:, k] == SWITCHED) > 0
        masks.append(differ & np.concatenate([[False], own[:-1]]))
    return masks


def logs_over_rule(run: Training) -> list[Floats]:
    """Of each seed log(MSE in force / MSE of the rule) at measurements where weights differed."""
    logs = []
    for k, differ in enumerate(differing(run)):
        with np.errstate(invalid="ignore", divide="ignore"):
            log = np.log(run.weights["over_rule"][:, k])
        logs.append(log[differ & np.isfinite(log)])
    return logs


def interval_of_mean(values: Floats) -> tuple[float, float]:
    """95%, over values that are independent, each left out in turn."""
    left_out = (values.sum() - values) / (len(values) - 1)
    return skewness_corrected(Estimate(float(values.mean()), left_out))


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
