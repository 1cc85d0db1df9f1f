"""A model's errors at the simulator's states: per block, per entry, over time, over distance.

Errors of blocks are relative, root of summed squares over root of summed squares. Entries are
standardised: ΔJ_ij σ_j/σ_i is by how many standard deviations of output i the model is wrong when
input j moves by one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import scipy

from gradlab.gradients.visited_jacobians import Array, Visited, jacobian_squares
from gradlab.runs.long_table import At, RowCollector, number
from gradlab.statistics.over_groups import group_sums, root_ratio

_BINS = 8
_QUERIES = 8192  # samples whose distance from the data is asked for
_SEED = 7
_RELATIVE = "relative error"
_WORST = 0.05  # of the samples
_CONCENTRATION = "share of the squared error in the worst 5%"


def add_errors(rows: RowCollector, visited: Visited) -> None:
    """Relative error of every block, over all samples and step by step."""
    steps, kept = np.arange(len(visited.rewards)), visited.kept
    for block, (error, size) in _squares(visited).items():
        X, Z = _over_all(error, visited), _over_all(size, visited)
        rows.add("block", _RELATIVE, root_ratio(X, Z, np.array([kept.sum()])), At(block=block))
        # Share of the worst samples in the squared error: near 1, clips or contacts make it.
        squares = np.sort(error[kept])
        total, count = error[kept].sum(), max(int(_WORST * len(squares)), 1)
        share = float(squares[-count:].sum() / total) if total > 0 else np.nan
        worst = number(share, np.nan, np.nan, int(kept.sum()), "share")
        rows.add("block", _CONCENTRATION, worst, At(block=block))
        X, Z = (group_sums(np.where(kept, x, 0.0).T, visited.group) for x in (error, size))
        rows.add("time", _RELATIVE, root_ratio(X, Z, kept.sum(1)), At(block=block, step=steps))


def add_entries(
    rows: RowCollector, visited: Visited, states: Sequence[str], actions: Sequence[str]
) -> None:
    """Size of every entry of the simulator's Jacobian and, with a model, of its error."""
    outputs, inputs = [*states, "reward"], [*states, *actions]
    row_scale, column_scale = visited.spread
    labels = list(product(outputs, inputs))
    wanted = {"size": visited.true.J}
    if visited.guess is not None:
        wanted["error"] = visited.wrong
    kept = visited.kept
    ones = group_sums(kept.sum(0)[:, None].astype(np.float64), visited.group)
    for quantity, J in wanted.items():
        with np.errstate(over="ignore", invalid="ignore"):  # where the rollout has left float64
            scaled = J * column_scale / row_scale[:, None]
        squares = np.where(kept[..., None, None], scaled**2, 0.0).sum(0)
        X = group_sums(squares.reshape(len(squares), -1), visited.group)
        Z = np.broadcast_to(ones, X.shape)
        estimates = root_ratio(X, Z, np.full(X.shape[1], kept.sum()))
        rows.add(
            "entry",
            quantity,
            estimates,
            At(output=[o for o, _ in labels], input=[i for _, i in labels]),
        )


def add_distance(
    rows: RowCollector, visited: Visited, recorded: Array, recorded_actions: Array
) -> None:
    """Errors in bins of equal counts by distance from the nearest data.

    Distances are Euclidean in standard deviations of the data, states and actions together.
    """
    kept = np.argwhere(visited.kept)
    if len(kept) > _QUERIES:
        kept = np.random.default_rng(_SEED).choice(kept, _QUERIES, replace=False)
    t, i = kept.T
    data = np.concatenate([recorded, recorded_actions], 1)
    here = np.concatenate([visited.states[t, i], visited.actions[t, i]], 1)
    scale = data.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    distance = scipy.spatial.cKDTree(data / scale).query(here / scale)[0]
    edges = np.quantile(distance, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(edges, distance)
    present = np.unique(bins)
    x = np.array([np.median(distance[bins == b]) for b in present])
    for block, (error, size) in _squares(visited).items():
        parts = []
        for values in (error, size):
            spread = np.zeros((len(t), len(present)))
            spread[np.arange(len(t)), np.searchsorted(present, bins)] = values[t, i]
            parts.append(group_sums(spread, visited.group[i]))
        count = np.array([(bins == b).sum() for b in present])
        estimates = root_ratio(parts[0], parts[1], count)
        rows.add("distance", _RELATIVE, estimates, At(block=block, x=x))


def _squares(visited: Visited) -> dict[str, tuple[Array, Array]]:
    """Those of the blocks, and of the predictions.

    A prediction's size is that of the change it predicts, in standard deviations of each output.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the finite numbers all is masked
        assert visited.predicted is not None
        ds, scale = visited.states.shape[2], visited.spread[0]
        after = np.concatenate([visited.states[1:], visited.rewards[..., None]], 2) / scale
        change = after[..., :ds] - visited.states[:-1] / scale[:ds]
        miss = visited.predicted / scale - after
        kept = visited.kept
        reward = after[..., ds:] - (after[..., ds:][kept].mean() if kept.any() else 0.0)
        return jacobian_squares(visited) | {
            "next_state": (_row_square(miss[..., :ds]), _row_square(change)),
            "reward": (_row_square(miss[..., ds:]), _row_square(reward)),
        }


def _row_square(X: Array) -> Array:
    return np.asarray((X**2).sum(2))


def _over_all(values: Array, visited: Visited) -> Array:
    """[G, 1]: the sum over all compared samples of each group."""
    kept = np.where(visited.kept, values, 0.0).sum(0)
    return group_sums(kept[:, None], visited.group)
