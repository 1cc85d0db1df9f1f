"""What to replace first: the one player, or the two together, that take most off per replacement.

    g_S = v(∅) − v(S),    |S| = 1 or 2,    chosen: the largest g_S / |S|

Shapley's shares say how much of v(∅) a player makes over all orders, not what its replacement does
while all others stay: where players cancel, replacing the largest share alone can raise v. The two
together are chosen only where they take off more than twice what the best single one does. All g_S
are on the same groups, and the interval of the chosen one pays for the choice
(`selection.chosen_level`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gradlab.statistics.moments import Estimate
from gradlab.statistics.selection import chosen_level, largest
from gradlab.statistics.shapley import Game

FEWEST = 3  # groups that a set of candidates needs
MOST_AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class BestReplacement:
    """The chosen set of players.

    Attributes:
        taken_off: g_S; level: of each end of an interval that holds in 95% although S was chosen.
        rivals: sets that may take off more per replacement, by their estimates; sets that take off
            exactly nothing are left out.
    """

    players: tuple[str, ...]
    taken_off: Estimate
    level: float
    rivals: tuple[tuple[str, ...], ...]


def best_replacement(game: Game) -> BestReplacement | None:
    """None with too few groups, or where no v is finite."""
    k = len(game.players)
    sets = [one for n in range(1, MOST_AT_ONCE + 1) for one in combinations(range(k), n)]
    taken = [_taken_off(game, one) for one in sets]
    per_part = [
        Estimate(each.value / len(one), each.left_out / len(one))
        for one, each in zip(sets, taken, strict=True)
    ]
    finite = [np.isfinite(each.value) and np.isfinite(each.left_out).all() for each in per_part]
    if game.left_out.shape[1] < FEWEST or not any(finite):
        return None
    ranks = largest(per_part)
    level = chosen_level(per_part, ranks.kept)
    others = [
        i
        for i in np.argsort(-ranks.value)
        if ranks.kept[i] and i != ranks.best and (taken[i].value or taken[i].left_out.any())
    ]

    def named(i: int) -> tuple[str, ...]:
        return tuple(game.players[player] for player in sets[i])

    rivals = tuple(named(i) for i in others)
    return BestReplacement(named(ranks.best), taken[ranks.best], level, rivals)


def _taken_off(game: Game, players: tuple[int, ...]) -> Estimate:
    replaced = sum(1 << player for player in players)
    with np.errstate(invalid="ignore"):
        value = float(game.value[0] - game.value[replaced])
        return Estimate(value, game.left_out[0] - game.left_out[replaced])
