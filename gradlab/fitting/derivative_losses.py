"""Losses on a model's derivatives, beside a prediction loss.

    directional  prediction + w R,   R = 1/n Σ_i 1/d ‖∇m v_i − (ŷ_i − ŷ)‖²      (DDPPO eq. 9–10)
    multistep-dd   multistep + w R                                        (RP-PGM Fig. 6)
    sobolev      prediction + w mean_{j,k} (∇m − Ĵ)_{jk}²,  Ĵ the simulator's  (arXiv 1706.04859)

in standardised coordinates, v_i = x̂_i − x̂ to the n nearest other points. As printed, eq. 10
maximises R with the likelihood: its sign is corrected here. The text divides by ‖v‖, eq. 9 does
not: `divided` chooses. Under the likelihood squares in R are divided by the predicted variance, so
that w means the same at every noise level; `as_printed` leaves them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.fitting.losses import (
    PLAIN,
    Bound,
    Loss,
    MultiStep,
    OneStepError,
    OwnLoss,
    Prediction,
    StandardisedRows,
    predicted,
)
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, moments
from gradlab.networks.layers import tangents
from gradlab.systems.system import System, linearize_running
from gradlab.user_code import is_user_function, load_object

_Floats = NDArray[np.floating[Any]]
_Integers = NDArray[np.int64]


@final
class Neighbours:
    """State: the points so far, their trees, and the neighbours of each.

    Args:
        count: n, neighbours per point.
        scale: [width], positive, one unit of distance per coordinate.
        workers: threads of a search.
    """

    def __init__(self, count: int, scale: _Floats, workers: int = 1) -> None:
        validation.whole("neighbours", count, 1)
        scale = np.asarray(scale, dtype=np.float64)
        self.count, self.scale, self.workers = count, scale, workers
        self._points = np.empty((0, len(scale)))  # scaled, each one once
        self._row = np.empty(0, dtype=np.int64)  # where each of them was seen first
        self._point = np.empty(0, dtype=np.int64)  # of each row
        self._near = np.empty((0, count), dtype=np.int64)
        self._distance = np.empty((0, count))
        self._trees: list[tuple[int, Any]] = []  # first point, tree of those up to the next tree

    def __len__(self) -> int:
        return len(self._point)

    @property
    def repeated(self) -> int:
        """Rows whose point was there before."""
        return len(self._point) - len(self._points)

    @property
    def index(self) -> _Integers:
        """[M, n], rows in the order of their distance; of a repeated point its first row."""
        if len(self._points) <= self.count:
            raise InputError(
                f"neighbours is {self.count}, but the data has {len(self._points)} different "
                f"(s, a): lower it, or record more"
            )
        rows: _Integers = self._row[self._near[self._point]]
        return rows

    @property
    def distance(self) -> _Floats:
        """[M, n], in units of `scale`; never 0."""
        return self._distance[self._point]

    def add(self, points: _Floats) -> None:
        """More points [m, width]."""
        points = np.asarray(points, dtype=np.float64) / self.scale
        new = self._enter(points)
        if not len(new):
            return
        old = len(self._points)
        self._points = np.concatenate([self._points, new])
        self._near = np.concatenate([self._near, np.full((len(new), self.count), -1)])
        infinite = np.full((len(new), self.count), np.inf)
        self._distance = np.concatenate([self._distance, infinite])
        tree = cKDTree(new)
        self._search(slice(0, old), old, tree)
        for first, other in [*self._trees, (old, tree)]:
            self._search(slice(old, None), first, other)
        self._trees.append((old, tree))
        while len(self._trees) > 1:  # the last two are merged while their sizes are similar
            (first, before), (_, last) = self._trees[-2:]
            if before.n > 2 * last.n:
                break
            self._trees[-2:] = [(first, cKDTree(self._points[first:]))]

    def _enter(self, points: _Floats) -> _Floats:
        """Give every row its point; those that are new, in order of appearance."""
        _, seen, inverse = np.unique(points, axis=0, return_index=True, return_inverse=True)
        number = np.full(len(seen), -1)
        for first, tree in self._trees:
            distance, at = tree.query(points[seen], workers=self.workers)
            number = np.where(distance == 0, first + at, number)
        fresh = np.flatnonzero(number < 0)
        fresh = fresh[np.argsort(seen[fresh])]
        number[fresh] = len(self._points) + np.arange(len(fresh))
        self._row = np.concatenate([self._row, len(self._point) + seen[fresh]])
        self._point = np.concatenate([self._point, number[inverse.reshape(-1)]])
        new: _Floats = points[seen[fresh]]
        return new

    def _search(self, rows: slice, first: int, tree: Any) -> None:
        """Search one tree for points, and keep the nearest n of all."""
        points = np.arange(len(self._points))[rows]
        if not len(points):
            return
        # One more than wanted, since a point finds itself.
        k = min(self.count + 1, tree.n)
        bound = self._distance[rows].max()
        distance, near = tree.query(
            self._points[rows],
            k=[*range(1, k + 1)],
            workers=self.workers,
            distance_upper_bound=bound,
        )
        near = np.where(np.isfinite(distance), near + first, -1)
        distance = np.where((near == points[:, None]) | (near < 0), np.inf, distance)
        distance = np.concatenate([self._distance[rows], distance], axis=1)
        near = np.concatenate([self._near[rows], near], axis=1)
        order = np.argsort(distance, axis=1, kind="stable")[:, : self.count]
        self._distance[rows] = np.take_along_axis(distance, order, axis=1)
        self._near[rows] = np.take_along_axis(near, order, axis=1)


_ROWS = 1024  # states linearized at once
_COMPARED = 512  # held-out rows whose Jacobians are compared after an epoch
_Near = tuple[Tensor, Tensor, int]  # neighbours and squared distances [M, n], repeated rows


@dataclass(frozen=True)
class DirectionalDerivative:
    """Directional derivatives to the nearest points beside a prediction loss (DDPPO), or beside the
    squared error over several steps (RP-PGM Fig. 6).

    Attributes:
        neighbours: n.
        weight: w; with `as_printed`, in the units of eq. 10 on standardised targets.
        divided: by ‖v‖², in the metric of the neighbours.
        prediction: what R stands beside.
        as_printed: under the likelihood, R without the predicted variance.
        directions: neighbours that one step uses, in turn; None: all n.
        metric: distances of standardised (s, a), or of raw ones as in the published code.
        steps: of `MultiStep`, with R at the first row of each window; None: one step.
    """

    neighbours: int = 10
    weight: float = 1.0
    divided: bool = False
    prediction: Prediction = "nll"
    as_printed: bool = False
    directions: int | None = None
    metric: Literal["standardised", "raw"] = "standardised"
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.prediction != "mse":
            raise InputError(f"steps is {self.steps}, but the loss is dd: take multistep-dd")
        _ = self.reported  # which checks its steps
        validation.number("weight", self.weight, least=0)
        used = self.neighbours if self.directions is None else self.directions
        if not 1 <= used <= self.neighbours:
            raise InputError(f"directions is {used}, expected 1 to neighbours = {self.neighbours}")

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]:
        """Training rows have their neighbours among themselves, held-out ones among all."""
        everyone = torch.cat([training, held_out])
        return (
            self.bound(rows, training, self.near(rows, training)),
            self.bound(rows, held_out, self.near(rows, everyone)),
        )

    def near(self, rows: StandardisedRows, among: Tensor) -> _Near:
        """Neighbours [M, n] and their squared distances, of rows among those given."""
        scale = rows.input_std.double().cpu().numpy()
        near = Neighbours(
            self.neighbours,
            scale if self.metric == "standardised" else np.ones_like(scale),
            torch.get_num_threads(),
        )
        record, place = rows.record, among.cpu().numpy()
        points = torch.cat([record.state, record.action], dim=1)[among]
        near.add(points.double().cpu().numpy())
        index = torch.zeros(len(record), self.neighbours, dtype=torch.long, device=among.device)
        square = torch.ones(len(record), self.neighbours).to(rows.inputs)
        index[among] = torch.from_numpy(place[near.index]).to(among.device)
        square[among] = torch.from_numpy(near.distance**2).to(rows.inputs)
        return index, square, near.repeated

    def bound(self, rows: StandardisedRows, used: Tensor, near: _Near) -> Bound:
        """The loss on the rows `used`, whose neighbours are known, or on their windows."""
        along = self.reported.bind(rows, used, used)[0]

        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
            R, mean, log_variance = self._error(rows, near, ensemble, at, turn)
            if self.steps is None:  # of the same pass
                base = predicted(self.prediction, ensemble, mean, log_variance, rows.targets[at])
            else:
                base = along.value(ensemble, at, turn)
            return self.weight * R + base

        return Bound(along.rows, value, near[2])

    def _error(
        self, rows: StandardisedRows, near: _Near, ensemble: GaussianEnsemble, at: Tensor, turn: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """R [E] with m and log v of the rows `at` that a batch names."""
        index, square, _ = near
        # Rows of many seeds stand one seed after the other: a seed's own numbers choose the turn.
        seeds = rows.input_mean.shape[0] if rows.input_mean.ndim > 1 else 1
        period = len(rows.inputs) // seeds
        # Each row uses all of its neighbours in turn.
        count = self.neighbours if self.directions is None else self.directions
        offset = torch.arange(count, device=at.device) + turn * count
        column = ((at % period)[..., None] + offset) % self.neighbours
        other = index[at].gather(2, column)
        here, target = rows.inputs[at], rows.targets[at]
        directions = rows.inputs[other] - here[:, :, None]
        mean, log_variance, moved = pushed(ensemble, here, directions)
        error = (moved - (rows.targets[other] - target[:, :, None])).square()
        if self.divided:
            error = error / square[at].gather(2, column)[..., None]
        if self.prediction == "nll" and not self.as_printed:
            error = error * (-log_variance.detach()).exp()[:, :, None]
        return error.mean(dim=(1, 2, 3)), mean, log_variance

    @property
    def name(self) -> str:
        return "dd" if self.steps is None else "multistep-dd"

    @property
    def reported(self) -> Loss:
        """What a held-out loss without derivatives is."""
        return OneStepError(self.prediction) if self.steps is None else MultiStep(self.steps)


@dataclass(frozen=True, eq=False)
class Sobolev:
    """Squared error of the Jacobian, too: the ceiling of every method that has data alone.

    Attributes:
        simulator: whose Jacobians; rows that it flags count by their prediction alone.
        weight: w.
        prediction: what stands beside it.
    """

    name: ClassVar[str] = "sobolev"

    simulator: System
    weight: float = 1.0
    prediction: Prediction = "mse"

    def __post_init__(self) -> None:
        validation.number("weight", self.weight, least=0)

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]:
        wanted, sound = true_jacobians(self.simulator, rows)
        basis = torch.eye(rows.inputs.shape[1]).to(rows.inputs)

        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
            mean, log_variance, moved = pushed(
                ensemble, rows.inputs[at], basis.expand(*at.shape, *basis.shape)
            )
            error = (moved - wanted[at]).square().mean(dim=(2, 3)) * sound[at]
            base = predicted(self.prediction, ensemble, mean, log_variance, rows.targets[at])
            return base + self.weight * error.mean(dim=1)

        return Bound(training, value), Bound(held_out, value)


def pushed(
    ensemble: GaussianEnsemble, inputs: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and ∇m v [E, N, K, out] along directions [E, N, K, in] of x̂."""
    numbers = ensemble.numbers(inputs)
    values, moved = tangents(numbers.layers, inputs, directions)
    mean, log_variance = moments(numbers, values)
    return mean, log_variance, moved[..., : mean.shape[-1]]


def jacobian_errors(
    simulator: System, rows: StandardisedRows, at: Tensor
) -> Callable[[GaussianEnsemble], Tensor]:
    """Of an ensemble: mean squared error of every member's Jacobian ∂ŷ/∂x̂, [E], at those of the
    first rows `at` that the simulator certifies."""
    at = at[:_COMPARED]
    wanted, sound = true_jacobians(simulator, rows, at)
    inputs, wanted = rows.inputs[at][sound > 0], wanted[sound > 0]
    basis = torch.eye(inputs.shape[1]).to(inputs)

    def errors(ensemble: GaussianEnsemble) -> Tensor:
        many = inputs.expand(ensemble.members, *inputs.shape)
        _, _, moved = pushed(ensemble, many, basis.expand(*many.shape[:2], *basis.shape))
        return (moved - wanted).square().mean(dim=(1, 2, 3)).detach().double().cpu()

    return errors


def true_jacobians(
    simulator: System, rows: StandardisedRows, at: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """∂ŷ/∂x̂ of the simulator [M, in, out], and which rows are certified, [M]; of all, or `at`."""
    record, blocks, sound = rows.record, [], []
    outputs_wanted = rows.targets.shape[1]
    taken = torch.arange(len(record)) if at is None else at.cpu()
    for part in torch.split(taken, _ROWS):
        state, action = record.state[part].double(), record.action[part].double()
        linear = linearize_running(simulator, state, action)
        by_state = torch.cat([linear.A, linear.r_s[:, None]], dim=1)
        if rows.residual:
            width = state.shape[1]
            by_state[:, :width] -= torch.eye(width).to(by_state)
        whole = torch.cat([by_state, torch.cat([linear.B, linear.r_a[:, None]], dim=1)], dim=2)
        blocks.append(whole[:, :outputs_wanted])
        sound.append(~linear.certificate.flags & torch.isfinite(whole).all(dim=(1, 2)))
    scale = rows.input_std / rows.target_std[:, None]
    found_rows = torch.cat(blocks).to(rows.inputs) * scale
    good = torch.cat(sound)
    found_rows[~good] = 0
    return found_rows.mT.contiguous(), good.to(rows.inputs)


LOSSES: Mapping[str, Loss] = {  # of data alone
    **PLAIN,
    "dd": DirectionalDerivative(),
    "multistep-dd": DirectionalDerivative(prediction="mse", steps=MultiStep.steps),
}


def named_loss(name: str, simulator: System | None = None, **numbers: Any) -> Loss:
    """A loss of the table, or a function of one's own as "file.py:function" (`OwnLoss`).

    Args:
        simulator: for the loss on its Jacobians; None: that is not to be had.
        numbers: fields of losses, such as `weight`; a loss takes those that it has.
    """
    if is_user_function(name):
        return OwnLoss(name, load_object(name))
    table = LOSSES if simulator is None else {**LOSSES, Sobolev.name: Sobolev(simulator)}
    if name not in table:
        names = ", ".join(table)
        raise InputError(f"loss is {name!r}, expected one of {names}, or file.py:function")
    loss: Any = table[name]
    own = {each.name for each in fields(loss)} & set(numbers)
    if "steps" in own and loss.steps is None:  # a loss of one step has none
        own.discard("steps")
    return cast(Loss, replace(loss, **{key: numbers[key] for key in own}))
