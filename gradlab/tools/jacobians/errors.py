"""A model's errors at the simulator's states: per block, per entry, over time, over distance.

Errors of blocks are relative, root of summed squares over root of summed squares. Entries are
standardised: ΔJ_ij σ_j/σ_i is by how many standard deviations of output i the model is wrong when
input j moves by one of its own.

Growth of products of A + B K along the rollout: how far a gradient can be chained.

    open loop  A_{t−1} ⋯ A_0        closed loop  M_{t−1} ⋯ M_0,   M = A + B K

With the largest exponent λ the product is multiplied by 10 every ln 10/λ steps, and the variance of
a gradient discounted by γ doubles every ln 2 / 2(λ + ln γ). The variance is a mean of squares and
so follows the fastest starts: the exponent of the mean square, ½ d/dt ln E σ_1², stands beside the
typical one. Matrices that are not normal grow at first and settle: the change of the slope tells
what a longer path would show. Steps whose Jacobian failed its certificate are passed over.

Effect of one derivative's error on the policy gradient: what to correct first.

    e_ij = |ḡ(J with Ĵ_ij in place of J_ij) − ḡ(J)| / |ḡ(J)|,     ḡ = E Σ_t γᵗ Jπ(s_t)ᵀ λ_t
    (q_t, λ_t) = (γ p_{t+1}, 1) [A B; r_s r_a]_t,   p_t = q_t + K_tᵀ λ_t:   θ in every action (BPTT)

along the simulator's closed loop without a critic, exact for errors of any size. It is the mean
that an update follows: what has another sign at every start costs nothing. Norms are unbiased
(pairs of different groups, `moments.pair_mean`) over groups and taken along random directions of
θ, whose own error is part of every interval; up to `DIRECTIONS` parameters they are the axes.

    "effect"  e_ij, Fieller's interval of its square (`over_groups`)
    "share"   e_ij²/e_max² of the same starts, paired: all intervals hold together, and those that
              reach 1 are not told apart from the largest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import log

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import nn

from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.start_laws import Array, Visited, jacobian_squares
from gradlab.progress import Progress
from gradlab.runs.long_table import At, RowCollector, number
from gradlab.statistics import chains, over_groups
from gradlab.statistics.growth import FEWEST, error_growth
from gradlab.statistics.intervals import Z, jackknife_se
from gradlab.statistics.moments import PairSums, combine, pair_mean
from gradlab.statistics.over_groups import (
    Estimates,
    group_sums,
    level_of,
    mean_interval_at,
    ratio_of_means,
    root_ratio,
)

_BINS = 8
_QUERIES = 8192  # samples whose distance from the data is asked for
_SEED = 7
_RELATIVE = "relative error"


def add_errors(rows: RowCollector, visited: Visited) -> None:
    """Relative error of every block, over all samples and step by step."""
    steps, kept = np.arange(len(visited.rewards)), visited.kept
    for block, (error, size) in _squares(visited).items():
        X, Z = _over_all(error, visited), _over_all(size, visited)
        rows.add("block", _RELATIVE, root_ratio(X, Z, np.array([kept.sum()])), At(block=block))
        X, Z = (group_sums(np.where(kept, x, 0.0).T, visited.group) for x in (error, size))
        rows.add("time", _RELATIVE, root_ratio(X, Z, kept.sum(1)), At(block=block, step=steps))


def add_entries(
    rows: RowCollector, visited: Visited, states: Sequence[str], actions: Sequence[str]
) -> None:
    """Size of every entry of the simulator's Jacobian and, with a model, of its error."""
    row_scale, column_scale = visited.spread
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
        rows.add("entry", quantity, estimates, _at(states, actions))


def _at(states: Sequence[str], actions: Sequence[str]) -> At:
    """Every entry of [A B; r_s r_a], row by row."""
    labels = list(product([*states, "reward"], [*states, *actions]))
    return At(output=[o for o, _ in labels], input=[i for _, i in labels])


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


def add_growth(rows: RowCollector, visited: Visited, discount: float, progress: Progress) -> None:
    """Sections growth, exponent, product, and the horizons that follow from them."""
    A, B = _parts(visited.true.J, visited)
    skip = ~visited.true.usable
    chained = {"closed": A + B @ visited.K, "open": A}
    for done, (loop, M) in enumerate(chained.items()):
        progress("products of Jacobians", done, 3)
        logs = chains.log_singular_values(M, skip)
        H, d = logs.shape[0] - 1, logs.shape[2]
        curves = []
        for k in range(d):
            means = over_groups.mean(_by_group(logs[:, :, k].T, visited.group))
            curves.append(means.value)
            rows.add(
                "growth", "ln σ", means, At(block=loop, output=str(k + 1), step=np.arange(H + 1))
            )
        rates = chains.exponents(logs, skip)
        rate = over_groups.mean(_by_group(rates, visited.group))
        off = chains.swing(chains.second_half(np.stack(curves, axis=1)))
        rate = replace(rate, low=rate.low - off, high=rate.high + off)
        order = [str(k + 1) for k in range(rates.shape[1])]
        rows.add("exponent", "λ", rate, At(block=loop, output=order))
        if loop == "closed":
            _add_doubling(rows, logs, rate, discount, visited)
    progress("products of Jacobians", 2, 3)
    if visited.guess is not None:
        _add_product(rows, chained["closed"], visited)
    progress("products of Jacobians", 3, 3)


def add_model_error(rows: RowCollector, visited: Visited, own: Array) -> dict[str, object]:
    """Error of the model's own rollout from the same starts, [H + 1, N, ds], and its law."""
    scale = visited.spread[0][:-1]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = (((own - visited.states) / scale) ** 2).sum(2)[1:].T
    finite = np.isfinite(squares).all(1)
    X = over_groups.group_sums(squares[finite], visited.group[finite])
    count = over_groups.group_sums(np.ones(squares[finite].shape), visited.group[finite])
    n, H = int(finite.sum()), squares.shape[1]
    errors = over_groups.root_ratio(X, count, np.full(H, n))
    rows.add("model_error", "error", errors, At(step=np.arange(1, H + 1)))
    law = error_growth(np.sqrt(X / count)) if H >= FEWEST and len(X) >= 2 else None
    if law is None:
        return {}
    for quantity, fitted in (("exponent", law.exponent), ("rate", law.rate)):
        one = number(fitted.value, fitted.low, fitted.high, n, "bootstrap over starts")
        rows.add("horizon", f"{quantity} of the model's error", one)
    return {"condition_1": law.law}


def _parts(J: Array, visited: Visited) -> tuple[Array, Array]:
    ds = visited.states.shape[2]
    return J[..., :ds, :ds], J[..., :ds, ds:]


def _by_group(values: Array, group: NDArray[np.int64]) -> Array:
    """Group means [G, ...] of values [N, ...]."""
    sizes, sums = group_sums(np.ones(len(values)), group), group_sums(values, group)
    return np.asarray(sums / sizes.reshape(-1, *[1] * (values.ndim - 1)))


def _add_doubling(
    rows: RowCollector, logs: Array, rate: Estimates, discount: float, visited: Visited
) -> None:
    """Predicted doubling times of the variance, by the typical start and by the mean square."""
    n, shift = int(rate.n[0]), log(discount)
    value, low, high, later = _mean_square_exponent(logs, visited)
    square = value, low, high
    rows.add("exponent", "λ of the mean square", number(*square, n, "jackknife"))
    typical = (float(rate.value[0]), float(rate.low[0]), float(rate.high[0]))
    mean = _by_group(chains.second_half(logs[:, :, 0]).T, visited.group).mean(0)
    for block, rates, next_, method in (
        ("typical start", typical, float(chains.ahead(mean)), rate.method),
        ("mean square", square, later, "jackknife"),
    ):
        value, low, high = (2 * (rate + shift) for rate in rates)
        doubling = _inverse(log(2), value, low, high, n, method)
        rows.add("horizon", "predicted doubling of the variance", doubling, At(block=block))
        goes_on = number(next_ + shift, np.nan, np.nan, n, "as the slope changes")
        rows.add("horizon", "growth on a path of twice the length", goes_on, At(block=block))


def _mean_square_exponent(logs: Array, visited: Visited) -> tuple[float, float, float, float]:
    """½ slope of ln E σ_1² over the second half of the window, with its interval; and as it would
    be on a path of twice the length."""
    late = chains.second_half(logs[:, :, 0])
    top = late.max(1, keepdims=True)
    squares = over_groups.group_sums(np.exp(2 * (late - top)).T, visited.group)

    def curve(sums: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(0.5 * np.log(sums) + top[:, 0])

    def slope(curves: Array) -> Array:
        return np.asarray((curves[..., -1] - curves[..., 0]) / (len(late) - 1))

    own = curve(squares.sum(0))
    value = float(slope(own))
    with np.errstate(invalid="ignore"):  # without the fastest start nothing may be left
        half = Z * jackknife_se(slope(curve(squares.sum(0) - squares)))
    half += float(chains.swing(own))
    return value, value - half, value + half, float(chains.ahead(own))


def _add_product(rows: RowCollector, closed: Array, visited: Visited) -> None:
    """Relative error of the model's chained product, and the last step at which it informs."""
    assert visited.guess is not None
    A, B = _parts(visited.guess.J, visited)
    errors = chains.product_error(closed, A + B @ visited.K, ~visited.kept)
    with np.errstate(divide="ignore"):
        logs = _by_group(np.log(errors).T, visited.group)
    medians = over_groups.median(logs)
    curves = [np.exp(end) for end in (medians.value, medians.low, medians.high)]
    shown = Estimates(curves[0], medians.se, curves[1], curves[2], medians.n, medians.method)
    rows.add("product", _RELATIVE, shown, At(step=np.arange(len(errors))))
    beyond = [np.flatnonzero(~(curve <= 1)) for curve in curves]
    value, high, low = (int(each[0]) - 1 if len(each) else len(errors) - 1 for each in beyond)
    last = number(value, low, high, int(medians.n[0]), medians.method)
    rows.add("horizon", "model's product informs", last)


def _inverse(scale: float, value: float, low: float, high: float, n: int, method: str) -> Estimates:
    """scale / rate with its interval, which is open (inf) where the rate's contains 0."""
    with np.errstate(divide="ignore"):
        centre = scale / np.float64(value)
    if low > 0 or high < 0:
        return number(float(centre), scale / high, scale / low, n, method)
    if not value > 0:
        return number(float(centre), -np.inf, scale / low if low else -np.inf, n, method)
    return number(float(centre), scale / high if high else np.inf, np.inf, n, method)


DIRECTIONS = 64  # in θ
_ROUNDING = 1e-12  # of the gradient's root mean square: smaller changes are none
_MOST = 0.9  # of the gradient's summed norms, for the share of starts that carry it


def add_effects(
    rows: RowCollector,
    visited: Visited,
    path: Path,
    policy: nn.Module,
    discount: float,
    states: Sequence[str],
    actions: Sequence[str],
) -> None:
    """Quantities "effect" and "share" of section entry, and section gradient."""
    g, exact = _changes(visited, path, policy, discount)
    finite = np.isfinite(g).all((1, 2))
    if not finite.any():
        raise InputError(
            "states lead to no finite Jacobian and gradient: begin where the simulator stays finite"
        )
    n, group = int(finite.sum()), visited.group[finite]
    norms = np.sort(np.linalg.norm(g[finite, 0], axis=1))[::-1]
    carriers = np.searchsorted(np.cumsum(norms), _MOST * norms.sum()) + 1
    carry = number(float(carriers), np.nan, np.nan, n, "count")
    rows.add("gradient", "starts that carry 90%", carry)
    sums, size = group_sums(g[finite], group), group_sums(np.ones(n), group)
    effect, share = _against(sums, size, n, exact)
    rows.add("entry", "effect", effect, _at(states, actions))
    rows.add("entry", "share", share, _at(states, actions))


def _changes(
    visited: Visited, path: Path, policy: nn.Module, discount: float
) -> tuple[Array, bool]:
    """[N, 1 + E, D]: each start's gradient along directions of θ and what each of E entries
    changes about it; are the directions all there are?"""
    H, n, ds = visited.states[1:].shape
    J, K, kept = visited.true.J.copy(), visited.K, visited.kept
    J[~kept] = np.eye(*J.shape[2:])
    J[..., ds, :][~kept] = 0.0
    output, entry = (index.ravel() for index in np.indices(J.shape[2:]))
    places = np.arange(len(output))
    size = sum(p.numel() for p in policy.parameters())
    exact = size <= DIRECTIONS
    if exact:
        directions = torch.eye(size, dtype=torch.float64)
    else:
        generator = stream(0, "directions")
        directions = torch.randn(DIRECTIONS, size, generator=generator, dtype=torch.float64)
    g, p = np.zeros((n, 1 + len(places), len(directions))), np.zeros((n, 1 + len(places), ds))
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = visited.wrong[:, :, output, entry]
        for t in reversed(range(H)):
            worth = np.concatenate([discount * p, np.ones((*p.shape[:2], 1))], 2)
            pulled = worth @ J[t]
            pulled[:, 1 + places, entry] += worth[:, 1 + places, output] * wrong[t]
            signal = pulled[..., ds:]
            p = pulled[..., :ds] + signal @ K[t]
            moved = policy_jacobian(policy, path.states[t], path.policy_noise[t]) @ directions
            g += discount**t * (signal @ moved.permute(1, 2, 0).numpy())
        g[:, 1:] -= g[:, :1]
    return g, exact


def _against(sums: Array, size: Array, n: int, exact: bool) -> tuple[Estimates, Estimates]:
    """Effects of E entries and their shares of the largest, from sums over groups [G, 1 + E, D],
    the first of which are the gradient's."""
    sums = sums / (np.abs(sums).max() or 1.0)  # squares must not overflow
    total, directions = sums.sum(0), sums.shape[2]
    own, left = (sums**2).sum(2).T, (sums * total).sum(2).T
    along_each = (total**2 - (sums**2).sum(0)) / (n**2 - (size**2).sum())
    squares = [pair_mean(PairSums(o, x, x), size) for o, x in zip(own, left, strict=True)]
    gradient, entries = squares[0], squares[1:]
    present = np.flatnonzero(own[1:].sum(1) > _ROUNDING**2 * own[0].sum())
    values = np.array([each.value for each in entries])
    top = max(present, key=lambda k: values[k], default=0)
    unit = gradient.value if gradient.value > 0 else float((total[0] ** 2).sum()) / n**2

    def drawn(combination: Array) -> float:
        """Half the interval that the random directions leave."""
        return 0.0 if exact else Z * float(combination.std()) * directions**0.5

    def widened(value: float, low: float, high: float, half: float) -> tuple[float, float]:
        return value - np.hypot(value - low, half), value + np.hypot(high - value, half)

    effect, share = (np.zeros((4, len(entries))) for _ in range(2))
    level = level_of(max(len(present) - 1, 1))
    for k in present:
        ratio = values[k] / unit
        found = ratio_of_means(entries[k], gradient)
        low, high = (0.0, np.inf) if found is None else (found.low, found.high)
        half = drawn(along_each[1 + k] - ratio * along_each[0]) / unit
        low, high = widened(ratio, low, high, half)
        ends = np.sqrt(np.maximum([ratio, low, high], 0.0))
        effect[:, k] = ends[0], (ends[2] - ends[1]) / (2 * Z), ends[1], ends[2]
        of_top = combine(lambda a, b: a / b, entries[k], entries[top])
        apart = mean_interval_at(of_top, level)
        half = drawn(along_each[1 + k] - of_top.value * along_each[1 + top]) / values[top]
        low, high = widened(of_top.value, apart.low, apart.high, half)
        if not (entries[top].left_out > 0).all():  # the largest may be none
            low, high = 0.0, np.inf
        share[:, k] = of_top.value, apart.se, low, high
        if k == top:
            share[:, k] = 1.0, 0.0, 1.0, 1.0

    def named(columns: Array, method: str) -> Estimates:
        value, se, low, high = columns
        return Estimates(value, se, low, high, np.full(len(entries), n), method)

    return named(effect, "Fieller, of squared norms"), named(share, "paired jackknife of squares")
