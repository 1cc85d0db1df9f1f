"""What every update shows: sizes of gradients and of steps, on the device until a row is due.

    |∂L/∂θ_l|,   |Δθ_l| / |θ_l|        for every parameter tensor l, and for all of them together

Gradients are taken as the backward pass left them, before they are clipped, wherever the user
marks that place with `with probe(step)`. Nothing is copied but θ before a step, and what is kept of
an update is a few numbers per tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def present(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients that are there, detached.

    Raises:
        ValueError: one is sparse.
    """
    found = [each.detach() for each in gradients if each is not None]
    if any(each.layout != torch.strided for each in found):
        raise ValueError("a gradient is sparse: the probe reads dense gradients only")
    return found


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """|x_l| of every tensor, [len(tensors)], in float32 at least."""
    half = any(each.dtype in (torch.float16, torch.bfloat16) for each in tensors)
    kind = torch.float32 if half else None
    return torch.stack(list(torch._foreach_norm(list(tensors), 2, dtype=kind)))


@final
class Vitals:
    """The updates since the last row."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._before: list[Tensor] | None = None
        self._empty()

    def gradient(self, scale: Tensor | None = None) -> Tensor:
        """|∂L/∂θ_l| as it stands, [P]; 0 where nothing arrived.

        Args:
            scale: of the loss, which a gradient scaler has multiplied; None: 1.
        """
        gradients = [p.grad for p in self.parameters]
        here = present(gradients)
        if not here:
            return torch.zeros(len(gradients), device=self.parameters[0].device)
        found = norms(here)
        if len(here) < len(gradients):
            place = [k for k, each in enumerate(gradients) if each is not None]
            found = found.new_zeros(len(gradients)).index_copy_(
                0, torch.tensor(place, device=found.device), found
            )
        return found if scale is None else found / scale

    def add(self, sizes: Tensor) -> None:
        """One more update, with the `gradient` that it used."""
        self._sizes.append(sizes)

    def before_step(self) -> None:
        """Keep θ."""
        theta = self._theta()
        if self._before is None:
            self._before = [torch.empty_like(p) for p in theta]
        torch._foreach_copy_(self._before, theta)
        self._open = True

    def after_step(self) -> None:
        """How far the step went."""
        if not self._open or self._before is None:
            return
        sizes = norms(self._before)
        torch._foreach_sub_(self._before, self._theta())
        self._moves.append(torch.stack([norms(self._before), sizes]))
        self._open = False

    def row(self) -> dict[str, Any]:
        """The window's numbers; begins the next one."""
        count = len(self.parameters)
        trained = np.array([p.requires_grad for p in self.parameters])
        row = summed_up(
            _gathered(self._sizes, (count,)), _gathered(self._moves, (2, count)), trained
        )
        self._empty()
        return row

    def _theta(self) -> list[Tensor]:
        """As it is now: a loop may have put other tensors into its parameters."""
        return [p.detach() for p in self.parameters]

    def _empty(self) -> None:
        self._sizes: list[Tensor] = []
        self._moves: list[Tensor] = []
        self._open = False


def summed_up(sizes: Array, moves: Array, trained: NDArray[np.bool_]) -> dict[str, Any]:
    """A window's numbers.

    Args:
        sizes: |∂L/∂θ_l| of every update, [updates, P].
        moves: |Δθ_l| and |θ_l| of those whose step was looked at, [steps, 2, P].
        trained: [P], False for frozen tensors.
    """
    finite = np.isfinite(sizes)
    whole = np.sqrt((sizes**2).sum(1))
    sound = whole[np.isfinite(whole)]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt((moves[:, 0] ** 2).sum(1) / (moves[:, 1] ** 2).sum(1))
        by_layer = moves[:, 0] / moves[:, 1]
    return {
        "looked": len(sizes),
        "grad_norm": _mean(sound),
        "grad_norm_max": float(sound.max()) if len(sound) else np.nan,
        "update_ratio": _mean(ratio[np.isfinite(ratio)]),
        "layer_norm": _column_means(sizes),
        "layer_ratio": _column_means(by_layer),
        "nonfinite": (~finite).sum(0).astype(np.float64),
        "nonfinite_updates": int((~finite).any(1).sum()),
        "zero": np.where(trained, (sizes == 0).sum(0).astype(np.float64), np.nan),
    }


def _gathered(kept: Sequence[Tensor], shape: tuple[int, ...]) -> Array:
    """One transfer for a whole window, [updates, …]."""
    if not kept:
        return np.zeros((0, *shape))
    return np.asarray(torch.stack(list(kept)).double().cpu().numpy())


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _column_means(values: Array) -> Array:
    """Means over the finite entries of each column."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(finite, values, 0.0).sum(0) / finite.sum(0))
