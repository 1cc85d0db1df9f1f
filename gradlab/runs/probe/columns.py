"""Columns of the table "vitals": unit, axes, and the formula of those that follow from a `Window`.

A new one is a row here, at the end: files keep this order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.storage.journal_tables import Column

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Window:
    """The updates since the last row, of P parameter tensors.

    Attributes:
        sizes: |∂L/∂θ_l| of every update, [updates, P].
        moves: |Δθ_l| and |θ_l| of the steps that were measured, [steps, 2, P].
        trained: [P], False for frozen tensors.
        reached: [out], whether a gradient ever came to an output of the last layer.
    """

    sizes: Array
    moves: Array
    trained: NDArray[np.bool_]
    reached: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

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
    """A column of the table "vitals".

    Attributes:
        dims, unit, text: as of `Column`.
        formula: its value in a window of updates; None: it comes from another instrument.
    """

    dims: tuple[str, ...] = ()
    unit: str = ""
    text: bool = False
    formula: Callable[[Window], Any] | None = None

    @property
    def stored(self) -> Column:
        """As a file has it."""
        return Column(self.dims, self.unit, self.text)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _column_means(values: Array) -> Array:
    """Means over the finite entries of each column."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(finite, values, 0.0).sum(0) / finite.sum(0))


LAYER, ACTION = ("parameter",), ("action",)
_CRITIC = {
    "critic_steps": ProbeColumn(unit="steps of the critic's optimiser since the last row"),
    "critic_looked": ProbeColumn(unit="of these: whose gradient was looked at"),
    "critic_stepped": ProbeColumn(unit="of these: whose step was looked at"),
    "critic_still": ProbeColumn(
        unit="of these: that left a tensor as it was, the least of all tensors"
    ),
    "critic_norm": ProbeColumn(unit="loss per parameter unit, mean over those looked at"),
    "critic_ratio": ProbeColumn(unit="|Δφ| / |φ|, mean over those whose step was looked at"),
    "critic_rate": ProbeColumn(unit="learning rate, the largest of the critic's parameters"),
}
VITALS: Mapping[str, ProbeColumn] = {
    "step": ProbeColumn(unit="as the loop counts"),
    "looked": ProbeColumn(unit="updates", formula=lambda w: len(w.sizes)),
    "grad_norm": ProbeColumn(
        unit="loss per parameter unit, before clipping, window mean",
        formula=lambda w: _mean(w.norms),
    ),
    "grad_norm_max": ProbeColumn(
        unit="loss per parameter unit",
        formula=lambda w: float(w.norms.max()) if len(w.norms) else np.nan,
    ),
    "marked": ProbeColumn(unit="1: gradients are those of `with probe(step)`, 0: the optimiser's"),
    "update_ratio": ProbeColumn(
        unit="|Δθ| / |θ|, mean over every fourth update of the window",
        formula=lambda w: _mean(w.ratios),
    ),
    "learning_rate": ProbeColumn(unit="the largest of the policy's parameters"),
    "layer_norm": ProbeColumn(
        LAYER,
        "loss per parameter unit, window mean",
        formula=lambda w: w.of_trained(_column_means(w.sizes)),
    ),
    "layer_ratio": ProbeColumn(
        LAYER,
        "|Δθ| / |θ|, mean over every fourth update",
        formula=lambda w: _column_means(w.layer_ratios),
    ),
    "nonfinite": ProbeColumn(
        LAYER, "updates", formula=lambda w: (~w.finite).sum(0).astype(np.float64)
    ),
    "nonfinite_updates": ProbeColumn(
        unit="updates", formula=lambda w: int((~w.finite).any(1).sum())
    ),
    "zero": ProbeColumn(
        LAYER,
        "updates with a gradient of exactly 0",
        formula=lambda w: w.of_trained((w.sizes == 0).sum(0)),
    ),
    "outputs": ProbeColumn(
        unit="rows of the last layer's weights", formula=lambda w: len(w.reached)
    ),
    "dead_outputs": ProbeColumn(
        unit="of these: with a gradient of exactly 0 so far",
        formula=lambda w: int((~w.reached).sum()),
    ),
    "stepped": ProbeColumn(unit="updates whose step was looked at", formula=lambda w: len(w.moves)),
    "still": ProbeColumn(
        LAYER,
        "of these: updates that left the tensor exactly as it was",
        formula=lambda w: w.of_trained((w.moves[:, 0] == 0).sum(0)),
    ),
    "saturation": ProbeColumn(ACTION, "share of actions at their limit"),
    "attenuation": ProbeColumn(ACTION, "mean 1 − (a/limit)²: what a tanh at the end lets through"),
    "watched": ProbeColumn(unit="forward passes"),
    "model_gradients": ProbeColumn(unit="marked passes that left gradients on the prior model"),
    "model_shared": ProbeColumn(unit="tensors of the policy that the prior model holds, too"),
    "reaches": ProbeColumn(text=True),
    "critic_loss": ProbeColumn(unit="as noted by the loop, window mean"),
    "episode_return": ProbeColumn(unit="reward, mean of the episodes noted in the window"),
    "due": ProbeColumn(text=True),
    **_CRITIC,
    "own_seconds": ProbeColumn(unit="s spent by the probe so far"),
    "elapsed": ProbeColumn(unit="s since the first update"),
    "spent": ProbeColumn(unit="share of the time"),
}


def summed_up(window: Window) -> dict[str, Any]:
    """The numbers of a window, by column."""
    return {
        name: column.formula(window)
        for name, column in VITALS.items()
        if column.formula is not None
    }
