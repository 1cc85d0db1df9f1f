"""The n nearest other points of every point, kept exact while points are added.

    d(x, y)² = Σ_j ((x_j − y_j) / scale_j)²                              x = (s, a)

Points lie in k-d trees of growing size (the logarithmic method of Bentley and Saxe, 1980): added
points get a tree of their own, trees of similar size are merged, and old points search the new tree
only. Growing costs a logarithm more than one search at the end.

Repeated points have no direction between them: they are counted, stand for one point, and share
its neighbours.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gradlab.errors import InputError

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]


@final
class Neighbours:
    """State: the points so far, their trees, and the neighbours of each.

    Args:
        count: n, neighbours per point.
        scale: [width], positive, one unit of distance per coordinate.
        workers: threads of a search.
    """

    def __init__(self, count: int, scale: Floats, workers: int = 1) -> None:
        scale = np.asarray(scale, dtype=np.float64)
        if not isinstance(count, int) or count < 1:
            raise InputError(f"neighbours is {count!r}, expected an integer from 1")
        if scale.ndim != 1 or not (np.isfinite(scale).all() and (scale > 0).all()):
            raise InputError("scale is expected as positive numbers, one per coordinate")
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
    def index(self) -> Integers:
        """[M, n], rows in the order of their distance; of a repeated point its first row.

        Raises:
            InputError: there are not n other points.
        """
        if len(self._points) <= self.count:
            raise InputError(
                f"neighbours is {self.count}, but the data has {len(self._points)} different "
                f"(s, a): lower it, or record more"
            )
        rows: Integers = self._row[self._near[self._point]]
        return rows

    @property
    def distance(self) -> Floats:
        """[M, n], in units of `scale`; never 0."""
        return self._distance[self._point]

    def add(self, points: Floats) -> None:
        """More points [m, width].

        Raises:
            InputError: another width, or numbers that are not finite.
        """
        points = np.asarray(points, dtype=np.float64) / self.scale
        if points.ndim != 2 or not np.isfinite(points).all():
            raise InputError(f"points are expected as finite numbers [m, {len(self.scale)}]")
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
        self._merge()

    def _enter(self, points: Floats) -> Floats:
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
        new: Floats = points[seen[fresh]]
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

    def _merge(self) -> None:
        """Merge the last two trees while their sizes are similar."""
        while len(self._trees) > 1:
            (first, before), (_, last) = self._trees[-2:]
            if before.n > 2 * last.n:
                return
            self._trees[-2:] = [(first, cKDTree(self._points[first:]))]
