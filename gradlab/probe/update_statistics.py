"""Statistics of every update: norms of gradients and lengths of steps.

    |∂L/∂θ_l|,   |Δθ_l| / |θ_l|        for every parameter tensor l, and for all of them together

Gradients are as the backward pass left them. Nothing is copied but θ before a step; on an
accelerator numbers stay tensors until a row is due. Frozen tensors keep their place.

Of bursts of successive gradients come their inner products, without a second backward pass. Two
float64 copies of the gradient live as long as a burst. Samples that return in the next batch are
known again by one number each, mark_i = w · x_i, w fixed and irrational to the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from gradlab.runs.probe.columns import Window, summed_up
from gradlab.statistics.moments import Array
from gradlab.statistics.successive import Signal, fresh, signal

Numbers = list[float] | list[Tensor]  # those of an accelerator stay there
_CHEAP = 2**16  # entries, 10 µs
_SHOWN = 4  # tensors that are looked at in every update
_HALF = (torch.float16, torch.bfloat16)


def present(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients that are there, detached.

    Raises:
        ValueError: one is sparse.
    """
    arrived = []
    for each in gradients:
        if each is None:
            continue
        if each.layout is not torch.strided:
            raise ValueError(
                "a gradient is sparse: the probe reads dense ones; say sparse=False to the layer"
            )
        arrived.append(each.detach() if each.requires_grad else each)
    return arrived


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


def shows_loss(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The smallest tensors and the first one, `_SHOWN` in all: NaN of a loss reaches the biases of
    the outputs, which are small, and NaN that a pass back makes reaches the first layer."""
    first = min(
        range(len(parameters)), key=lambda k: (parameters[k].numel() > _CHEAP, k), default=0
    )
    order = sorted(range(len(parameters)), key=lambda k: (k != first, parameters[k].numel()))
    chosen = [parameters[k] for k in order[:_SHOWN]]
    return [p for p in chosen if p.dtype == chosen[0].dtype]


def lost(parameters: Sequence[Tensor]) -> bool:
    """Is a gradient of these not finite? False on an accelerator."""
    total = _total(parameters)
    return total is not None and total.is_cpu and not isfinite(total.item())


def _total(parameters: Sequence[Tensor]) -> Tensor | None:
    """Of all entries of their gradients; None: there are none."""
    here = [g for p in parameters if (g := p.grad) is not None and g.layout is torch.strided]
    if not here:
        return None
    kind = torch.float32 if here[0].dtype in _HALF else None
    flat: Tensor = _flatten_dense_tensors(here)  # type: ignore[no-untyped-call]
    return flat.sum(dtype=kind)


@final
class Latch:
    """The first lost gradient on an accelerator: noted there at every step, without a wait."""

    def __init__(self) -> None:
        self._first: Tensor | None = None  # number of its update, −1: none

    def see(self, parameters: Sequence[Tensor], update: int) -> None:
        """An optimiser is about to step these."""
        total = _total(parameters)
        if total is None or (self._first is not None and self._first.device != total.device):
            return
        if self._first is None:
            self._first = torch.full_like(total, -1, dtype=torch.long)
        known = torch.isfinite(total) | (self._first >= 0)
        self._first = torch.where(known, self._first, update)

    def take(self) -> int:
        """The number, which is waited for; it begins anew."""
        first, self._first = self._first, None
        return -1 if first is None else int(first.item())


@final
class _StepLengths:
    """|Δθ_l| and |θ_l| of single steps.

    Args:
        theta: the tensors as they are now.
    """

    def __init__(self, theta: Callable[[], list[Tensor]]) -> None:
        self._theta = theta
        self._kept: list[Tensor] = []
        self._open = False

    def before(self) -> None:
        """Keep θ."""
        theta = self._theta()
        if not theta:
            return
        if not _alike(self._kept, theta):
            self._kept = [torch.empty_like(p) for p in theta]
        torch._foreach_copy_(self._kept, theta)
        self._open = True

    def after(self) -> tuple[Numbers, Numbers] | None:
        """|Δθ_l| and the |θ_l| before the step; None where θ was not kept."""
        if not self._open:
            return None
        self._open, sizes = False, _norms(self._kept)
        torch._foreach_sub_(self._kept, self._theta())
        return _norms(self._kept), sizes

    def forget(self) -> None:
        """The step was none."""
        self._open = False


@final
class UpdateStatistics:
    """The updates since the last row."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._lengths = _StepLengths(self._theta)
        # The first tensor that is trained and costs little: it lies behind all others in a backward
        # pass, and has many entries, so that its size is the whole gradient's but for a factor.
        trained = [p for p in self.parameters if p.requires_grad]
        first = trained[0] if trained else None
        self._pulse = next((p for p in trained if p.numel() <= _CHEAP), first)
        self._last = next((p for p in trained[::-1] if p.ndim == 2), None)  # of the outputs
        self._reached: Tensor | None = None  # outputs to which a gradient ever came, [out]
        self._empty()

    def gradient(self, scale: Tensor | None = None) -> Numbers:
        """|∂L/∂θ_l| as it stands, P of them; 0 where nothing arrived.

        Args:
            scale: of the loss, which a gradient scaler has multiplied; None: 1.
        """
        gradients = [p.grad for p in self.parameters]
        here = present(gradients)
        lengths = _divided(_norms(here), scale)
        if self._last is not None and self._last.grad is not None:
            reached = (self._last.grad != 0).any(1)
            self._reached = reached if self._reached is None else self._reached | reached
        if len(here) == len(gradients):
            return lengths
        zero = here[0].new_zeros(()) if here and isinstance(lengths[0], Tensor) else 0.0
        arrived: Iterator[Any] = iter(lengths)
        whole: list[Any] = [zero if each is None else next(arrived) for each in gradients]
        return whole

    def pulse(self) -> float:
        """|∂L/∂θ_l| of one tensor, 0 where it has none: NaN in a loss reaches all of them.
        Of tensors on a CPU only."""
        gradient = None if self._pulse is None else self._pulse.grad
        if gradient is None or not gradient.is_cpu or gradient.layout is not torch.strided:
            return 0.0
        return float(torch.linalg.vector_norm(gradient).item())

    @property
    def looked(self) -> int:
        """Updates so far."""
        return len(self._sizes)

    def add(self, sizes: Numbers, scaled: bool) -> None:
        """One more update, with the `gradient` that it used.

        Args:
            scaled: a scaler had multiplied it; where it has overflown, its step was skipped.
        """
        self._sizes.append(sizes)
        self._scaled.append(scaled)

    def before_step(self) -> None:
        """Keep θ."""
        self._lengths.before()

    def after_step(self) -> None:
        """The length of the step, if θ was kept."""
        lengths = self._lengths.after()
        if lengths is not None:
            moved, sizes = lengths
            self._moves.append([*moved, *sizes])

    def forget_step(self) -> None:
        """The step was none."""
        self._lengths.forget()

    def row(self) -> dict[str, Any]:
        """The window's numbers; begins the next one."""
        count, live = len(self.parameters), np.array(self._live, dtype=np.intp)
        moves = np.zeros((len(self._moves), 2, count))
        moves[:, :, live] = _gathered(self._moves, (2, len(live)))
        trained = np.array([p.requires_grad for p in self.parameters])
        trained[self._thawed] = True
        sizes = _gathered(self._sizes, (count,))
        stepped = np.isfinite(sizes).all(1) | ~np.array(self._scaled, dtype=bool)
        reached = np.zeros(0, bool) if self._reached is None else self._reached.cpu().numpy()
        row = summed_up(Window(sizes[stepped], moves, trained, reached))
        seen = np.isin(np.arange(count), live)
        self._empty()
        return row | {"still": np.where(seen, row["still"], np.nan)}

    def _theta(self) -> list[Tensor]:
        """As it is now: a loop may have put other tensors into its parameters."""
        return [self.parameters[k].detach() for k in self._live]

    def _empty(self) -> None:
        self._sizes: list[Numbers] = []
        self._moves: list[Numbers] = []
        self._scaled: list[bool] = []
        self._lengths.forget()
        # Steps of tensors that are frozen as a window begins are not looked at.
        self._live = self._trained()
        self._thawed: list[int] = []

    def thaw(self) -> None:
        """Follow what is trained now, though it may be frozen as a window begins and ends."""
        if not self._moves:
            self._live = self._thawed = self._trained()

    def _trained(self) -> list[int]:
        return [k for k, p in enumerate(self.parameters) if p.requires_grad]


def _gathered(kept: Sequence[Numbers], shape: tuple[int, ...]) -> Array:
    """[updates, …], what an accelerator holds in one transfer for the whole window."""
    numbers: list[Any] = [x for each in kept for x in each]
    there = [k for k, x in enumerate(numbers) if isinstance(x, Tensor)]
    if there:
        brought = torch.stack([numbers[k].double() for k in there]).tolist()
        for k, x in zip(there, brought, strict=True):
            numbers[k] = x
    return np.array(numbers, dtype=np.float64).reshape(len(kept), *shape)


def _divided(sizes: Numbers, scale: Tensor | None) -> Numbers:
    if scale is None or not sizes:
        return sizes
    if isinstance(sizes[0], Tensor):
        return list(torch._foreach_div(sizes, scale.to(sizes[0].device)))
    factor = scale.item() or nan  # a scale that has fallen to 0 leaves no number
    return [x / factor for x in sizes]


def _alike(kept: Sequence[Tensor], theta: Sequence[Tensor]) -> bool:
    """The same tensors; a module moves whole between devices and types."""
    if len(kept) != len(theta) or not kept:
        return False
    return kept[0].device == theta[0].device and kept[0].dtype == theta[0].dtype


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


FIRST = 4  # pairs of the burst that finds the price
PAIRS = 32
_LISTED = 5  # columns named per layer
_PARTS = 4  # of a burst, at whose ends columns are looked at


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


def columns_dead(dead: Sequence[Tensor], layers: Sequence[str]) -> dict[str, Any]:
    """Inputs that no gradient reached, of each layer a mask [in], as the table has them."""
    parts = []
    for name, each in zip(layers, dead, strict=True):
        columns = each.nonzero().flatten().tolist()
        if columns:
            shown = ", ".join(map(str, columns[:_LISTED]))
            parts.append(f"{name}: {shown}{', …' if len(columns) > _LISTED else ''}")
    return {
        "dead_columns": sum(int(each.sum()) for each in dead),
        "columns": sum(len(each) for each in dead),
        "dead_inputs": int(dead[0].sum()) if len(dead) else 0,
        "dead_where": "; ".join(parts),
    }


@final
class Burst:
    """`pairs` + 1 gradients in a row."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], names: Sequence[str], pairs: int
    ) -> None:
        self.parameters, self.names, self.pairs = list(parameters), tuple(names), pairs
        self.seconds = 0.0
        size = sum(p.numel() for p in self.parameters)
        device = self.parameters[0].device
        self._new, self._old = (
            torch.zeros(size, dtype=torch.float64, device=device) for _ in range(2)
        )
        self._squares: list[Tensor] = []
        self._products: list[Tensor] = []
        self._zero: dict[int, list[Tensor]] = {}  # columns, by the number of the gradient
        self._samples: list[Tensor | None] = []
        self._batch: Tensor | None = None
        self._seen = False

    @property
    def done(self) -> bool:
        return len(self._products) >= self.pairs

    def see(self, scale: Tensor | None, inputs: Sequence[Tensor] = ()) -> None:
        """The gradient as it stands; the last one before `commit` counts.

        Args:
            inputs: of the policy, one row per sample.
        """
        self._batch = marks(inputs)
        at = 0
        for p in self.parameters:
            part = self._new[at : at + p.numel()]
            if p.grad is None:
                part.zero_()
            else:
                part.copy_(present([p.grad])[0].reshape(-1))
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
        if len(self._squares) % max(self.pairs // _PARTS, 1) == 0:
            self._zero[len(self._squares)] = self._zero_columns()
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
        # NaN says of no column whether it is reached.
        known = [zero for k, zero in self._zero.items() if np.isfinite(y[k])]
        if len(known) < 2:
            known = [[torch.zeros_like(each) for each in self._zero[0]]]
        dead = [torch.stack(each).all(0) for each in zip(*known, strict=True)]
        layers = [name for name, p in zip(self.names, self.parameters, strict=True) if p.ndim == 2]
        return {
            **columns_of(estimate),
            "pairs": len(x),
            "overlap": float(again.overlap[kept].mean()),
            "distinct": again.distinct,
            **columns_dead(dead, layers),
        }

    def _zero_columns(self) -> list[Tensor]:
        """Inputs of each linear layer that the gradient does not reach."""
        columns, at = [], 0
        for p in self.parameters:
            if p.ndim == 2:
                columns.append((self._new[at : at + p.numel()].view_as(p) == 0).all(dim=0))
            at += p.numel()
        return columns
