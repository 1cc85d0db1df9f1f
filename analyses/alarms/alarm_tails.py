"""Do Student's quantiles hold as far out as alarms go, with 64 starts and heavy tails?

    python -m analyses.alarms.alarm_tails [--repetitions 5000] [--output reports/alarms]

Every statistic of `gradlab.probe.alarms.task` with its jackknife error, from synthetic starts at
the border of its hypothesis: how often is it beyond t(level, 63), in the alarm's direction?

critic gap    U(b_c) − ½ U(b_m), |b_c|² = ½ |b_m|² of `ratio` times the noise tr Σ/N
over data     ln of two MSE of equal expectation, correlated 0.5
direction     cosine of two means at a right angle, the true one of `ratio` times the noise
value         a mean;   drift: ln of a root ratio of sums of squares, against another 64 starts

Tails: Gaussian; Student's t with 4 degrees of freedom; lognormal sizes, σ = 0.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy import stats

from gradlab.statistics.moments import Array

N, D, BATCH, BLOCK = 64, 5, 256, 1000
LEVELS = (0.005, 0.001, 0.0001)  # of looks 1, 3 and 10
TAILS = ("gaussian", "t4", "lognormal")
RATIOS = (0.3, 3.0, 30.0)
Estimated = tuple[Array, Array]  # values [R] and left-out values [R, N]


def noise(rng: np.random.Generator, tails: str) -> Array:
    """[BLOCK, N, D] of covariance I."""
    found = rng.standard_normal((BLOCK, N, D))
    if tails == "t4":
        return np.asarray(found / np.sqrt(rng.chisquare(4, (BLOCK, N, 1)) / 2))
    if tails == "lognormal":
        return np.asarray(found * np.exp(0.8 * rng.standard_normal((BLOCK, N, 1)) - 0.64))
    return found


def squared_norm(X: Array) -> Estimated:
    """U of |E X|²."""
    S, own = X.sum(1), (X**2).sum(2)
    total = own.sum(1)
    left = ((S[:, None] - X) ** 2).sum(2) - (total[:, None] - own)
    return ((S**2).sum(1) - total) / (N * (N - 1)), left / ((N - 1) * (N - 2))


def mean(x: Array) -> Estimated:
    total = x.sum(1)
    return total / N, (total[:, None] - x) / (N - 1)


def mapped(f: Callable[..., Array], *found: Estimated) -> Estimated:
    with np.errstate(invalid="ignore", divide="ignore"):
        return f(*(each[0] for each in found)), f(*(each[1] for each in found))


def studentised(found: Estimated) -> Array:
    """Estimate over jackknife error; NaN where either is unknown."""
    value, left = found
    with np.errstate(invalid="ignore"):
        error = np.sqrt((N - 1) / N * ((left - left.mean(1, keepdims=True)) ** 2).sum(1))
        return np.asarray(value / error)


def critic_gap(rng: np.random.Generator, tails: str, ratio: float) -> Array:
    common, size = noise(rng, tails), np.sqrt(ratio * D / N)
    critic, model = (0.7 * common + 0.7 * noise(rng, tails) for _ in range(2))
    critic[..., 0] += size / np.sqrt(2)
    model[..., 1] += size
    gap = mapped(lambda c, m: c - m / 2, squared_norm(critic), squared_norm(model))
    return studentised(gap)


def over_data(rng: np.random.Generator, tails: str, ratio: float) -> Array:
    common, size = noise(rng, tails), np.sqrt(ratio * D / N)

    def error(axis: int) -> Estimated:
        X = 0.7 * common + 0.7 * noise(rng, tails)
        X[..., axis] += size
        squares, bias2 = mean((X**2).sum(2)), squared_norm(X)
        return mapped(lambda b, s: b + (s - b) / BATCH, bias2, squares)

    logs = mapped(lambda a, b: np.log(a) - np.log(b), error(0), error(1))
    return studentised(logs)


def direction(rng: np.random.Generator, tails: str, ratio: float) -> Array:
    common, size = noise(rng, tails), np.sqrt(ratio * D / N)
    model, true = (0.7 * common + 0.7 * noise(rng, tails) for _ in range(2))
    model[..., 0] += size
    true[..., 1] += size
    both = squared_norm(model + true)
    norms = squared_norm(model), squared_norm(true)
    cosine = mapped(lambda b, m, t: (b - m - t) / 2 / np.sqrt(m * t), both, *norms)
    return -studentised(cosine)


def value(rng: np.random.Generator, tails: str, ratio: float) -> Array:
    return studentised(mean(noise(rng, tails)[..., 0]))


def drift(rng: np.random.Generator, tails: str, ratio: float) -> Array:
    """Against an independent measurement: the errors add."""

    def size() -> Estimated:
        errors, sizes = (mean((noise(rng, tails) ** 2).sum(2)) for _ in range(2))
        return mapped(lambda e, s: 0.5 * np.log(e / s), errors, sizes)

    (a, left_a), (b, left_b) = size(), size()
    var_a, var_b = (
        (N - 1) / N * ((left - left.mean(1, keepdims=True)) ** 2).sum(1)
        for left in (left_a, left_b)
    )
    return np.asarray((a - b) / np.sqrt(var_a + var_b))


TESTS: dict[str, tuple[Callable[[np.random.Generator, str, float], Array], tuple[float, ...]]] = {
    "critic gap": (critic_gap, RATIOS),
    "over data": (over_data, RATIOS),
    "direction": (direction, RATIOS),
    "value": (value, (0.0,)),
    "drift": (drift, (0.0,)),
}


def rows(repetitions: int) -> Iterator[dict[str, object]]:
    for name, (draw, ratios) in TESTS.items():
        for tails in TAILS:
            for ratio in ratios:
                rng = np.random.default_rng([len(name), TAILS.index(tails), round(10 * ratio)])
                z = np.concatenate(
                    [draw(rng, tails, ratio) for _ in range(-(-repetitions // BLOCK))]
                )
                row: dict[str, object] = {"statistic": name, "tails": tails, "ratio": ratio}
                for level in LEVELS:
                    row[f"{level:g}"] = float((z > stats.t.isf(level, N - 1)).mean())
                yield row | {"repetitions": len(z)}


def main(repetitions: int = 5000, output: Path = Path("reports/alarms")) -> None:
    """Writes one row per statistic, tails and ratio."""
    table = pd.DataFrame(rows(repetitions))
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "tails.csv", index=False, float_format="%.5g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
