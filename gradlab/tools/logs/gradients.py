"""Two gradients of one and the same return, from the same recorded windows, and their agreement.

    F_n(θ) = E[Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n)]         Q as it is given, θ in every action
    score   Σ_{t≤n} γᵗ ∇ log π(a_t|s_t) (y_{n−t}(t) − V_{n−t}(s_t))      differentiates no step
    model   pathwise along the recorded states, the model's Jacobians at the inferred noise (RP-DR,
            RP-PGM eq. 4.5)

The score is unbiased for ∇F_n, so that a difference of the means is due to the model's Jacobians.
V_m = β_mᵀ φ(s) is fitted on other trajectories: given s_t it leaves the mean (Greensmith et al.
2004).

    agree      the upper ends of |E M − E S|² / |E S|² and |E M − E S|² − TOLERANCE² |E S|² say so
    disagree   the lower end of |E M − E S|² is above 0, and agreement is not shown

Every number is a U-statistic over pairs of trajectories, with the jackknife's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import as_starts, grouping
from gradlab.gradients.trajectory import CostateTerms, TermRequest
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.progress import Progress, silent
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.intervals import Interval, interval, jackknife_se
from gradlab.statistics.moments import (
    Array,
    Estimate,
    Moments,
    PairSums,
    combine,
    estimates,
    pair_mean,
)
from gradlab.tools.logs.diagnostics import Judged, features, solved
from gradlab.tools.logs.findings import TOLERANCE

_FOLDS = 5


def baselines(path: Path, costates: Tensor, horizons: tuple[int, ...], discount: float) -> Tensor:
    """γᵗ V_{n−t}(s_t) of every horizon n, [K, T + 1, N]; 0 for t > n and where dead.

    Args:
        path: of the windows, N of them.
        costates: [K, T + 1, N], γᵗ times the return of the steps from t to n, tail included.
    """
    T, n = path.horizon, path.states.shape[1]
    _, number = torch.unique(path.group, return_inverse=True)
    fold: Tensor = number % _FOLDS
    phi = features(path.states.flatten(0, 1), n).reshape(T + 1, n, -1)
    phi = phi * path.alive[..., None]
    gamma = discount ** torch.arange(T + 1, dtype=phi.dtype)
    place = {h: k for k, h in enumerate(horizons)}
    values = torch.zeros_like(costates)
    for m in range(max(horizons) + 1):
        starts = [h - m for h in horizons if h >= m]
        y = torch.stack([costates[place[t + m], t] / gamma[t] for t in starts])
        value = _cross_fitted(phi[starts], y, fold)
        for t, baseline in zip(starts, value, strict=True):
            values[place[t + m], t] = gamma[t] * baseline
    return values


def _cross_fitted(phi: Tensor, y: Tensor, fold: Tensor) -> Tensor:
    """Predictions of y [t, N] from phi [t, N, F], each from the trajectories of other folds."""
    gram, moment = [], []
    for k in range(_FOLDS):
        x = phi[:, fold == k].flatten(0, 1)
        gram.append(x.T @ x)
        moment.append(x.T @ y[:, fold == k].flatten())
    # Summed without one's own: a sum less one's own would keep its rounding.
    others = 1 - torch.eye(_FOLDS, dtype=phi.dtype)
    weights = solved(
        torch.einsum("ek,kij->eij", others, torch.stack(gram)),
        torch.einsum("ek,ki->ei", others, torch.stack(moment)),
    )
    return torch.einsum("tnf,nf->tn", phi, weights[fold])


_STEPS = 1 << 15  # of windows whose layer factors are held at once
EXPLICIT = 1 << 22  # numbers of explicit gradients that are held at once
NUMBERS = 1 << 24  # of group sums that are held at once

Cell = tuple[str, int]  # name of a source, horizon
_Rows = Callable[[slice], CostateTerms]


@dataclass(frozen=True, eq=False)
class WindowGradients:
    """One gradient at K horizons; `rows` gives that of some windows."""

    horizons: tuple[int, ...]
    rows: _Rows


@dataclass(frozen=True, eq=False)
class Products:
    """Inner products of sums over groups, for statistics that leave groups out.

    Attributes:
        size: [G], windows of each group.
        squares: cell → Σ_{i∈g} |G_i|², [G].
        pairs: (cell, cell) → pair sums of the two.
    """

    size: Array
    squares: Mapping[Cell, Array]
    pairs: Mapping[tuple[Cell, Cell], PairSums]

    def pair(self, first: Cell, second: Cell) -> PairSums:
        """In either order."""
        if (first, second) in self.pairs:
            return self.pairs[first, second]
        swapped = self.pairs[second, first]
        return PairSums(swapped.own, swapped.right, swapped.left)


def model_source(
    estimator: Estimator, policy: nn.Module, path: Path, horizons: tuple[int, ...], seed: int
) -> WindowGradients:
    """Pathwise gradients of an estimator with actions "all" along the recorded windows."""
    return WindowGradients(horizons, _rows(estimator, policy, path, horizons, seed))


def score_source(
    estimator: Estimator,
    policy: nn.Module,
    path: Path,
    horizons: tuple[int, ...],
    seed: int,
    baseline: bool = True,
) -> WindowGradients:
    """Scores of an estimator with actions "score", less their cross-fitted baseline."""
    plain = _rows(estimator, policy, path, horizons, seed)
    if not baseline:
        return WindowGradients(horizons, plain)
    parts = _parts(slice(0, path.states.shape[1]), _STEPS // (path.horizon + 1))
    returns = torch.cat([plain(part).costates[..., 0] for part in parts], dim=2)
    less = baselines(path.cut(estimator.tail.horizon), returns, horizons, estimator.tail.discount)

    def rows(part: slice) -> CostateTerms:
        term = plain(part)
        return replace(term, costates=term.costates - less[:, :, part, None])

    return WindowGradients(horizons, rows)


def _rows(
    estimator: Estimator, policy: nn.Module, path: Path, horizons: tuple[int, ...], seed: int
) -> _Rows:
    begin = as_starts(path, estimator.states.state_dim)

    def rows(part: slice) -> CostateTerms:
        term = costate_terms(
            estimator, TermRequest(policy, begin.block(part), horizons, seed, "mask")
        )
        # A model of the user's own may hold parameters of its own: their graph is not wanted.
        return replace(term, costates=term.costates.detach())

    return rows


def products(
    sources: Mapping[str, WindowGradients],
    pairs: Iterable[tuple[Cell, Cell]],
    path: Path,
    size: int,
    progress: Progress = silent,
) -> Products:
    """Inner products of the cells that are paired.

    Two passes over blocks of windows: sums over all of them, then each group's products with
    these; memory is flat in the number of windows.

    Args:
        size: P, of θ.
    """
    paired = list(pairs)
    label, counts = grouping(as_starts(path, path.states.shape[2]))
    cells = [(name, n) for name, source in sources.items() for n in source.horizons]
    most = max(1, NUMBERS // (len(cells) * size))
    part = min(_STEPS // (path.horizon + 1), EXPLICIT // size)
    # Blocks of at most `most` groups, none cut in two; labels are in order.
    edges = [0, *(torch.diff(label).nonzero()[:, 0] + 1).tolist(), len(label)]
    blocks = [
        slice(edges[k], edges[min(k + most, len(edges) - 1)])
        for k in range(0, len(edges) - 1, most)
    ]

    def block_sums(k: int) -> dict[Cell, tuple[Tensor, Tensor]]:
        progress("gradients", k, len(blocks))
        return _group_sums(sources, blocks[k], label, size, part)

    sums_of = cache(block_sums) if len(blocks) == 1 else block_sums
    total: dict[Cell, Tensor] = {}
    squares: dict[Cell, list[Array]] = {cell: [] for cell in cells}
    for k in range(len(blocks)):
        for cell, (sums, square) in sums_of(k).items():
            total[cell] = total.get(cell, 0) + sums.sum(dim=0)
            squares[cell].append(square.numpy())
    parts: dict[tuple[Cell, Cell], list[PairSums]] = {pair: [] for pair in paired}
    for k in range(len(blocks)):
        here = sums_of(k)
        for x, z in paired:
            parts[x, z].append(pair_products(here[x][0], here[z][0], total[x], total[z]))
    progress("gradients", 1, 1)
    joined = {cell: np.concatenate(blocks) for cell, blocks in squares.items()}
    names = ("own", "left", "right")
    products = {
        pair: PairSums(*(np.concatenate([getattr(part, name) for part in each]) for name in names))
        for pair, each in parts.items()
    }
    return Products(counts, joined, products)


def weighted(terms: Sequence[tuple[float, PairSums]]) -> PairSums:
    """Σ w ⟨·, ·⟩: inner products are linear in either of their arguments."""
    own, left, right = (
        np.sum([w * getattr(sums, name) for w, sums in terms], axis=0)
        for name in ("own", "left", "right")
    )
    return PairSums(own, left, right)


def _group_sums(
    sources: Mapping[str, WindowGradients], block: slice, label: Tensor, size: int, step: int
) -> dict[Cell, tuple[Tensor, Tensor]]:
    """Cell → sums [g, P] and sums of squares [g] over the groups of a block."""
    first, last = int(label[block.start]), int(label[block.stop - 1])
    sums: dict[Cell, tuple[Tensor, Tensor]] = {}
    for name, source in sources.items():
        for n in source.horizons:
            shape = (last - first + 1, size)
            sums[name, n] = torch.zeros(shape).double(), torch.zeros(shape[0]).double()
        for part in _parts(block, step):
            here, group = source.rows(part), label[part] - first
            for k, n in enumerate(source.horizons):
                G = here.gradients(k)
                sums[name, n][0].index_add_(0, group, G)
                sums[name, n][1].index_add_(0, group, (G * G).sum(dim=1))
    return sums


def _parts(block: slice, size: int) -> list[slice]:
    step = max(1, size)
    return [slice(k, min(k + step, block.stop)) for k in range(block.start, block.stop, step)]


def pair_products(x: Tensor, z: Tensor, sum_x: Tensor, sum_z: Tensor) -> PairSums:
    own, left, right = (x * z).sum(dim=1), x @ sum_z, z @ sum_x
    return PairSums(own.numpy(), left.numpy(), right.numpy())


def noise_of(products: Products, cell: Cell, others: tuple[Cell, ...] = ()) -> Judged:
    """mean_norm, variance, cosine_self; variance_critics where there are others. `others`: the same
    gradient with other critics."""
    critics = None
    if others:  # Σ_c |X_c − X̄|² / (C − 1), from inner products: Σ_c ⟨c, c⟩ − Σ_cd ⟨c, d⟩ / C
        cells = (cell, *others)
        count = len(cells)
        terms = [(1.0, products.pair(c, c)) for c in cells]
        terms += [(-1.0 / count, products.pair(c, d)) for c in cells for d in cells]
        critics = weighted([(w / (count - 1), sums) for w, sums in terms])
    gradient = products.pair(cell, cell)
    moments = Moments(products.size, products.squares[cell], gradient, critics=critics)
    every = estimates(moments, 1)
    square = pair_mean(gradient, products.size)
    measured = [name for name in ("variance", "variance_critics") if name in every]
    # The ends of the square hold where it is estimated below 0, too.
    ends = interval("bias2", square)
    noise = float(gradient.left.sum() / products.size.sum() ** 2) - square.value  # tr Cov / N

    def of_square(function: Callable[[Array], Array]) -> tuple[Estimate, Interval]:
        """A rising function of |E G|², its ends those of the square."""
        estimate = combine(function, square)
        low, high = (float(function(np.asarray(end))) for end in (ends.low, ends.high))
        return estimate, Interval(low, high, jackknife_se(estimate.left_out), ends.method)

    def share(square: Array) -> Array:
        """√(|μ|² / (|μ|² + tr Cov/N)): the cosine of the mean of N with what it estimates."""
        signal = np.maximum(square, 0.0)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(signal / (signal + noise)))

    return {
        "mean_norm": of_square(lambda u: np.sqrt(np.maximum(u, 0.0))),
        **{name: (every[name], interval(name, every[name])) for name in measured},
        "cosine_self": of_square(share),
    }


def agreement(products: Products, model: Cell, score: Cell) -> Judged:
    """bias2, relative_bias2, excess over tolerance, cosine and log variance ratio of two cells."""
    pairs = (model, score), (model, model), (score, score)
    both, mm, ss = (products.pair(*each) for each in pairs)
    swapped = PairSums(both.own, both.right, both.left)
    gap = weighted([(1.0, mm), (-1.0, both), (-1.0, swapped), (1.0, ss)])
    moments = Moments(
        products.size, products.squares[model], mm, truth=ss, difference=gap, cross=both
    )
    every = estimates(moments, 1)
    bias2, reference = every["bias2"], pair_mean(ss, products.size)
    excess = combine(lambda b, t: b - TOLERANCE**2 * t, bias2, reference)
    relative = combine(lambda b, t: np.where(t > 0, b / t, np.nan), bias2, reference)
    zero = Estimate(0.0, np.zeros_like(excess.left_out))
    found = {
        "bias2": (bias2, interval("bias2", bias2)),
        # A squared norm over one that is known: near 0 its upper end is that of a squared norm.
        "relative_bias2": (relative, interval("bias2", relative)),
        "excess": (excess, difference(excess, zero)),
        "cosine": (every["cosine"], interval("cosine", every["cosine"])),
    }
    variances = [
        estimates(Moments(products.size, products.squares[cell], own), 1)["variance"]
        for cell, own in ((model, mm), (score, ss))
    ]
    span = log_ratio(*variances)
    if span is not None:  # both are known to be above 0
        ratio = combine(lambda a, b: a / b, *variances)
        ends = Interval(exp(span.low), exp(span.high), jackknife_se(ratio.left_out), span.method)
        found["variance_ratio"] = ratio, ends
    return found
