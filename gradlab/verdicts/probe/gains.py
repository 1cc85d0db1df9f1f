"""What a probe's newest measurement says about the next step, as `Facts`.

At states that the policy visits, the matched truth of first-action gradients is the gradient of
the return, E_ν[J_θπᵀ ∂_a Q^π] = (1 − γ) ∇_θ E_ζ[V^π]: the cosine with it is the gain of a step.
"""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import scipy

from gradlab.runs.competing import best_shown
from gradlab.runs.identity import by_default, competing
from gradlab.runs.probe.measured_columns import LAW
from gradlab.runs.probe.results import ProbeRun
from gradlab.statistics.intervals import Z
from gradlab.statistics.number import Number
from gradlab.statistics.selection import COVERAGE
from gradlab.verdicts.facts import Cell, Facts


def facts_of(run: ProbeRun) -> Facts | None:
    """None where nothing was measured on a task, or at the starts, as earlier versions did."""
    if not run.measured or run.config.get("law") != LAW:
        return None
    row = {name: column[-1] for name, column in run.measured.items()}
    starts = int(row["starts"])
    gains: dict[Cell, Number] = {}
    identities = by_default(run.estimators)
    for e, name in enumerate(run.estimators):
        for h in range((run.horizon or 0) + 1):
            value, low, high = (float(row[f"cosine{end}"][e, h]) for end in ("", "_low", "_high"))
            if np.isfinite([value, low, high]).all() and (h or identities[name].data):
                gains[name, h] = Number(value, low, high, starts)
    known = {name: each for name, each in identities.items() if any(n == name for n, _ in gains)}
    own = competing(known)
    best = best_shown(gains, [cell for cell in gains if cell[0] in own])
    kept = _kept(gains, own, best)
    return Facts(
        samples=starts,
        seconds=nan,
        batch=int(row["batch"]),
        law=LAW,
        truth="converged" if gains else "none",
        why="no admissible truth at the newest measurement",
        own=own,
        identities=identities,
        gains=gains,
        batch_gains={},
        errors={},
        cosines=gains,
        best=best,
        chosen=None if best is None else _chosen(gains[best], len(kept)),
        kept=kept,
        realised=None,
        disagreements=(),
        failed=(),
    )


def _kept(gains: dict[Cell, Number], own: tuple[str, ...], best: Cell | None) -> tuple[Cell, ...]:
    """Cells whose interval reaches that of the best: a row keeps nothing that is paired."""
    if best is None:
        return ()
    reach = gains[best].low
    return tuple(cell for cell in gains if cell[0] in own and gains[cell].high >= reach)


def _chosen(gain: Number, among: int) -> Number:
    """Its interval at the level that holds for all that may be best at once (Šidák), as if
    independent: a row keeps nothing that is paired."""
    wider = scipy.stats.norm.ppf((1 + COVERAGE ** (1 / among)) / 2) / Z
    low = gain.value - wider * (gain.value - gain.low)
    high = gain.value + wider * (gain.high - gain.value)
    return replace(gain, low=max(low, -1.0), high=min(high, 1.0))
