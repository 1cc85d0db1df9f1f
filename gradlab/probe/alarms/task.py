"""Alarms that need the task: from bias and variance, Jacobians and growth along fresh paths.

    doubling      ln-variance slope b:  b − t se > ln 2 / H           doubles within the horizon H,
                  exponential, not a power law, and H is not among what may be best (95%)
    diverging     λ − t se > ln 1/γ                                   outgrows the discount
    direction     cosine + t se < 0                                   points away from the truth
    over data     ln MSE(H) − ln MSE(data) − t se > 0                 worse than no model derivative
    critic        bias²(true dynamics) − ½ bias²(model) − t se > 0    the critic makes most of it
    bound         |mean Q| − t se > r_max / (1 − γ), where no reward grows along the path
    drift         ln error now − ln error at best − t se > 0          the model's Jacobians lose
    float32       rounding > 1% of the gradient and > the noise of one batch

t is Student's quantile at the look's level with starts − 1 degrees of freedom. Losses and zeros
are exact and have no rate.
"""

from __future__ import annotations

from math import ceil, exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms.evidence import Alarm, Look
from gradlab.statistics.growth import DECISIVE

MODEL = 1  # index of the estimator
ROUNDING = 1e-6  # of a logarithm whose samples do not differ at all
PRECISE = 0.01  # relative error of a gradient in float32


def doubling(look: Look) -> Alarm | None:
    """Variance that doubles within the horizon."""
    slope, se = look.at("growth"), look.at("growth_se")
    horizon = np.shape(look.new.get("variance", ((),)))[1] - 1
    low, high = slope - _reach(look) * se, slope + _reach(look) * se
    # Variance also grows as more rewards are summed: that is no fault where it is not exponential,
    # nor while the longest horizon may still be best (NaN: no truth to choose a horizon by).
    sound = look.at("kept_high") >= horizon or not look.at("growth_evidence") > DECISIVE
    if not (horizon > 0 and low * horizon > log(2)) or sound:
        return None
    return Alarm(
        "variance doubling time",
        f"the variance of the model gradient doubles every {log(2) / slope:.2g} steps (between "
        f"{log(2) / high:.2g} and {log(2) / low:.2g}, {_starts(look)}), so {horizon} steps "
        f"multiply it by {exp(slope * horizon):.2g}: shorten the horizon",
    )


def diverging(look: Look) -> Alarm | None:
    """A closed loop whose sensitivities outgrow the discount."""
    rate, margin = look.at("lyapunov"), _reach(look) * look.at("lyapunov_se")
    if not rate - margin > ROUNDING - log(look.at("discount")):
        return None
    low, high = log(10) / (rate + margin), log(10) / (rate - margin)
    return Alarm(
        "diverging sensitivities",
        f"under this policy ∂s_t/∂s_0 of the simulator grows tenfold every {log(10) / rate:.2g} "
        f"steps (between {low:.2g} and {high:.2g}, {_starts(look)}), faster than γ discounts, and "
        f"leaves float32 at step {look.at('float32_step'):.0f}: long gradients explode; "
        f"backpropagate through fewer than {max(ceil(1 / rate), 1)} steps, or stabilise the policy "
        f"first",
    )


def wrong_direction(look: Look) -> Alarm | None:
    """A model gradient that points away from the true one."""
    cosine, se = (
        np.asarray(look.new[name], dtype=np.float64)[MODEL, 1:] if name in look.new else np.empty(0)
        for name in ("cosine", "cosine_se")
    )
    top = cosine + _reach(look, max(len(cosine), 1)) * se
    bad = np.flatnonzero(top < 0)
    if not len(bad):
        return None
    h = int(bad[-1]) + 1
    return Alarm(
        "wrong direction",
        f"at horizon {h} the model gradient points away from the true one (cosine "
        f"{cosine[h - 1]:.2f}, at most {top[h - 1]:.2f}, {_starts(look)}; the sign is certain up "
        f"to horizon {look.at('sign_reliable'):.0f}): {_back(bad + 1, len(cosine))}",
    )


def _back(bad: NDArray[np.int64], longest: int) -> str:
    """The way back from horizons that point away: long ones lose to the model, short ones to the
    critic."""
    if bad[-1] < longest:
        return f"improve the critic, or use horizons above {bad[-1]}"
    sound = np.setdiff1d(np.arange(1, longest + 1), bad)
    if not len(sound):
        return "refit the model before any update follows it"
    return f"use horizons up to {sound[-1]}, or refit the model"


def worse_than_data(look: Look) -> Alarm | None:
    """A horizon whose error exceeds that of the critic's gradient alone."""
    gap, margin = look.at("over_data"), _reach(look) * look.at("over_data_se")
    horizon = np.shape(look.new.get("variance", ((),)))[1] - 1
    if not gap - margin > 0 or not look.at("kept_high") < horizon:
        return None
    return Alarm(
        "worse than without a model",
        f"at horizon {horizon} the model gradient's error is {exp(gap):.2g} times that of the "
        f"critic's gradient alone (at least {exp(gap - margin):.2g}, {_starts(look)}): shorten the "
        f"horizon to {look.at('chosen_horizon'):.0f}; `gradlab measure` also compares with the "
        f"likelihood ratio",
    )


def critic_dominated(look: Look) -> Alarm | None:
    """A bias that the critic makes, not the model."""
    gap, se = look.at("critic_gap"), look.at("critic_gap_se")
    if not gap - _reach(look) * se > 0:
        return None
    bias2 = np.asarray(look.new["bias2"])[:, -1]
    share = bias2[3] / bias2[1] if bias2[1] > 0 else np.inf
    return Alarm(
        "critic-dominated bias",
        f"with the simulator's own dynamics {share:.0%} of the model gradient's squared bias is "
        f"left at the longest horizon ({_starts(look)}; more than half is certain): improve the "
        f"critic before the model, or lengthen the horizon",
    )


def critic_beyond_bound(look: Look) -> Alarm | None:
    """A critic that promises more than all rewards together."""
    value, se, bound = (look.at(name) for name in ("value", "value_se", "return_bound"))
    # Where the loop diverges, later rewards are larger than any that was seen.
    if look.at("lyapunov") > 0 or not abs(value) - _reach(look) * se > bound:
        return None
    return Alarm(
        "critic beyond its bound",
        f"the critic's mean value is {value:.3g} ± {se:.2g} ({_starts(look)}), but the largest "
        f"reward seen, {look.at('reward_max'):.3g}, sums to at most {bound:.3g}: stop and refit it",
    )


def jacobian_drift(look: Look) -> Alarm | None:
    """A model whose Jacobians are worse than they have been."""
    known = [row for row in look.rows if np.isfinite(row.get("jacobian_error", np.nan))]
    if len(known) < 2 or known[-1] is not look.new:
        return None
    now, earlier = known[-1], known[:-1]
    reach = _reach(look, len(earlier))
    best = min(earlier, key=lambda row: row["jacobian_error"] + reach * row["jacobian_error_se"])
    gap = float(now["jacobian_error"] - best["jacobian_error"])
    margin = reach * sqrt(now["jacobian_error_se"] ** 2 + best["jacobian_error_se"] ** 2)
    if not gap - margin > ROUNDING:
        return None
    return Alarm(
        "drifting model Jacobian",
        f"the model's Jacobian error is {exp(gap):.2g} times what it was at step "
        f"{int(best['step'])} (between {exp(gap - margin):.2g} and {exp(gap + margin):.2g}, "
        f"{_starts(look)}): where the policy goes now the model is worse; refit it there",
    )


def lost_jacobians(look: Look) -> Alarm | None:
    """States at which the model in use has no finite derivative."""
    lost, states = look.new.get("jacobian_nonfinite", 0), look.new.get("jacobian_states", 0)
    if not lost:
        return None
    share = look.at("starts_lost") / look.at("starts")
    return Alarm(
        "non-finite Jacobian",
        f"{int(lost)} of {int(states)} states have Jacobians that are not finite "
        f"({look.new.get('nonfinite_where', '')}): repair the model there; masking these paths "
        f"would drop {share:.2%} of the batch",
    )


def precision_limited(look: Look) -> Alarm | None:
    """A gradient that float32 spoils more than sampling does."""
    error, noise = look.at("float32_error"), look.at("sampling_error")
    if not error > max(PRECISE, noise):
        return None
    return Alarm(
        "precision-limited",
        f"in float32 the gradient at the longest horizon is {error:.1%} off (cosine "
        f"{look.at('float32_cosine'):.4g} with float64, {_starts(look)}), more than the "
        f"{noise:.1%} by which batches of {look.at('batch'):.0f} differ: compute it in float64, or "
        f"shorten the horizon",
    )


def dead_actions(look: Look) -> Alarm | None:
    """Actions that the differentiated system does not feel."""
    dead = np.asarray(look.new.get("dead_action", ())) > 0
    if not dead.any():
        return None
    which = ", ".join(map(str, np.flatnonzero(dead)))
    return Alarm(
        "dead action",
        f"∂f/∂a and ∂r/∂a of action {which} are exactly 0 at all states of {_starts(look)}: "
        f"the model does not feel it; look for a wrong index or a clip",
    )


def _reach(look: Look, tests: int = 1) -> float:
    return look.reach(look.at("starts") - 1, tests)


def _starts(look: Look) -> str:
    return f"{int(look.at('starts'))} starts"
