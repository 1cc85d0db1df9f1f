"""Exactness of the simulator's own Jacobians: errors per block, share that failed, first loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.jacobians.rows import At, Rows, number
from gradlab.jacobians.visited import Blocks, Flags, Visited
from gradlab.statistics import over_groups
from gradlab.systems.system import BLOCKS

QUANTILES = {"median": 0.5, "95th percentile": 0.95, "largest": 1.0}


def add_certificate(rows: Rows, visited: Visited) -> None:
    """Estimated relative error per block over unflagged samples, and shares along the rollout."""
    true, kept = visited.true, visited.true.usable
    for block in BLOCKS:
        errors = true.errors[block][kept]
        for name, quantile in QUANTILES.items():
            value = float(np.quantile(errors, quantile)) if errors.size else np.nan
            estimate = number(value, np.nan, np.nan, errors.size, "certificate")
            rows.add("certificate", name, estimate, At(block=block))
    flags = {"flagged": true.flags & true.finite, "not finite": ~true.finite}
    if visited.guess is not None:
        flags["model not finite"] = ~visited.guess.finite
    H = len(true.flags)
    for name, flag in flags.items():
        rows.add("certificate", f"{name} share", _share(flag.mean(0, keepdims=True), visited))
        rows.add("time", f"{name} share", _share(flag, visited), At(step=np.arange(H)))
    terminal = ~visited.alive[:-1]
    rows.add("time", "terminated share", _share(terminal, visited), At(step=np.arange(H)))


def counts(visited: Visited) -> dict[str, Any]:
    """Masked samples, and the first loss by name of start and step."""
    notes: dict[str, Any] = {
        "derivatives": "exact" if visited.true.step is None else "central differences",
        "samples": int(visited.kept.size),
        "compared": int(visited.kept.sum()),
        "flagged": int((visited.true.flags & visited.true.finite).sum()),
    }
    step = visited.true.step
    if step is not None:
        largest = float(np.nanmax(step))
        notes |= {"step": largest, "retried": int((step < largest).sum())}
    for name, blocks in (("simulator", visited.true), ("model", visited.guess)):
        if blocks is not None:
            notes[f"{name}_not_finite"] = int((~blocks.finite).sum())
            notes[f"{name}_first_loss"] = _first_loss(blocks)
    return notes


def _first_loss(blocks: Blocks) -> str:
    lost = np.argwhere(~blocks.finite)
    if not len(lost):
        return ""
    t, i = lost[0]
    output = int(np.argwhere(~np.isfinite(blocks.J[t, i]))[0, 0])
    return f"step {t}, start {i}, output {output}"


def _share(flags: Flags | Any, visited: Visited) -> over_groups.Estimates:
    """Share of flagged samples [K, N] with its interval over groups."""
    per_start = np.asarray(flags, dtype=np.float64).T
    sizes = over_groups.group_sums(np.ones(len(per_start)), visited.group)
    shares = over_groups.mean(over_groups.group_sums(per_start, visited.group) / sizes[:, None])
    low, high = np.clip(shares.low, 0, 1), np.clip(shares.high, 0, 1)
    return over_groups.Estimates(shares.value, shares.se, low, high, shares.n, shares.method)
