"""Inner products of several estimators' gradients, and the matrix of their errors.

With g_k the estimators, t the truth, y_k = g_k − t and a batch of N′ samples,

    F = [E, β; βᵀ, |E t|²],     E_kl = E y_k · E y_l + tr Cov(g_k, g_l)/N′,     β_k = E y_k · E t

so that Σ w_k g_k has the mean squared error (w, σ − 1)ᵀ F (w, σ − 1) with σ = Σ w, wᵀE w for σ = 1.
Means are multiplied from pairs of different groups only, X_gk the sum of group g and S_k of all:
    E x_k · E x_l  ←  (S_k · S_l − Σ_g X_gk · X_gl) / (N² − Σ n_g²)
which is unbiased, and so possibly indefinite.

Agreement of two mean gradients about the sign of each parameter's step.

    share = ½ + ½ Σ_p a_p b_p / Σ_p |a_p b_p|,     a = 2 Φ(z) − 1

with z the mean of a coordinate over its standard error, of the estimator (a) and of the truth (b):
soft signs, so that a coordinate counts by how well both signs are known; with hard signs those that
noise decides would pull the share to ½. With enough samples it is the plain share of equal signs.

The interval makes no use of that average. A sign is known where |z| exceeds a quantile at which all
signs of both means together are right in 95% (Bonferroni); a coordinate with an unknown one may
agree or not. So it runs from the share that is known to agree, by the share that is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.intervals import student
from gradlab.statistics.moments import Array, Estimate, Moments, PairSums

_WRONG = 0.05  # probability that any sign of the two means is taken for known and is wrong


def sign_agreements(sums: Array, truth: Array, size: Array) -> list[Estimate]:
    """Share of coordinates whose signs agree with the truth's, and what is known of it; NaN where
    nothing varies.

    Args:
        sums: [K, G, C], sums of each gradient's samples over each group; truth: [G, C], likewise.
        size: [G], how many samples they are.
    """
    b, b_left_out, b_known = _soft_signs(truth, size)

    def share(a: Array, b: Array) -> Array:
        with np.errstate(invalid="ignore"):
            product = a * b
            return np.asarray(0.5 + 0.5 * product.sum(axis=-1) / np.abs(product).sum(axis=-1))

    found = []
    for each in sums:
        a, left_out, known = _soft_signs(each, size)
        agree = known * b_known
        shares = float((agree > 0).mean()), float((agree == 0).mean())
        found.append(Estimate(float(share(a, b)), share(left_out, b_left_out), shares=shares))
    return found


def _soft_signs(sums: Array, size: Array) -> tuple[Array, Array, Array]:
    """Soft signs of the mean [C], those with each group left out [G, C], and known ones: ±1, else 0
    [C]."""
    groups = np.count_nonzero(size)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = sums.sum(axis=0)
        spread = sums - size[:, None] * (total / size.sum())
        error = np.sqrt((spread**2).sum(axis=0) * groups / max(groups - 1, 1))
        scale = np.where(error > 0, np.sqrt(0.5) / error, 0.0)
        certain = np.where(error > 0, 0.0, np.sign(total))
        value = scipy.special.erf(scale * total) + certain
        left_out = scipy.special.erf(scale * (total - sums)) + certain
        reach = student(max(float(groups) - 1, 1.0), 1 - _WRONG / (2 * sums.shape[1]))
        known = np.where(error > 0, np.sign(total) * (np.abs(total) > reach * error), certain)
    return value, left_out, known


FEWEST = 3  # groups, so that with one left out there still is a pair
_SMALLEST = 1e-6  # of the smallest error, the unit of an estimator without any


@dataclass(frozen=True)
class Grams:
    """Inner products of K estimators' gradients and, last, the truth's, on common samples.

    X_gk is the sum over group g of the gradients of estimator k (k = K: of the truth), and S_fk the
    sum of X_gk over the groups of fold f. A kernel yields all of it without a parameter-sized
    vector: x_k · Θ x_l within groups, and with Θ summed over each fold.

    Attributes:
        size: [G], samples of each group.
        own: [G, K + 1, K + 1], X_gk · X_gl.
        within: [G, K + 1, K + 1], Σ_{i∈g} G_ik · G_il; the same as `own` for groups of one.
        total: [folds, G, K + 1, K + 1], X_gk · S_fl. Two folds let weights be fitted on one half of
            the groups and judged on the other.
        fold: [G], the fold of each group.
    """

    size: Array
    own: Array
    within: Array
    total: Array
    fold: NDArray[np.int64]

    def __post_init__(self) -> None:
        G, width = self.own.shape[:2]
        square = (G, width, width)
        shapes = self.size.shape, self.own.shape, self.within.shape, self.total.shape[1:]
        if shapes != ((G,), square, square, square) or self.fold.shape != (G,):
            raise InputError(f"grams have shapes {shapes}: expected G = {G}, K + 1 = {width}")
        if G < FEWEST or width < 2:
            raise InputError(
                f"grams have {G} groups, {width - 1} estimators: at least {FEWEST} groups and one "
                f"estimator are needed"
            )
        finite = np.isfinite(self.total).all(axis=(0, 1)) & np.isfinite(self.within).all(axis=0)
        if not finite.all():
            worst = np.flatnonzero(~np.diagonal(finite)).tolist()
            raise InputError(
                f"estimators {worst} have gradients that are not finite: leave them out"
            )

    @property
    def estimators(self) -> int:
        """K."""
        return int(self.own.shape[1]) - 1


def only(grams: Grams, folds: Sequence[int]) -> Grams:
    """The groups of some folds.

    Raises:
        InputError: fewer than three groups.
    """
    here = np.isin(grams.fold, folds)
    if here.sum() < FEWEST:
        raise InputError(
            f"folds {list(folds)} have {here.sum()} groups of starts, at least {FEWEST} are needed"
        )
    total = grams.total[list(folds)][:, here]
    fold = np.searchsorted(folds, grams.fold[here])
    return Grams(grams.size[here], grams.own[here], grams.within[here], total, fold)


def mixture_moments(grams: Grams, weights: Array) -> Moments:
    """Moments of Σ w_k g_k against the truth, for every quantity of `moments.estimates`."""
    total = grams.total.sum(axis=0)
    g, t = np.append(weights, 0.0), np.eye(len(weights) + 1)[-1]

    def pairs(x: Array, z: Array) -> PairSums:
        return PairSums(grams.own @ z @ x, total @ z @ x, total @ x @ z)

    return Moments(
        size=grams.size,
        squares=grams.within @ g @ g,
        gradient=pairs(g, g),
        truth=pairs(t, t),
        difference=pairs(g - t, g - t),
        cross=pairs(g, t),
    )


@dataclass(frozen=True)
class ErrorMatrix:
    """F, unbiased and so possibly indefinite.

    Attributes:
        value: [K + 1, K + 1]; left_out: [G, K + 1, K + 1], without each group.
        noise: [K + 1, K + 1], what the products of the sample's own means have too much, projected.
        scale: [K + 1], root of the diagonal of F with that noise: positive.
    """

    value: Array
    left_out: Array
    noise: Array
    scale: Array


def error_matrix(grams: Grams, batch: int) -> ErrorMatrix:
    """F at batch size N′."""
    size, n, n2 = grams.size, grams.size.sum(), (grams.size**2).sum()
    total = grams.total.sum(axis=0)
    both = total + total.swapaxes(1, 2)
    whole, own, within = (sums.sum(axis=0) for sums in (total, grams.own, grams.within))
    free = (n - size) ** 2 - (n2 - size**2)
    pairs = (whole - own) / (n**2 - n2)
    pairs_left_out = (whole - own - both + 2 * grams.own) / free[:, None, None]
    spread = _of_batches(within / n - pairs)
    spread_left_out = (within - grams.within) / (n - size)[:, None, None] - pairs_left_out
    value = _as_errors(pairs) + spread / batch
    left_out = _as_errors(pairs_left_out) + _of_batches(spread_left_out) / batch
    noise = _as_errors(whole / n**2 - pairs)
    scale = units(np.diagonal(value + noise))
    return ErrorMatrix(value, left_out, projected(noise, scale), scale)


def projected(F: Array, scale: Array) -> Array:
    """The nearest positive semi-definite matrix, with its diagonal measured in `scale`²."""
    unit = scale[:, None] * scale
    values, vectors = np.linalg.eigh(F / unit)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T * unit)


def _of_batches(covariance: Array) -> Array:
    """Without the truth's row and column: it is a mean, not that of one batch."""
    result = covariance.copy()
    result[..., -1, :] = result[..., :, -1] = 0.0
    return result


def units(squares: Array) -> Array:
    """Roots of a diagonal, positive also where it is not."""
    scale = np.sqrt(np.maximum(squares, 0.0))
    least = _SMALLEST * scale[scale > 0].min() if scale.any() else 1.0
    return np.asarray(np.maximum(scale, least))


def _as_errors(inner: Array) -> Array:
    """Inner products of (y_1, …, y_K, t) from those of (g_1, …, g_K, t)."""
    result = inner.copy()
    result[..., :-1, :] -= inner[..., -1:, :]
    result[..., :, :-1] -= result[..., :, -1:].copy()
    return (result + result.swapaxes(-1, -2)) / 2


Cell = tuple[str, int]
_TRUTH: Cell = ("", -1)  # the truth as one of the cells, for mixtures that have a share of it


@dataclass(frozen=True, eq=False)
class Kernels:
    """The inner products of all cells that have one truth.

    Attributes:
        kind: "first", "all" (scores, too), or "objective": whose truth it is.
        cells: (estimator, horizon) of each gradient, [K].
        truth: is there one? It then is the last of the products.
        size, own, within, total, fold: as in `Grams`.
    """

    kind: str
    cells: tuple[Cell, ...]
    truth: bool
    size: Array
    own: Array
    within: Array
    total: Array
    fold: NDArray[np.int64]

    def grams(self, cells: Sequence[Cell], truth: Cell | None = None) -> Grams:
        """Inner products of some cells and, last, of the truth; exact.

        Args:
            cells: `_TRUTH` may be one of them.
            truth: a cell that stands in the truth's place, to measure agreement with it.

        Raises:
            InputError: a cell that is not here, no truth, gradients that are not finite.
        """
        named = (*cells, _TRUTH if truth is None else truth)
        if _TRUTH in named and not self.truth:
            raise InputError("there is no truth here: name a cell to compare with")
        missing = [cell for cell in named if cell not in self.cells and cell != _TRUTH]
        if missing:
            raise InputError(
                f"cells {missing} have no kernel of kind {self.kind!r}: choose among {self.cells}"
            )
        place = {cell: k for k, cell in enumerate((*self.cells, _TRUTH))}
        rows, columns = np.ix_(*[[place[cell] for cell in named]] * 2)
        own, within, total = (
            block[..., rows, columns] for block in (self.own, self.within, self.total)
        )
        return Grams(self.size, own, within, total, self.fold)
