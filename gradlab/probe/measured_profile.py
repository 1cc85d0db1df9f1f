"""Columns of "measured" from gradients: cells, choice, weights, growth, the critic's part.

shared truth → data, model, mixed, true_dynamics by horizon → the parts of `choose` and of the
verdict that a running loop can use; the rest costs more than these and is left to `measure`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.checks.precision import in_float32
from gradlab.choice.best import Candidates, best, candidates
from gradlab.choice.values import Cell
from gradlab.choice.weights import pair_cells, several_cells
from gradlab.gradients.estimator import Estimator
from gradlab.measurement.assembly import SharedTruth
from gradlab.runs.decision_rules import growth_of, horizons_of, judged_estimator
from gradlab.runs.probe.measured_columns import CELLS, ENDS
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import log_ratio
from gradlab.statistics.intervals import Z, jackknife_se
from gradlab.statistics.mixing import mse_weights
from gradlab.statistics.moments import combine

_WITHOUT_TRUTH = ("variance", "snr", "mean_norm")


def gradients(
    truth: SharedTruth, chosen: Mapping[str, Estimator], names: Sequence[str]
) -> dict[str, Any]:
    """Everything that follows from bias and variance.

    Args:
        names: of the estimators, the first axis of cells.
    """
    profile = truth.profile(chosen, kernels=True)
    name, H, batch = judged_estimator(profile), truth.setting.horizon, truth.batch
    row = _cells(profile, names, H) | {
        "truth_norm": float(profile.truth.get("norm", np.nan)),
        "truth_checked": int(truth.reference.checked),
    }
    fit = None if name is None else growth_of(profile, name)
    if fit is not None:
        row["growth"], row["growth_se"] = fit.slope, (fit.high - fit.low) / (2 * Z)
        row["growth_evidence"] = fit.evidence
    if name is not None:
        variance, norm = (profile.estimate(name, q, H).value for q in ("variance", "mean_norm"))
        # Standard error of one batch's gradient over its norm, at the longest horizon.
        row |= {"sampling_error": float(np.sqrt(variance / batch) / norm)} if norm > 0 else {}
    if not profile.truth["admissible"]:
        return row
    row |= _chosen(profile, names, H, batch)
    if "model" in profile.estimators:
        # Excess of the critic's bias over half of the model gradient's, paired.
        critic, model = (profile.estimate(each, "bias2", H) for each in ("true_dynamics", "model"))
        gap = combine(lambda of_critic, whole: of_critic - whole / 2, critic, model)
        row |= {"critic_gap": gap.value, "critic_gap_se": jackknife_se(gap.left_out)}
    if name is None:
        return row
    # The longest horizon up to which every interval of the cosine is above 0.
    e, q = profile.estimators.index(name), profile.quantities.index("cosine")
    over = [h for h in horizons_of(profile, name) if h > 0]
    sound = np.append(profile.columns["ci_low"][e, q, over] > 0, False)
    row["sign_reliable"] = int(sound.argmin())
    if "data" in profile.estimators and H > 0:
        # Loss of the longest horizon against no derivative of any dynamics, paired.
        whole, data = profile.estimate(name, "mse", H), profile.estimate("data", "mse", 0)
        if (ratio := log_ratio(whole, data)) is not None:
            loss = float(np.log(whole.value / data.value))
            row |= {"over_data": loss, "over_data_se": ratio.se}
    return row


def rounding(truth: SharedTruth, chosen: Mapping[str, Estimator]) -> dict[str, float]:
    """float32 against float64; nothing where the system cannot compute in float32."""
    name = next(name for name in ("model", "true_dynamics", "data") if name in chosen)
    try:
        here = truth.setting
        rounded = in_float32(chosen[name], here.policy, here.starts, here.seed)
    except Exception:  # a user's system or critic may refuse it in any way
        return {}
    return {"float32_cosine": rounded.cosine, "float32_error": rounded.error}


def _cells(profile: Profile, names: Sequence[str], horizon: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for quantity in CELLS:
        defined = profile.truth["admissible"] or quantity in _WITHOUT_TRUTH
        sources = [(quantity, "value"), *((f"{quantity}_{end}", f"ci_{end}") for end in ENDS)]
        sources += [(f"{quantity}_se", "se")] if quantity in ("bias2", "cosine") else []
        for column, source in sources:
            row[column] = np.full((len(names), horizon + 1), np.nan)
            for e, name in enumerate(names):
                if defined and name in profile.estimators:
                    at = profile.estimators.index(name), profile.quantities.index(quantity)
                    row[column][e] = profile.columns[source][at]
    return row


def _chosen(profile: Profile, names: Sequence[str], horizon: int, batch: int) -> dict[str, Any]:
    among = candidates(profile, None)
    choice = best(profile, among, "mse")
    if choice is None:
        return {}
    kept = np.zeros((len(names), horizon + 1))
    for name, h in choice.kept:
        kept[list(names).index(name), h] = 1.0
    horizons = [h for _, h in choice.kept]
    row = {
        "chosen_estimator": list(names).index(choice.cell[0]),
        "chosen_horizon": choice.cell[1],
        "kept_low": min(horizons),
        "kept_high": max(horizons),
        "kept": kept,
    }
    return row | _pair(profile, among, batch) | _mixture(profile, among, choice.cell, batch)


def _pair(profile: Profile, among: Candidates, batch: int) -> dict[str, float]:
    """MPG's two: horizon 0 and the longest one, weighed by their measured errors."""
    two = pair_cells(profile, among)
    if among.kernels is None or len(two) < 2:
        return {}
    weights = mse_weights(among.kernels.grams(two), batch)
    names = ("weight_zero", "weight_zero_low", "weight_zero_high")
    values = (weights.share[0], weights.low[0], weights.high[0])
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _mixture(profile: Profile, among: Candidates, best_cell: Cell, batch: int) -> dict[str, Any]:
    """J_0 and the horizons 1, 2, 4, … of the judged estimator, weighed by their errors."""
    several = [
        (name, h)
        for name, h in several_cells(profile, among, best_cell)
        if h == 0 or name == among.judged
    ]
    if among.kernels is None or len(several) < 2:
        return {}
    weights = mse_weights(among.kernels.grams(several), batch)
    row = {}
    for name, values in (
        ("weight", weights.share),
        ("weight_low", weights.low),
        ("weight_high", weights.high),
    ):
        row[name] = np.full(len(profile.horizons), np.nan)
        row[name][[h for _, h in several]] = values
    return row
