"""Cells of the coverage campaign whose gradients are drawn directly (`analyses.coverage`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.synthetic import TAILS, drawn_batch_cosine, moments, pairs, planted
from gradlab.statistics.growth import variance_growth
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import (
    Estimate,
    Moments,
    combine,
    estimates,
    pair_mean,
    sample_mean,
)

CELLS = [(0.0, 1.0), (1.0, 1.0), (30.0, 1.0), (1.0, 0.1), (30.0, 0.1)]
ROUNDING = 1e-9  # of a cosine that is exactly 1
HORIZONS = np.arange(1.0, 26.0)  # of growth
UNSTABLE = lq.scalar("growing", noise=0.01, steps=25, prior=1.25)
Sampler = Callable[[], Moments]


class Hits:
    """Which intervals of one quantity held the known value, and on which side the others were."""

    def __init__(self, quantity: str, known: float) -> None:
        self.quantity, self.known = quantity, known
        self.sides: list[tuple[bool, bool]] = []
        self.widths: list[float] = []
        self.lost = 0

    def add(self, low: float, high: float) -> None:
        """An interval that is everything counts as held, and is counted as lost."""
        undefined = bool(np.isnan(low))
        self.lost += undefined
        above, below = low - ROUNDING > self.known, high + ROUNDING < self.known
        self.sides.append((bool(above) and not undefined, bool(below) and not undefined))
        self.widths.append(high - low)

    def row(self, flagged: float = 0.0) -> dict[str, object]:
        """`above`, `below`: shares of intervals that are above or below the known value."""
        above, below = np.mean(self.sides, axis=0)
        return {
            "quantity": self.quantity,
            "known": self.known,
            "coverage": 1 - above - below,
            "above": above,
            "below": below,
            "width": np.nan if np.isnan(self.widths).all() else float(np.nanmedian(self.widths)),
            "lost": self.lost / len(self.sides),
            "flagged": flagged,
            "repetitions": len(self.sides),
        }


def covered(
    sample: Sampler, known: dict[str, float], batch: int, repetitions: int, flagged: float = 0.0
) -> pd.DataFrame:
    """One row per quantity."""
    hits = [Hits(name, value) for name, value in known.items()]
    for _ in range(repetitions):
        found = estimates(sample(), batch)
        for each in hits:
            ends = interval(each.quantity, found[each.quantity])
            each.add(ends.low, ends.high)
    return pd.DataFrame([each.row(flagged) for each in hits])


def planted_cells(n: int, tails: str, repetitions: int) -> Iterator[pd.DataFrame]:
    rng = np.random.default_rng([0, n, TAILS.index(tails)])
    for ratio, size in CELLS:

        def sample(ratio: float = ratio, size: float = size) -> Moments:
            data = planted(rng, n, ratio=ratio, size=size, tails=tails)
            return moments(data.G, data.T)

        one = planted(np.random.default_rng(0), n, ratio=ratio, size=size, tails=tails)
        cosine = drawn_batch_cosine(one.mean, one.truth, np.diag(one.scale), n)
        known = one.known | {"cosine_batch": cosine}
        found = covered(sample, known, n, repetitions)
        yield found.assign(family="planted", tails=tails, n=n, cell=f"rho {ratio:g}, truth {size}")


def lq_cells(n: int, world: lq.World, repetitions: int) -> Iterator[pd.DataFrame]:
    M = lq.action_gradients(world)
    truth = M.pop("truth")
    many = lq.drawn(world, M, 200_000, np.random.default_rng(1))
    for k, (name, m) in enumerate(M.items()):
        rng = np.random.default_rng([1, n, lq.WORLDS.index(world), k])

        def sample(m: lq.Array = m, rng: np.random.Generator = rng) -> Moments:
            data = lq.drawn(world, {"G": m, "T": truth}, n, rng)
            return moments(data["G"], data["T"])

        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(many[name].T)))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        known = lq_known(world, m, truth, n)
        known["cosine_batch"] = drawn_batch_cosine(
            lq.mean_of(world, m), lq.mean_of(world, truth), root, n
        )
        found = covered(sample, known, n, repetitions)
        yield found.assign(family="lq", tails=world.name, n=n, cell=name)


def lq_known(world: lq.World, m: lq.Array, truth: lq.Array, batch: int) -> dict[str, float]:
    mean, true, trace = lq.mean_of(world, m), lq.mean_of(world, truth), lq.trace_of(world, m)
    bias2 = float(((mean - true) ** 2).sum())
    norms = np.linalg.norm(mean), np.linalg.norm(true)
    return {
        "mean_norm": float(norms[0]),
        "variance": trace,
        "bias2": bias2,
        "mse": bias2 + trace / batch,
        "relative_mse": float((bias2 + trace / batch) / norms[1] ** 2),
        "cosine": float(mean @ true / norms[0] / norms[1]),
        "sign_agreement": float((np.sign(mean) == np.sign(true)).mean()),
        "snr": float(norms[0] ** 2 / trace),
    }


def growth_cells(
    n: int, repetitions: int, world: lq.World = UNSTABLE, flagged: float = 0.0
) -> pd.DataFrame:
    """Coverage of the slope of log variance on the stretch that each repetition chooses."""
    M = lq.action_gradients(world, tuple(int(h) for h in HORIZONS))
    models = {name: m for name, m in M.items() if name.startswith("model")}
    exact = np.log([lq.trace_of(world, m) for m in models.values()])
    rng = np.random.default_rng([2, n])
    hits = Hits("growth", 0.0)  # of what is left of the slope of the stretch
    for _ in range(repetitions):
        drawn = lq.drawn(world, models, n, rng)
        variance = [_variance(G) for G in drawn.values()]
        growth = variance_growth(
            HORIZONS,
            np.array([v.value for v in variance]),
            np.stack([v.left_out for v in variance]),
        )
        assert growth is not None
        stretch = slice(growth.onset - 1, growth.last)
        slope = np.polyfit(HORIZONS[stretch], exact[stretch], 1)[0]
        hits.add(growth.low - slope, growth.high - slope)
    whole = float(np.polyfit(HORIZONS, exact, 1)[0])
    row = hits.row(flagged) | {"known": whole, "family": "growth", "tails": world.name, "n": n,
                               "cell": "model 1 … 25"}  # fmt: skip
    return pd.DataFrame([row])


def _variance(G: lq.Array) -> Estimate:
    """Without the other quantities: a fifth of the time."""
    sums = pairs(G, G)
    norm2 = pair_mean(sums, np.ones(len(G)))
    mean2 = sample_mean(sums.own, np.ones(len(G)))
    return combine(lambda m, u: m - u, mean2, norm2)
