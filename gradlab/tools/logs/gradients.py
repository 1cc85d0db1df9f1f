"""Two gradients of one and the same return, from the same recorded windows, and their agreement.

    F_n(θ) = E[Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n)]         Q as it is given, θ in every action
    score   Σ_{t≤n} γᵗ ∇ log π(a_t|s_t) (y_{n−t}(t) − V_{n−t}(s_t))      differentiates no step
    model   pathwise along the recorded states, the model's Jacobians at the inferred noise (RP-DR,
            RP-PGM eq. 4.5)

The score is unbiased for ∇F_n, so that a difference of the means is due to the model's Jacobians:
it is the truth of the model's moments (`measurement.accumulator`). V_m = β_mᵀ φ(s) is fitted on
other trajectories: given s_t it leaves the mean (Greensmith et al. 2004).

    agree      the upper ends of |E M − E S|² / |E S|² and |E M − E S|² − TOLERANCE² |E S|² say so
    disagree   the lower end of |E M − E S|² is above 0, and agreement is not shown

Every number is a U-statistic over pairs of trajectories, with the jackknife's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Starts, as_starts
from gradlab.gradients.trajectory import CostateTerms, TermRequest
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.measurement.accumulator import accumulated
from gradlab.measurement.grams import TermSource
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.intervals import Interval, interval, jackknife_se
from gradlab.statistics.moments import Array, Estimate, Moments, combine, estimates, pair_mean
from gradlab.tools.logs.diagnostics import Judged, features, solved
from gradlab.tools.logs.findings import TOLERANCE

_FOLDS = 5
_WINDOWS = 128  # whose layer factors are made at once
_HELD = 1 << 17  # steps of windows whose layer factors are held


def baselines(path: Path, costates: Tensor, horizons: tuple[int, ...], discount: float) -> Tensor:
    """γᵗ V_{n−t}(s_t) of every horizon n, [K, T + 1, N]; 0 for t > n and where dead.

    Args:
        path: of the windows, N of them.
        costates: [K, T + 1, N], γᵗ times the return of the steps from t to n, tail included.
    """
    T, n = path.horizon, path.states.shape[1]
    _, number = torch.unique(path.group, return_inverse=True)
    fold: Tensor = number % _FOLDS
    phi = features(path.states.flatten(0, 1), n).reshape(T + 1, n, -1)
    phi = phi * path.alive[..., None]
    gamma = discount ** torch.arange(T + 1, dtype=phi.dtype)
    place = {h: k for k, h in enumerate(horizons)}
    values = torch.zeros_like(costates)
    for m in range(max(horizons) + 1):
        starts = [h - m for h in horizons if h >= m]
        y = torch.stack([costates[place[t + m], t] / gamma[t] for t in starts])
        value = _cross_fitted(phi[starts], y, fold)
        for t, baseline in zip(starts, value, strict=True):
            values[place[t + m], t] = gamma[t] * baseline
    return values


def _cross_fitted(phi: Tensor, y: Tensor, fold: Tensor) -> Tensor:
    """Predictions of y [t, N] from phi [t, N, F], each from the trajectories of other folds."""
    gram, moment = [], []
    for k in range(_FOLDS):
        x = phi[:, fold == k].flatten(0, 1)
        gram.append(x.T @ x)
        moment.append(x.T @ y[:, fold == k].flatten())
    # Summed without one's own: a sum less one's own would keep its rounding.
    others = 1 - torch.eye(_FOLDS, dtype=phi.dtype)
    weights = solved(
        torch.einsum("ek,kij->eij", others, torch.stack(gram)),
        torch.einsum("ek,ki->ei", others, torch.stack(moment)),
    )
    return torch.einsum("tnf,nf->tn", phi, weights[fold])


@dataclass(frozen=True, eq=False)
class WindowGradients:
    """One gradient at K horizons, of recorded windows.

    Attributes:
        rows: of some windows, and the same with other critics.
    """

    horizons: tuple[int, ...]
    policy: nn.Module
    begin: Starts
    rows: Callable[[slice], Sequence[CostateTerms]]

    def moments(self, truth: Tensor | None = None, only: int | None = None) -> list[Moments]:
        """Of every horizon, or `only` the k-th, against true gradients [N, P]."""

        def rows(part: slice) -> Sequence[CostateTerms]:
            every = self.rows(part)
            return every if only is None else [every[0].some([only])]

        kept = self.horizons if only is None else self.horizons[only : only + 1]
        source = TermSource(tuple(("", n) for n in kept), rows, several=True)
        known = None if truth is None else lambda part: truth[part]
        return accumulated(source, self.policy, self.begin, known)[0]

    def explicit(self, k: int) -> Tensor:
        """The gradients [N, P] at the k-th horizon."""
        parts = (self.rows(part)[0] for part in _parts(len(self.begin.states)))
        return torch.cat([each.gradients(k) for each in parts])


def _parts(windows: int) -> list[slice]:
    return [slice(k, min(k + _WINDOWS, windows)) for k in range(0, windows, _WINDOWS)]


def model_source(
    estimators: Sequence[Estimator], policy: nn.Module, path: Path, horizons: tuple[int, ...],
    seed: int,
) -> WindowGradients:  # fmt: skip
    """Pathwise gradients with actions "all" along the recorded windows, of every critic."""
    begin = as_starts(path, path.states.shape[2])

    def made(first: int, last: int) -> list[CostateTerms]:
        asked = TermRequest(policy, begin.block(slice(first, last)), horizons, seed, "mask")
        terms = [costate_terms(each, asked) for each in estimators]
        # A model of the user's own may hold parameters of its own: their graph is not wanted.
        return [replace(each, costates=each.costates.detach()) for each in terms]

    terms: Callable[[int, int], list[CostateTerms]] = made
    if path.alive.numel() <= _HELD:
        terms = cache(made)
    return WindowGradients(horizons, policy, begin, lambda part: terms(part.start, part.stop))


def score_source(
    estimator: Estimator, policy: nn.Module, path: Path, horizons: tuple[int, ...], seed: int,
    baseline: bool = True,
) -> WindowGradients:  # fmt: skip
    """Scores of an estimator with actions "score", less their cross-fitted baseline."""
    plain = model_source([estimator], policy, path, horizons, seed)
    if not baseline:
        return plain
    parts = _parts(path.states.shape[1])
    returns = torch.cat([plain.rows(part)[0].costates[..., 0] for part in parts], dim=2)
    less = baselines(path.cut(estimator.tail.horizon), returns, horizons, estimator.tail.discount)

    def rows(part: slice) -> list[CostateTerms]:
        (term,) = plain.rows(part)
        return [replace(term, costates=term.costates - less[:, :, part, None])]

    return replace(plain, rows=rows)


def noise_of(moments: Moments) -> Judged:
    """mean_norm, variance, cosine_self; variance_critics where there are other critics."""
    every = estimates(moments, 1)
    square = pair_mean(moments.gradient, moments.size)
    measured = [name for name in ("variance", "variance_critics") if name in every]
    # The ends of the square hold where it is estimated below 0, too.
    ends = interval("bias2", square)
    whole = float(moments.gradient.left.sum() / moments.size.sum() ** 2)
    noise = whole - square.value  # tr Cov / N

    def of_square(function: Callable[[Array], Array]) -> tuple[Estimate, Interval]:
        """A rising function of |E G|², its ends those of the square."""
        estimate = combine(function, square)
        low, high = (float(function(np.asarray(end))) for end in (ends.low, ends.high))
        return estimate, Interval(low, high, jackknife_se(estimate.left_out), ends.method)

    def share(square: Array) -> Array:
        """√(|μ|² / (|μ|² + tr Cov/N)): the cosine of the mean of N with what it estimates."""
        signal = np.maximum(square, 0.0)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(signal / (signal + noise)))

    return {
        "mean_norm": of_square(lambda u: np.sqrt(np.maximum(u, 0.0))),
        **{name: (every[name], interval(name, every[name])) for name in measured},
        "cosine_self": of_square(share),
    }


def agreement(model: Moments, score: Moments) -> Judged:
    """bias2, relative_bias2, excess over tolerance, cosine and variance ratio of the model's
    moments against the score's gradients, and of the score's own."""
    every, own = estimates(model, 1), estimates(score, 1)
    bias2, reference = every["bias2"], pair_mean(score.gradient, score.size)
    excess = combine(lambda b, t: b - TOLERANCE**2 * t, bias2, reference)
    relative = combine(lambda b, t: np.where(t > 0, b / t, np.nan), bias2, reference)
    zero = Estimate(0.0, np.zeros_like(excess.left_out))
    found = {
        "bias2": (bias2, interval("bias2", bias2)),
        # A squared norm over one that is known: near 0 its upper end is that of a squared norm.
        "relative_bias2": (relative, interval("bias2", relative)),
        "excess": (excess, difference(excess, zero)),
        "cosine": (every["cosine"], interval("cosine", every["cosine"])),
    }
    variances = every["variance"], own["variance"]
    span = log_ratio(*variances)
    if span is not None:  # both are known to be above 0
        ratio = combine(lambda a, b: a / b, *variances)
        ends = Interval(exp(span.low), exp(span.high), jackknife_se(ratio.left_out), span.method)
        found["variance_ratio"] = ratio, ends
    return found
