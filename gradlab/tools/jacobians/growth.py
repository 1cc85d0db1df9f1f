"""Growth of products of A + B K along the rollout: how far a gradient can be chained.

    open loop  A_{t−1} ⋯ A_0        closed loop  M_{t−1} ⋯ M_0,   M = A + B K

With the largest exponent λ the product is multiplied by 10 every ln 10/λ steps, and the variance of
a gradient discounted by γ doubles every ln 2 / 2(λ + ln γ). The variance is a mean of squares and
so follows the fastest starts: the exponent of the mean square, ½ d/dt ln E σ_1², stands beside the
typical one. Steps whose Jacobian failed its certificate are passed over.
"""

from __future__ import annotations

from math import log

import numpy as np

from gradlab.gradients.visited_jacobians import Array, Visited
from gradlab.progress import Progress
from gradlab.runs.decision_rules import growth_of
from gradlab.runs.long_table import At, RowCollector, number
from gradlab.runs.profile import Profile
from gradlab.statistics import chains, over_groups
from gradlab.statistics.growth import FEWEST, error_growth
from gradlab.statistics.intervals import Z, jackknife_se
from gradlab.statistics.over_groups import Estimates

_FLOAT32 = log(float(np.finfo(np.float32).max))


def add_growth(rows: RowCollector, visited: Visited, discount: float, progress: Progress) -> None:
    """Sections growth, exponent, product, and the horizons that follow from them."""
    A, B = _parts(visited.true.J, visited)
    skip = ~visited.true.usable
    chained = {"closed": A + B @ visited.K, "open": A}
    for done, (loop, M) in enumerate(chained.items()):
        progress("products of Jacobians", done, 3)
        logs = chains.log_singular_values(M, skip)
        H, d = logs.shape[0] - 1, logs.shape[2]
        for k in range(d):
            means = over_groups.mean(_by_group(logs[:, :, k].T, visited))
            rows.add(
                "growth", "ln σ", means, At(block=loop, output=str(k + 1), step=np.arange(H + 1))
            )
        rates = chains.exponents(logs, skip)
        rate = over_groups.mean(_by_group(rates, visited))
        order = [str(k + 1) for k in range(rates.shape[1])]
        rows.add("exponent", "λ", rate, At(block=loop, output=order))
        _add_horizons(rows, loop, logs, rate, visited)
        if loop == "closed":
            _add_doubling(rows, logs, rate, discount, visited)
    progress("products of Jacobians", 2, 3)
    if visited.guess is not None:
        _add_product(rows, chained["closed"], visited)
    progress("products of Jacobians", 3, 3)


def add_measured_growth(rows: RowCollector, profile: Profile | None) -> None:
    """Doubling time of the variance as `measure` found it, for every estimator with a horizon."""
    if profile is None:
        return
    for name in profile.estimators:
        growth = None if profile.identities[name].data else growth_of(profile, name)
        if growth is not None:
            n, method = int(profile.config["starts"]), f"steps {growth.onset} to {growth.last}"
            doubling = _inverse(log(2), growth.slope, growth.low, growth.high, n, method)
            rows.add("horizon", "measured doubling of the variance", doubling, At(block=name))


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
    return {"condition_1": law.law, "condition_1_in_words": law.condition}


def _parts(J: Array, visited: Visited) -> tuple[Array, Array]:
    ds = visited.states.shape[2]
    return J[..., :ds, :ds], J[..., :ds, ds:]


def _by_group(values: Array, visited: Visited) -> Array:
    """Group means [G, ...] of values [N, ...]."""
    sizes = over_groups.group_sums(np.ones(len(values)), visited.group)
    sums = over_groups.group_sums(values, visited.group)
    return np.asarray(sums / sizes.reshape(-1, *[1] * (values.ndim - 1)))


def _add_horizons(
    rows: RowCollector, loop: str, logs: Array, rate: Estimates, visited: Visited
) -> None:
    """Steps per factor of ten (negative: it shrinks), and where float32 ends."""
    value, low, high = (float(end[0]) for end in (rate.value, rate.low, rate.high))
    n, H = int(rate.n[0]), len(logs) - 1
    steps = _inverse(log(10), value, low, high, n, rate.method)
    rows.add("horizon", "steps per factor of ten", steps, At(block=loop))
    curve = _by_group(logs[:, :, 0].T, visited).mean(0)
    beyond = np.flatnonzero(curve > _FLOAT32)
    if len(beyond):
        inside = number(float(beyond[0]), np.nan, np.nan, n, "reached")
        rows.add("horizon", "product leaves float32", inside, At(block=loop))
    elif low > 0:
        left = _FLOAT32 - float(curve[H])
        at, first, last = (H + left / end for end in (value, high, low))
        steps = number(at, first, last, n, "extrapolated")
        rows.add("horizon", "product leaves float32", steps, At(block=loop))


def _add_doubling(
    rows: RowCollector, logs: Array, rate: Estimates, discount: float, visited: Visited
) -> None:
    """Predicted doubling times of the variance, by the typical start and by the mean square."""
    n, shift = int(rate.n[0]), log(discount)
    square = _mean_square_exponent(logs, visited)
    rows.add("exponent", "λ of the mean square", number(*square, n, "jackknife"))
    typical = (float(rate.value[0]), float(rate.low[0]), float(rate.high[0]))
    for block, rates, method in (
        ("typical start", typical, rate.method),
        ("mean square", square, "jackknife"),
    ):
        value, low, high = (2 * (rate + shift) for rate in rates)
        doubling = _inverse(log(2), value, low, high, n, method)
        rows.add("horizon", "predicted doubling of the variance", doubling, At(block=block))


def _mean_square_exponent(logs: Array, visited: Visited) -> tuple[float, float, float]:
    """½ slope of ln E σ_1² over the second half of the window, with its interval."""
    H = len(logs) - 1
    ends = logs[[H // 2, H], :, 0]
    top = ends.max(1, keepdims=True)
    squares = over_groups.group_sums(np.exp(2 * (ends - top)).T, visited.group)

    def slope(sums: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = np.log(sums[..., 1]) - np.log(sums[..., 0])
        return np.asarray((0.5 * grown + top[1, 0] - top[0, 0]) / (H - H // 2))

    value = float(slope(squares.sum(0)))
    with np.errstate(invalid="ignore"):  # without the fastest start nothing may be left
        half = Z * jackknife_se(slope(squares.sum(0) - squares))
    return value, value - half, value + half


def _add_product(rows: RowCollector, closed: Array, visited: Visited) -> None:
    """Relative error of the model's chained product, and the last step at which it informs."""
    assert visited.guess is not None
    A, B = _parts(visited.guess.J, visited)
    errors = chains.product_error(closed, A + B @ visited.K, ~visited.kept)
    with np.errstate(divide="ignore"):
        logs = _by_group(np.log(errors).T, visited)
    medians = over_groups.median(logs)
    curves = [np.exp(end) for end in (medians.value, medians.low, medians.high)]
    shown = Estimates(curves[0], medians.se, curves[1], curves[2], medians.n, medians.method)
    rows.add("product", _RELATIVE, shown, At(step=np.arange(len(errors))))
    beyond = [np.flatnonzero(~(curve <= 1)) for curve in curves]
    value, high, low = (int(each[0]) - 1 if len(each) else len(errors) - 1 for each in beyond)
    last = number(value, low, high, int(medians.n[0]), medians.method)
    rows.add("horizon", "model's product informs", last)


_RELATIVE = "relative error"


def _inverse(scale: float, value: float, low: float, high: float, n: int, method: str) -> Estimates:
    """scale / rate with its interval, which is open (inf) where the rate's contains 0."""
    with np.errstate(divide="ignore"):
        centre = scale / np.float64(value)
    if low > 0 or high < 0:
        return number(float(centre), scale / high, scale / low, n, method)
    if not value > 0:
        return number(float(centre), -np.inf, scale / low if low else -np.inf, n, method)
    return number(float(centre), scale / high if high else np.inf, np.inf, n, method)
