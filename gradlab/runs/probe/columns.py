"""Columns of the table "vitals", and the formulas of those that follow from a `Window`.

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


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _column_means(values: Array) -> Array:
    """Means over the finite entries of each column."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(finite, values, 0.0).sum(0) / finite.sum(0))


LAYER, ACTION = ("parameter",), ("action",)


def column(unit: str, description: str, dims: tuple[str, ...] = ()) -> Column:
    return Column(dims, unit, not unit, description)


VITALS: Mapping[str, Column] = {
    "step": column("steps", "as the loop counts"),
    "looked": column("updates", "whose gradient was looked at"),
    "grad_norm": column("loss/parameter", "norm before clipping, window mean"),
    "grad_norm_max": column("loss/parameter", "largest norm of the window"),
    "marked": column("1", "1: gradients of `with probe(step)`, 0: the optimiser's"),
    "update_ratio": column("1", "|Δθ| / |θ|, mean over measured steps"),
    "learning_rate": column("1", "largest of the policy's parameters"),
    "layer_norm": column("loss/parameter", "norm by tensor, window mean", LAYER),
    "layer_ratio": column("1", "|Δθ| / |θ| by tensor, mean over measured steps", LAYER),
    "nonfinite": column("updates", "with a gradient that is not finite", LAYER),
    "nonfinite_updates": column("updates", "with any gradient that is not finite"),
    "zero": column("updates", "with a gradient of exactly 0", LAYER),
    "outputs": column("1", "rows of the last layer's weights"),
    "dead_outputs": column("1", "of these: gradient exactly 0 so far"),
    "stepped": column("updates", "whose step was looked at"),
    "still": column("updates", "of these: left the tensor exactly as it was", LAYER),
    "saturation": column("1", "share of actions at their limit", ACTION),
    "attenuation": column("1", "mean of 1 − (a/limit)², what a tanh passes", ACTION),
    "watched": column("passes", "forward passes of the policy"),
    "model_gradients": column("passes", "that left gradients on the prior model"),
    "model_shared": column("1", "tensors that policy and prior model share"),
    "reaches": column("", "what the gradient reached"),
    "critic_loss": column("loss", "as noted by the loop, window mean"),
    "episode_return": column("reward", "mean of the episodes noted in the window"),
    "due": column("", "next measurements, and when"),
    "critic_steps": column("steps", "of the critic's optimiser since the last row"),
    "critic_looked": column("steps", "of these: whose gradient was looked at"),
    "critic_stepped": column("steps", "of these: whose step was looked at"),
    "critic_still": column("steps", "of these: that left some tensor as it was"),
    "critic_norm": column("loss/parameter", "norm of the critic's gradient, mean"),
    "critic_ratio": column("1", "|Δφ| / |φ|, mean over measured steps"),
    "critic_rate": column("1", "learning rate, largest of the critic's parameters"),
    "own_seconds": column("s", "spent by the probe so far"),
    "elapsed": column("s", "since the first update"),
    "spent": column("1", "share of the time that the probe took"),
}
_FORMULAS: Mapping[str, Callable[[Window], Any]] = {
    "looked": lambda w: len(w.sizes),
    "grad_norm": lambda w: _mean(w.norms),
    "grad_norm_max": lambda w: float(w.norms.max()) if len(w.norms) else np.nan,
    "update_ratio": lambda w: _mean(w.ratios),
    "layer_norm": lambda w: w.of_trained(_column_means(w.sizes)),
    "layer_ratio": lambda w: _column_means(w.layer_ratios),
    "nonfinite": lambda w: (~w.finite).sum(0).astype(np.float64),
    "nonfinite_updates": lambda w: int((~w.finite).any(1).sum()),
    "zero": lambda w: w.of_trained((w.sizes == 0).sum(0)),
    "outputs": lambda w: len(w.reached),
    "dead_outputs": lambda w: int((~w.reached).sum()),
    "stepped": lambda w: len(w.moves),
    "still": lambda w: w.of_trained((w.moves[:, 0] == 0).sum(0)),
}


def summed_up(window: Window) -> dict[str, Any]:
    """The numbers of a window, by column."""
    return {name: formula(window) for name, formula in _FORMULAS.items()}
