"""Realised gains per length of step, and rehearsals, made by formula."""

from __future__ import annotations

import numpy as np

from gradlab.runs.jumps import Jumps
from gradlab.runs.realised import TRUE_CELL, Realised
from gradlab.runs.rehearsal import Rule, judged

LENGTHS = np.array([0.1, 0.4, 1.2])
UPDATES = (1, 2, 5, 10, 25)
TRIALS = 3  # candidates that fresh draws are to confirm, at most
RULE = Rule("adam", 1e-3, True, 25, 256, 100, "ignore", 1000)


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
    plain = dict(
        cells=tuple(cells), status=("stepped",) * len(cells), gain=gain, at=1,
        before=np.full(groups, -3.0), size=np.ones(groups), lengths=LENGTHS,
        moves=(0.01, 0.04, 0.12), kept=np.ones(len(cells)), norm=1.0 if truth else float("nan"),
        horizon=40, termination="ignore", ended=0.0, steps=1000,
    )  # fmt: skip
    return Realised(**(plain | changed))


def planted_jumps(kind: str = "harmful", **changed) -> Jumps:
    """Promised 104, brought 13 at every length."""
    three, far = np.ones(3), kind in ("harmful", "rough")
    gap = -0.875 * three if far else 0.01 * three
    found = kind in ("harmful", "harmless", "open")
    plain = dict(
        kind=kind, moves=np.array([0.01, 0.04, 0.12]), lengths=LENGTHS, promised=104.0,
        brought=104 * (1 + gap), gap=gap, gap_low=gap - 0.05, gap_high=gap + 0.05, spread=2.0,
        roughness=1.0, tried=24, starts=np.arange(9 * found),
        states=np.full((9 * found, 2), 0.5), sizes=np.full(9 * found, 5.0),
        at=np.full(9 * found, 21), missing=0, samples=128, horizon=40, steps=1000,
    )  # fmt: skip
    return Jumps(**(plain | changed))


def planted_rehearsal(changes, noise=0.5, groups=64, again=None, draws=2):
    """Changes of the return after each length, in every draw the same but for the noise of one
    start, which has no mean; those that lead do in four fresh draws what `again` says, if it does,
    until one is confirmed."""
    found = followed_once(changes, noise, groups, draws)
    said = {cell: (again or {}).get(cell, means) for cell, means in changes.items()}
    fresh = np.random.default_rng(2).standard_normal(4)
    fresh = noise / groups**0.5 * (fresh - fresh.mean()) / fresh.std(ddof=1)
    for place, updates in list(found.leading.items())[:TRIALS]:
        means = np.array(said[found.cells[place]], dtype=float)
        means[np.array(UPDATES) > updates] = np.nan
        found = found.retried(place, means[:, None] + fresh, groups, found.horizon)
        if found.chosen is not None:
            break
    return found


def followed_once(changes, noise=0.5, groups=64, draws=2):
    """The same before any fresh draw."""
    shape = len(changes), 1, draws, groups // draws
    spread = noise * np.random.default_rng(1).standard_normal(shape)
    spread = (spread - spread.mean(axis=3, keepdims=True)).reshape(len(changes), 1, groups)
    change = np.array(list(changes.values()), dtype=float)[:, :, None] + spread
    draw = np.repeat(np.arange(draws), groups // draws)
    one = np.ones(groups)
    return judged(list(changes), UPDATES, change, 0 * one, one, RULE, draw)
