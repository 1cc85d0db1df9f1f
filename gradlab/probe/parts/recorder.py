"""What an environment was given and gave: a ring of steps, found again by their observation.

Observations are kept as hashes of their bytes in float32, as replays hold them. Where a vector of
environments, or one, resets by itself, the last observation of an episode is `final_obs` of the
infos ("same step"), or what was returned, and the step after is none of an episode ("next step").
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from math import nan
from typing import Any, Literal, final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import UNRESET
from gradlab.probe.budget import Budget
from gradlab.probe.isolation import warn

_State = Literal["sound", "fault", "waiting", "open", "off"]


@dataclass(frozen=True)
class CheckAnswer:
    """What a check knows so far.

    Attributes:
        state: "waiting": too few looks; "open": neither sound nor a fault with a name; "off": the
            loop does not hand over what it needs.
        proof: the number against its threshold in words; of "off" the reason and the way out.
        value, threshold: NaN where there are none.
        looks: that it rests on.
        kind, message: of the alarm, where it is a fault; the message ends with where to look.
    """

    state: _State
    proof: str
    value: float = nan
    threshold: float = nan
    looks: int = 0
    kind: str = ""
    message: str = ""


def off(reason: str) -> CheckAnswer:
    return CheckAnswer("off", reason)


_STEPS = 100_000
_CUTS, _RECENT = 16, 8  # episodes, and steps of all environments, whose observations are kept
_TOGETHER = 128  # steps that are filed at once: one by one they take five times as long
_FINAL = ("final_obs", "final_observation")
_BEYOND = 16  # steps in a row after an end: actions that are repeated beyond it are fewer
# Keys of the observations before and after, between them action and reward; whether it terminated
# and was truncated; the number of the step before it in this episode, −1: none.
_Step = tuple[int, Any, float, int, tuple[bool, bool], int]


def _key(observation: Any) -> int:
    """A number of an observation's bytes; −0 is 0."""
    return keys(np.asarray(observation, dtype=np.float32)[None])[0]


def keys(observations: Any) -> list[int]:
    """The same of several."""
    rows = np.asarray(observations, dtype=np.float32)
    text = rows.tobytes()
    if b"\x80" in text:  # of −0, among others
        text = (rows + np.float32(0)).tobytes()
    size = len(text) // max(len(rows), 1)
    return [hash(text[k * size : (k + 1) * size]) for k in range(len(rows))]


@dataclass(frozen=True)
class Found:
    """Recorded steps of a batch, [K] each: those of its rows that were found.

    Attributes:
        rows: their places in the batch; steps: in the ring.
        reward, terminated, truncated, action: as recorded.
        following: keys of the next observations; later: of those after them, 0 where unknown.
        earlier: rewards of the steps before, NaN at an episode's first one.
    """

    rows: NDArray[np.intp]
    steps: NDArray[np.intp]
    action: NDArray[np.float64]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    following: NDArray[np.int64]
    later: NDArray[np.int64]
    earlier: NDArray[np.float64]


@final
class Episodes:
    """Where several environments stand in their episodes.

    Args:
        resets: they begin the next episode by themselves.

    Attributes:
        begun: keys of the observations that they are at; None: before a reset.
        firsts: keys of new first observations.
        over: numbers of the last steps of new ended episodes, and of their environments.
        made: of the newest step, which of them made one; others were reset by it, or rested.
        beyond: the most steps in a row that ended an episode again, of two steps or more, after its
            end and before a reset.
    """

    def __init__(self, count: int, resets: bool = False) -> None:
        self.begun: list[int | None] = [None] * count
        self.made = [False] * count
        self.firsts: list[int] = []
        self.over: list[tuple[int, int]] = []
        self._before, self._resets = [-1] * count, resets
        self.beyond = 0
        self._again: list[int | None] = [None] * count  # of these steps; None: are not counted

    def reset(self, observations: list[int]) -> None:
        """All of them."""
        for n, each in enumerate(observations):
            self._begin(n, each)

    def _begin(self, n: int, first: int) -> None:
        if self._before[n] >= 0:
            self.over.append((self._before[n], n))
        self.begun[n], self._before[n] = first, -1
        self.firsts.append(first)

    def steps(
        self, number: int, observations: list[int], actions: Any, rewards: list[float],
        terminated: list[bool], truncated: list[bool], finals: Any,
    ) -> list[_Step]:  # fmt: skip
        """One step of each.

        Args:
            number: of the first of them.
        """
        made: list[_Step] = []
        ends = zip(terminated, truncated, strict=True)
        rows = zip(observations, actions, rewards, ends, strict=True)
        for n, (end, action, reward, ended) in enumerate(rows):
            begun, over = self.begun[n], any(ended)
            self.made[n] = begun is not None
            if begun is None:
                if self._resets or (self._before[n] >= 0 and not over):
                    self._begin(n, end)  # the step by which it was reset
                elif (again := self._again[n]) is not None:
                    self._again[n] = again + 1
                    self.beyond = max(self.beyond, again + 1)
                continue
            self._again[n] = 0 if over and self._before[n] >= 0 else None
            first = end if over and finals is not None and finals[n] is not None else None
            end = end if first is None else _key(finals[n])
            made.append((begun, action, reward, end, ended, self._before[n]))
            self._before[n], self.begun[n] = number + len(made) - 1, None if over else end
            if first is not None:
                self._begin(n, first)
        return made


@final
class Ring:
    """The newest steps, by the key of the observation that they begin at.

    Args:
        budget: pays for what is recorded.

    Attributes:
        latest: what environments gave last, [n, …], a reset or a step.
        acted: the number of the first of n steps, and the observations that they begin at.
        resets: the number of an episode's last step, its last observation, and the next one's
            first.
        valued: whether batches come with the values of their targets, as those of a replay.
        beyond: of `Episodes`, the most of all.
    """

    def __init__(self, budget: Budget, size: int = _STEPS) -> None:
        self.size, self.budget = size, budget
        self.on, self.valued, self.beyond = True, False, 0
        self._unfiled: list[tuple[Any, ...]] = []
        self._made: deque[int] = deque(maxlen=size)  # numbers of steps; −1: that of a reset
        self._rows, self._count = 0, 0  # not filed; filed
        self.latest: dict[Episodes, NDArray[Any]] = {}
        self.acted: deque[tuple[int, NDArray[Any]]] = deque(maxlen=_RECENT)
        self.resets: deque[tuple[int, Any, Any]] = deque(maxlen=_CUTS)
        self._firsts: set[int] = set()
        self._ending: set[int] = set()
        self._last: set[int] = set()
        self._at: dict[int, int] = {}  # −1: several steps begin there
        self._key, self._next, self._after = (np.zeros(size, np.int64) for _ in range(3))
        self._reward, self._earlier = np.zeros(size), np.zeros(size)
        self._ended = np.zeros((size, 2), bool)
        self._action: NDArray[np.float64] | None = None

    def keep(self, episodes: Episodes, observations: Any, *step: Any, finals: Any = None) -> None:
        """What environments gave at a reset or a step. It is copied: loops may write over it.

        Args:
            observations: [n, …], of the environments in their order.
            step: their actions (the ring's own), rewards, and whether episodes terminated, and
                were truncated; nothing at a reset.
            finals: last observations of episodes, where `observations` has the next ones.
        """
        if finals is not None:
            finals = [None if each is None else np.array(each) for each in finals]
        copies = [np.array(each) for each in (observations, *step[1:])]
        self._unfiled.append((episodes, finals, step[:1], *copies))
        self._rows += len(episodes.begun)
        if self._rows >= min(_TOGETHER, self.size) or not self._count:
            self._file()

    def stop(self, error: Exception) -> None:
        """What an environment gives cannot be recorded; the loop goes on."""
        self.on = False
        warn("records no more steps of the environment", error)

    def copied(self, action: Any) -> Any:
        """Before the step: environments may clip it in place."""
        try:
            return np.array(action, dtype=np.float64) if self.on else None
        except Exception as error:
            self.stop(error)
        return None

    def _file(self) -> None:
        """All that was kept since the last time."""
        if not self._unfiled:
            return
        unfiled, self._unfiled, self._rows = self._unfiled, [], 0
        steps: list[_Step] = []
        for episodes, finals, actions, observations, *outcome in unfiled:
            found, before = keys(observations), self.latest.get(episodes)
            if not outcome:
                episodes.reset(found)
            else:
                given = (actions[0], *(each.reshape(-1).tolist() for each in outcome))
                number = self._count + len(steps)
                steps += episodes.steps(number, found, *given, finals)
                numbers = number - 1 + np.cumsum(episodes.made)
                self._made.extend(np.where(episodes.made, numbers, -1).tolist())
                self.beyond = max(self.beyond, episodes.beyond)
                if self._count + len(steps) - number == len(found) and before is not None:
                    self.acted.append((number, before))
            self._firsts.update(episodes.firsts)
            episodes.firsts.clear()
            for number, n in episodes.over:
                final = None if finals is None else finals[n]
                last = before[n] if final is None and before is not None else final
                self.resets.append((number, np.array(last), observations[n].copy()))
            episodes.over.clear()
            self.latest[episodes] = observations
        for k in range(0, len(steps), self.size):
            self._write(steps[k : k + self.size])

    def _write(self, steps: list[_Step]) -> None:
        """New steps, none of them in one place with another."""
        begun, actions, rewards, ends, ended, before = zip(*steps, strict=True)
        places = [k % self.size for k in range(self._count, self._count + len(steps))]
        self._count += len(steps)
        at, came, known = np.array(places), np.array(before), self._at
        rows = np.array(actions, dtype=np.float64).reshape(len(at), -1)
        if self._action is None:
            self._action = np.zeros((self.size, rows.shape[1]))
        olds = zip(self._key[at].tolist(), self._next[at].tolist(), strict=True)
        for place, (old, gone), each, end, flags in zip(
            places, olds, begun, ends, ended, strict=True
        ):
            if known.get(old) == place:
                del known[old]  # nothing that is older is found any more
                self._firsts.discard(old)
                self._ending.discard(old)
                self._last.discard(gone)
            known[each] = -1 if each in known else place
            if flags[0] or flags[1]:
                self._ending.add(each)
                self._last.add(end)
        self._key[at], self._next[at], self._after[at] = begun, ends, -1
        self._reward[at], self._ended[at], self._action[at] = rewards, ended, rows
        came = np.where(came >= 0, came % self.size, -1)
        self._earlier[at] = np.where(came >= 0, self._reward[came], np.nan)
        self._after[came[came >= 0]] = at[came >= 0]

    @property
    def count(self) -> int:
        """Steps so far."""
        self._file()
        return self._count

    @property
    def still(self) -> float:
        """Share of the kept steps that end with the observation that they began with."""
        n = min(self.count, self.size)
        return float(np.mean(self._key[:n] == self._next[:n]))

    @property
    def firsts(self) -> set[int]:
        """Keys of first observations of episodes."""
        self._file()
        return self._firsts

    @property
    def ending(self) -> set[int]:
        """Keys of observations whose step ended an episode."""
        self._file()
        return self._ending

    @property
    def last(self) -> set[int]:
        """Keys of the last observations of episodes."""
        self._file()
        return self._last

    def newest(self, ended: NDArray[np.bool_]) -> tuple[NDArray[np.intp], bool] | None:
        """Numbers of the newest n steps, and whether they ended as is given, [n]; None where fewer
        are kept. −1: the row of a step that reset an environment, as in Gymnasium's NEXT_STEP mode,
        unless it is without these rows that the ends are those."""
        count, n = self.count, len(ended)
        if n > min(count, self.size, len(self._made)):
            return None
        rows = np.fromiter(islice(reversed(self._made), n), np.intp, n)[::-1]
        for numbers in (rows, np.arange(count - n, count)):
            made = numbers >= 0
            if np.array_equal(self.ends(numbers)[made].any(axis=1), ended[made]):
                return numbers, True
        return rows, False

    def ends(self, numbers: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Terminated and truncated [n, 2] of the steps of these numbers, False of −1."""
        return self._ended[numbers % self.size] & (numbers >= 0)[..., None]

    @property
    def limits(self) -> bool:
        """Whether a time limit ended one of the episodes."""
        self._file()
        terminated, truncated = self._ended.T
        return bool((truncated & ~terminated).any())

    @property
    def terminations(self) -> bool:
        """Whether one of them terminated."""
        self._file()
        return bool(self._ended[:, 0].any())

    @property
    def width(self) -> int:
        """Numbers of an action."""
        self._file()
        return 0 if self._action is None else self._action.shape[1]

    def fits(self, rows: Any) -> bool:
        """Whether these are as large as one observation each, not sequences of some."""
        newest = next(iter(self.latest.values()), None)
        return newest is not None and np.size(newest[0]) == int(np.prod(rows.shape[1:]))

    def begin(self, found: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these keys are of observations that a recorded step begins at."""
        self._file()
        return np.array([each in self._at for each in found.tolist()], dtype=bool)

    def gave(self, found: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these keys are of observations that an environment gave."""
        return self.begin(found) | self.ahead(found)

    def ahead(self, found: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these keys are of observations that came, and that no recorded step begins at:
        the newest, and the last ones of episodes."""
        begin = self.begin(found)
        newest = [key for each in self.latest.values() for key in keys(each)]
        came = np.append(self._next[: min(self._count, self.size)], np.array(newest, np.int64))
        return np.isin(found, came) & ~begin

    def places(self, observations: NDArray[Any]) -> NDArray[np.intp]:
        """Of the steps that begin at these observations, −1 where none or several do."""
        self._file()
        return np.array([self._at.get(each, -1) for each in keys(observations)], dtype=np.intp)

    def rewards(self, places: NDArray[np.intp]) -> NDArray[np.float64]:
        self._file()
        return self._reward[places]

    def on_from(self, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        """These steps and those after them, [K, count]; −1 beyond an episode."""
        self._file()
        at = np.full((len(places), count), -1)
        at[:, 0] = places
        for k in range(1, count):
            at[:, k] = np.where(at[:, k - 1] >= 0, self._after[at[:, k - 1]], -1)
        return at

    def paid_from(self, places: NDArray[np.intp], count: int) -> NDArray[np.float64]:
        """Rewards of these steps and of those after them, [K, count]; NaN beyond an episode."""
        at = self.on_from(places, count)
        return np.where(at >= 0, self._reward[at], nan)

    def gives(self, places: NDArray[np.intp]) -> NDArray[np.int64]:
        """Keys of the observations after these steps."""
        self._file()
        return self._next[places]

    def pays(self, rewards: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of them some recorded step paid, where most steps paid a number of their own."""
        self._file()
        known = np.unique(self._reward[: min(self._count, self.size)].astype(np.float32))
        own = 2 * len(known) > min(self._count, self.size)
        return np.isin(rewards.astype(np.float32), known) & own

    def actions(self, places: NDArray[np.intp]) -> NDArray[np.float64]:
        """[K, da]"""
        self._file()
        held = np.zeros((self.size, 0)) if self._action is None else self._action
        return held[places]

    def before(self, found: NDArray[np.int64]) -> NDArray[np.intp]:
        """Places of the steps that gave the observations of these keys, −1: none or several."""
        self._file()
        return _only(self._next[: min(self._count, self.size)], found)

    def sent(self, actions: NDArray[np.float64]) -> NDArray[np.intp]:
        """Places of the steps by these actions, −1: none or several."""
        held = self.actions(np.arange(min(self.count, self.size)))
        return _only(_print(held), _print(actions))

    def apart(self, one: NDArray[np.intp], other: NDArray[np.intp], most: int) -> NDArray[np.intp]:
        """Steps from one place to the other in an episode, 0 where they are not known."""
        self._file()
        found, at, back = np.zeros(len(one), np.intp), one, other
        for k in range(1, most + 1):
            at, back = (np.where(x >= 0, self._after[x], -1) for x in (at, back))
            found[(at == other) & (found == 0)] = k
            found[(back == one) & (found == 0)] = -k
        return found

    def find(self, observations: NDArray[Any]) -> Found:
        """The steps that begin at these observations; ambiguous ones are left out."""
        places = self.places(observations)
        rows = np.flatnonzero(places >= 0)
        return self.found(rows, places[rows])

    def found(self, rows: NDArray[np.intp], at: NDArray[np.intp]) -> Found:
        """The steps at these places."""
        after = self._after[at]
        later = np.where(after >= 0, self._next[np.maximum(after, 0)], 0)
        return Found(
            rows, at, self.actions(at), self._reward[at], self._ended[at, 0], self._ended[at, 1],
            self._next[at], later, self._earlier[at],
        )  # fmt: skip


@final
class EndsReset:
    """Is the environment reset where an episode has ended?

    One that resets by itself goes on with a step that ends nothing; one whose time is up ends every
    step from then on.
    """

    name = "the environment is reset at ends"

    def __init__(self) -> None:
        self.ring: Ring | None = None

    @property
    def missed(self) -> bool:
        return self.ring is not None and self.ring.beyond >= _BEYOND

    def answer(self, *_: object) -> CheckAnswer:
        if self.ring is None:
            return off("the environment is not recorded: env = probe.record(env)")
        ends, beyond = len(self.ring.ending), self.ring.beyond
        proof = (
            f"at most {beyond:,} steps in a row after an end without a reset (fault: {_BEYOND})"
            if ends else "no episode has ended"
        )  # fmt: skip
        if not self.missed:
            state: _State = "sound" if ends else "waiting"
            return CheckAnswer(state, proof, beyond, _BEYOND, ends)
        return CheckAnswer(
            "fault", proof, beyond, _BEYOND, ends, UNRESET,
            f"the environment is stepped on after the end of its episode, a time limit's too "
            f"({beyond:,} steps in a row): reset it where `terminated or truncated`",
        )  # fmt: skip


def _only(values: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.intp]:
    """Where each of the wanted is among the values, −1 where it is not or several times."""
    if not len(values) or not len(wanted):
        return np.full(len(wanted), -1)
    known = np.sort(wanted)
    near = np.minimum(np.searchsorted(known, values), len(known) - 1)
    hits = np.flatnonzero(known[near] == values)
    own, first, times = np.unique(values[hits], return_index=True, return_counts=True)
    if not len(own):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(own, wanted), len(own) - 1)
    return np.where((own[at] == wanted) & (times[at] == 1), hits[first[at]], -1)


def _print(actions: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number of every action as float32, the same to the last bit in any batch."""
    made = np.zeros(len(actions))
    for k, column in enumerate(actions.T.astype(np.float32)):
        made += column * np.cos(1.0 + k)
    return made


def recorded(env: Any, ring: Ring) -> Any:
    """The environment, its steps written to the ring.

    Raises:
        InputError: none of gymnasium's.
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
        return _Vector(env, ring)
    if isinstance(env, gymnasium.Env):
        return _Single(env, ring)
    raise InputError(
        f"env is a {type(env).__name__}, expected a gymnasium.Env or gymnasium.vector.VectorEnv"
    )


@final
class _Single(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment, which the loop resets, or a wrapper inside."""

    def __init__(self, env: Any, ring: Ring) -> None:
        super().__init__(env)
        self._ring, self._episodes = ring, Episodes(1)

    def reset(self, **given: Any) -> Any:
        observation, info = self.env.reset(**given)
        if self._ring.on:
            try:
                self._ring.keep(self._episodes, (observation,))
            except Exception as error:
                self._ring.stop(error)
        return observation, info

    def step(self, action: Any) -> Any:
        given = self._ring.copied(action)
        result = self.env.step(action)
        if self._ring.on:
            try:
                since = self._ring.budget.clock()
                observation, *outcome, info = result
                finals = next(([info[name]] for name in _FINAL if name in info), None)
                self._ring.keep(
                    self._episodes, (observation,), (given,), *zip(outcome), finals=finals
                )
                self._ring.budget.guard(since)
            except Exception as error:
                self._ring.stop(error)
        return result


@final
class _Vector(gymnasium.vector.VectorWrapper):
    """Several environments, which reset by themselves."""

    def __init__(self, env: Any, ring: Ring) -> None:
        super().__init__(env)
        self._ring, self._episodes = ring, Episodes(env.num_envs, resets=True)

    def reset(self, **given: Any) -> Any:
        observations, infos = self.env.reset(**given)
        if self._ring.on:
            try:
                self._ring.keep(self._episodes, observations)
            except Exception as error:
                self._ring.stop(error)
        return observations, infos

    def step(self, actions: Any) -> Any:
        given = self._ring.copied(actions)
        result = self.env.step(actions)
        if self._ring.on:
            try:
                since = self._ring.budget.clock()
                observations, *outcome, infos = result
                finals = next((infos[name] for name in _FINAL if name in infos), None)
                self._ring.keep(self._episodes, observations, given, *outcome, finals=finals)
                self._ring.budget.guard(since)
            except Exception as error:
                self._ring.stop(error)
        return result
