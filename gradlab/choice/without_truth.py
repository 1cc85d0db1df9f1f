"""Candidates without a truth: realised gains, and mutual agreement.

Realised gains need no derivative of the simulator; the best possible gain stays unknown, and cells
that were not stepped along are not judged. Agreement is the cosine of two mean gradients, and no
accuracy: estimators that share a model or a critic share its error.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Agreement, Cell, Steps, Tried
from gradlab.errors import InputError
from gradlab.runs.one_step import TRUE_CELL
from gradlab.runs.profile import Profile
from gradlab.runs.realised import Realised
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.kernels import Kernels
from gradlab.statistics.moments import estimates


def tried(profile: Profile, among: Candidates) -> tuple[Steps, Tried] | None:
    """None where no competitor was stepped along."""
    realised = _only(profile.realised, among) if profile.realised is not None else None
    best = None if realised is None else realised.best()
    if realised is None or best is None:
        return None
    steps = Steps(
        raises=tuple(cell for cell in realised.stepped if realised.helps(cell)),
        lowers=tuple(cell for cell in realised.stepped if realised.harms(cell)),
        realised=True,
    )
    return steps, Tried(
        best, realised.not_excluded(), realised.change(best).value, realised.ends(best)
    )


def _only(realised: Realised, among: Candidates) -> Realised:
    """Of the competitors' cells, and the truth's."""
    here = [
        k for k, cell in enumerate(realised.cells) if cell == TRUE_CELL or cell[0] in among.names
    ]
    return replace(
        realised,
        cells=tuple(realised.cells[k] for k in here),
        status=tuple(realised.status[k] for k in here),
        gain=realised.gain[np.array(here, dtype=int)],
        kept=realised.kept[np.array(here, dtype=int)],
    )


def agreement(profile: Profile, among: Candidates) -> tuple[Agreement, ...]:
    """Of every pair of competitors at horizons 1, the middle and the longest that both have."""
    if among.kernels is None:
        return ()
    agreements = []
    for first, second in combinations(among.names, 2):
        for cells in _pairs(among.kernels, first, second):
            each = _agreement(profile, among.kernels, *cells)
            if each is not None:
                agreements.append(each)
    return tuple(agreements)


def _pairs(kernels: Kernels, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """The same horizon for both; J_0 beside every horizon of the other."""
    horizons = {
        name: [h for other, h in kernels.cells if other == name] for name in (first, second)
    }
    if horizons[first] == [0]:
        return [((first, 0), (second, h)) for h in _few(horizons[second])]
    return [
        ((first, h), (second, h))
        for h in _few(sorted(set(horizons[first]) & set(horizons[second])))
    ]


def _few(horizons: list[int]) -> list[int]:
    long = [h for h in horizons if h > 0]
    return sorted({long[0], long[len(long) // 2], long[-1]}) if long else []


def _agreement(profile: Profile, kernels: Kernels, first: Cell, second: Cell) -> Agreement | None:
    try:
        moments = mixture_moments(kernels.grams([first], truth=second), np.ones(1))
    except InputError:  # gradients that are not finite
        return None
    cosine = estimates(moments, profile.batch)["cosine"]
    return Agreement(first, second, cosine.value, interval("cosine", cosine))
