"""What a record says of policy, critic and model one by one.

    policy      ε_t with π_θ(s_t, ε_t) = a_t: on policy standard normal, whatever the state
    critic      δ_t = r_t + γ Q(s_{t+1}, a_{t+1}) − Q(s_t, a_t), E δ = 0
    direction   ε² = (D − T) / (S − T), the squared error of the model's directional derivatives:
                D = Var(y_i − J_m x_i), S = Var(y_i), T = residual variance of y_i on x_i over the
                nearest rows x_i = (s, a)_i of other trajectories, y_i = s'_i − s_i (DDPPO eq. 9)

T is the noise floor: where it is nearly S, neighbours have no information on derivatives. One point
per trajectory, since within one the noise of a step moves both the next x and y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.trajectories import Path, Trajectories, stream
from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim
from gradlab.networks.mlp import judge
from gradlab.networks.policies import check_stochastic
from gradlab.statistics.comparison import ratio_interval
from gradlab.statistics.intervals import Interval, jackknife_se, skewness_corrected
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.over_groups import group_sums
from gradlab.systems.system import System

_Array = NDArray[np.float64]

_ROWS_PER_FEATURE = 10
_ROUNDING = 1e-9  # of a column's largest value
_RIDGE = 1e-6  # of the mean square of a feature: keeps constant and repeated columns solvable


def features(state: Tensor, rows: int | None = None) -> Tensor:
    """[M, F] of states [M, ds], the constant first. `rows`: that the regression will have; None:
    M."""
    rows = len(state) if rows is None else rows
    x = ((state - state.mean(dim=0)) / state.std(dim=0))[:, ~constant(state)]
    width = x.shape[1]
    one = torch.ones_like(state[:, :1])
    i, j = torch.triu_indices(width, width)
    if rows >= _ROWS_PER_FEATURE * (1 + width + len(i)):
        return torch.cat([one, x, x[:, i] * x[:, j]], dim=1)
    return torch.cat([one, x], dim=1) if rows >= _ROWS_PER_FEATURE * (1 + width) else one


def constant(values: Tensor) -> Tensor:
    """Which columns of [M, width] do not vary beyond rounding."""
    return values.std(dim=0) <= _ROUNDING * values.abs().amax(dim=0)


def solved(gram: Tensor, moment: Tensor) -> Tensor:
    """Ridge regression's weights from Σ φφᵀ [..., F, F] and Σ φ y [..., F]."""
    ridge = _RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
    weights: Tensor = torch.linalg.solve(gram + ridge[..., None, None] * eye, moment[..., None])
    return weights[..., 0]


Judged = Mapping[str, tuple[Estimate, Interval]]


def judged(critic: nn.Module, path: Path, discount: float) -> Judged:
    """residual, in spreads of the critic, and beyond, the share outside of the return bound.
    `critic`: Q, float64; path: windows of T steps, NaN where no action was recorded."""
    recorded = torch.isfinite(path.actions).all(dim=2) & path.alive
    with torch.no_grad():
        flat = path.states.flatten(0, 1), path.actions.nan_to_num(0.0).flatten(0, 1)
        Q = torch.where(recorded, judge(critic, "Q", *flat).reshape(recorded.shape), 0.0)
    # A step counts where the next action is known too, or nothing comes next.
    steps = recorded[:-1] & (recorded[1:] | ~path.alive[1:])
    delta = torch.where(steps, path.rewards + discount * Q[1:] - Q[:-1], 0.0)
    low, high = return_bound(path, discount)
    group = path.group.numpy()

    def mean(values: Tensor, counted: Tensor) -> Estimate:
        sums = [group_sums(x.double().sum(dim=0).numpy(), group) for x in (values, counted)]
        return sample_mean(sums[0], sums[1])

    centre, square = mean(Q, recorded), mean(Q.square(), recorded)
    residual = mean(delta, steps)
    results = {
        "residual": combine(
            lambda d, q, qq: d / np.sqrt(np.maximum(qq - q**2, 0.0)), residual, centre, square
        ),
        "beyond": mean(recorded & ((low > Q) | (high < Q)), recorded),
    }

    def ends(estimate: Estimate) -> Interval:
        if not (np.isfinite(estimate.value) and np.isfinite(estimate.left_out).all()):
            return Interval(np.nan, np.nan, np.nan, "undefined")
        low, high = skewness_corrected(estimate)
        return Interval(low, high, jackknife_se(estimate.left_out), "jackknife with skewness")

    return {name: (result, ends(result)) for name, result in results.items()}


def return_bound(path: Path, discount: float) -> tuple[float, float]:
    """Smallest and largest return of the rewards seen; 0 is among them where episodes end."""
    seen = path.rewards[path.alive[:-1]]
    least, most = float(seen.min()), float(seen.max())
    if not bool(path.alive.all()):
        least, most = min(least, 0.0), max(most, 0.0)
    if discount == 1.0:
        return -np.inf, np.inf
    return least / (1 - discount), most / (1 - discount)


LEVEL = 1e-3  # of all tests together: below, the data are called off policy
_SPREADS = (0.5, 2.0)  # of ε, beyond which a gradient of these data means nothing
_FARTHEST = 1.0  # |mean ε|, likewise
_EXPLAINED = 0.5  # share of ε's variance that the state explains, likewise
_TESTS = ("mean", "spread", "distribution", "state")


@dataclass(frozen=True, eq=False)
class Residuals:
    """Statistics of the residuals ε of `rows` transitions, [da] each.

    Attributes:
        mean, spread: with standard errors mean_se, spread_se.
        distance: Kolmogorov and Smirnov's; explained: adjusted share of variance, may be below 0.
        p: smallest p-value of each action over the four tests.
    """

    rows: int
    mean: _Array
    mean_se: _Array
    spread: _Array
    spread_se: _Array
    distance: _Array
    explained: _Array
    p: _Array

    @property
    def p_value(self) -> float:
        """P-value of the hypothesis that the policy took the actions, corrected for all tests."""
        return float(min(1.0, len(_TESTS) * len(self.p) * self.p.min()))

    @property
    def on_policy(self) -> bool:
        return self.p_value >= LEVEL

    @property
    def far(self) -> bool:
        """Whether the actions are so far off that the data are of another policy."""
        low, high = _SPREADS
        return bool(
            (self.spread < low).any()
            or (self.spread > high).any()
            or (np.abs(self.mean) > _FARTHEST).any()
            or (self.explained > _EXPLAINED).any()
        )


def residuals(policy: nn.Module, state: Tensor, action: Tensor) -> Residuals | None:
    """The policy's own noise behind recorded actions; None for a deterministic policy. `policy`:
    float64; state [M, ds], action [M, da]: every recorded row."""
    if not noise_dim(policy):
        return None
    check_stochastic(policy)
    with torch.no_grad():
        noise = policy.infer_noise(state, action)  # type: ignore[operator]
    return described(noise.numpy(), features(state).numpy())


def described(noise: _Array, inferred: _Array) -> Residuals:
    """Statistics of ε [M, da], with features of the states [M, F], the constant first."""
    rows, width = inferred.shape
    mean, spread = noise.mean(axis=0), noise.std(axis=0, ddof=1)
    left = noise - inferred @ np.linalg.lstsq(inferred, noise, rcond=None)[0]
    freedom = max(rows - width, 1)
    whole = ((noise - mean) ** 2).sum(axis=0)
    unexplained = (left**2).sum(axis=0)
    explained = 1 - unexplained / freedom * (rows - 1) / whole
    ratio = (whole - unexplained) / max(width - 1, 1) / (unexplained / freedom)
    ks = [scipy.stats.kstest(residuals, "norm") for residuals in noise.T]
    tail = scipy.stats.chi2.cdf((noise**2).sum(axis=0), rows)
    p = np.stack(
        [
            2 * scipy.stats.norm.sf(np.abs(mean) * rows**0.5),
            2 * np.minimum(tail, 1 - tail),
            np.array([test.pvalue for test in ks]),
            scipy.stats.f.sf(ratio, max(width - 1, 1), freedom),
        ]
    )
    return Residuals(
        rows=rows,
        mean=mean,
        mean_se=spread / rows**0.5,
        spread=spread,
        spread_se=spread / (2 * rows) ** 0.5,
        distance=np.array([test.statistic for test in ks]),
        explained=explained,
        p=p.min(axis=0),
    )


def refuse_far(statistics: Residuals, names: tuple[str, ...]) -> None:
    if not statistics.far:
        return
    parts = "; ".join(
        f"{name}: mean {mean:.2g}, spread {spread:.2g}, state explains {max(explained, 0.0):.0%}"
        for name, mean, spread, explained in zip(
            names, statistics.mean, statistics.spread, statistics.explained, strict=True
        )
    )
    raise InputError(
        f"data is not of this policy: in units of its own noise the actions of {statistics.rows:,} "
        f"rows have {parts} (on policy: 0, 1, 0%); give the policy and the noise that recorded "
        f"them"
    )


_SAMPLE = 500  # rows that are used
_WIDER = 4  # neighbours per coordinate of (s, a), where there are as many trajectories
_LEAST = 2  # of them, below which no regression is tried
_BLOCK = 1 << 24  # distances held at once

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
    # (J_m − I_s) v in the units of the states, [R, L, ds].
    apart, ds = x[points] - x[rows, None], record.state.shape[1]
    with torch.no_grad():
        linear = model.linearize(record.state[rows].double(), record.action[rows].double())
        by_state = linear.A - torch.eye(ds, dtype=torch.float64)
        predicted = torch.einsum("rij,rlj->rli", by_state, apart[..., :ds])
        predicted += torch.einsum("rij,rlj->rli", linear.B, apart[..., ds:])
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
    `number`: of each row's trajectory, from 0, in order."""
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


def _ratios(top: _Array, bottom: _Array, size: _Array) -> _Judged:
    """Σ top / Σ bottom of every column with its interval; NaN where the bottom is not above 0."""
    ratios = []
    for k in range(top.shape[1]):
        first, second = sample_mean(top[:, k], size), sample_mean(bottom[:, k], size)
        ratio = combine(lambda a, b: np.where(b > 0, a / b, np.nan), first, second)
        ratios.append((ratio, ratio_interval(first, second)))
    return tuple(ratios)
