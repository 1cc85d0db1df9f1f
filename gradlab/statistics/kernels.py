"""Gram matrices of the measured gradients, which yield any of their inner products exactly.

Gradients of the first action are J_iᵀ x_i with one J for everybody, so that for any two of them

    X_gk · X_gl = Σ_{i∈g} x_ik · (Θ_g x_l)_i,     X_gk · S_fl = Σ_{i∈g} x_ik · (Θ_f x_l)_i

with Θ = J Jᵀ summed over the samples of a group g or of a fold f: kept are x and Θ_f x, linear in
cells and samples, where all pairs of cells would take their square. Gradients with θ in every
action share no J; of those the inner products themselves are kept, for some of the horizons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.grams import Grams
from gradlab.statistics.moments import Array

Cell = tuple[str, int]
TRUTH: Cell = ("", -1)  # the truth as one of the cells, for mixtures that have a share of it


@dataclass(frozen=True, eq=False)
class ActionProducts:
    """M sets of action gradients x [M, N, da], weights included, and Θ times them.

    Attributes:
        group: [N], 0 … G − 1; fold: [G], of each group.
        total: [folds, M, N, da], Θ x summed over each fold.
        own: [M, N, da], Θ x summed over one's own group; None where each is alone: Θ_ii x_i then.
        diagonal: [N, da, da], Θ_ii.
    """

    x: Array
    total: Array
    own: Array | None
    diagonal: Array
    group: NDArray[np.int64]
    fold: NDArray[np.int64]

    def grams(self, members: Sequence[int]) -> Grams:
        """Of some of the M, in this order."""
        rows = list(members)
        x, total = self.x[rows], self.total[:, rows]
        alone = np.einsum("nab,mnb->mna", self.diagonal, x)
        own = alone if self.own is None else self.own[rows]
        within = self._pairs(x, alone)
        return Grams(
            size=np.bincount(self.group, minlength=len(self.fold)).astype(np.float64),
            own=within if self.own is None else self._pairs(x, own),
            within=within,
            total=np.stack([self._pairs(x, fold_total) for fold_total in total]),
            fold=self.fold,
        )

    def _pairs(self, x: Array, z: Array) -> Array:
        """Σ_{i∈g} x_ik · z_il, [G, M, M]."""
        pairs = x.transpose(1, 0, 2) @ z.transpose(1, 2, 0)
        if len(self.fold) == len(pairs):
            return np.asarray(pairs[np.argsort(self.group)])
        result = np.zeros((len(self.fold), *pairs.shape[1:]))
        np.add.at(result, self.group, pairs)
        return result


@dataclass(frozen=True, eq=False)
class GroupProducts:
    """Inner products of M explicit gradients, summed over groups: arrays as in `Grams`."""

    size: Array
    own: Array
    within: Array
    total: Array
    fold: NDArray[np.int64]

    def grams(self, members: Sequence[int]) -> Grams:
        """Of some of the M, in this order."""
        rows, columns = np.ix_(members, members)
        own, within, total = (
            block[..., rows, columns] for block in (self.own, self.within, self.total)
        )
        return Grams(self.size, own, within, total, self.fold)


@dataclass(frozen=True, eq=False)
class Kernels:
    """The inner products of all cells that have one truth.

    Attributes:
        kind: "first", "all" (scores, too), or "objective": whose truth it is.
        cells: (estimator, horizon) of each gradient, [K].
        truth: is there one? It then is the last of the products.
    """

    kind: str
    cells: tuple[Cell, ...]
    truth: bool
    products: ActionProducts | GroupProducts

    def grams(self, cells: Sequence[Cell], truth: Cell | None = None) -> Grams:
        """Inner products of some cells and, last, of the truth; exact.

        Args:
            cells: `TRUTH` may be one of them.
            truth: a cell that stands in the truth's place, to measure agreement with it.

        Raises:
            InputError: a cell that is not here, no truth, gradients that are not finite.
        """
        named = (*cells, TRUTH if truth is None else truth)
        if TRUTH in named and not self.truth:
            raise InputError("there is no truth here: name a cell to compare with")
        missing = [cell for cell in named if cell not in self.cells and cell != TRUTH]
        if missing:
            raise InputError(
                f"cells {missing} have no kernel of kind {self.kind!r}: choose among {self.cells}"
            )
        place = {cell: k for k, cell in enumerate((*self.cells, TRUTH))}
        return self.products.grams([place[cell] for cell in named])
