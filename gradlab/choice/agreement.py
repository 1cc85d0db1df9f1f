"""How far estimators agree where there is no truth: cosines of their mean gradients.

Agreement is no accuracy: estimators that share a model or a critic share its error.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Agreement, Cell
from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.kernels import Kernels
from gradlab.statistics.moments import estimates


def agreement(profile: Profile, among: Candidates) -> tuple[Agreement, ...]:
    """Of every pair of competitors at horizons 1, the middle and the longest that both have."""
    if among.kernels is None:
        return ()
    found = []
    for first, second in combinations(among.names, 2):
        for cells in _pairs(among.kernels, first, second):
            each = _agreement(profile, among.kernels, *cells)
            if each is not None:
                found.append(each)
    return tuple(found)


def _pairs(kernels: Kernels, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """The same horizon for both; J_0 beside every horizon of the other."""
    own = {name: [h for other, h in kernels.cells if other == name] for name in (first, second)}
    if own[first] == [0]:
        return [((first, 0), (second, h)) for h in _few(own[second])]
    return [((first, h), (second, h)) for h in _few(sorted(set(own[first]) & set(own[second])))]


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
