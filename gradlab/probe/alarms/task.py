"""Alarms that need the task: from bias and variance, Jacobians and growth along fresh paths.

    doubling      ln-variance slope b:  b − t se > ln 2 / H           doubles within the horizon H,
                  exponential, not a power law, and H is not among what may be best (95%)
    diverging     λ − t se > ln 1/γ                                   outgrows the discount
    direction     upper end of the stored interval, moved out to t, < 0, from 64 starts on;
                  of the model gradient, or of the critic's where the loop follows that alone
    over data     ln MSE(H) − ln MSE(data) − t se > 0                 worse than no model derivative
    critic        bias²(true dynamics) − ½ bias²(model) − t se > 0    the critic makes most of it
    bound         |mean Q| − t se > r_max / (1 − γ), where no reward grows along the path
    drift         ln error now − ln error at best − t se > 0          the model's Jacobians lose
    float32       rounding > 1% of the gradient and > the noise of one batch

t is Student's quantile at the test's level with starts − 1 degrees of freedom. Losses and zeros
are exact and have no rate.
"""

from __future__ import annotations

from math import ceil, exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms.evidence import FEWEST, AlarmEvidence, AlarmTest
from gradlab.runs.identity import by_default
from gradlab.runs.probe.schema import ESTIMATORS, judged
from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.intervals import Z
from gradlab.wording import cosine, gradient, horizons

DATA, MODEL = 0, 1  # indices of estimators
_DIRECTION = ("cosine", "cosine_low", "cosine_high")
_ROUNDING = 1e-6  # of a logarithm whose samples do not differ at all
_PRECISE = 0.01  # relative error of a gradient in float32


def _doubling(evidence: AlarmEvidence) -> str | None:
    """Variance that doubles within the horizon."""
    slope, se = evidence.at("growth"), evidence.at("growth_se")
    horizon = _longest(evidence)
    low, high = slope - _reach(evidence) * se, slope + _reach(evidence) * se
    # Variance also grows as more rewards are summed: that is no fault where it is not exponential,
    # nor while the longest horizon may still be best (NaN: no truth to choose a horizon by).
    sound = evidence.at("kept_high") >= horizon or not evidence.at("growth_evidence") > DECISIVE
    if not (horizon > 0 and low * horizon > log(2)) or sound:
        return None
    return (
        f"the variance of {_judged(evidence)} at visited states doubles every "
        f"{log(2) / slope:.2g} steps (CI {log(2) / high:.2g} to {log(2) / low:.2g}, "
        f"{_starts(evidence)}): shorten the horizon"
    )


def _judged(evidence: AlarmEvidence) -> str:
    """The gradient at the longest horizon: the model's, where there is one."""
    return gradient(by_default(ESTIMATORS)[judged(evidence.new)])


def _diverging(evidence: AlarmEvidence) -> str | None:
    """A closed loop whose sensitivities outgrow the discount."""
    rate, margin = evidence.at("lyapunov"), _reach(evidence) * evidence.at("lyapunov_se")
    if not rate - margin > _ROUNDING - log(evidence.at("discount")):
        return None
    low, high = log(10) / (rate + margin), log(10) / (rate - margin)
    return (
        f"the simulator's ∂s_t/∂s_0 grows tenfold every {log(10) / rate:.2g} steps under this "
        f"policy (CI {low:.2g} to {high:.2g}, {_starts(evidence)}) and leaves float32 at step "
        f"{evidence.at('float32_step'):.0f}: backpropagate through fewer than "
        f"{max(ceil(1 / rate), 1)} steps, or stabilise the policy first"
    )


def _wrong_direction(evidence: AlarmEvidence) -> str | None:
    """The gradient that the loop follows points away from the true one."""
    if not evidence.critic_alone:
        return _model_away(evidence)
    value, top = (float(each[DATA, 0]) for each in _tops(evidence))
    if not top < 0:
        return None
    return (
        f"a step along the actor's gradient lowers the return (cosine {cosine(value)} with the "
        f"true gradient, at most {cosine(top)}, {_starts(evidence)}): improve the critic, by more "
        f"of its updates per update of the actor or more data before the actor moves"
    )


def _model_away(evidence: AlarmEvidence) -> str | None:
    tests = max(np.shape(evidence.new["cosine"])[1] - 1, 1)
    cosines, top = (each[MODEL, 1:] for each in _tops(evidence, tests))
    bad = np.flatnonzero(top < 0) + 1
    if not len(bad):
        return None
    h = int(bad[-1])
    right = np.flatnonzero(evidence.new["cosine_low"][MODEL, 1:] > 0) + 1
    shown = _named(right) if len(right) else "no horizon"
    return (
        f"{gradient(by_default(ESTIMATORS)['model'])} at visited states points away from the true "
        f"one at {_named(bad)} (cosine at {h}: {cosine(cosines[h - 1])}, at most "
        f"{cosine(top[h - 1])}, {_starts(evidence)}; its sign is shown to be right at {shown}): "
        f"{_back(evidence, bad, right)}"
    )


def _named(over: NDArray[np.int64]) -> str:
    return f"horizon{'s' * (len(over) > 1)} {horizons(over.tolist())}"


def _tops(
    evidence: AlarmEvidence, tests: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines, and how large they may be: the upper ends of the stored intervals, as far out as
    this test's level takes; 1 where there are too few starts for intervals to cover, and where the
    interval ends there: a cosine lost in noise may be estimated beyond 1, above its upper end."""
    values, high = (
        np.asarray(evidence.new[name], dtype=np.float64) for name in ("cosine", "cosine_high")
    )
    if evidence.at("starts") < FEWEST:
        return values, np.ones_like(values)
    top = values + (high - values) * _reach(evidence, tests) / Z
    return values, np.where(high < 1, np.maximum(top, high), 1.0)


def _back(evidence: AlarmEvidence, bad: NDArray[np.int64], right: NDArray[np.int64]) -> str:
    """The way back from horizons that point away: to those that are shown to be right, and to the
    part that makes most of the squared bias, where that is shown."""
    gap, margin = evidence.at("critic_gap"), _reach(evidence) * evidence.at("critic_gap_se")
    worse = "improve the critic" if gap - margin > 0 else "refit the model"
    if not abs(gap) > margin:
        worse = "improve the critic or the model (which of them errs more is not shown)"
    return f"use {_named(right)}, or {worse}" if len(right) else worse


def _worse_than_data(evidence: AlarmEvidence) -> str | None:
    """A horizon whose error exceeds that of the critic's gradient alone."""
    gap, margin = evidence.at("over_data"), _reach(evidence) * evidence.at("over_data_se")
    horizon = _longest(evidence)
    if not gap - margin > 0 or not evidence.at("kept_high") < horizon:
        return None
    return (
        f"{_judged(evidence)} at visited states, horizon {horizon}, has {exp(gap):.2g} times the "
        f"error of the data gradient (at least {exp(gap - margin):.2g}, {_starts(evidence)}): "
        f"shorten the horizon to {evidence.at('chosen_horizon'):.0f}"
    )


def _critic_dominated(evidence: AlarmEvidence) -> str | None:
    """A bias that the critic makes, not the model."""
    gap, se = evidence.at("critic_gap"), evidence.at("critic_gap_se")
    if not gap - _reach(evidence) * se > 0:
        return None
    bias2 = np.asarray(evidence.new["bias2"])[:, -1]
    share = bias2[3] / bias2[1] if bias2[1] > 0 else np.inf
    part = f"{share:.0%}" if share < 1 else "all"  # and more, where model and critic err apart
    return (
        f"the critic makes {part} of the squared bias of {_judged(evidence)} at visited states, "
        f"horizon {_longest(evidence)} (more than half at 95%, {_starts(evidence)}): improve "
        f"the critic before the model"
    )


def _critic_beyond_bound(evidence: AlarmEvidence) -> str | None:
    """A critic that promises more than all rewards together."""
    value, se, bound = (evidence.at(name) for name in ("value", "value_se", "return_bound"))
    if not abs(value) - _reach(evidence) * se > bound:
        return None
    return (
        f"the critic's mean value is {value:.3g} ± {se:.2g} ({_starts(evidence)}), beyond the "
        f"{bound:.3g} that the largest reward seen allows: stop, and refit the critic"
    )


def jacobian_drift(evidence: AlarmEvidence) -> str | None:
    """A model whose Jacobians are worse than they have been."""
    rows = [row for row in evidence.rows if np.isfinite(row.get("jacobian_error", np.nan))]
    if len(rows) < 2 or rows[-1] is not evidence.new:
        return None
    now, earlier = rows[-1], rows[:-1]
    reach = _reach(evidence, len(earlier))
    best = min(earlier, key=lambda row: row["jacobian_error"] + reach * row["jacobian_error_se"])
    gap = float(now["jacobian_error"] - best["jacobian_error"])
    margin = reach * sqrt(now["jacobian_error_se"] ** 2 + best["jacobian_error_se"] ** 2)
    if not gap - margin > _ROUNDING:
        return None
    return (
        f"the model's Jacobian error is {exp(gap):.2g} times what it was at step "
        f"{int(best['step'])} (CI {exp(gap - margin):.2g} to {exp(gap + margin):.2g}, "
        f"{_starts(evidence)}): refit the model where the policy goes now"
    )


def _lost_jacobians(evidence: AlarmEvidence) -> str | None:
    """States at which the model in use has no finite derivative."""
    lost, states = (evidence.new[name] for name in ("jacobian_nonfinite", "jacobian_states"))
    if not lost:
        return None
    share = evidence.at("starts_lost") / evidence.at("starts")
    return (
        f"{int(lost)} of {int(states)} states have Jacobians that are not finite "
        f"({evidence.new.get('nonfinite_where', '')}): repair the model there; masking these paths "
        f"would drop {share:.2%} of the batch"
    )


def _precision_limited(evidence: AlarmEvidence) -> str | None:
    """A gradient that float32 spoils more than sampling does."""
    error, noise = evidence.at("float32_error"), evidence.at("sampling_error")
    if not error > max(_PRECISE, noise):
        return None
    return (
        f"the gradient at the longest horizon is {error:.1%} off in float32 ({_starts(evidence)}), "
        f"more than the {noise:.1%} by which batches of {evidence.at('batch'):.0f} differ: compute "
        f"it in float64, or shorten the horizon"
    )


def _dead_actions(evidence: AlarmEvidence) -> str | None:
    """Actions that the differentiated system does not feel."""
    dead = np.asarray(evidence.new["dead_action"]) > 0
    if not dead.any():
        return None
    which = ", ".join(map(str, np.flatnonzero(dead)))
    return (
        f"the model does not feel action {which}: ∂f/∂a and ∂r/∂a are exactly 0 at all states of "
        f"{_starts(evidence)}: look for a wrong index or a clip"
    )


def _reach(evidence: AlarmEvidence, tests: int = 1) -> float:
    return evidence.reach(evidence.at("starts") - 1, tests)


def _longest(evidence: AlarmEvidence) -> int:
    """The longest horizon of the profile."""
    return int(np.shape(evidence.new["variance"])[1] - 1)


def _starts(evidence: AlarmEvidence) -> str:
    return f"{int(evidence.at('starts'))} starts"


# About the gradient with θ in the first action, at states that the policy visits, or what matters
# by it alone: a loop may well follow another (θ in all actions, at replayed states).
OF_FIRST_ACTION = (
    "precision-limited", "diverging sensitivities", "variance doubling time", "wrong direction",
    "worse than without a model", "critic-dominated bias", "drifting model Jacobian",
)  # fmt: skip
ALARMS = (
    AlarmTest(
        "non-finite Jacobian",
        "measured",
        ("starts", "jacobian_nonfinite", "jacobian_states"),
        _lost_jacobians,
        unrolled=True,
    ),
    AlarmTest("dead action", "measured", ("starts", "dead_action"), _dead_actions, unrolled=True),
    AlarmTest(
        "precision-limited",
        "measured",
        ("starts", "float32_error"),
        _precision_limited,
        unrolled=True,
    ),
    AlarmTest(
        "diverging sensitivities",
        "measured",
        ("starts", "lyapunov", "lyapunov_se", "discount"),
        _diverging,
        unrolled=True,
    ),
    AlarmTest(
        "variance doubling time",
        "measured",
        ("starts", "variance", "growth", "growth_se", "growth_evidence"),
        _doubling,
        unrolled=True,
    ),
    AlarmTest("wrong direction", "measured", ("starts", *_DIRECTION), _wrong_direction),
    AlarmTest(
        "worse than without a model",
        "measured",
        ("starts", "variance", "over_data", "over_data_se", "kept_high"),
        _worse_than_data,
        unrolled=True,
    ),
    AlarmTest(
        "critic-dominated bias",
        "measured",
        ("starts", "bias2", "critic_gap", "critic_gap_se"),
        _critic_dominated,
        unrolled=True,
    ),
    AlarmTest(
        "critic beyond its bound",
        "measured",
        ("starts", "value", "value_se", "return_bound"),
        _critic_beyond_bound,
    ),
    AlarmTest(
        "drifting model Jacobian",
        "measured",
        ("starts", "jacobian_error", "jacobian_error_se"),
        jacobian_drift,
        unrolled=True,
    ),
)
