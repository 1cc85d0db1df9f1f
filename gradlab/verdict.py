"""What a measurement means, in one to three plain sentences.

Every sentence is printed only where its test passes, else its "undecided" twin; no number comes
without its interval and N. Intervals over horizons come from one multiplier bootstrap over groups
of starts: θ* = θ + mean_g (ω_g − 1) ψ_g with the jackknife's pseudo-values ψ, the same ω for every
horizon, so that what is common to all horizons cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, log
from typing import Any

import numpy as np

from gradlab.profile import Profile
from gradlab.statistics.growth import Growth, variance_growth
from gradlab.statistics.intervals import (
    Z,
    bootstrap_counts,
    interval,
    jackknife_se,
    pseudo_values,
)
from gradlab.statistics.moments import Array, Estimate

COSINE = 0.7  # lower end of a usable direction
EXCESS = 2.0  # times the smallest MSE
PREFERENCE = ("model", "mixed", "true_dynamics")


@dataclass(frozen=True)
class Sentence:
    """One sentence: what it is about, whether its test passed, and its text."""

    about: str
    decided: bool
    text: str


@dataclass(frozen=True)
class UsableHorizon:
    """Largest h such that every 1 ≤ m ≤ h has a usable direction and error; 0: none.

    `low` and `high` bound it (bootstrap over groups); `best` minimises the mean squared error.
    """

    value: int
    low: int
    high: int
    best: int


def verdict(profile: Profile) -> tuple[Sentence, ...]:
    """The sentences that head a report."""
    name = judged_estimator(profile)
    if not profile.truth["admissible"]:
        sentences = [_no_truth(profile)]
    elif profile.truth["status"] == "imprecise":
        sentences = [_imprecise_truth(profile, name)]
    else:
        sentences = [] if name is None else [_horizon(profile, name)]
    if name is not None:
        if profile.truth["admissible"] and "data" in profile.estimators and name != "data":
            sentences.append(_data_against(profile, name))
        sentences.append(_variance(profile, name))
    return tuple(sentences)


def judged_estimator(profile: Profile) -> str | None:
    """The estimator that the verdict is about: the model's, where there is one."""
    over_horizons = [
        name
        for e, name in enumerate(profile.estimators)
        if (profile.count[e].max(axis=0) > 0)[1:].any()
    ]
    for name in (*PREFERENCE, *over_horizons):
        if name in over_horizons:
            return name
    return None


# Sentence forms ----------------------------------------------------------------------------------


def _horizon(profile: Profile, name: str) -> Sentence:
    found, n = usable_horizon(profile, name), _samples(profile)
    who = _gradient(name)
    best = f"the mean squared error is smallest at h = {found.best}"
    if found.best == 0:
        best = "the mean squared error is smallest at h = 0, the data gradient J_0"
    best += _against_zero(profile, name, found.best)
    H = max(horizons_of(profile, name))
    yours = "" if found.best == H else f" {_excess(profile, name, H, found.best)}"
    if found.high == 0:
        why = _obstacle(profile, name, 1)
        text = f"No horizon of {who} is usable ({n}): at h = 1 {why}; {best}.{yours}"
        return Sentence("horizon", True, text)
    if found.low == 0:
        more = _more_for_horizon(profile, name, found)
        text = (
            f"Undecided whether {who} has a usable horizon: none or up to {found.high} steps (95% "
            f"CI, {n}); {more} decide; {best}.{yours}"
        )
        return Sentence("horizon", False, text)
    text = (
        f"Usable horizon of {who} ≈ {found.value} steps (95% CI {found.low}–{found.high}, {n}); "
        f"{best}.{yours}"
    )
    return Sentence("horizon", True, text)


def _against_zero(profile: Profile, name: str, best: int) -> str:
    """A warning where even the smallest error is above that of not moving at all, |truth|²."""
    error, nothing = profile.estimate(name, "mse", best), float(profile.truth["norm"]) ** 2
    if nothing <= 0 or not interval("mse", error).low > nothing:
        return ""
    times = _times(error.value / nothing)
    return f", where it is still {times} that of a zero gradient (a smaller scale would do better)"


def _excess(profile: Profile, name: str, horizon: int, best: int) -> str:
    ratio = _log_ratio(profile, (name, horizon), (name, best))
    if ratio is None:
        return ""
    value, low, high, _ = ratio
    if low > 0:
        return (
            f"H = {horizon} has {_times(exp(value))} (CI {_span(exp(low), exp(high))}) the error "
            f"of the best."
        )
    return (
        f"Undecided whether H = {horizon} is worse: {_times(exp(value))} the error of the best "
        f"(CI {_span(exp(low), exp(high))})."
    )


def _data_against(profile: Profile, name: str) -> Sentence:
    rivals = [h for h in horizons_of(profile, name) if h > 0]
    best = min(rivals, key=lambda h: profile.estimate(name, "mse", h).value)
    n, who = _samples(profile), _gradient(name)
    ratio = _log_ratio(profile, ("data", 0), (name, best))
    if ratio is None:
        text = f"Undecided: the errors of {who} and of the data gradient are lost in noise ({n})."
        return Sentence("data or model", False, text)
    value, low, high, se = ratio
    at = f"at its best horizon h = {best}"
    if low > 0:
        text = (
            f"{who[0].upper() + who[1:]} {at} is {_times(exp(value))} more accurate than the data "
            f"gradient (mean squared error, CI {_span(exp(low), exp(high))}, {n})."
        )
        return Sentence("data or model", True, text)
    if high < 0:
        text = (
            f"The data gradient is {_times(exp(-value))} more accurate than {who} {at} (mean "
            f"squared error, CI {_span(exp(-high), exp(-low))}, {n})."
        )
        return Sentence("data or model", True, text)
    text = (
        f"Undecided whether the data gradient or {who} {at} is more accurate: the ratio of their "
        f"mean squared errors is {exp(value):.2g} (CI {_span(exp(low), exp(high))}, {n}); "
        f"{_more(profile, abs(value), se)} separate them."
    )
    return Sentence("data or model", False, text)


def _variance(profile: Profile, name: str) -> Sentence:
    n, who = _samples(profile), _gradient(name)
    growth = growth_of(profile, name)
    if growth is None:
        text = f"Growth of the variance of {who}: too few horizons to tell ({n})."
        return Sentence("variance", False, text)
    stretch = f"from h = {growth.onset} to {growth.last}"
    if growth.grows and growth.law == "power":
        text = (
            f"The variance of {who} grows {stretch} like h^{growth.power:.2g}, a power law rather "
            f"than an exponential (slope of its logarithm {growth.slope:.2g} per step, CI "
            f"{_span(growth.low, growth.high)}, {n})."
        )
        return Sentence("variance", True, text)
    if growth.grows:
        text = (
            f"The variance of {who} doubles every {log(2) / growth.slope:.2g} steps {stretch} "
            f"(CI {_span(log(2) / growth.high, log(2) / growth.low)}, {n})"
        )
        doubt = f"; a power law h^{growth.power:.2g} fits as well, so do not extrapolate"
        return Sentence("variance", True, text + (doubt if growth.law == "either" else "") + ".")
    text = (
        f"No exponential growth of the variance of {who} detected up to h = {growth.last} (slope "
        f"of its logarithm {growth.slope:.2g} per step {stretch}, CI "
        f"{_span(growth.low, growth.high)}, {n})."
    )
    return Sentence("variance", False, text)


def _no_truth(profile: Profile) -> Sentence:
    reason = str(profile.truth["reason"])
    text = f"{reason[0].upper() + reason[1:]}; only variances and their growth are reported."
    return Sentence("truth", False, text)


def _imprecise_truth(profile: Profile, name: str | None) -> Sentence:
    truth, config = profile.truth, profile.config
    error = float(truth["standard_error"])
    bias = ""
    if name is not None:
        at = min(horizons_of(profile, name), key=lambda h: profile.estimate(name, "mse", h).value)
        found = profile.estimate(name, "bias2", at)
        high = interval("bias2", found).high
        bias = f" ({max(found.value, 0.0) ** 0.5:.2g}, at most {high**0.5:.2g}, at h = {at})"
    missing = int(truth["missing"])
    cost = ""
    if missing > 0:
        starts = int(config["starts"]) + missing
        factor = starts / int(config["starts"])
        seconds = factor * float(profile.environment.get("wall_seconds", "nan"))
        cost = f": rerun with --starts {starts}, {factor:.2g} times as many (≈ {_time(seconds)})"
    text = (
        f"Undecided: the truth's error ({error:.2g}) is not small against its norm "
        f"({float(truth['norm']):.2g}) or the bias{bias}{cost}. Comparisons between estimators on "
        f"the same starts remain sharp."
    )
    return Sentence("truth", False, text)


# Numbers behind the sentences --------------------------------------------------------------------


def horizons_of(profile: Profile, name: str) -> list[int]:
    """Horizons at which an estimator was measured."""
    measured = profile.count[profile.estimators.index(name)].max(axis=0) > 0
    return [h for h, here in zip(profile.horizons, measured, strict=True) if here]


def growth_of(profile: Profile, name: str) -> Growth | None:
    """Growth of an estimator's variance over horizons ≥ 1."""
    over = [h for h in horizons_of(profile, name) if h > 0]
    found = [profile.estimate(name, "variance", h) for h in over]
    if not found:
        return None
    values = np.array([each.value for each in found])
    left_out = np.stack([each.left_out for each in found])
    return variance_growth(np.array(over, dtype=np.float64), values, left_out)


def usable_horizon(profile: Profile, name: str) -> UsableHorizon:
    """The usable horizon, its bootstrap interval and the horizon of least error."""
    over = horizons_of(profile, name)
    mse = [profile.estimate(name, "mse", h) for h in over]
    cosine = [profile.estimate(name, "cosine", h) for h in over]
    low = np.array([interval("cosine", each).low for each in cosine])
    low = np.where(np.isfinite(low), low, -1.0)
    error, direction = _bootstrap(mse), _bootstrap(cosine, low)
    values = np.array([each.value for each in mse])
    usable = _usable(np.array(over), values[None], low[None])[0]
    replicates = _usable(np.array(over), error, direction)
    bounds = np.quantile(replicates, [0.025, 0.975], method="closest_observation")
    best = over[int(np.nanargmin(values))]
    return UsableHorizon(int(usable), int(bounds[0]), int(bounds[1]), best)


def _bootstrap(estimates: list[Estimate], centre: Array | None = None) -> Array:
    """[replicates, horizons] around the estimates, or around `centre` with the same spread."""
    psi = np.stack([pseudo_values(each) for each in estimates])
    values = np.array([each.value for each in estimates]) if centre is None else centre
    counts = bootstrap_counts(psi.shape[1])
    shift = (counts - 1.0) @ np.nan_to_num(psi).T / psi.shape[1]
    return np.asarray(values + shift)


def _usable(over: Array, mse: Array, direction: Array) -> Array:
    """Usable horizon of each row of [R, horizons]."""
    smallest = np.nanmin(mse, axis=1, keepdims=True)
    good = (direction >= COSINE) & (mse <= EXCESS * np.maximum(smallest, 0.0))
    good = good[:, over > 0]
    run = np.cumprod(good, axis=1).sum(axis=1)
    return np.asarray(np.concatenate([[0], over[over > 0]])[run])


def _log_ratio(
    profile: Profile, above: tuple[str, int], below: tuple[str, int]
) -> tuple[float, float, float, float] | None:
    """log(MSE above / MSE below) with its paired interval and standard error."""
    top, bottom = (profile.estimate(name, "mse", h) for name, h in (above, below))
    everything = np.concatenate([top.left_out, bottom.left_out, [top.value, bottom.value]])
    if not (everything > 0).all():
        return None
    value = log(top.value / bottom.value)
    se = jackknife_se(np.log(top.left_out / bottom.left_out))
    return value, value - Z * se, value + Z * se, se


def _obstacle(profile: Profile, name: str, horizon: int) -> str:
    """Which of the two conditions fails at a horizon, with its number."""
    cosine = profile.estimate(name, "cosine", horizon)
    found = interval("cosine", cosine)
    if not found.low >= COSINE:
        shown = f"{min(cosine.value, 1.0):.2g}" if np.isfinite(cosine.value) else "lost in noise"
        return (
            f"its cosine with the truth is {shown} (CI {_span(found.low, found.high)}, wanted: "
            f"lower end ≥ {COSINE})"
        )
    values = [profile.estimate(name, "mse", h).value for h in horizons_of(profile, name)]
    times = profile.estimate(name, "mse", horizon).value / min(values)
    return f"its mean squared error is {_times(times)} the smallest (wanted: ≤ {EXCESS:g}×)"


def _more_for_horizon(profile: Profile, name: str, found: UsableHorizon) -> str:
    """Samples that would settle the first horizon in doubt."""
    at = min(found.value + 1, max(horizons_of(profile, name)))
    cosine = profile.estimate(name, "cosine", at)
    se = jackknife_se(cosine.left_out)
    gap = abs(cosine.value - COSINE)
    return _more(profile, gap, se)


def _more(profile: Profile, gap: float, se: float) -> str:
    n = int(profile.config["starts"])
    if not np.isfinite(gap) or not np.isfinite(se) or gap <= 0:
        return "more samples would"
    missing = ceil(n * ((Z * se / gap) ** 2 - 1))
    if missing <= 0:
        return "a few more samples would"
    if missing > 1_000_000:
        return "no affordable number of samples would"
    return f"about {_round(missing)} more samples would"


def _round(count: int) -> int:
    """Two significant digits, rounded up: an estimate, not a count."""
    unit = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // unit) * unit


def _samples(profile: Profile) -> str:
    return f"N = {profile.config['starts']}"


def _gradient(name: str) -> str:
    known: dict[str, Any] = {
        "model": "the model gradient",
        "mixed": "the mixed gradient (simulator states, model Jacobians)",
        "true_dynamics": "the gradient through the true dynamics",
    }
    return str(known.get(name, f"the gradient {name}"))


def _times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 1000 else f"{ratio:.1e}×"


def _span(low: float, high: float) -> str:
    joint = " to " if low < 0 or high < 0 else "–"
    return f"{low:.2g}{joint}{high:.2g}"


def _time(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "time unknown"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
