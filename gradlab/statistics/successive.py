"""Signal and noise of a gradient from the products of successive minibatch gradients.

    x_k = g_k · g_{k+1},   y_k = |g_k|²        E x = |μ|²,   E y = |μ|² + tr Σ_B

where successive minibatches are drawn independently and θ hardly moves from one to the next: then
μ is their common mean and Σ_B the covariance of one batch's gradient. Otherwise
    samples in common, a share ρ of the batch     E x = |μ|² + ρ tr Σ_B      too large
    a step −η g_k in between, Hessian H           E x = |μ|² − η (μᵀHμ + tr HΣ_B)      too small:
        gradients that undo each other are what is seen once SGD no longer gains (Pflug 1990)
    K batches that partition fresh samples        unbiased, |μ|² that of the samples' law; of the
        samples' own mean they are short by V/(K − 1), V the variance between the batches
so pairs whose batches share more samples than others are left out (`fresh`), and where samples
return within a burst, an error counts the different ones only.

    share = |μ|² / E |g|² = x̄ / ȳ        snr = share / (1 − share)        cosine = √share
    noise scale = tr Σ_B / |μ|², in batches of this size (McCandlish et al. 2018, eq. 2.9)

Where there is no signal, x_k are martingale differences: Σ x / √Σ x² is standard normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics.intervals import Z
from gradlab.statistics.moments import Array

_FEWEST = 4  # pairs behind a standard error
_CHANCE = 3.0  # standard deviations of a Poisson number: batches that happen to share more
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Signal:
    """What n pairs of successive gradients say.

    Attributes:
        energy: mean |g|²; signal: mean g · g′; root_squares: √Σ x².
        share, se: |μ|² / E |g|² and its standard error, NaN from fewer than `_FEWEST` pairs.
    """

    pairs: int
    energy: float
    signal: float
    root_squares: float
    share: float
    se: float

    @property
    def ends(self) -> tuple[float, float]:
        """Of the share's 95% interval."""
        return self.share - Z * self.se, min(self.share + Z * self.se, 1.0)

    @property
    def snr(self) -> float:
        """Of one batch; negative where the products are."""
        return self.share / (1 - self.share) if self.share < 1 else float("inf")

    @property
    def noise_scale(self) -> float:
        """Batches whose mean has as much noise as signal."""
        return 1 / self.snr if self.snr > 0 else float("inf")

    @property
    def cosine(self) -> float:
        """Of one batch's gradient with the mean gradient, from their squared norms."""
        return float(np.sqrt(max(self.share, 0.0)))

    @property
    def z(self) -> float:
        """Σ x / √Σ x², standard normal where there is no signal."""
        return self.pairs * self.signal / self.root_squares if self.root_squares > 0 else 0.0


def fresh(shared: Array) -> _Mask:
    """Pairs to keep: those that share no more samples than the least one, chance allowed for.

    Args:
        shared: [n], samples in common of each pair's batches; NaN where they were not seen.
    """
    finite = np.isfinite(shared)
    if not finite.any():
        return np.full(len(shared), True)
    least = float(shared[finite].min())
    return np.asarray(finite & (np.nan_to_num(shared) <= least + _CHANCE * least**0.5 + 1))


def signal(
    products: Array, squares: Array, kept: _Mask | None = None, distinct: float = 1.0
) -> Signal:
    """From x [n] and y [n + 1] of n + 1 successive gradients.

    Neighbouring products share a gradient, so that their covariance counts twice in the error.

    Args:
        kept: [n], the pairs that count; None: all.
        distinct: different samples over all samples of the gradients.
    """
    kept = np.full(len(products), True) if kept is None else kept
    x = products[kept]
    n, energy = len(x), float(squares.mean())
    centre = float(x.mean())
    share = centre / energy if energy > 0 else 0.0
    residual = np.where(kept, products - share * (squares[:-1] + squares[1:]) / 2, 0.0)
    own = float((residual**2).sum()) / n
    twice = 2 * float((residual[:-1] * residual[1:]).sum()) / max(n - 1, 1)
    se = np.nan
    if n >= _FEWEST and energy > 0:
        se = np.sqrt(max(own + twice, own) / (n - 1) / distinct) / energy
    return Signal(n, energy, centre, float(np.sqrt((x**2).sum())), share, float(se))


def pooled(signals: list[Signal]) -> Signal:
    """Several bursts as one, each gradient counted once."""
    n = sum(signal.pairs for signal in signals)
    energy = sum(signal.pairs * signal.energy for signal in signals) / n
    centre = sum(signal.pairs * signal.signal for signal in signals) / n
    error = np.sqrt(sum((signal.pairs * signal.energy * signal.se) ** 2 for signal in signals)) / n
    root = float(np.sqrt(sum(signal.root_squares**2 for signal in signals)))
    share, se = (centre / energy, error / energy) if energy > 0 else (0.0, np.nan)
    return Signal(n, energy, centre, root, share, float(se))
