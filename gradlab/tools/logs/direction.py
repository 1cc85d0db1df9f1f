"""The model's derivatives against differences between recorded neighbours.

Around a recorded x = (s, a) lie L others x_i, one from each of the nearest other trajectories, with
y_i = s'_i − s_i. Over the L + 1 points, J_m the model's Jacobian at x, and variances of a sample,

    D = Var(y_i − J_m x_i)      S = Var(y_i)      T = residual variance of y_i regressed on x_i
    ε² = (D − T) / (S − T)   ←   Var((J − J_m) x_i) / Var(J x_i)

the squared relative error of the model's directional derivatives along the directions in which the
data vary; unbiased in numerator and denominator where y is linear in the neighbourhood and its
noise of one size. DDPPO (eq. 9) learns from such differences; here they test it, on rows that the
model was not fitted to. T is the noise floor: process noise, and the bend of y that no slope
explains, which lowers D − T. Where T is nearly S, neighbours have no information on derivatives:
T/S is printed beside every error. One point per trajectory, since within one the noise of a step
moves both the next x and y. Distances are in standard deviations of (s, a).

The model's own path beside the recorded one, under the recorded actions.

    ŝ_0 = s_0,  ŝ_{k+1} = f(ŝ_k, a_k)        E_k² = E |s_k − ŝ_k|² / E |s_k − s_0|²

in standard deviations of each coordinate: 1 is the error of predicting no change. The model
follows its mean transition; process noise that it lacks is part of the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.data.trajectories import Trajectories
from gradlab.statistics.comparison import ratio_interval
from gradlab.statistics.growth import FEWEST, ErrorGrowth, error_growth
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.over_groups import Estimates, group_sums, root_ratio
from gradlab.systems.system import System, step_running
from gradlab.tools.logs.on_policy import constant


@dataclass(frozen=True)
class PredictionErrors:
    """E_k for k = 1 … T, and the law of the growth of |s_k − ŝ_k| where one could be fitted.

    Attributes:
        lost: the first step at which a prediction left the finite numbers; None: none did.
    """

    error: Estimates
    growth: ErrorGrowth | None
    lost: int | None


def prediction(path: Path, model: System) -> PredictionErrors:
    """The model along windows; those that ended count up to their last living step.

    Args:
        path: of windows, NaN where no action was taken.
    """
    spread = path.states[path.alive].std(dim=0)
    scale = torch.where(spread > 0, spread, 1.0)
    here, wrong = path.states[0], []
    for t in range(path.horizon):
        with torch.no_grad():
            here = step_running(model, here, path.actions[t].nan_to_num(0.0)).state
        wrong.append(((here - path.states[t + 1]) / scale).square().sum(dim=1))
    moved = ((path.states[1:] - path.states[0]) / scale).square().sum(dim=2)
    # The step into a terminal state was recorded too.
    counted = path.alive[:-1]
    error = torch.where(counted, torch.stack(wrong), 0.0)
    finite = torch.isfinite(error).all(dim=1)
    lost = None if finite.all() else int((~finite).nonzero()[0]) + 1
    last = path.horizon if lost is None else lost - 1
    group = path.group.numpy()
    X, Z = (
        group_sums(torch.where(counted, part, 0.0)[:last].T.numpy(), group)
        for part in (error, moved)
    )
    errors = root_ratio(X, Z, counted[:last].sum(dim=1).numpy())
    # Growth is that of the first window of each trajectory that lives to the end.
    _, first = np.unique(group, return_index=True)
    kept = first[counted[:last].numpy()[:, first].all(axis=0)] if last else first[:0]
    enough = len(kept) >= 2 and last >= FEWEST
    growth = error_growth(np.sqrt(error[:last].numpy()[:, kept]).T) if enough else None
    return PredictionErrors(errors, growth, lost)


_SAMPLE = 500  # rows that are used
_WIDER = 4  # neighbours per coordinate of (s, a), where there are as many trajectories
_LEAST = 2  # of them, below which no regression is tried
_BLOCK = 1 << 24  # distances held at once

_Array = NDArray[np.float64]
_Judged = tuple[tuple[Estimate, Interval], ...]


@dataclass(frozen=True)
class Directional:
    """Of each coordinate of the next state, and last of all of them together (ds + 1 entries).

    Attributes:
        error: ε² with its interval, possibly below 0; noise: T/S.
        distance: median distance of the neighbours, standard deviations per coordinate.
        rows: rows used, of `trajectories` trajectories.
    """

    error: _Judged
    noise: _Judged
    distance: float
    rows: int
    trajectories: int


def directional(record: Trajectories, model: System, seed: int = 0) -> Directional | None:
    """Error of a model's A and B on a record it was not fitted to; None with too few trajectories.

    The model is differentiated at its mean transition.
    """
    x = torch.cat([record.state, record.action], dim=1).double()
    y = (record.next_state - record.state).double()
    still, fixed = constant(x), constant(y)
    unit = (x / torch.where(still, 1.0, x.std(dim=0)))[:, ~still]
    width = unit.shape[1]
    _, number = torch.unique_consecutive(record.trajectory, return_inverse=True)
    count = min(_WIDER * width, int(number[-1]))
    if not width or count < max(_LEAST * width, width + 1):
        return None
    rows = torch.randperm(len(x), generator=stream(seed, "directions"))[:_SAMPLE].sort().values
    near, distance = nearest_rows(unit, number, rows, count)
    points = torch.cat([rows[:, None], near], dim=1)
    change = y[points] / torch.where(fixed, 1.0, y.std(dim=0))
    predicted = _pushed(model, record, rows, x[points] - x[rows, None])
    left = change - predicted / torch.where(fixed, 1.0, y.std(dim=0))
    # T [R, out]: of the changes regressed on 1 and the neighbours; free of bias if linear.
    near_x = unit[points]
    centred = near_x - near_x.mean(dim=1, keepdim=True)
    design = torch.cat([torch.ones_like(near_x[..., :1]), centred], dim=2)
    Q, _ = torch.linalg.qr(design)
    unexplained = change - Q @ (Q.mT @ change)
    T = unexplained.square().sum(dim=1) / (near_x.shape[1] - design.shape[2])
    D, S = left.var(dim=1), change.var(dim=1)
    group = number[rows].numpy()
    parts = [part.numpy() for part in (D - T, S - T, T, S)]
    # Sums over trajectories, the mean over coordinates last.
    sums = [group_sums(np.column_stack([x, x.mean(axis=1)]), group) for x in parts]
    size = np.bincount(np.unique(group, return_inverse=True)[1]).astype(np.float64)
    return Directional(
        error=_ratios(sums[0], sums[1], size),
        noise=_ratios(sums[2], sums[3], size),
        distance=float(distance.median()) / width**0.5,
        rows=len(rows),
        trajectories=len(size),
    )


def nearest_rows(unit: Tensor, number: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest row of each of the `count` nearest other trajectories, [R, count], and how far.

    Args:
        number: of each row's trajectory, from 0, in order.
    """
    begin = np.flatnonzero(np.diff(number.numpy(), prepend=-1))
    place, index, distance = np.arange(len(unit)), [], []
    step = max(1, _BLOCK // len(unit))
    for part in torch.split(rows, step):
        far = torch.cdist(unit[part], unit).numpy()
        least = np.minimum.reduceat(far, begin, axis=1)
        hit = np.where(far == least[:, number.numpy()], place, len(unit))
        nearest = np.minimum.reduceat(hit, begin, axis=1)
        least[np.arange(len(part)), number[part].numpy()] = np.inf
        order = np.argsort(least, axis=1, kind="stable")[:, :count]
        index.append(np.take_along_axis(nearest, order, axis=1))
        distance.append(np.take_along_axis(least, order, axis=1))
    return torch.from_numpy(np.concatenate(index)), torch.from_numpy(np.concatenate(distance))


@torch.no_grad()
def _pushed(model: System, record: Trajectories, rows: Tensor, apart: Tensor) -> Tensor:
    """(J_m − I_s) v in the units of the states, [R, L, ds]."""
    ds = record.state.shape[1]
    linear = model.linearize(record.state[rows].double(), record.action[rows].double())
    by_state = linear.A - torch.eye(ds, dtype=torch.float64)
    moved = torch.einsum("rij,rlj->rli", by_state, apart[..., :ds])
    return moved + torch.einsum("rij,rlj->rli", linear.B, apart[..., ds:])


def _ratios(top: _Array, bottom: _Array, size: _Array) -> _Judged:
    """Σ top / Σ bottom of every column with its interval; NaN where the bottom is not above 0."""
    ratios = []
    for k in range(top.shape[1]):
        first, second = sample_mean(top[:, k], size), sample_mean(bottom[:, k], size)
        ratio = combine(lambda a, b: np.where(b > 0, a / b, np.nan), first, second)
        ratios.append((ratio, ratio_interval(first, second)))
    return tuple(ratios)
