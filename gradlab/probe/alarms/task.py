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

from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms.evidence import FEWEST, AlarmEvidence, AlarmTest
from gradlab.runs.identity import by_default
from gradlab.runs.probe.schema import ESTIMATORS, judged
from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.intervals import Z
from gradlab.wording import gradient, horizons

DATA, MODEL = 0, 1  # indices of estimators
_DIRECTION = ("cosine", "cosine_low", "cosine_high")
_Found = dict[str, Any] | None  # fields of a finding
_ROUNDING = 1e-6  # of a logarithm whose samples do not differ at all
_PRECISE = 0.01  # relative error of a gradient in float32


def _doubling(evidence: AlarmEvidence) -> _Found:
    """Variance that doubles within the horizon."""
    slope, se = evidence.at("growth"), evidence.at("growth_se")
    horizon = _longest(evidence)
    low, high = slope - _reach(evidence) * se, slope + _reach(evidence) * se
    # Variance also grows as more rewards are summed: that is no fault where it is not exponential,
    # nor while the longest horizon may still be best (NaN: no truth to choose a horizon by).
    sound = evidence.at("kept_high") >= horizon or not evidence.at("growth_evidence") > DECISIVE
    if not (horizon > 0 and low * horizon > log(2)) or sound:
        return None
    return _of(
        evidence, subject=_judged(evidence), value=log(2) / slope, low=log(2) / high,
        high=log(2) / low,
    )  # fmt: skip


def _judged(evidence: AlarmEvidence) -> str:
    """The gradient at the longest horizon: the model's, where there is one."""
    return gradient(by_default(ESTIMATORS)[judged(evidence.new)])


def _diverging(evidence: AlarmEvidence) -> _Found:
    """A closed loop whose sensitivities outgrow the discount."""
    rate, margin = evidence.at("lyapunov"), _reach(evidence) * evidence.at("lyapunov_se")
    if not rate - margin > _ROUNDING - log(evidence.at("discount")):
        return None
    return _of(
        evidence, value=log(10) / rate, low=log(10) / (rate + margin),
        high=log(10) / (rate - margin), threshold=evidence.at("float32_step"),
    )  # fmt: skip


def _wrong_direction(evidence: AlarmEvidence) -> _Found:
    """The gradient that the loop follows points away from the true one."""
    if not evidence.critic_alone:
        return _model_away(evidence)
    value, top = (float(each[DATA, 0]) for each in _tops(evidence))
    if not top < 0:
        return None
    return _of(evidence, code="critic's gradient points away", value=value, high=top)


def _model_away(evidence: AlarmEvidence) -> _Found:
    tests = max(np.shape(evidence.new["cosine"])[1] - 1, 1)
    cosines, top = (each[MODEL, 1:] for each in _tops(evidence, tests))
    bad = np.flatnonzero(top < 0) + 1
    if not len(bad):
        return None
    h = int(bad[-1])
    right = np.flatnonzero(evidence.new["cosine_low"][MODEL, 1:] > 0) + 1
    shown = f" (its sign is shown to be right at {horizons(right.tolist())})" if len(right) else ""
    return _of(
        evidence, subject=gradient(by_default(ESTIMATORS)["model"]), value=cosines[h - 1],
        high=top[h - 1], at=f"h = {horizons(bad.tolist())}{shown}",
    )  # fmt: skip


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


def _worse_than_data(evidence: AlarmEvidence) -> _Found:
    """A horizon whose error exceeds that of the critic's gradient alone."""
    gap, margin = evidence.at("over_data"), _reach(evidence) * evidence.at("over_data_se")
    horizon = _longest(evidence)
    if not gap - margin > 0 or not evidence.at("kept_high") < horizon:
        return None
    about = dict(subject=_judged(evidence), at=str(horizon))
    return _of(evidence, value=exp(gap), low=exp(gap - margin), **about)


def _critic_dominated(evidence: AlarmEvidence) -> _Found:
    """A bias that the critic makes, not the model."""
    gap, se = evidence.at("critic_gap"), evidence.at("critic_gap_se")
    if not gap - _reach(evidence) * se > 0:
        return None
    bias2 = np.asarray(evidence.new["bias2"])[:, -1]
    share = bias2[3] / bias2[1] if bias2[1] > 0 else np.inf
    about = dict(subject=_judged(evidence), at=str(_longest(evidence)))
    return _of(evidence, value=min(share, 1.0), **about)  # where model and critic err apart: all


def _critic_beyond_bound(evidence: AlarmEvidence) -> _Found:
    """A critic that promises more than all rewards together."""
    value, se, bound = (evidence.at(name) for name in ("value", "value_se", "return_bound"))
    margin = _reach(evidence) * se
    if not abs(value) - margin > bound:
        return None
    return _of(evidence, value=value, low=value - margin, high=value + margin, threshold=bound)


def jacobian_drift(evidence: AlarmEvidence) -> _Found:
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
    return _of(
        evidence, value=exp(gap), low=exp(gap - margin), high=exp(gap + margin),
        at=f"step {int(best['step'])}",
    )  # fmt: skip


def _lost_jacobians(evidence: AlarmEvidence) -> _Found:
    """States at which the model in use has no finite derivative."""
    lost, states = (evidence.new[name] for name in ("jacobian_nonfinite", "jacobian_states"))
    where, masked = str(evidence.new.get("nonfinite_where", "")), int(evidence.at("starts_lost"))
    return dict(value=lost, threshold=states, at=where, n=masked) if lost else None


def _precision_limited(evidence: AlarmEvidence) -> _Found:
    """A gradient that float32 spoils more than sampling does."""
    error, noise = evidence.at("float32_error"), evidence.at("sampling_error")
    return _of(evidence, value=error, threshold=noise) if error > max(_PRECISE, noise) else None


def _dead_actions(evidence: AlarmEvidence) -> _Found:
    """Actions that the differentiated system does not feel."""
    dead = np.asarray(evidence.new["dead_action"]) > 0
    which = ", ".join(map(str, np.flatnonzero(dead)))
    return _of(evidence, at=which) if which else None


def _reach(evidence: AlarmEvidence, tests: int = 1) -> float:
    return evidence.reach(evidence.at("starts") - 1, tests)


def _longest(evidence: AlarmEvidence) -> int:
    """The longest horizon of the profile."""
    return int(np.shape(evidence.new["variance"])[1] - 1)


def _of(evidence: AlarmEvidence, **found: Any) -> dict[str, Any]:
    """What was found, on so many starts."""
    return found | {"n": int(evidence.at("starts"))}


# About the gradient with θ in the first action, at states that the policy visits, or what matters
# by it alone: a loop may well follow another (θ in all actions, at replayed states).
OF_FIRST_ACTION = (
    "precision-limited", "diverging sensitivities", "variance doubling time", "wrong direction",
    "worse than without a model", "critic-dominated bias", "drifting model Jacobian",
)  # fmt: skip
ALARMS = tuple(
    AlarmTest(kind, "measured", ("starts", *columns), found, unrolled)
    for kind, columns, found, unrolled in (
        ("non-finite Jacobian", ("jacobian_nonfinite", "jacobian_states"), _lost_jacobians, True),
        ("dead action", ("dead_action",), _dead_actions, True),
        ("precision-limited", ("float32_error",), _precision_limited, True),
        ("diverging sensitivities", ("lyapunov", "lyapunov_se", "discount"), _diverging, True),
        ("variance doubling time", ("variance", "growth", "growth_se", "growth_evidence"),
         _doubling, True),
        ("wrong direction", _DIRECTION, _wrong_direction, False),
        ("worse than without a model", ("variance", "over_data", "over_data_se", "kept_high"),
         _worse_than_data, True),
        ("critic-dominated bias", ("bias2", "critic_gap", "critic_gap_se"),
         _critic_dominated, True),
        ("critic beyond its bound", ("value", "value_se", "return_bound"),
         _critic_beyond_bound, False),
        ("drifting model Jacobian", ("jacobian_error", "jacobian_error_se"), jacobian_drift, True),
    )
)  # fmt: skip
