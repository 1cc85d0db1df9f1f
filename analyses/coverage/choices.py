"""Coverage of what is chosen, and of medians over seeds.

chosen   the smallest mean squared error of 13 estimators and horizons in linear-quadratic worlds,
         at the level that `selection.chosen_level` gives it, and at 97.5% as if it had been the
         only one
seeds    the median over five Gaussian seeds, all there or each lost with 1 in 5, by
         `seeds.aggregate`; what it promises is 94%
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.cells import Hits, lq_known
from analyses.coverage.synthetic import pairs
from gradlab.statistics.intervals import LEVEL, interval
from gradlab.statistics.moments import Estimate, Moments, estimates
from gradlab.statistics.over_groups import aggregate
from gradlab.statistics.selection import chosen_level, smallest

HORIZONS = (1, 2, 3, 5, 8, 25)
WORLDS = (lq.WORLDS[0], lq.WORLDS[2], lq.WORLDS[3])
SEEDS, LOST, WORST = 5, 0.2, -1e9


def chosen_cells(n: int, repetitions: int) -> Iterator[pd.DataFrame]:
    for k, world in enumerate(WORLDS):
        M = lq.action_gradients(world, HORIZONS)
        truth = M.pop("truth")
        known = [lq_known(world, m, truth, n)["mse"] for m in M.values()]
        rng = np.random.default_rng([5, n, k])
        hits = [Hits(name, 0.0) for name in ("mse of the chosen", "the same as if not chosen")]
        for _ in range(repetitions):
            drawn = lq.drawn(world, M | {"truth": truth}, n, rng)
            errors = [_error(drawn[name], drawn["truth"], n) for name in M]
            ranks = smallest(errors)
            levels = chosen_level(errors, ranks.kept), LEVEL
            for each, level in zip(hits, levels, strict=True):
                ends = interval("mse", errors[ranks.best], level)
                each.add(ends.low / known[ranks.best] - 1, ends.high / known[ranks.best] - 1)
        rows = pd.DataFrame([each.row() for each in hits])
        yield rows.assign(family="chosen", tails=world.name, n=n, cell=f"{len(M)} candidates")


def _error(G: lq.Array, T: lq.Array, batch: int) -> Estimate:
    squares, ones = (G**2).sum(axis=1), np.ones(len(G))
    sums = pairs(G, G), pairs(T, T), pairs(G - T, G - T), pairs(G, T)
    return estimates(Moments(ones, squares, *sums), batch)["mse"]


def seeds_cells(repetitions: int) -> Iterator[pd.DataFrame]:
    rng = np.random.default_rng(6)
    for cell, lost in (("all five there", 0.0), ("one in five lost", LOST)):
        values = rng.normal(size=(repetitions, SEEDS))
        values[rng.random(values.shape) < lost] = np.nan
        # A lost seed is the worst there is: the median is at ½ − lost of the others' law.
        known = float(stats.norm.ppf((0.5 - lost) / (1 - lost)))
        found = aggregate(values, worst="low")
        hits = Hits("median of seeds", known)
        ends = (np.nan_to_num(end, nan=WORST) for end in (found.low, found.high))
        for low, high in zip(*ends, strict=True):
            hits.add(low, high)
        row = hits.row() | {"width": np.nan}
        yield pd.DataFrame([row]).assign(family="seeds", tails="five", n=SEEDS, cell=cell)
