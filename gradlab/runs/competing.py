"""Comparisons among the gradients that compete for a recommendation (`runs.identity.competing`).

A better gradient that needs the simulator's states is named beside the recommendation; the
simulator's own gradients never are, which are good by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.identity import Identity, data_of
from gradlab.statistics.comparison import Number, difference
from gradlab.statistics.intervals import LEVEL, interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.selection import chosen_level

_Cell = tuple[str, int]
CLOSE = 0.9  # share of the best gain that counts as the same in practice
_NOTABLE = 0.03  # of the possible gain, from which on a difference is shown


def is_data_again(identities: Mapping[str, Identity], cell: _Cell) -> bool:
    """Horizon 0 of a gradient with θ in the first action is the data gradient once more."""
    data = data_of(identities)
    return cell[1] == 0 and data not in (None, cell[0]) and identities[cell[0]].actions == "first"


def run_around(at: int, good: Collection[int]) -> list[int]:
    """The unbroken run of good horizons around one; itself where its neighbours are not."""
    low = high = at
    while low - 1 in good:
        low -= 1
    while high + 1 in good:
        high += 1
    return list(range(low, high + 1))


def best_shown(gains: Mapping[_Cell, Number], cells: Sequence[_Cell]) -> _Cell | None:
    """The largest gain that is shown to be one, else the largest."""
    shown = [cell for cell in cells if gains[cell].low > 0]
    return max(shown or cells, key=lambda cell: gains[cell].value, default=None)


def chosen_gain(
    gain: Number, estimates: Sequence[Estimate], kept: NDArray[np.bool_], place: int
) -> Number:
    """A gain with an interval that holds in 95% although it was chosen for its estimate.

    A file has no parts of cosines: what the level adds is that of the interval without them.

    `estimates`: of all that competed; `kept`: which may be the best; `place`: of the gain.
    """
    among = kept | (np.arange(len(estimates)) == place)
    level = chosen_level(estimates, among)
    plain, wider = (interval("gain", estimates[place], at) for at in (LEVEL, level))
    low, high = gain.low + wider.low - plain.low, gain.high + wider.high - plain.high
    return replace(gain, low=max(low, -1.0), high=min(high, 1.0))


def better_beyond(
    best: _Cell, beyond: Sequence[_Cell], gain: Callable[[_Cell], Estimate]
) -> _Cell | None:
    """The cell of largest gain beyond the competition, where it is shown to gain, and notably more.

    Args:
        beyond: cells with a finite gain; gain: the estimate of a cell.
    """
    # At h = 0 no gradient needs the simulator's states: it is the critic alone.
    among = [cell for cell in beyond if cell[1]]
    top = max(among, key=lambda cell: gain(cell).value, default=None)
    if top is None:
        return None
    ahead = difference(gain(top), gain(best))
    notable = gain(top).value > max(gain(best).value + _NOTABLE, 0.0)
    return top if ahead.low > 0 and notable else None
