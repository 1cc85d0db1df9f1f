"""Norms, update ratios and what is not finite, of the updates that are looked at.

    |∂L/∂θ_l|,   |Δθ| / |θ|        for every parameter tensor l, and for all of them together

Gradients are as the backward pass left them. Nothing is copied but θ before a step; on an
accelerator numbers stay tensors until a row is due. Frozen tensors keep their place.

Of bursts of successive gradients come their inner products, without a second backward pass. Two
float64 copies of the gradient live as long as a burst. Samples that return in the next batch are
known again by one number each, mark_i = w · x_i, w fixed and irrational to the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from math import isfinite, nan
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from gradlab.data.trajectories import stream
from gradlab.statistics.moments import Array
from gradlab.statistics.successive import fresh, signal

_CHEAP = 2**16  # entries, 10 µs
_SHOWN = 4  # tensors that are tested in every update
_HALF = (torch.float16, torch.bfloat16)
PAIRS = 32  # of a burst


def _dense(gradients: Iterable[Tensor]) -> list[Tensor]:
    """Gradients, detached.

    Raises:
        ValueError: one is sparse.
    """
    here = [each.detach() for each in gradients]
    if any(each.layout is not torch.strided for each in here):
        raise ValueError(
            "a gradient is sparse: the probe reads dense ones; say sparse=False to the layer"
        )
    return here


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """|x_l| of every tensor, [P] of float64, where they are; of float16 summed up in float32."""
    wide = [each.float() if each.dtype in _HALF else each for each in tensors]
    found = torch._foreach_norm(wide, 2) if wide else []
    return torch.stack([each.double() for each in found]) if found else torch.zeros(0)


def finite(norms: Tensor) -> bool:
    """Is every number finite? True where the answer would have to be waited for."""
    # A sum that overflows without an inf in it: gradients of 10³⁰⁸, which are no less lost.
    return not norms.is_cpu or isfinite(norms.sum().item())


@final
class Guard:
    """Tests a few small gradients before every step of an optimiser: NaN of a loss reaches the
    biases of the outputs, which are small, and NaN that a pass back makes the first layer.

    Args:
        parameters: of the optimiser, or of a policy without one.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        held = list(parameters)
        first = min(range(len(held)), key=lambda k: (held[k].numel() > _CHEAP, k), default=0)
        order = sorted(range(len(held)), key=lambda k: (k != first, held[k].numel()))
        chosen = [held[k] for k in order[:_SHOWN]]
        self._small = [p for p in chosen if p.dtype == chosen[0].dtype]

    def lost(self) -> bool:
        """Is one not finite? False on an accelerator, for which it would have to be waited."""
        here = [g for p in self._small if (g := p.grad) is not None and g.layout is torch.strided]
        if not here:
            return False
        kind = torch.float32 if here[0].dtype in _HALF else None
        flat: Tensor = _flatten_dense_tensors(here)  # type: ignore[no-untyped-call]
        return here[0].is_cpu and not isfinite(flat.sum(dtype=kind).item())


@final
class Signals:
    """The updates that were looked at since the last row."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._kept: list[Tensor] | None = None
        self._norms: list[Tensor] = []
        self._scaled: list[bool] = []
        self._ratios: list[Tensor] = []

    def gradient(self, scale: Tensor | None = None) -> Tensor:
        """|∂L/∂θ_l| as it stands, [P]; 0 where nothing arrived.

        Args:
            scale: of the loss, which a gradient scaler has multiplied; None: 1.
        """
        where = self.parameters[0].device
        found = torch.zeros(len(self.parameters), dtype=torch.float64, device=where)
        there = [k for k, p in enumerate(self.parameters) if p.grad is not None]
        here = _norms(_dense(p.grad for p in self.parameters if p.grad is not None))
        if there:
            found[there] = here if scale is None else here / scale.to(where)
        return found

    def keep(self) -> None:
        """θ, whose step is about to be made."""
        self._kept = [p.detach().clone() for p in self.parameters if p.requires_grad]

    def forget(self) -> None:
        """The step was none."""
        self._kept = None

    def add(self, norms: Tensor, scaled: bool) -> None:
        """The update is over, with the `gradient` that it used, and the step, where θ was kept.

        Args:
            scaled: a scaler had multiplied it; where it has overflown, its step was skipped.
        """
        self._norms.append(norms)
        self._scaled.append(scaled)
        now = [p.detach() for p in self.parameters if p.requires_grad]
        before, self._kept = self._kept, None
        if before is not None and len(now) == len(before):
            moved = _norms([a - b for a, b in zip(now, before, strict=True)])
            self._ratios.append(moved.norm() / _norms(before).norm())

    def row(self) -> dict[str, Any]:
        """The numbers of these updates; begins the next row."""
        norms = _brought(self._norms).reshape(len(self._norms), len(self.parameters))
        norms = norms[np.isfinite(norms).all(1) | ~np.array(self._scaled, dtype=bool)]
        ratios = _brought(self._ratios)
        trained = np.array([p.requires_grad for p in self.parameters])
        whole = np.sqrt((norms**2).sum(1))
        whole = whole[np.isfinite(whole)]
        ratios = ratios[np.isfinite(ratios)]
        there = np.isfinite(norms)
        with np.errstate(invalid="ignore"):
            layers = np.where(there, norms, 0.0).sum(0) / there.sum(0)
        self._norms, self._scaled, self._ratios, self._kept = [], [], [], None
        return {
            "looked": len(norms),
            "grad_norm": float(whole.mean()) if len(whole) else nan,
            "grad_norm_max": float(whole.max()) if len(whole) else nan,
            "update_ratio": float(ratios.mean()) if len(ratios) else nan,
            "layer_norm": np.where(trained, layers, nan),
            "nonfinite": (~there).sum(0).astype(float),
            "nonfinite_updates": int((~there).any(1).sum()),
            "zero": np.where(trained, (norms == 0).sum(0), nan),
        }


def _brought(kept: Sequence[Tensor]) -> Array:
    """What an accelerator holds in one transfer."""
    return torch.stack([*kept]).cpu().numpy() if kept else np.zeros(0)


def marks(inputs: Sequence[Tensor]) -> Tensor | None:
    """[B]; None where the inputs are not batches of numbers."""
    if not inputs or any(x.ndim < 2 or len(x) != len(inputs[0]) for x in inputs):
        return None
    rows = torch.cat([x.reshape(len(x), -1).double() for x in inputs], dim=1)
    return rows @ _weights(rows.shape[1]).to(rows)


@lru_cache(maxsize=8)
def _weights(width: int) -> Tensor:
    return torch.randn(width, generator=stream(0, "marks"), dtype=torch.float64)


@final
class Burst:
    """`PAIRS` + 1 gradients in a row, of what is trained as it begins."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self._old = torch.zeros(0)
        self._new: Tensor | None = None
        self._squares: list[Tensor] = []
        self._products: list[Tensor] = []
        self._samples: list[Tensor | None] = []
        self._batch: Tensor | None = None

    @property
    def done(self) -> bool:
        return len(self._products) >= PAIRS

    def see(self, scale: Tensor | None, inputs: Sequence[Tensor] = ()) -> None:
        """The gradient as it stands; the last one before `commit` counts.

        Args:
            inputs: of the policy, one row per sample.
        """
        self._batch = marks(inputs)
        here = _dense(torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters)
        whole = torch.cat([each.reshape(-1).double() for each in here])
        self._new = whole if scale is None else whole / scale.to(whole.device)

    def commit(self) -> None:
        """The update used it."""
        if self._new is None:
            return
        if self._squares:
            self._products.append(self._old @ self._new)
        self._squares.append(self._new @ self._new)
        self._samples.append(self._batch)
        self._old, self._new = self._new, None

    def row(self) -> dict[str, Any]:
        """The burst's row."""
        batches = [None if each is None else each.cpu().numpy() for each in self._samples]
        shared = np.full(len(batches) - 1, np.nan)  # samples of a batch that the one before had
        overlap = shared.copy()
        for k, (old, new) in enumerate(pairwise(batches)):
            if old is not None and new is not None:
                shared[k] = np.isin(new, old).sum()
                overlap[k] = shared[k] / len(new)
        seen = np.concatenate([np.zeros(0), *(each for each in batches if each is not None)])
        distinct = len(np.unique(seen)) / len(seen) if len(seen) else 1.0
        kept = fresh(shared)
        found = signal(_brought(self._products), _brought(self._squares), kept, distinct)
        return {
            "pairs": len(self._products),
            "fresh": found.pairs,
            "overlap": float(overlap[kept].mean()),
            "distinct": distinct,
            "energy": found.energy,
            "signal": found.signal,
            "root_squares": found.root_squares,
            "signal_share": found.share,
            "share_se": found.se,
            "cosine": found.cosine,
        }
