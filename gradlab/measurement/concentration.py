"""Do few starts carry what was measured? Then no sample of N of them knows its variance.

Where 1 start in 100 carries half of E |G|², most samples hold too few of these: variance, error and
their intervals are too low at once; means and gains are covered (`reports/coverage`). No statistic
of a sample finds those that hold none: they look tame. So three squares x are asked,

    squared return      (J − median J)² of 10 N starts of their law, without a derivative
    end of the episode  1 where it comes within the steps that are rolled out, of the same starts
    squared gradient    |G|² of every cell, of the sample itself

x is *concentrated* for N starts where a hundredth of them carries 40% of Σ x and the mean of N is
not known to 35%: E x² / (E x)² > N / 8.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

import numpy as np
import torch

from gradlab.data.trajectories import child, stream
from gradlab.findings.finding import Decision, Finding
from gradlab.gradients.setting import Starts
from gradlab.measurement.inner_products import Measured
from gradlab.measurement.resolve import Resolved
from gradlab.progress import Progress
from gradlab.statistics.moments import Array
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.returns import Rollouts

HEAVY = 0.4  # share that 1 start in 100 may carry
_TAIL, _KNOWN = 0.01, 8.0
_MANY, _MOST, _ROWS = 10, 1 << 16, 8192  # rolled-out starts per start; in all; at once
_STEPS = 100  # of a roll-out, or twice the horizon
_STAGE = "concentration"


def concentration(posed: Resolved, measured: Measured, progress: Progress) -> tuple[Finding, ...]:
    """What is concentrated, or the largest share of a hundredth where nothing is; without others to
    draw, the most that one start carries. Nothing where no square varies."""
    n = measured.starts
    known = {
        f"squared gradients of {name} at h = {h}": cell.squares
        for (name, h), cell in measured.cells.items()
        if np.isfinite(cell.squares).all() and cell.squares.any()
    }
    if posed.drawn and (posed.objective or posed.config.law == "start"):
        asked = _returns(posed, n, progress) | known
        found = [concentrated(x, n, at) for at, x in asked.items() if x.any()]
    else:
        share = {at: float(x.max() / x.sum()) for at, x in known.items()}
        found = [Finding("starts_undrawn", "skipped", "", x, n=n, at=at) for at, x in share.items()]
    found.sort(key=lambda each: (each.decision != "fail", -each.value))
    return tuple(found[:1])


def concentrated(x: Array, n: int, at: str) -> Finding:
    """Whether few of them carry the sum of squares x [M] where N = n are measured."""
    share, scaled = largest_share(x), x / x.mean()
    spread = float(scaled @ scaled) / len(x)
    needed = 2.0 ** ceil(log2(_KNOWN * spread))
    few: Decision = "fail" if share > HEAVY and _KNOWN * spread > n else "pass"
    return Finding("starts_carry", few, "", share, threshold=needed, n=n, at=at)


def largest_share(squares: Array) -> float:
    """Share of their sum that the largest hundredth carries, part of one as such."""
    carried = np.sort(squares)[::-1]
    count = _TAIL * len(carried)
    whole = int(count)
    top = carried[:whole].sum() + (count - whole) * (carried[whole] if whole < len(carried) else 0)
    return float(top / carried.sum())


def _returns(posed: Resolved, n: int, progress: Progress) -> dict[str, Array]:
    """Squared deviations of more returns, and ends; a return that is lost is the largest."""
    setting, seed = posed.setting, child(posed.setting.seed, _STAGE)
    steps = min(effective_horizon(setting.discount), max(2 * setting.horizon, _STEPS))
    states = posed.task.starts(max(min(_MANY * n, _MOST), n), stream(seed, "starts")).double()
    J, ended = [], []
    for k, few in enumerate(torch.split(states, _ROWS)):
        part = Starts(few, torch.ones_like(few[:, 0]), torch.arange(len(few)))
        here = replace(setting, starts=part, horizon=steps, seed=child(seed, str(k)))
        rollouts = Rollouts(here, [(part, [])], _STAGE, progress)
        J.append(rollouts.until(steps)[0][0].numpy())
        ended.append(~rollouts.alive[0][0].numpy())
    returns, end = np.concatenate(J), np.concatenate(ended).astype(float)
    square = (returns - np.nanmedian(returns)) ** 2
    lost = ~np.isfinite(square)
    square[lost] = square[~lost].max(initial=0.0)
    return {"squared returns": square, "ends of episodes": end}
