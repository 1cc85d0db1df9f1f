"""The best estimator and horizon by one criterion, and all that the samples cannot rule out."""

from __future__ import annotations

import numpy as np

from gradlab.choice.candidates import Candidates, is_finite
from gradlab.choice.values import QUANTITY, Best, Cell, Criterion, Parting, Steps
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import interval
from gradlab.statistics.selection import (
    RankSet,
    chosen_level,
    largest,
    separations,
    signs,
    smallest,
)

SAME = 1e-9  # share of a value below which a difference is rounding


def best(profile: Profile, among: Candidates, criterion: Criterion) -> Best | None:
    """None where no candidate has a finite value."""
    cells, quantity = among.cells, QUANTITY[criterion]
    if not any(is_finite(profile, cell, quantity) for cell in cells):
        return None
    ranks = _ranked(profile, cells, criterion)
    winner = cells[ranks.best]
    value = profile.estimate(winner[0], quantity, winner[1])
    return Best(
        criterion=criterion,
        cell=winner,
        value=value.value,
        interval=interval(quantity, value, _level(profile, cells, quantity, ranks)),
        candidates=cells,
        ranks=ranks,
        kept=_members(cells, ranks),
        horizons={name: _alone(profile, among, name, criterion) for name in among.names},
        unknown=tuple(cell for cell, lost in zip(cells, ranks.unknown, strict=True) if lost),
        partings=_partings(cells, ranks, int(profile.config["starts"])),
    )


def _level(profile: Profile, cells: tuple[Cell, ...], quantity: str, ranks: RankSet) -> float:
    """Of an interval of the chosen cell, which is chosen for its estimate."""
    return chosen_level([profile.estimate(name, quantity, h) for name, h in cells], ranks.kept)


def _ranked(profile: Profile, cells: tuple[Cell, ...], criterion: Criterion) -> RankSet:
    estimates = [profile.estimate(name, QUANTITY[criterion], h) for name, h in cells]
    return smallest(estimates) if criterion == "mse" else largest(estimates)


def steps(profile: Profile, among: Candidates) -> Steps:
    """Which cells raise the return and which lower it, to first order."""
    gains = [profile.estimate(name, QUANTITY["gain"], h) for name, h in among.cells]
    sign = signs(gains)
    up, down = (
        tuple(cell for cell, s in zip(among.cells, sign, strict=True) if s == wanted)
        for wanted in (1, -1)
    )
    return Steps(up, down, realised=False)


def _partings(cells: tuple[Cell, ...], ranks: RankSet, samples: int) -> tuple[Parting, ...]:
    """What more samples would tell apart; differences of rounding are none."""
    return tuple(
        Parting(cells[each.member], cells[each.contender], each.more)
        for each in separations(ranks, samples)
        if ranks.gap[each.member] > SAME * abs(ranks.value[each.member])
    )


def _members(cells: tuple[Cell, ...], ranks: RankSet) -> tuple[Cell, ...]:
    return tuple(cells[k] for k in np.flatnonzero(ranks.kept))


def _alone(profile: Profile, among: Candidates, name: str, criterion: Criterion) -> tuple[int, ...]:
    """The set of horizons of one estimator among its own."""
    cells = tuple(cell for cell in among.cells if cell[0] == name)
    if not any(is_finite(profile, cell, QUANTITY[criterion]) for cell in cells):
        return ()
    return tuple(h for _, h in _members(cells, _ranked(profile, cells, criterion)))
