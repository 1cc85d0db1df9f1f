"""A system's step and its derivatives at rows z = (s, a), and certified differences of the step.

    J = ∂(s', r)/∂(s, a)         "step": autograd, one reverse sweep per output; "linearize"
    D_h e_j = (f(z + h e_j) − f(z − h e_j)) / 2h,     h and h/4

    error   |D_h − D_{h/4}| (truncation, a solver, a switch in the stencil), and rounding over h
    kink    |f(z + h) − 2 f(z) + f(z − h)| / h does not fall with h
    noise   σ of k-th differences along a line, √γ_k Δᵏf, γ_k = (k!)² / (2k)!, where it is the same
            for k = 4, 5, 6 and two spacings (Moré & Wild 2011, SIAM J. Sci. Comput. 33)

h is ε^{1/3} of the coordinate's size, with ε the precision of the outputs or the noise found in
them; a column that is not certain is differenced again at other steps. Every call has one of two
numbers of rows: memory stays flat, and an engine compiles twice.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import factorial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradlab.errors import InputError
from gradlab.systems.system import System, whole
from gradlab.user_code import running

_BLOCK, FEW = 4096, 256  # rows of a call; of one with few points
_SEVERAL = 4  # calls with few points, at most, that are made in place of one with many


@dataclass(frozen=True)
class Points:
    """Where derivatives are taken: z = (s, a) [N, ds + da] and noise [N, noise_dim] or None."""

    z: Tensor
    noise: Tensor | None

    def __len__(self) -> int:
        return len(self.z)

    def at(self, rows: Tensor | slice) -> Points:
        """Some of them."""
        return Points(self.z[rows], None if self.noise is None else self.noise[rows])

    def moved(self, z: Tensor) -> Points:
        """z [k · N, ·] with the noise of every point k times."""
        times = len(z) // len(self.z)
        return Points(z, None if self.noise is None else self.noise.repeat(times, 1))

    def float(self) -> Points:
        """In single precision."""
        return Points(self.z.float(), None if self.noise is None else self.noise.float())


def evenly(n: int, most: int) -> Tensor:
    """Rows of n, at most so many, evenly spread from the first to the last."""
    return torch.linspace(0, n - 1, min(most, n)).long()


def outputs(system: System, points: Points) -> Tensor:
    """y = (s', r) [N, ds + 1] of every point, without a graph, in blocks of one of two sizes."""
    size = FEW if len(points) <= _SEVERAL * FEW else _BLOCK
    return _in_blocks(at_once, system, points, size)


def _in_blocks(
    evaluate: Callable[[System, Points], Tensor], system: System, points: Points, size: int
) -> Tensor:
    """In calls of `size` rows, the last of which is filled up with its last row."""
    parts = []
    for start in range(0, len(points), size):
        rows = torch.arange(start, start + size).clamp_max(len(points) - 1)
        parts.append(evaluate(system, points.at(rows)))
    return torch.cat(parts)[: len(points)]


def state_and_action(system: System, z: Tensor) -> tuple[Tensor, Tensor]:
    """Tensors of their own, as in a loop: what a step writes into one is no change of the other,
    nor of z."""
    return z[:, : system.state_dim].clone(), z[:, system.state_dim :].clone()


def at_once(system: System, points: Points) -> Tensor:
    """y of all points as one batch."""
    ds, n = system.state_dim, len(points)
    noise = None if points.noise is None else points.noise.clone()
    with torch.no_grad(), running("step", _remedy):
        out = system.step(*state_and_action(system, points.z), noise)
    after, reward = out.state.detach(), out.reward.detach()
    if after.shape != (n, ds) or reward.shape != (n,):
        got = f"next state {list(after.shape)} and reward {list(reward.shape)}"
        raise InputError(f"step returned {got}, expected {[n, ds]} and {[n]}")
    return torch.cat([after, reward[:, None]], 1).to(points.z)


def _remedy(words: str) -> str:
    if "device" in words or "CUDA" in words:
        return ": states are on the CPU: build the simulator there, or let its step move them"
    return ""


SMALL = 32  # states of a call with few
Derivative = Callable[[System, Points], Tensor]


def sources(system: System) -> dict[str, Derivative]:
    """The ways that this system offers: J by reverse sweeps through `step`, and `linearize`."""

    def blockwise(derivative: Derivative, system: System, points: Points) -> Tensor:
        return _in_blocks(derivative, system, points, SMALL if len(points) <= SMALL else FEW)

    def linearized(system: System, points: Points) -> Tensor:
        with running("linearize"):
            linear = system.linearize(*state_and_action(system, points.z), points.noise)
        return whole(linear).detach()

    ways = {"step": _swept} if system.differentiable else {}
    return {name: partial(blockwise, x) for name, x in (ways | {"linearize": linearized}).items()}


def _swept(system: System, points: Points) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        z = points.z.detach().clone().requires_grad_()
        noise = None if points.noise is None else points.noise.clone()
        with running("step"):
            out = system.step(*state_and_action(system, z), noise)
        y = (*out.state.unbind(1), out.reward)
        if not any(column.requires_grad for column in y):
            raise InputError(
                "step is not differentiable: remove detach() and torch.no_grad() from it, or set "
                "differentiable = False"
            )
        rows = []
        for column in y:  # apart: 0 times an infinite slope of the one would be NaN in another
            row = torch.zeros_like(z)
            if column.requires_grad:
                with running("the backward pass of step"):
                    (row,) = torch.autograd.grad(
                        column.sum(), z, retain_graph=True, materialize_grads=True
                    )
            rows.append(row)
    return torch.stack(rows, 1).detach()


_RATIO = 4.0  # of the two steps
_RETRIES = (0.1, 0.01, 10.0)  # times h
SIZE = 4.0  # h over ε^{1/3} of the coordinate's size
_CERTAIN = 0.1  # of the tolerated error, that an entry's own error may be
_ROUNDING = 8.0  # units of ε in a value of f
_DOUBLE, _SINGLE = (torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32))
_TOLERATED = 1e-6  # of an output's size: a jump below it is one of a solver's tolerance
_SHARED = 0.1  # of a row's largest noise, that every entry of it may have
_BATCH = 2**22  # numbers held at once


@dataclass(frozen=True)
class Reference:
    """f(z) [N, out], D and its error [N, out, in]; bool [N, in]: `kink` in the column's stencil at
    every step."""

    y: Tensor
    D: Tensor
    error: Tensor
    kink: Tensor

    def at(self, rows: Tensor) -> Reference:
        """Some of the points."""
        return Reference(self.y[rows], self.D[rows], self.error[rows], self.kink[rows])


def reference(
    system: System, points: Points, size: Tensor, tolerance: float, epsilon: float
) -> Reference:
    """Differences at every point.

    Args:
        size: of every coordinate of z, [ds + da].
        tolerance: relative error that is to be decided.
        epsilon: precision of the step's values, see `machine_epsilon`.
    """
    width, out = points.z.shape[1], system.state_dim + 1
    rows = max(1, _BATCH // (4 * width * (width + out)))
    parts = [
        _retried(system, points.at(slice(i, i + rows)), size, tolerance, epsilon)
        for i in range(0, len(points), rows)
    ]
    y, D, error, kink = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("y", "D", "error", "kink")
    )
    return Reference(y, D, error, kink)


_LINES = 32  # along which noise is sought
_ORDERS = (4, 5, 6)  # of differences
_SPACINGS = tuple(1e-6 * 8.0**k for k in range(7))  # of the coordinates' size
_ALIKE = 4.0  # largest ratio of σ of several orders, and of two spacings
_HIDDEN = 1e3  # units of ε of the lowest precision inside, that its noise may be in an output


class _Inside(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Precisions of all floating-point numbers that torch makes, and where tensors of a higher one
    were first rounded to each; None: nowhere, as of constants, which are promoted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: dict[torch.dtype, str | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
        finest = min((torch.finfo(x.dtype).eps for x in given if x.is_floating_point()), default=1)
        for x in made if isinstance(made, tuple | list) else (made,):
            if isinstance(x, Tensor) and x.is_floating_point():
                rounded = finest < torch.finfo(x.dtype).eps
                if rounded and self.dtypes.get(x.dtype) is None:
                    self.dtypes[x.dtype] = _line_of_the_step()
                self.dtypes.setdefault(x.dtype, None)
        return made


def _line_of_the_step() -> str:
    """The innermost line of the step that is neither torch's nor gradlab's; "" where none is."""
    others = tuple(f"{folder}{os.sep}" for folder in (*torch.__path__, Path(__file__).parents[2]))
    for frame in reversed(traceback.extract_stack()[:-2]):
        if frame.filename == __file__:  # who asked for the step
            return ""
        if not frame.filename.startswith(others):
            return f"{Path(frame.filename).name}:{frame.lineno} (`{frame.line}`)"
    return ""


def precisions_inside(system: System, points: Points) -> dict[str, str | None]:
    """Names of the precisions in which one step computes, the lowest first, as far as torch does
    it, and the line of the step that is the first to round to each; None: no line does."""
    with _Inside() as inside:
        outputs(system, points.at(slice(0, SMALL)))
    ordered = sorted(inside.dtypes.items(), key=lambda each: -torch.finfo(each[0]).eps)
    return {str(dtype).removeprefix("torch."): line for dtype, line in ordered}


def size_of(z: Tensor) -> Tensor:
    """Range of the middle three quarters of every coordinate over that of a unit normal, which
    neither a far origin nor a few rollouts that left make large, nor a narrow start law small;
    where it is 0 the root mean square, or 1."""
    low, high = z.quantile(z.new_tensor([0.125, 0.875]), dim=0)
    rms = z.square().mean(0).sqrt()
    size = torch.where(high > low, (high - low) / 2.3, rms)
    return torch.where(size > 0, size, torch.ones_like(size))


def noise_of(system: System, points: Points) -> float:
    """σ of the noise in an output over the output's size, the largest of all; 0 where there is
    none beside the rounding of double precision. Steps are whole units of what inputs are rounded
    to: far from 0 the inputs' rounding would be taken for noise of the outputs."""
    few = points.at(evenly(len(points), _LINES))
    lines, places = len(few), torch.arange(max(_ORDERS) + 1, dtype=few.z.dtype)
    signs = torch.where(torch.arange(few.z.shape[1]) % 2 == 0, 1.0, -1.0).to(few.z)
    width = size_of(points.z)
    top = few.z.abs().amax(0) + len(places) * _SPACINGS[-1] * width
    unit = _DOUBLE * torch.exp2(top.log2().ceil())
    steps = [(spacing * width / unit).round().clamp_min(1) * unit for spacing in _SPACINGS]
    rows = [few.z + place * (signs * step) for step in steps for place in places]  # [7, in] each
    f = outputs(system, few.moved(torch.cat(rows)))
    f = f.reshape(len(_SPACINGS), len(places), lines, -1)
    rms = f.square().nanmean((0, 1, 2)).sqrt()
    sigma = []  # [orders, spacings, out]
    for k in _ORDERS:
        scale = factorial(k) ** 2 / factorial(2 * k)
        squares = scale * f.diff(n=k, dim=1).square().mean(1)
        sigma.append(squares.nanmedian(1).values.sqrt())
    orders = torch.stack(sigma)
    level = orders.amax(0)
    noisy = (level > 0) & (level <= _ALIKE * orders.amin(0))
    ratio = level[1:] / level[:-1]
    steady = noisy[1:] & noisy[:-1] & (ratio <= _ALIKE) & (ratio >= 1 / _ALIKE)
    relative = torch.where(steady & (rms > 0), level[1:] / rms, 0.0).nan_to_num()
    lowest = getattr(torch, (*precisions_inside(system, points), "float64")[0])
    most = max(_HIDDEN * torch.finfo(lowest).eps, _TOLERATED)
    found = relative[(relative <= most) & (relative > _ROUNDING * _DOUBLE)]
    return float(found.max()) if len(found) else 0.0


_STEEP, _AGREE = 0.25, 0.3  # of a slope that D lacks; of that, by which slopes differ
_SEEN, _MOSTLY = 1e-3, 0.6  # of an output's spread, by which a move changes it; of the states
_DEAD = 0.9  # of the states
_STAIR, _STEP = 0.1, 1e-5  # of an input's spread: a move over many stairs, and one within a stair


def stairs(system: System, points: Points, found: Reference, size: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs that an input moves in stairs, as a step does that rounds, bool [out, in]; and beside
    a smooth part, what D is of the slope of larger moves, [out, in], NaN where it is that slope.

    In most states D is 0, a move by a tenth of the input's spread changes the output, and where it
    ends a small one changes nothing, either. Stairs as wide as the spread are seen where all
    derivatives of the state by an input are 0, in nearly all states, and one by one of actions,
    where the end of such a move is flat, too: behind a dead zone it is not.

    A smooth function's slopes go to D with the square of the move, so that they differ by three
    times what they have apart from D; those over many stairs beside a smooth part do not.
    """
    rows = evenly(len(points), _LINES)
    few, y, D = points.at(rows), found.y[rows], found.D[rows]
    moves, spread = torch.diag(size)[:, None], y.std(0, correction=0)[:, None]

    def moved(*by: float) -> Tensor:
        """y where every input is moved by so much of its spread, [moves, N, out, in]."""
        ends = torch.stack([few.z + k * moves for k in by])
        f = outputs(system, few.moved(ends.reshape(-1, len(size))))
        return f.reshape(len(by), len(size), *y.shape).permute(0, 2, 3, 1)

    def mostly(states: Tensor, share: float = 0.5) -> Tensor:
        return states.double().mean(0) > share

    near, up, down = moved(_STAIR, _STAIR + _STEP, _STAIR - _STEP)
    flat = (D == 0) & (up == down)
    told = mostly(flat & ((near - y[..., None]).abs() > _TOLERATED * spread))
    wide = [moved(sign, sign + _STEP, sign - _STEP) for sign in (1.0, -1.0)]
    far_off = [(at[0] - y[..., None]).abs() > _TOLERATED * spread for at in wide]
    level = [off & (at[1] == at[2]) for off, at in zip(far_off, wide, strict=True)]
    dead = mostly(flat, _DEAD)[:-1]  # of the reward none is asked for
    told[:-1] |= dead.all(0) & mostly((far_off[0] | far_off[1]) & flat)[:-1]
    acted = torch.arange(len(size)) >= y.shape[1] - 1
    told[:-1] |= acted & dead & mostly((level[0] | level[1]) & flat)[:-1]
    # Of an output that is rounded itself, inputs that move it by less than a stair, too.
    told |= told.any(1, keepdim=True) & mostly(flat).all(1, keepdim=True)
    up, down, above, below = moved(_STAIR, -_STAIR, 2 * _STAIR, -2 * _STAIR)
    tenth, fifth = (up - down) / size / (2 * _STAIR), (above - below) / size / (4 * _STAIR)
    slope, apart, own = (x.abs() for x in (fifth, fifth - tenth, fifth - D))
    changed = _STAIR * size * slope > _SEEN * spread
    steep = changed & (own > _STEEP * slope) & (apart < _AGREE * own) & (D.abs() < slope)
    share = D.abs().median(0).values / slope.median(0).values
    return told, torch.where(mostly(steep, _MOSTLY), share, torch.nan)


def _retried(
    system: System, points: Points, size: Tensor, tolerance: float, epsilon: float
) -> Reference:
    y = outputs(system, points)
    h = SIZE * epsilon ** (1 / 3) * size
    usual = y[torch.isfinite(y).all(1)].std(0, correction=0).nan_to_num()
    best = _differences(system, points, y, h, epsilon, usual)
    for factor in _RETRIES:
        # Columns that are not certain at some entry that matters for its row.
        limit = _CERTAIN * tolerance * best.D.abs().nan_to_num()
        row = best.D.abs().nan_to_num().amax(2, keepdim=True)
        vague = ~(best.error <= torch.maximum(limit, 1e-3 * tolerance * row))
        uncertain = best.kink | vague.any(1)
        rows = uncertain.any(1).nonzero().flatten()
        if not len(rows):
            break
        again = _differences(system, points.at(rows), y[rows], factor * h, epsilon, usual)
        # A wide step may alias an oscillation, so that it agrees with its quarter by chance: its
        # error is at least what lies between its value and the interval known before. A column that
        # had a kink is replaced whole.
        columns = uncertain[rows] & ~again.kink
        before = best.at(rows)
        kink = before.kink[:, None, :]
        apart = ((again.D - before.D).abs() - before.error).nan_to_num(nan=0.0).clamp_min(0)
        error = torch.where(kink, again.error, torch.maximum(again.error, apart))
        mask = columns[:, None, :] & (kink | (error < before.error))
        best.D[rows] = torch.where(mask, again.D, before.D)
        best.error[rows] = torch.where(mask, error, before.error)
        best.kink[rows] = torch.where(columns, again.kink, before.kink)
    return best


def _differences(
    system: System, points: Points, y: Tensor, h: Tensor, epsilon: float, usual: Tensor
) -> Reference:
    """At the steps h and h/4 [in] of every point; `usual` [out] is the spread of y."""
    wide, narrow = (_central(system, points, y, step, epsilon) for step in (h, h / _RATIO))
    (D1, bend1, _), (D, bend, stepped) = wide, narrow
    apart = (D1 - D).abs()
    noise = (apart * stepped[:, None, :]).nan_to_num().amax(2, keepdim=True) * _SHARED
    rounding = _ROUNDING * epsilon * torch.maximum(y.abs(), usual)[:, :, None]
    error = torch.maximum(apart, torch.maximum(noise, rounding) / stepped[:, None, :])
    finite = torch.isfinite(D) & torch.isfinite(error)
    error = torch.where(finite, error, torch.inf)
    significant = bend > 1e-3 * D.abs() + 4 * rounding / stepped[:, None, :]
    jump = bend > 2 * bend1
    tolerated = jump & (bend * stepped[:, None, :] <= _TOLERATED * usual[:, None])
    kink = (significant & (bend > bend1 / 2) & ~tolerated).any(1)
    return Reference(y, D, error, kink)


def _central(
    system: System, points: Points, y: Tensor, h: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """D, |bend| [N, out, in], and the steps really taken [N, in]."""
    z, width = points.z, points.z.shape[1]
    moves = torch.diag(h)
    ends = torch.stack([z[None] + moves[:, None], z[None] - moves[:, None]])  # [2, in, N, in]
    if epsilon >= _SINGLE:  # the engine rounds them
        ends = ends.float().to(z.dtype)
    f = outputs(system, points.moved(ends.reshape(-1, width)))
    f = f.reshape(2, width, len(z), -1).permute(0, 2, 3, 1)  # [2, N, out, in]
    at = torch.diagonal(ends, dim1=1, dim2=3)  # [2, N, in]
    up, down = (at[0] - z)[:, None, :], (z - at[1])[:, None, :]
    ahead, behind = (f[0] - y[:, :, None]) / up, (y[:, :, None] - f[1]) / down
    stepped = (at[0] - at[1]) / 2
    D = (f[0] - f[1]) / (2 * stepped[:, None, :])
    return D, (ahead - behind).abs(), stepped
