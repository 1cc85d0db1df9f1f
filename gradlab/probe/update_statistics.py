"""Statistics of every update: norms of gradients and lengths of steps.

    |∂L/∂θ_l|,   |Δθ_l| / |θ_l|        for every parameter tensor l, and for all of them together

Gradients are as the backward pass left them. Nothing is copied but θ before a step; on an
accelerator numbers stay tensors until a row is due. Frozen tensors keep their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, nan
from typing import Any, Generic, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from gradlab.runs.probe.columns import Array, Window, summed_up

Numbers = list[float] | list[Tensor]  # those of an accelerator stay there
_N = TypeVar("_N")
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
    here = [g for p in parameters if (g := p.grad) is not None and g.layout is torch.strided]
    if not here or not here[0].is_cpu:
        return False
    kind = torch.float32 if here[0].dtype in _HALF else None
    flat = _flatten_dense_tensors(here)  # type: ignore[no-untyped-call]
    return not isfinite(flat.sum(dtype=kind).item())


@final
class StepLengths(Generic[_N]):
    """|Δθ_l| and |θ_l| of single steps.

    Args:
        theta: the tensors as they are now.
        norms: of several tensors, a number for each, or a number for each and every seed.
    """

    def __init__(
        self, theta: Callable[[], list[Tensor]], norms: Callable[[list[Tensor]], _N]
    ) -> None:
        self._theta, self._norms = theta, norms
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

    def after(self) -> tuple[_N, _N] | None:
        """|Δθ_l| and the |θ_l| before the step; None where θ was not kept."""
        if not self._open:
            return None
        self._open, sizes = False, self._norms(self._kept)
        torch._foreach_sub_(self._kept, self._theta())
        return self._norms(self._kept), sizes

    def forget(self) -> None:
        """The step was none."""
        self._open = False


@final
class UpdateStatistics:
    """The updates since the last row."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._lengths = StepLengths(self._theta, _norms)
        # The first tensor that is trained and costs little: it lies behind all others in a backward
        # pass, and has many entries, so that its size is the whole gradient's but for a factor.
        trained = [p for p in self.parameters if p.requires_grad]
        first = trained[0] if trained else None
        self._pulse = next((p for p in trained if p.numel() <= _CHEAP), first)
        self._empty()

    def gradient(self, scale: Tensor | None = None) -> Numbers:
        """|∂L/∂θ_l| as it stands, P of them; 0 where nothing arrived.

        Args:
            scale: of the loss, which a gradient scaler has multiplied; None: 1.
        """
        gradients = [p.grad for p in self.parameters]
        here = present(gradients)
        lengths = _divided(_norms(here), scale)
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
        row = summed_up(Window(sizes[stepped], moves, trained))
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
