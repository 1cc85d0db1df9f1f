"""Columns of a measurement of weights: one row for all seeds, with the rule's weights.

Errors are mean squared errors of one batch against the truth of the measurement. Where weights are
measured by gain there are also gains, E ĝ·t / (√E |ĝ|² |t|) of one batch: the share of the best
possible step of that length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, combine
from gradlab.storage.journal_tables import Column, Table
from gradlab.training.algorithms import Algorithm
from gradlab.training.measured.switching import By, Errors, Proposal
from gradlab.training.parts.context import Floats, MeasuredWeights

STATUSES = ("none", "imprecise", "cut", "converged")
SEED, EACH = ("seed",), ("seed", "horizon")
_INTERVALS = ("mse_in_force", "mse_rule", "mse_measured", "over_rule")
_GAINS = ("gain_in_force", "gain_rule", "gain_measured", "gain_over_rule")
_ENDS = ("", "_low", "_high")
_LOSS = {"mse": "MSE in force − MSE measured", "gain": "gain measured − in force, return / length"}


def tables(algorithm: Algorithm, seeds: tuple[int, ...]) -> dict[str, Table]:
    """What is written at every measurement."""
    weights = algorithm.weights
    if not isinstance(weights, MeasuredWeights):
        return {}
    columns = {
        "rule": Column(("horizon",), "weights of the rule"),
        "measured": Column(EACH, "best weights"),
        "in_force": Column(EACH, "weights followed from here on"),
        "kept": Column(EACH, "1: may be the best horizon (95%)"),
        "outcome": Column(SEED, "number in training.measured_outcomes.OUTCOMES"),
        "truth": Column(SEED, f"number in {', '.join(STATUSES)}"),
        "truth2": Column(SEED, "|true gradient|²"),
        "gain": Column(SEED, _LOSS[weights.by]),
        "gain_least": Column(SEED, "the least that the starts allow; above 0: switch"),
        "checked": Column(unit="1: the truth was compared with finite differences"),
        "starts": Column(unit="per seed"),
        "seconds": Column(unit="s, all seeds"),
        "share": Column(unit="of the time since the run began that measuring took"),
    }
    names, of_horizons = [*_INTERVALS], ["mse"]
    if weights.by == "gain":
        names, of_horizons = [*_INTERVALS, *_GAINS], ["mse", "gain_each"]
    columns |= {f"{name}{end}": Column(SEED) for name in names for end in _ENDS}
    columns |= {f"{name}{end}": Column(EACH) for name in of_horizons for end in _ENDS}
    scales = {"seed": seeds, "horizon": algorithm.horizons}
    return {"weights": Table("iteration", columns, scales)}


def of_seed(
    measured: Errors,
    proposal: Proposal,
    in_force: Floats,
    rule: Floats,
    here: np.ndarray,
    by: By,
) -> dict[str, Any]:
    """Columns of one seed; NaN for horizons without finite gradients.

    Args:
        in_force, rule: weights of the horizons with finite gradients, which `here` [K] marks.
    """
    columns: dict[str, Any] = {
        "measured": _everybody(proposal.weights, here, 0.0),
        "kept": _everybody(proposal.kept, here),
        "truth2": float(measured.found.value[-1, -1]),
        "gain": proposal.gain,
        "gain_least": proposal.least,
    }
    columns |= _errors(measured, proposal.weights, in_force, rule, here)
    return columns | (
        _gains(measured, proposal.weights, in_force, rule, here) if by == "gain" else {}
    )


def _errors(
    measured: Errors, weights: Floats, in_force: Floats, rule: Floats, here: np.ndarray
) -> dict[str, Any]:
    old, by_rule = measured.mse(in_force), measured.mse(rule)
    singles = [_ends("mse", measured.mse(single)) for single in np.eye(len(in_force))]
    ends = {
        "mse_in_force": _ends("mse", old),
        "mse_rule": _ends("mse", by_rule),
        "mse_measured": _ends("mse", measured.mse(weights)),
        "over_rule": _ratio(old, by_rule),
    }
    return _named(ends) | _of_horizons("mse", singles, here)


def _gains(
    measured: Errors, weights: Floats, in_force: Floats, rule: Floats, here: np.ndarray
) -> dict[str, Any]:
    def share(w: Floats) -> Estimate:
        """Of the best possible step; not finite where |t|² is not above 0."""
        norm2 = Estimate(float(measured.found.value[-1, -1]), measured.found.left_out[:, -1, -1])
        return combine(lambda gain, t: gain / np.sqrt(t), measured.gain(w), norm2)

    old, by_rule = share(in_force), share(rule)
    singles = [_ends("gain", share(single)) for single in np.eye(len(in_force))]
    ends = {
        "gain_in_force": _ends("gain", old),
        "gain_rule": _ends("gain", by_rule),
        "gain_measured": _ends("gain", share(weights)),
        "gain_over_rule": _gap(old, by_rule),
    }
    return _named(ends) | _of_horizons("gain_each", singles, here)


def _named(intervals: dict[str, tuple[float, float, float]]) -> dict[str, float]:
    return {
        f"{name}{end}": value
        for name, values in intervals.items()
        for end, value in zip(_ENDS, values, strict=True)
    }


def _of_horizons(
    name: str, singles: list[tuple[float, float, float]], here: np.ndarray
) -> dict[str, Floats]:
    columns = zip(_ENDS, zip(*singles, strict=True), strict=True)
    return {f"{name}{end}": _everybody(values, here) for end, values in columns}


def _everybody(values: Any, here: np.ndarray, missing: float = np.nan) -> Floats:
    whole = np.full(len(here), missing)
    whole[here] = values
    return whole


def _ends(quantity: str, estimate: Estimate) -> tuple[float, float, float]:
    bounds = interval(quantity, estimate)
    return estimate.value, bounds.low, bounds.high


def _ratio(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """NaN where the samples do not know both to be above 0; exactly 1 where they are one."""
    bounds = log_ratio(first, second)
    if bounds is None:
        return np.nan, np.nan, np.nan
    return first.value / second.value, float(np.exp(bounds.low)), float(np.exp(bounds.high))


def _gap(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """NaN where one of them is not finite."""
    if not all(np.isfinite([part.value, *part.left_out]).all() for part in (first, second)):
        return np.nan, np.nan, np.nan
    bounds = difference(first, second)
    return first.value - second.value, bounds.low, bounds.high
