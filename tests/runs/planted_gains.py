"""Realised gains per length of step, made by formula."""

from __future__ import annotations

import numpy as np

from gradlab.runs.one_step import TRUE_CELL
from gradlab.runs.realised import Realised

LENGTHS = np.array([0.1, 0.3])


def planted(slopes, noise=0.3, bend=0.0, truth=True, groups=64, **changed) -> Realised:
    """Gains per length of `slopes` (the truth's is 1), less `bend` · length²; groups of one."""
    generator = np.random.default_rng(0)
    cells = ([TRUE_CELL] if truth else []) + list(slopes)
    values = ([1.0] if truth else []) + list(slopes.values())
    draws = noise * generator.standard_normal((len(cells), 1, groups))
    draws -= draws.mean(axis=2, keepdims=True)
    slope = np.array(values)[:, None, None] + draws
    curved = bend * LENGTHS[:, None] ** 2
    gain = slope * LENGTHS[:, None] - curved
    opposite = (-slope * LENGTHS[:, None] - curved)[0] if truth else np.zeros((0, groups))
    plain = dict(
        cells=tuple(cells), status=("stepped",) * len(cells), gain=gain, opposite=opposite,
        before=np.full(groups, -3.0), size=np.ones(groups), lengths=LENGTHS, moves=(0.01, 0.03),
        kept=np.ones(len(cells)), norm=1.0 if truth else float("nan"), horizon=40,
        termination="ignore", ended=0.0, steps=1000,
    )  # fmt: skip
    return Realised(**(plain | changed))
