"""One column of the probe's tables as one value: its unit, its axes, and whose number it is.

A column of "vitals" that follows from the norms of gradients and steps also has its formula, a
function of the `Window` of one seed's updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.storage.journal_tables import Column

Array = NDArray[np.float64]
SEED = ("seed",)


@dataclass(frozen=True, eq=False)
class Window:
    """One seed's updates since the last row, of P parameter tensors.

    Attributes:
        sizes: |∂L/∂θ_l| of every update, [updates, P].
        moves: |Δθ_l| and |θ_l| of the steps that were measured, [steps, 2, P].
        trained: [P], False for frozen tensors.
    """

    sizes: Array
    moves: Array
    trained: NDArray[np.bool_]

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """[updates, P]"""
        return np.isfinite(self.sizes)

    @cached_property
    def norms(self) -> Array:
        """|∂L/∂θ| of the updates in which it is finite."""
        whole: Array = np.sqrt((self.sizes**2).sum(1))
        return whole[np.isfinite(whole)]

    @cached_property
    def ratios(self) -> Array:
        """|Δθ| / |θ| of the steps in which it is finite."""
        with np.errstate(invalid="ignore", divide="ignore"):
            moved, before = self.moves[:, 0], self.moves[:, 1]
            ratio: Array = np.sqrt((moved**2).sum(1) / (before**2).sum(1))
        return ratio[np.isfinite(ratio)]

    @cached_property
    def layer_ratios(self) -> Array:
        """|Δθ_l| / |θ_l|, [steps, P]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios: Array = self.moves[:, 0] / self.moves[:, 1]
        return ratios

    def of_trained(self, values: NDArray[Any]) -> Array:
        """[P], NaN for frozen tensors."""
        return np.where(self.trained, values.astype(np.float64), np.nan)


@dataclass(frozen=True)
class ProbeColumn:
    """A column of a probe's table.

    Attributes:
        dims, unit, text: as of `Column`.
        shared: one number for all seeds that are trained together, as a time or a count of steps.
        user: of a user's loop only; gradlab's own records it elsewhere, or cannot have it.
        formula: its value in a window of updates; None: it comes from another instrument.
    """

    dims: tuple[str, ...] = ()
    unit: str = ""
    text: bool = False
    shared: bool = False
    user: bool = False
    formula: Callable[[Window], Any] | None = None

    def of_one_loop(self) -> Column:
        """As the file of a user's loop has it."""
        return Column(self.dims, self.unit, self.text)

    def by_seed(self) -> Column:
        """As the file of several seeds has it."""
        dims = self.dims if self.text or self.shared else (*SEED, *self.dims)
        return Column(dims, self.unit, self.text)


def mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def column_means(values: Array) -> Array:
    """Means over the finite entries of each column."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(finite, values, 0.0).sum(0) / finite.sum(0))
