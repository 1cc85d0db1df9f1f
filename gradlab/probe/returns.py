"""Whole episodes of a loop's policy, at every K-th update, from fresh resets and without noise.

    K = price of an episode / (episodes' part of the time · time of an update), at least `CLOSEST`

so that a window of 16 spans 250 updates or more. The environment is the probe's own; the loop's
random streams are put back, and its policy is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import ceil, inf
from typing import Any, final

import numpy as np
from torch import nn

from gradlab.data.episodes import LONGEST, Actor, begin, made, play, takes_seed
from gradlab.data.noise import child
from gradlab.networks.actors import Reparameterised
from gradlab.probe.alarms.evidence import Alarm
from gradlab.probe.alarms.steps import fallen
from gradlab.probe.budget import Budget, span
from gradlab.probe.isolation import copied, undisturbed
from gradlab.probe.row_sinks import Earlier
from gradlab.runs.probe.returns import COLUMNS, LEAST, TRAINED, WINDOW, Returns
from gradlab.user_code import running
from gradlab.wording import rounded_up, two

CLOSEST = ceil(LEAST / (WINDOW - 1))  # updates between two episodes
_TRIED, _TRIAL = 10, 0.2  # steps of the first try at an episode's price; seconds of the last one
WINDOWS = {"returns": WINDOW, "episodes": TRAINED}
_PRICES = 5  # newest episodes whose mean is the price of the next
_ROUNDING = 1e-4  # of the width of an action's range
_TYPICAL = 1000  # steps of an episode, where the environment does not say

MakeEnv = Callable[[], Any]


@final
class ReturnWindows:
    """The windows of one table, "returns" or "episodes", as its rows come; they go on in a log that
    is resumed.

    Attributes:
        before: rows before the first update, which are in no window.
    """

    def __init__(self, name: str, window: int, earlier: Earlier) -> None:
        self.name, self.window = name, window
        columns = getattr(earlier, name)
        self.rows = [np.asarray(columns.get(each, ()), dtype=float).tolist() for each in COLUMNS]
        self.before = self.rows[0].count(0)

    @property
    def count(self) -> int:
        """Rows so far."""
        return len(self.rows[0])

    def add(self, row: Mapping[str, Any]) -> Alarm | None:
        """One more; the alarm, where it fills a window and raises one."""
        for held, name in zip(self.rows, COLUMNS, strict=True):
            held.append(row[name])
        self.before += row["update"] == 0
        if not row["update"] or (self.count - self.before) % self.window:
            return None
        columns = dict(zip(COLUMNS, map(np.array, self.rows), strict=True))
        return fallen(Returns.of(columns, self.window), self.name)


def reward_wrappers(env: Any) -> list[str] | None:
    """Names of an environment's wrappers that change rewards, from outside inwards, with those of
    the first of several side by side; None where they are in other processes."""
    found: list[str] = []
    while env is not None:
        if any("Reward" in each.__name__ for each in type(env).__mro__):
            found.append(type(env).__name__)
        within = getattr(env, "env", None)
        if within is None and hasattr(env, "num_envs"):
            envs = getattr(env, "envs", ())
            if not envs:
                return None
            within = envs[0]
        env = within
    return found


def _other_ends(policy: nn.Module, space: Any) -> str:
    """Where a squashed policy and a box of actions end apart, and what to give if by mistake."""
    box: list[Any] = [getattr(space, end, None) for end in ("low", "high")]
    if not isinstance(policy, Reparameterised) or any(end is None for end in box):
        return ""
    if policy.scale is None or policy.bias is None:
        return ""
    scale, bias = (each.double().cpu().numpy() for each in (policy.scale, policy.bias))
    low, high, least, most = np.broadcast_arrays(
        bias - scale, bias + scale, *(np.ravel(end) for end in box)
    )
    apart = np.maximum(abs(low - least), abs(high - most))
    j = int(apart.argmax())
    if not np.isfinite(apart).all() or apart[j] <= _ROUNDING * (high - low)[j]:
        return ""
    middle = (least + most)[j] / 2
    shifted = f", bias={two(middle)}" if middle else ""
    return (
        f"actions of the policy end at {two(low[j])} and {two(high[j])}, those of env at "
        f"{two(least[j])} and {two(most[j])}: if the loop's do, too, squashed(actor, "
        f"scale={two((most - least)[j] / 2)}{shifted})"
    )


@final
class Looks:
    """Looks at the return as the budget allows.

    Args:
        make: makes an environment of the probe's own.

    Attributes:
        count: episodes that were played, in the log's earlier probes, too.
        apart: updates between the last two.
        doubt: whether the policy's actions are the loop's; may be empty.

    Raises:
        InputError: it cannot be made or stepped, or the policy cannot act in it.
    """

    def __init__(self, make: MakeEnv, policy: nn.Module, budget: Budget, seed: int) -> None:
        self.policy, self.budget, self.seed, self.count = policy, budget, seed, 0
        self._next = self.apart = 0
        self._prices: deque[float] = deque(maxlen=_PRICES)
        with budget.paying(), undisturbed():
            self.environment = made(make)
            actor = Actor(copied(policy), self.environment)
            self._seeded = takes_seed(self.environment)
            with running("env"):
                actor.check(begin(self.environment, self._seed))
                self.doubt = _other_ends(policy, actor.space)
                # The first try is also that of what is loaded, and a busy machine hesitates: the
                # cheapest step counts, of tries that grow to a whole episode where time allows.
                length, cheapest, whole, tries = _TRIED, inf, False, 0
                while tries < 2 or not (whole or cheapest * length > _TRIAL):
                    begun = budget.clock()
                    tried = play(self.environment, actor, self._seed, length)[0]
                    took, tries = budget.clock() - begun, tries + 1
                    cheapest = min(cheapest, took / max(tried.length, 1))
                    whole = tried.ended or length >= _TYPICAL
                    length *= 1 if whole or cheapest * length > _TRIAL else 2
            limit = getattr(getattr(self.environment, "spec", None), "max_episode_steps", None)
            steps = tried.length if tried.ended else min(limit or _TYPICAL, LONGEST)
            self._price = cheapest * steps

    def due(self, update: int) -> bool:
        """Is there time for an episode after this update?"""
        return update >= self._next and self.budget.episode_wait(self._price) <= 0

    def row(self, update: int) -> dict[str, Any]:
        """An episode of the policy as it is; of an environment with several places their mean."""
        with self.budget.paying(episode=True) as price, undisturbed():
            actor = Actor(copied(self.policy), self.environment)
            played = play(self.environment, actor, self._seed)
        self._prices.append(price[0])
        self._price, self.count = float(np.mean(self._prices)), self.count + 1
        self.apart = self.every(update)
        self.budget.closest = self.budget.of_time(self._price * update / CLOSEST)
        self._next = update + self.apart
        return {
            "value": float(np.mean([episode.total for episode in played])),
            "length": float(np.mean([episode.length for episode in played])),
            "episodes": len(played),
            "every": self.apart,
            "seconds": price[0],
        }

    def every(self, update: int) -> int:
        """K, by the newest price and the time of an update so far."""
        held = self.budget.holds <= self.budget.elapsed
        return self._apart(self.budget.episode_share if held else self.budget.kept, update)

    def _apart(self, part: float, update: int) -> int:
        """Updates between two episodes that take this part of the time."""
        share = part * self.budget.elapsed / max(update, 1)
        return max(CLOSEST, ceil(self._price / share) if share > 0 else CLOSEST)

    def waits(self, update: int, ended: bool) -> str:
        """How often, and when the first two windows are full."""
        lacking = max(2 * WINDOW - self.count, 0)
        every, so_far = max(self.apart, self.every(update)), f"{self.count} of {2 * WINDOW}"
        self.apart = every if self.count else 0  # the first K is of the first, slow updates
        if ended:
            more = f"about {rounded_up(lacking * every):,} more updates would do"
            return f"returns: no answer, {so_far} episodes, {more}" if lacking else ""
        text = f"returns: an episode every {every:,} updates"
        if not lacking:
            return text
        pace = self.budget.elapsed / max(update, 1)
        soon = max((self._next - update) * pace, self.budget.episode_wait(self._price), 0.0)
        # What is kept for episodes until the share holds, all of their part from then on.
        slow, fast = (
            self._apart(part, update) * pace
            for part in (self.budget.kept, self.budget.episode_share)
        )
        paid = max(self.budget.holds - self.budget.elapsed - soon, 0.0)
        slowly = min(paid / slow, lacking - 1) if slow > 0 else 0.0
        left = slowly * slow + (lacking - 1 - slowly) * fast
        updates = rounded_up(ceil((soon + left) / pace)) if pace > 0 else 0
        when = f"first answer in about {span(soon + left)}, {updates:,} updates"
        return f"{text}, {so_far} so far, {when}"

    def close(self) -> None:
        with suppress(Exception), undisturbed():
            self.environment.close()

    @property
    def _seed(self) -> int | None:
        return child(self.seed, f"probe episode {self.count}") % 2**31 if self._seeded else None
