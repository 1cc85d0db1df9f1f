"""The α-order gradient: first and zeroth order mixed as far as the first can be trusted.

    ∇_α = α ∇¹ + (1 − α) ∇⁰        ∇¹ pathwise, ∇⁰ likelihood ratio, one start law for both
    α_∞ = σ₀² / (σ₀² + σ₁²)        least variance
    ε + α B ≤ ρ                    B = |∇¹ − ∇⁰|, ε the radius within which ∇⁰ holds with 1 − δ
    α = min(α_∞, (ρ − ε)/B), 0 where ε ≥ ρ

Suh, Simchowitz, Zhang and Tedrake, "Do differentiable simulators give better policy gradients?",
2022, section 4. ε is the vector Bernstein radius at *failure* probability δ (0.05, say; the
published code passes 0.95 there). Whether ∇¹ is biased at all is tested beside it: |E ∇¹ − E ∇⁰|²
by a U-statistic with its interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.starts import as_starts, group_sums
from gradlab.gradients.ways import WAYS
from gradlab.statistics.intervals import Interval, interval
from gradlab.statistics.moments import PairSums, squared_norm


@dataclass(frozen=True)
class _AlphaOrder:
    """The mixed gradient and what it was decided from; a group of samples counts as one.

    Attributes:
        mean: α ∇¹ + (1 − α) ∇⁰, [P].
        alpha: weight of the first order; least_variance: α_∞.
        variance_first, variance_zeroth: traces of the per-sample covariances.
        radius: ε of the zeroth-order mean at failure probability δ.
        disagreement: |∇¹ − ∇⁰| of the means.
        bias2: noise-corrected |E ∇¹ − E ∇⁰|² with its interval; `empirically_biased`: above 0.
    """

    mean: Tensor
    alpha: float
    least_variance: float
    variance_first: float
    variance_zeroth: float
    radius: float
    disagreement: float
    bias2: float
    bias2_interval: Interval

    @property
    def empirically_biased(self) -> bool:
        return self.bias2_interval.low > 0


@dataclass(frozen=True)
class Trust:
    """How far the first order may be wrong.

    Attributes:
        accuracy: ρ, the error allowed with probability 1 − δ; inf: least variance only.
        failure: δ in (0, 1).
    """

    accuracy: float = math.inf
    failure: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.failure < 1:
            raise InputError(f"failure is {self.failure}, expected a probability in (0, 1)")
        if not self.accuracy > 0:
            raise InputError(f"accuracy is {self.accuracy}, expected a positive number")


_LEAST_VARIANCE = Trust()


def alpha_order(
    first: Estimator,
    zeroth: Estimator,
    policy: nn.Module,
    starts: Tensor | Path,
    trust: Trust = _LEAST_VARIANCE,
    seed: int = 0,
    termination: str = "ignore",
) -> _AlphaOrder:
    """Mix a pathwise and a score estimator on the same starts and noise.

    Args:
        first: actions "all"; zeroth: actions "score".
        trust: the error that is allowed; by default any, so that variance alone decides.

    Raises:
        InputError: estimators of other kinds or of different returns.
    """
    if (first.way, zeroth.way) != (WAYS["all"], WAYS["score"]):
        raise InputError(
            f"first has actions {first.actions!r} and zeroth {zeroth.actions!r}, expected 'all' "
            f"and 'score', which estimate the same gradient"
        )
    shapes = [(e.tail.horizon, e.tail.discount, e.entropy) for e in (first, zeroth)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"first and zeroth have (horizon, discount, entropy) {shapes[0]} and {shapes[1]}: mix "
            f"gradients of one return"
        )
    group = as_starts(starts, first.states.state_dim).group
    label, means = torch.unique(group, return_inverse=True)[1], []
    for estimator in (first, zeroth):  # of the samples that share a group, weighing as they do
        G = estimator.gradients(policy, starts, seed, termination)
        sums = group_sums(G, label)
        means.append(sums * (len(sums) / len(G)))
    G1, G0 = means
    v1, v0 = _trace(G1), _trace(G0)
    radius = _bernstein_radius(G0, trust.failure)
    disagreement = float((G1.mean(dim=0) - G0.mean(dim=0)).norm())
    least = v0 / (v0 + v1) if v0 + v1 > 0 else 1.0
    alpha = least
    if disagreement > 0 and radius + least * disagreement > trust.accuracy:
        alpha = max(0.0, (trust.accuracy - radius) / disagreement)
    Y = (G1 - G0).double().cpu()
    rows = (Y @ Y.sum(dim=0)).numpy()
    bias2 = squared_norm(PairSums((Y * Y).sum(dim=1).numpy(), rows, rows), np.ones(len(Y)))
    mean = alpha * G1.mean(dim=0) + (1 - alpha) * G0.mean(dim=0)
    span = interval("bias2", bias2)
    return _AlphaOrder(mean, alpha, least, v1, v0, radius, disagreement, bias2.value, span)


def _bernstein_radius(G: Tensor, failure: float) -> float:
    """ε with P(|mean − E| ≥ ε) ≤ δ, from samples [N, P] of dimension P.

    Solves (P + 1) exp(−(N ε²/2) / (σ² + R ε/3)) = δ with σ² the trace of the covariance and R the
    largest deviation from the mean.
    """
    n, dim = G.shape
    deviation = float((G - G.mean(dim=0)).norm(dim=1).max())
    log = math.log((dim + 1) / failure)
    linear = deviation * log / 3
    return (linear + math.sqrt(linear**2 + 2 * n * _trace(G) * log)) / n


def _trace(G: Tensor) -> float:
    return float((G - G.mean(dim=0)).square().sum() / max(len(G) - 1, 1))
