"""Stratified samples, as independent groups to which every plain formula applies.

A pilot of n′ starts is divided into strata with the shares W_h; n_h of the n′_h = W_h n′ starts of
a stratum are drawn without replacement and measured, N = Σ n_h, each with the weight
c_h = N W_h/n_h. With X_g = c_h z_g, X̄ = Σ X_g/N and S_h² the variance of z within a stratum,

    E z        ←  X̄ = Σ_h W_h z̄_h
    Var X̄     ←  Σ_h α_h S_h² + Σ_h W_h |z̄_h − X̄|²/(n′ − 1)                              (*)
    α_h        =  (W_h d_h (n′ W_h − 1) + W_h − 1/n′)/(n′ − 1),    d_h = 1/n_h − 1/n′_h

which is unbiased: the strata's own errors, and that of their shares, which are the pilot's (double
sampling: Cochran 1977, Sampling Techniques, 12.4; its (12.24) up to 1/n′). The groups

    X̃_g = X̄ + f_h (X_g − X_(h)/n_h) + E_h,     f_h² = N(N − 1) α_h/(c_h² (n_h − 1))
    E    = √(N(N − 1)/(n′ − 1)) D⁻¹ U [√W_h (z̄_h − X̄)]_h,   D = diag √n_h,   U √W = √(n/N)

(X_(h): sums over strata, U a reflection) have the same sum, and (*) is the plain variance of their
mean. So unbiased squares, the jackknife with what it leaves out, bootstraps over groups and inner
products of them are those of the strata; where a stratum with few starts carries the variance,
the kurtosis of X̃ says how few degrees of freedom there are. X̃ is linear in X, and 1 stays 1:
second moments Σ c |z|², with the weight once, are carried over likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError

_Array = NDArray[np.float64]
_FEWEST = 2  # starts of a stratum, which have a variance


@dataclass(frozen=True, eq=False)
class Strata:
    """Which stratum each of G groups belongs to.

    Attributes:
        label: [G], 0 … H − 1; times: [H], the weights c_h; pilot: n′.

    Raises:
        InputError: a stratum with fewer than two groups.
    """

    label: NDArray[np.int64]
    times: _Array
    pilot: int

    def __post_init__(self) -> None:
        if self.count.min() < _FEWEST:
            few = np.flatnonzero(self.count < _FEWEST).tolist()
            raise InputError(
                f"strata {few} of {len(self.times)} have fewer than {_FEWEST} starts: merge them "
                f"with their neighbours"
            )

    @cached_property
    def count(self) -> _Array:
        """n_h."""
        return np.bincount(self.label, minlength=len(self.times)).astype(np.float64)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """[G]: which of its stratum's groups each is, so that halves have half of every stratum."""
        rank = np.zeros(len(self.label), dtype=np.int64)
        for h in range(len(self.times)):
            here = self.label == h
            rank[here] = np.arange(here.sum())
        return rank

    @property
    def weight(self) -> _Array:
        """c of each group, [G]."""
        return self.times[self.label]

    @cached_property
    def stretch(self) -> _Array:
        """f_h."""
        c, n, N, pilot = self.times, self.count, len(self.label), self.pilot
        W = c * n / N
        d = np.maximum(1 / n - 1 / (W * pilot), 0.0)
        alpha = (W * d * (pilot * W - 1) + W - 1 / pilot) / (pilot - 1)
        return np.asarray(np.sqrt(N * (N - 1) * np.maximum(alpha, 0.0) / (n - 1)) / c)

    @cached_property
    def shift(self) -> _Array:
        """[H, H]: X̃_g − f_h X_g from the sums over all strata."""
        c, n, N = self.times, self.count, len(self.label)
        W = c * n / N
        w, u = np.sqrt(W / W.sum()), np.sqrt(n / N)
        v = w - u
        U = np.eye(len(n)) - 2 * np.outer(v, v) / max(v @ v, 1e-300)
        between = (np.diag(1 / (c * n)) - 1 / N) * w[:, None]
        scale = np.sqrt(N * (N - 1) / (self.pilot - 1) / n)
        return np.asarray(1 / N - np.diag(self.stretch / n) + scale[:, None] * (U @ between))

    def exchangeable(self, sums: _Array) -> _Array:
        """X̃ of X [G, …]; as it is where a number is lost, which then is lost in any case."""
        if not np.isfinite(sums).all():
            return sums
        flat = sums.reshape(len(sums), -1)
        strata = np.zeros((len(self.times), flat.shape[1]))
        np.add.at(strata, self.label, flat)
        exchanged = self.stretch[self.label, None] * flat + (self.shift @ strata)[self.label]
        return np.asarray(exchanged.reshape(sums.shape))

    def squared(self, sums: _Array) -> _Array:
        """Σ c |z|² of exchangeable groups, from X̃ = Σ c z of them, [G]."""
        strata = np.zeros(len(self.times))
        np.add.at(strata, self.label, sums)
        back = np.diag(self.stretch) + self.count[:, None] * self.shift
        X = sums - (self.shift @ np.linalg.solve(back, strata))[self.label]
        return self.exchangeable((X / self.stretch[self.label]) ** 2 / self.weight)

    def some(self, groups: NDArray[np.bool_]) -> Strata:
        """Of some of the groups, with the weights that they have."""
        return Strata(self.label[groups], self.times, self.pilot)
