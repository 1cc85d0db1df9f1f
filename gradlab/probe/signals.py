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
from dataclasses import dataclass
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
from gradlab.statistics.successive import Signal, fresh, signal

Numbers = list[float] | list[Tensor]  # those of an accelerator stay there
_CHEAP = 2**16  # entries, 10 µs
_SHOWN = 4  # tensors that are tested in every update
_HALF = (torch.float16, torch.bfloat16)
PAIRS = 32  # of a burst
_LISTED = 5  # inputs that are named


def _present(gradients: Iterable[Tensor | None]) -> list[Tensor]:
    """The gradients that are there, detached.

    Raises:
        ValueError: one is sparse.
    """
    here = [each.detach() for each in gradients if each is not None]
    if any(each.layout is not torch.strided for each in here):
        raise ValueError(
            "a gradient is sparse: the probe reads dense ones; say sparse=False to the layer"
        )
    return here


def _norms(tensors: Sequence[Tensor]) -> Numbers:
    """|x_l| of every tensor, in float32 at least."""
    if not tensors:
        return []
    if any(each.dtype in _HALF for each in tensors):
        # One by one: float64 among them cannot be summed up in float32.
        results = [
            torch.linalg.vector_norm(x, dtype=torch.float32 if x.dtype in _HALF else None)
            for x in tensors
        ]
    else:
        results = list(torch._foreach_norm(list(tensors), 2))
    return [each.item() for each in results] if tensors[0].is_cpu else results


def finite(sizes: Numbers) -> bool:
    """Is every number finite? True where the answer would have to be waited for."""
    # A sum that overflows without an inf in it: gradients of 10³⁰⁸, which are no less lost.
    return not sizes or isinstance(sizes[0], Tensor) or sum(sizes) - sum(sizes) == 0


def rate_of(optimizer: Any, parameters: Sequence[nn.Parameter]) -> float:
    """The largest learning rate of these parameters, NaN where it steps none of them."""
    held = {id(p) for p in parameters}
    rates = [
        float(group["lr"])
        for group in ([] if optimizer is None else optimizer.param_groups)
        if "lr" in group and any(id(p) in held for p in group["params"])
    ]
    return max(rates, default=nan)


@final
class Guard:
    """Tests a few small gradients before every step of an optimiser: NaN of a loss reaches the
    biases of the outputs, which are small, and NaN that a pass back makes the first layer.

    On an accelerator the first lost update is noted there, without a wait, until `take`.

    Args:
        parameters: of the optimiser, or of a policy without one.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        held = list(parameters)
        first = min(range(len(held)), key=lambda k: (held[k].numel() > _CHEAP, k), default=0)
        order = sorted(range(len(held)), key=lambda k: (k != first, held[k].numel()))
        chosen = [held[k] for k in order[:_SHOWN]]
        self._small = [p for p in chosen if p.dtype == chosen[0].dtype]
        self._first: Tensor | None = None  # number of the first lost update, −1: none

    def lost(self, update: int) -> bool:
        """Is one not finite? False on an accelerator."""
        here = [g for p in self._small if (g := p.grad) is not None and g.layout is torch.strided]
        if not here:
            return False
        kind = torch.float32 if here[0].dtype in _HALF else None
        flat: Tensor = _flatten_dense_tensors(here)  # type: ignore[no-untyped-call]
        total = flat.sum(dtype=kind)
        if total.is_cpu:
            return not isfinite(total.item())
        if self._first is None or self._first.device != total.device:
            self._first = torch.full_like(total, -1, dtype=torch.long)
        known = torch.isfinite(total) | (self._first >= 0)
        self._first = torch.where(known, self._first, update)
        return False

    def take(self) -> int:
        """The first lost update that an accelerator has noted, which is waited for; −1: none."""
        first, self._first = self._first, None
        return -1 if first is None else int(first.item())


@final
class Signals:
    """The updates that were looked at since the last row."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        layers = [p for p in self.parameters if p.requires_grad and p.ndim == 2]
        # Weights of the inputs and of the outputs, and those to which a gradient ever came.
        self._ends = {"inputs": (layers[0], 0), "outputs": (layers[-1], 1)} if layers else {}
        self._reached: dict[str, Tensor] = {}
        self._kept: list[Tensor] | None = None
        self._sizes: list[tuple[Numbers, bool]] = []
        self._ratios: list[Numbers] = []

    @property
    def looked(self) -> int:
        """Updates so far."""
        return len(self._sizes)

    def gradient(self, scale: Tensor | None = None) -> Numbers:
        """|∂L/∂θ_l| as it stands, P of them; 0 where nothing arrived.

        Args:
            scale: of the loss, which a gradient scaler has multiplied; None: 1.
        """
        gradients = [p.grad for p in self.parameters]
        here = _present(gradients)
        lengths: Any = _divided(_norms(here), scale)
        for name, (p, axis) in self._ends.items():
            if p.grad is not None:
                reached = ((p.grad != 0) & ~p.grad.isnan()).any(axis)
                self._reached[name] = self._reached.get(name, reached) | reached
        if len(here) == len(gradients):
            return list(lengths)
        zero = here[0].new_zeros(()) if here and isinstance(lengths[0], Tensor) else 0.0
        arrived = iter(lengths)
        whole: list[Any] = [zero if each is None else next(arrived) for each in gradients]
        return whole

    def keep(self) -> None:
        """θ, whose step is about to be made."""
        self._kept = [p.detach().clone() for p in self.parameters if p.requires_grad]

    def forget(self) -> None:
        """The step was none."""
        self._kept = None

    def add(self, sizes: Numbers, scaled: bool) -> None:
        """The update is over, with the `gradient` that it used, and the step, where θ was kept.

        Args:
            scaled: a scaler had multiplied it; where it has overflown, its step was skipped.
        """
        self._sizes.append((sizes, scaled))
        now = [p.detach() for p in self.parameters if p.requires_grad]
        before, self._kept = self._kept, None
        if before is not None and len(now) == len(before):
            moved = _norms([a - b for a, b in zip(now, before, strict=True)])
            self._ratios.append([_whole(moved) / _whole(_norms(before))])

    def row(self) -> dict[str, Any]:
        """The numbers of these updates; begins the next row."""
        count = len(self.parameters)
        scaled = np.array([each for _, each in self._sizes], dtype=bool)
        sizes = _gathered([each for each, _ in self._sizes], count)
        ratios = _gathered(self._ratios, 1)
        sizes = sizes[np.isfinite(sizes).all(1) | ~scaled]
        trained = np.array([p.requires_grad for p in self.parameters])
        whole = np.sqrt((sizes**2).sum(1))
        norms = whole[np.isfinite(whole)]
        there = np.isfinite(sizes)
        with np.errstate(invalid="ignore"):
            layers = np.where(there, sizes, 0.0).sum(0) / there.sum(0)
        reached = {name: each.cpu().numpy() for name, each in self._reached.items()}
        dead = {name: np.flatnonzero(~each).tolist() for name, each in reached.items()}
        self._sizes, self._ratios, self._kept = [], [], None
        return {
            "looked": len(sizes),
            "grad_norm": float(norms.mean()) if len(norms) else nan,
            "grad_norm_max": float(norms.max()) if len(norms) else nan,
            "update_ratio": float(ratios[np.isfinite(ratios)].mean())
            if np.isfinite(ratios).any()
            else nan,
            "layer_norm": np.where(trained, layers, nan),
            "nonfinite": (~there).sum(0).astype(float),
            "nonfinite_updates": int((~there).any(1).sum()),
            "zero": np.where(trained, (sizes == 0).sum(0), nan),
            "outputs": len(reached.get("outputs", ())),
            "dead_outputs": len(dead.get("outputs", ())),
            "dead_inputs": len(dead.get("inputs", ())),
            "dead_where": ", ".join(map(str, dead.get("inputs", ())[:_LISTED])),
        }


def _whole(sizes: Any) -> Any:
    """√Σ x_l²; of nothing NaN."""
    if not sizes:
        return nan
    total = sum(x * x for x in sizes)
    return total.sqrt() if isinstance(total, Tensor) else (total**0.5 or nan)


def _gathered(kept: Sequence[Numbers], width: int) -> Array:
    """[updates, width], what an accelerator holds in one transfer."""
    numbers: list[Any] = [x for each in kept for x in each]
    there = [k for k, x in enumerate(numbers) if isinstance(x, Tensor)]
    if there:
        brought = torch.stack([numbers[k].double() for k in there]).tolist()
        for k, x in zip(there, brought, strict=True):
            numbers[k] = x
    return np.array(numbers, dtype=np.float64).reshape(len(kept), width)


def _divided(sizes: Numbers, scale: Tensor | None) -> Numbers:
    if scale is None or not sizes:
        return sizes
    if isinstance(sizes[0], Tensor):
        return list(torch._foreach_div(sizes, scale.to(sizes[0].device)))
    factor = scale.item() or nan  # a scale that has fallen to 0 leaves no number
    return [x / factor for x in sizes]


def marks(inputs: Sequence[Tensor]) -> Tensor | None:
    """[B]; None where the inputs are not batches of numbers."""
    if not inputs or any(x.ndim < 2 or len(x) != len(inputs[0]) for x in inputs):
        return None
    rows = torch.cat([x.reshape(len(x), -1).double() for x in inputs], dim=1)
    return rows @ _weights(rows.shape[1]).to(rows)


@lru_cache(maxsize=8)
def _weights(width: int) -> Tensor:
    return torch.randn(width, generator=stream(0, "marks"), dtype=torch.float64)


@dataclass(frozen=True)
class Repeats:
    """Samples that return.

    Attributes:
        shared: [n], of pair k, samples of batch k + 1 that batch k had, too; NaN: not seen.
        overlap: [n], the same as a share of the batch.
        distinct: different samples over all samples; 1 where none were seen.
    """

    shared: Array
    overlap: Array
    distinct: float

    @staticmethod
    def of(batches: Sequence[Array | None]) -> Repeats:
        """From the marks of n + 1 batches."""
        shared, overlap = (np.full(len(batches) - 1, np.nan) for _ in range(2))
        for k, (old, new) in enumerate(pairwise(batches)):
            if old is not None and new is not None:
                shared[k] = np.isin(new, old).sum()
                overlap[k] = shared[k] / len(new)
        seen = [each for each in batches if each is not None]
        everything = np.concatenate(seen) if seen else np.zeros(0)
        distinct = len(np.unique(everything)) / len(everything) if len(everything) else 1.0
        return Repeats(shared, overlap, distinct)


def columns_of(estimate: Signal) -> dict[str, Any]:
    """A signal as the table "successive" has it."""
    return {
        "pairs": estimate.pairs,
        "fresh": estimate.pairs,
        "energy": estimate.energy,
        "signal": estimate.signal,
        "root_squares": estimate.root_squares,
        "signal_share": estimate.share,
        "share_se": estimate.se,
        "snr": estimate.snr,
        "noise_scale": estimate.noise_scale,
        "cosine": estimate.cosine,
    }


@final
class Burst:
    """`PAIRS` + 1 gradients in a row, of what is trained as it begins."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.seconds = 0.0
        size, device = sum(p.numel() for p in self.parameters), self.parameters[0].device
        self._new, self._old = (
            torch.zeros(size, dtype=torch.float64, device=device) for _ in range(2)
        )
        self._squares: list[Tensor] = []
        self._products: list[Tensor] = []
        self._samples: list[Tensor | None] = []
        self._batch: Tensor | None = None
        self._seen = False

    @property
    def done(self) -> bool:
        return len(self._products) >= PAIRS

    def see(self, scale: Tensor | None, inputs: Sequence[Tensor] = ()) -> None:
        """The gradient as it stands; the last one before `commit` counts.

        Args:
            inputs: of the policy, one row per sample.
        """
        self._batch, at = marks(inputs), 0
        for p in self.parameters:
            part = self._new[at : at + p.numel()]
            if p.grad is None:
                part.zero_()
            else:
                part.copy_(_present([p.grad])[0].reshape(-1))
            at += p.numel()
        if scale is not None:
            self._new.div_(scale)
        self._seen = True

    def commit(self) -> None:
        """The update used it."""
        if not self._seen:
            return
        if self._squares:
            self._products.append(self._old @ self._new)
        self._squares.append(self._new @ self._new)
        self._samples.append(self._batch)
        self._old, self._new, self._seen = self._new, self._old, False

    def row(self) -> dict[str, Any]:
        """The burst's row."""
        x = torch.stack(self._products).cpu().numpy()
        y = torch.stack(self._squares).cpu().numpy()
        again = Repeats.of([None if each is None else each.cpu().numpy() for each in self._samples])
        kept = fresh(again.shared)
        estimate = signal(np.asarray(x), np.asarray(y), kept, again.distinct)
        return columns_of(estimate) | {
            "pairs": len(x),
            "overlap": float(again.overlap[kept].mean()),
            "distinct": again.distinct,
            "seconds": self.seconds,
        }
