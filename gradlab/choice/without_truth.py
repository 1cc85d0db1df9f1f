"""Candidates without a truth: realised gains, and mutual agreement.

Realised gains need no derivative of the simulator; the best possible gain stays unknown, and cells
that were not stepped along are not judged. Agreement is the cosine of two mean gradients, and no
accuracy: estimators that share a model or a critic share its error.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Agreement, Cell, Steps, Tried
from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.kernels import Kernels
from gradlab.statistics.moments import estimates


def tried(profile: Profile, among: Candidates) -> tuple[Steps, Tried] | None:
    """None where no competitor was stepped along."""
    realised = profile.realised
    if realised is not None:
        only = realised.of_competing if among.excluded else realised.among
        realised = only(among.names)
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


def agreement(profile: Profile, among: Candidates) -> tuple[Agreement, ...]:
    """Of every pair of competitors, and of gradients along the simulator's states, at horizons 1,
    the middle and the longest that both have."""
    if among.kernels is None:
        return ()
    agreements = []
    beside = [name for name in among.excluded if profile.identities[name].needs_states]
    shown = [name for name in profile.estimators if name in (*among.names, *beside)]
    for first, second in combinations(shown, 2):
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
