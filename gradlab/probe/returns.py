"""Whole episodes of a loop's policy, at every K-th update, from fresh resets and without noise.

    K = price of an episode / (episodes' part of the time · time of an update), at least `CLOSEST`

so that a window of 16 spans 250 updates or more. The environment is the probe's own; the loop's
random streams are put back, and its policy is copied.

Numbers of the loop's own: what it notes, and returns that its wrappers have recorded.

Gymnasium's `RecordEpisodeStatistics` keeps the newest returns; nothing is wrapped, nothing called.
"""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import ceil, inf
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.episodes import LONGEST, Actor, begin, made, play, takes_seed
from gradlab.data.trajectories import child
from gradlab.networks.actors import Reparameterised
from gradlab.probe.alarms.catalogue import fallen
from gradlab.probe.alarms.evidence import Alarm
from gradlab.probe.budget import Budget, span
from gradlab.probe.isolation import copied, undisturbed
from gradlab.probe.row_sinks import Earlier
from gradlab.runs.probe.returns import COLUMNS, LEAST, TRAINED, WINDOW, Returns
from gradlab.user_code import running
from gradlab.wording import rounded_up, two

_NOTED = ("critic_loss", "episode_return")
RETURN, LOSS = "episode_return", "critic_loss"


@final
class Notes:
    """Numbers by name since the last row."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, int, Any]]] = {name: [] for name in _NOTED}

    def take(self, name: str, value: Any, update: int, step: int) -> None:
        """One more number, or several; a tensor is not waited for until a row is due."""
        held = value.detach() if isinstance(value, Tensor) else np.asarray(value, dtype=float)
        self._kept[name].append((update, step, held))

    def row(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Means of what is finite, of those that were noted, and a row of every episode; begins the
        next window."""
        taken = {
            name: [
                (update, step, float(value))
                for update, step, held in kept
                for value in np.ravel(held.cpu().numpy() if isinstance(held, Tensor) else held)
            ]
            for name, kept in self._kept.items()
            if kept
        }
        for kept in self._kept.values():
            kept.clear()
        means: dict[str, float] = {}
        for name, each in taken.items():
            finite = [value for *_, value in each if np.isfinite(value)]
            means[name] = float(np.mean(finite)) if finite else float("nan")
        episodes = [
            {"update": update, "step": step, "value": value}
            for update, step, value in taken.get(RETURN, ())
        ]
        return means, episodes


def is_finite(value: Any) -> bool:
    """True where an accelerator would have to be waited for."""
    if isinstance(value, Tensor):
        return not value.is_cpu or bool(torch.isfinite(value.detach()).all())
    return bool(np.isfinite(np.asarray(value, dtype=float)).all())


_PLACES = ("gymnasium.wrappers.common", "gymnasium.wrappers.vector.common")
_KIND = "RecordEpisodeStatistics"


@final
class Recorders:
    """Recording wrappers that are alive, and what they have recorded since they were found.

    Args:
        own: an environment whose recorders are not the loop's.

    Attributes:
        price: seconds of a search, guessed before there was one.
        known: whether the program has such wrappers at all.
    """

    price = 0.05
    known = False

    def __init__(self, own: Any = None) -> None:
        self._own = {id(each) for each in _inside(own)}
        self._seen: list[tuple[weakref.ref[Any], int]] = []

    @property
    def found(self) -> int:
        """How many there are."""
        return len(self._seen)

    def search(self) -> None:
        """Look for them among all objects; takes tens of milliseconds."""
        begun = time.perf_counter()
        kinds = {getattr(sys.modules[name], _KIND) for name in _PLACES if name in sys.modules}
        self.known = bool(kinds)
        alive = [each for each in gc.get_objects() if type(each) in kinds] if kinds else []
        self._seen = [
            (weakref.ref(each), int(each.episode_count))
            for each in alive
            if id(each) not in self._own
        ]
        self.price = time.perf_counter() - begun

    def take(self) -> list[float]:
        """Returns of the episodes that have ended since the last call, by wrapper."""
        returns: list[float] = []
        for k, (recorder, before) in enumerate(self._seen):
            each = recorder()
            if each is None:
                continue
            count = int(each.episode_count)
            new = min(count - before, len(each.return_queue))
            returns += [float(x) for x in list(each.return_queue)[-new:]] if new > 0 else []
            self._seen[k] = recorder, count
        return returns


def _inside(environment: Any) -> Iterator[Any]:
    """An environment and all that it wraps."""
    waiting = [environment]
    while waiting:
        each = waiting.pop()
        if each is None:
            continue
        yield each
        held = vars(each) if hasattr(each, "__dict__") else {}
        waiting.append(held.get("env"))
        waiting.extend(held.get("envs") or ())


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
