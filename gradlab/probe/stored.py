"""What a loop stores against what its environment gave.

    storage = Storage(steps=n, discount=gamma)      env = storage.record(env)
    storage.look(batch)                             storage.findings()

Rows are found by the bytes of their float32 observation; one that came twice names no step. Every
column then stands in one `relation` to the recorded one, of n steps

    Σ γᵏ r_{t+k},  s_{t+n},  d_{t+n−1},       k < n and up to the end of the episode
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.findings.check import Check, run_checks
from gradlab.probe.isolation import warn

SHARE = 0.9  # of rows that must agree
COLUMNS = ("action", "reward", "next_observation", "terminated", "truncated")
VALUES = ("value", "next_value", "target")
_ROWS, _LOOKS, _FEWEST, _ENDS = 512, 64, 100, 5  # rows of a look; looks; rows that a check needs
_ENVIRONMENTS = 64  # of a batch of them that are recorded
_FINAL = ("final_obs", "final_observation", "terminal_observation")
_UNKNOWN = -1  # in the place of an observation's key
_Array = NDArray[Any]


class Relation(NamedTuple):
    """How stored rows stand to recorded ones.

    Attributes:
        word: same, zero, unclipped, scaled, negated, few, shifted, rising, related, unrelated.
        number: the scale, the lag, the correlation, or the share of rows that differ.
        share: of rows that are equal.
    """

    word: str
    number: float
    share: float


def relation(
    stored: _Array, recorded: _Array, near: Mapping[int, _Array] | None = None
) -> Relation:  # fmt: skip
    """How stored rows, [N, k], stand to the recorded ones of the same steps, [N, k].

    Args:
        near: by lag the recorded rows so many steps later, NaN where there are none.
    """
    share = _agreeing(stored, recorded)
    if share == 1:
        return Relation("same", 1.0, share)
    if np.abs(stored).max() <= 1e-6 * max(1.0, float(np.abs(recorded).max())):
        return Relation("zero", 0.0, share)
    low, high = recorded.min(0), recorded.max(0)
    beyond = (stored < low) | (stored > high)
    if beyond.any() and (high > low).all() and _agreeing(stored.clip(low, high), recorded) == 1:
        return Relation("unclipped", float(beyond.mean()), share)
    scale = _scale(stored, recorded)
    if abs(scale - 1) > 0.01 and abs(scale) > 1e-6 and _agreeing(stored, scale * recorded) > SHARE:
        return Relation("negated" if scale < 0 else "scaled", scale, share)
    if share > SHARE:
        return Relation("few", 1 - share, share)
    for lag, other in (near or {}).items():
        there = np.isfinite(other).all(1)
        if there.sum() >= _FEWEST / 5 and there.mean() > 0.5:
            mine, its = stored[there], other[there]
            ways = its, abs(_scale(mine, its)) * its
            if max(_agreeing(mine, way) for way in ways) > SHARE:
                return Relation("shifted", lag, share)
    if stored.shape[1] == 1 and _rises(stored[:, 0], recorded[:, 0]):
        return Relation("rising", share, share)
    a, b = stored.ravel() - stored.mean(), recorded.ravel() - recorded.mean()
    r = float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300))
    return Relation("related" if abs(r) > 0.5 else "unrelated", r, share)


def _agreeing(one: _Array, other: _Array) -> float:
    """Share of rows that are equal to float32's rounding, by the size of each column."""
    scale = np.maximum(np.median(np.abs(other), axis=0), 1e-6)
    return float((np.abs(one - other) <= 1e-4 * np.maximum(scale, np.abs(other))).all(1).mean())


def _scale(stored: _Array, recorded: _Array) -> float:
    """The median ratio of what is not 0: one crash does not decide it."""
    some = np.abs(recorded) > 1e-3 * np.abs(recorded).max()
    return float(np.median(stored[some] / recorded[some])) if some.any() else 0.0


def _rises(stored: _Array, recorded: _Array) -> bool:
    """Does what is stored rise with what was recorded, one number with one number?"""
    order = np.lexsort((-stored, recorded))
    return bool(np.ptp(stored) and (np.diff(stored[order]) >= 0).mean() > 0.99)


def keys(observations: Any) -> list[int]:
    """A number for the float32 bytes of every observation, [N, …]; −0 is 0."""
    rows = np.asarray(observations, np.float32) + np.float32(0)
    return [hash(row.tobytes()) % 2**52 for row in rows]  # as large as float64 holds


class _Step(NamedTuple):
    """A recorded step: keys of its observations, −1 where the next is unknown; the number of the
    step before it in its episode, −1 of a first one."""

    begun: int
    ahead: int
    action: _Array
    reward: float
    terminated: bool
    truncated: bool
    before: int


@final
class TransitionLog:
    """The newest steps of some environments, by the observation that each begins at.

    Args:
        count: of environments; reset: what they do at an end, "SAME_STEP", "NEXT_STEP" or "" (the
            loop resets them).
        ended: hears of the return of every episode that ends.

    Attributes:
        count: of steps so far; at: their numbers by key, −1 where several begin there.
    """

    def __init__(self, count: int, reset: str, size: int, ended: Callable[[float], object]) -> None:
        self._ended, self._total = ended, [0.0] * count
        self.size, self.environments, self.reset_mode = size, count, reset
        self.count, self.width = 0, 1
        self.at: dict[int, int] = {}
        self.later: dict[int, int] = {}
        self._steps: list[_Step] = []
        self._now, self._before = [_UNKNOWN] * count, [-1] * count

    def begin(self, observations: _Array, mask: _Array | None = None) -> None:
        """All of them, or those of the mask, are reset to these observations, [n, …]."""
        for n, key in enumerate(keys(observations)):
            if mask is None or mask[n]:
                self._now[n], self._before[n], self._total[n] = key, -1, 0.0

    def add(
        self, observations: _Array, action: _Array, reward: Sequence[float],
        ended: Sequence[tuple[Any, Any]], finals: Any,
    ) -> None:  # fmt: skip
        """A step of each.

        Args:
            observations: [n, …]; action: [n, da]; ended: whether it terminated, was truncated;
                finals: last observations of the episodes that ended, None where unknown.
        """
        for n, (now, key) in enumerate(zip(self._now, keys(observations), strict=True)):
            terminated, truncated = map(bool, ended[n])
            over = terminated or truncated
            final = finals[n] if over and finals is not None else None
            reset = over and (final is not None or self.reset_mode == "SAME_STEP")
            if now >= 0:
                ahead = key
                if reset:
                    ahead = _UNKNOWN if final is None else keys([_numbers(final)])[0]
                paid, before = float(reward[n]), self._before[n]
                self._write(_Step(now, ahead, action[n], paid, terminated, truncated, before))
                self._total[n] += paid
                if over:
                    self._ended(self._total[n])
                    self._total[n] = 0.0
            self._now[n] = _UNKNOWN if over and now >= 0 and not reset else key
            self._before[n] = -1 if over or now < 0 else self.count - 1

    def _write(self, step: _Step) -> None:
        number = self.count
        if number >= self.size:
            old = self._steps[number % self.size]
            if self.at.get(old.begun) == number - self.size:
                del self.at[old.begun]
            self.later.pop(number - self.size, None)
            self._steps[number % self.size] = step
        else:
            self._steps.append(step)
        self.at[step.begun] = -1 if step.begun in self.at else number
        if step.before >= 0:
            self.later[step.before] = number
        self.count, self.width = number + 1, len(step.action)

    def step(self, number: int) -> _Step | None:
        """The step of a number, None of −1 and of a forgotten one."""
        known = max(0, self.count - self.size) <= number
        return self._steps[number % self.size] if known else None

    def recorded(
        self, column: str, numbers: Sequence[int], steps: int = 1, discount: float = 1.0
    ) -> _Array:
        """A column of so many steps from these on, [N, k]; NaN where it is not known."""
        width = self.width if column == "action" else 1
        return np.array([self._row(column, x, steps, discount, width) for x in numbers], float)

    def _row(self, column: str, number: int, steps: int, discount: float, width: int) -> Any:
        nothing, last = [nan] * width, self.step(number)
        if last is None or column == "action":
            return nothing if last is None else last.action
        paid = last.reward
        for k in range(1, steps):
            if last.terminated or last.truncated:
                break
            number = self.later.get(number, -1)
            following = self.step(number)
            if following is None:
                return nothing
            last, paid = following, paid + discount**k * following.reward
        if column == "next_observation":
            return nothing if last.ahead == _UNKNOWN else [last.ahead]
        return [paid if column == "reward" else getattr(last, column)]


def _numbers(given: Any) -> _Array:
    """Of a tensor or an array; of a dictionary the policy's observations."""
    if isinstance(given, Mapping):
        given = next(given[name] for name in ("policy", "observation", "obs") if name in given)
    given = given.detach().float().cpu() if hasattr(given, "detach") else given
    return np.asarray(given)


# Nothing that fails in here ends a loop.


@final
class _Recorder:
    """How results of an environment go to the log."""

    def __init__(self, env: Any, storage: Storage) -> None:
        from gymnasium.vector import VectorEnv  # here: a probe that records nothing begins sooner

        self.storage, self.error = storage, ""
        inner = getattr(env, "unwrapped", env)
        self.several = getattr(env, "num_envs", getattr(inner, "num_envs", None))
        mode = getattr(env, "metadata", None) or {}
        self.mode = str(getattr(mode.get("autoreset_mode"), "name", ""))
        if self.several is not None and not isinstance(env, VectorEnv):
            self.mode = "SAME_STEP"
        self.size = min(self.several or 1, _ENVIRONMENTS)
        storage.log = self.log = TransitionLog(
            self.size, self.mode, storage.size, lambda total: storage.ended(total)
        )

    def rows(self, given: Any) -> _Array:
        """Of the environments that are recorded, [n, …], a copy."""
        found = _numbers(given)
        return np.array(found[None] if self.several is None else found[: self.size])

    def flat(self, given: Any) -> list[Any]:
        """A number of each."""
        return [given] if self.several is None else self.rows(given).reshape(-1).tolist()

    def reset(self, result: Any, options: Any) -> Any:
        def begin() -> None:
            mask = options.get("reset_mask") if isinstance(options, Mapping) else None
            observations = result[0] if isinstance(result, tuple) else result
            self.log.begin(self.rows(observations), mask)

        self._safely(begin)
        return result

    def step(self, env: Any, action: Any) -> Any:
        given: list[_Array] = []  # before the step: environments may clip it in place
        self._safely(lambda: given.append(self.rows(action).reshape(self.size, -1)))
        result = env.step(action)
        if given:
            self._safely(self._step, given[0], result)
        return result

    def _step(self, action: _Array, result: Any) -> None:
        observations, reward, *flags, infos = result
        if isinstance(infos, Mapping):
            finals = next((infos[name] for name in _FINAL if name in infos), None)
            finals = [finals] if self.several is None else finals
            limits = infos.get("time_outs", infos.get("TimeLimit.truncated"))
        else:  # a dictionary for each, as Stable-Baselines3's
            finals = [next((i[x] for x in _FINAL if x in i), None) for i in infos]
            limits = [i.get("TimeLimit.truncated", False) for i in infos]
        ended = [*zip(*map(self.flat, flags), strict=True)]
        if len(flags) == 1:
            cut = [False] * self.size if limits is None else self.flat(limits)
            ended = [
                (over and not late, over and late) for (over,), late in zip(ended, cut, strict=True)
            ]
        self.log.add(self.rows(observations), action, self.flat(reward), ended, finals)

    def _safely(self, work: Any, *given: Any) -> None:
        if self.error:
            return
        try:
            work(*given)
        except Exception as error:
            self.error = self.storage.error = f"{type(error).__name__}: {error}"
            warn("records no more steps of the environment", error)


@final
class _Recorded:
    """An environment whose steps are recorded; all else, its class included, is its own."""

    def __init__(self, env: Any, recorder: _Recorder) -> None:
        object.__setattr__(self, "_inside", (env, recorder))

    @property  # type: ignore[misc]  # wrappers ask for the class of what they hold
    def __class__(self) -> Any:
        return type(self._inside[0])

    def __getattr__(self, name: str) -> Any:
        if name == "_inside":
            raise AttributeError(name)  # of a copy that is being made
        return getattr(self._inside[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inside[0], name, value)

    def reset(self, *given: Any, **named: Any) -> Any:
        env, recorder = self._inside
        return recorder.reset(env.reset(*given, **named), named.get("options"))

    def step(self, action: Any) -> Any:
        env, recorder = self._inside
        return recorder.step(env, action)


class _Rows(NamedTuple):
    """Rows of one look beside the recorded ones, [K, k] each.

    Attributes:
        near: recorded of the steps after and before; ended: terminated and truncated, [K, 2]; own:
            keys of the stored observations, [K].
    """

    stored: _Array
    recorded: _Array
    near: Mapping[int, _Array]
    ended: _Array
    own: _Array


@final
class Storage:
    """A log of an environment's steps, and rows of batches beside them.

    Args:
        steps: that a stored row is of (n-step returns); discount: of the rewards within it.
        value_discount: γ (γⁿ) of values, for their bound max|r| / (1 − γ); None: not looked at.
        soft: values hold an entropy bonus, so that rewards alone do not bound them.
        size: steps that the log keeps.
    """

    def __init__(
        self, steps: int = 1, discount: float = 1.0, value_discount: float | None = None,
        soft: bool = False, size: int = 100_000,
    ) -> None:  # fmt: skip
        self.steps, self.discount, self.size = steps, discount, size
        self.value_discount, self.soft = value_discount, soft
        self.ended: Callable[[float], object] = lambda total: None  # hears of every return
        self.log: TransitionLog | None = None
        self.error, self.looks = "", 0
        self.rollout = self.paid = False  # whether batches have advantages, rewards
        self.columns: dict[str, deque[_Rows]] = {}
        self._relations: dict[str, Relation] = {}  # of these, until the next look
        self.found = self.twice = self.searched = 0
        self.batches: deque[int] = deque(maxlen=16)
        self.alike: deque[bool] = deque(maxlen=16)
        self.rewards = [0.0, 0.0]  # the least and the largest, with 0
        self.values: list[tuple[float, float, float]] = []  # of a look: share, worst, its limit
        self.limits: tuple[Any, Any] | None = None

    def record(self, env: Any) -> Any:
        """The environment, to be used in its place; its steps go to the log.

        Takes gymnasium's environments and vectors, and batched ones whose `step(action)` gives
        (observations, rewards, dones, infos) or (…, terminated, truncated, infos) as tensors.

        Raises:
            InputError: something else, or a second environment.
        """
        if self.log is not None:
            raise InputError("an environment is recorded already: leave one of evaluations alone")
        if not callable(getattr(env, "step", None)) or not callable(getattr(env, "reset", None)):
            raise InputError(
                f"env is a {type(env).__name__}, expected gymnasium's Env or VectorEnv, or a "
                f"batched one with step and reset"
            )
        space = getattr(env, "single_action_space", getattr(env, "action_space", None))
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        if low is not None and high is not None and np.isfinite([low, high]).all():
            self.limits = np.ravel(low), np.ravel(high)
        return _Recorded(env, _Recorder(env, self))

    def look(self, batch: Mapping[str, Any]) -> None:
        """Compare a batch of the loop: observation, and what it has of action, reward, terminated,
        truncated, next_observation, advantage, value, next_value, target; [B, …] each."""
        try:
            self._look(batch)
        except Exception as error:  # the loop goes on
            self.error = self.error or f"{type(error).__name__}: {error}"

    def _look(self, batch: Mapping[str, Any]) -> None:
        self.look_at_values(batch)
        mine = keys(_numbers(batch["observation"])) if "observation" in batch else []
        if not mine:
            return
        self.looks += 1
        self.rollout |= "advantage" in batch
        self._relations.clear()
        self.batches.append(hash(tuple(mine)))
        if self.log is None:
            return
        enough = len(self.log.at) >= 4 * len(mine) >= 32
        self.alike.append(enough and 2 * len({*mine}) < len(mine))
        numbers = [self.log.at.get(key, -2) for key in mine]
        self.searched, self.twice = self.searched + len(mine), self.twice + numbers.count(-1)
        at = [k for k, number in enumerate(numbers) if number >= 0]
        self.found += len(at)
        for name in (x for x in COLUMNS if x in batch and at):
            self._keep(name, batch[name], at[:_ROWS], numbers, mine)

    def _keep(
        self, name: str, given: Any, at: Sequence[int], found: Sequence[int], mine: Sequence[int]
    ) -> None:
        log, numbers = self.log, [found[k] for k in at]
        assert log is not None
        stored, kind = _numbers(given), torch.as_tensor(given).dtype
        stored = np.array(keys(stored)) if name == "next_observation" else stored
        stored = stored[at].reshape(len(at), -1).astype(float)

        def recorded(column: str, these: Sequence[int]) -> _Array:
            found = log.recorded(column, these, self.steps, self.discount)
            half = kind in (torch.float16, torch.bfloat16)
            return torch.as_tensor(found).to(kind).double().numpy() if half else found

        now = recorded(name, numbers)
        if now.shape[1] != stored.shape[1]:
            raise InputError(f"{name} has {stored.shape[1]} numbers a row, recorded {now.shape[1]}")
        known = np.isfinite(now).all(1)
        steps = [log.step(x) for x in numbers]
        near = {1: [log.later.get(x, -1) for x in numbers], -1: [x.before for x in steps if x]}
        beside = {lag: recorded(name, way)[known] for lag, way in near.items()}
        ends = np.concatenate([recorded(x, numbers) for x in ("terminated", "truncated")], 1) > 0
        rows = self.columns.setdefault(name, deque(maxlen=_LOOKS))
        own = np.array([mine[k] for k in at])
        rows.append(_Rows(stored[known], now[known], beside, ends[known], own[known]))

    def look_at_values(self, batch: Mapping[str, Any]) -> None:
        """Values, [B, …], against what the rewards so far can add up to: those of batches, or else
        the recorded ones."""
        paid = _numbers(batch.get("reward", ()))
        self.paid |= "reward" in batch
        if self.log is not None and not self.paid:
            newest = range(max(0, self.log.count - _ROWS), self.log.count)
            paid = self.log.recorded("reward", newest, self.steps, self.discount)
        paid = np.nan_to_num(np.append(paid, self.rewards))
        self.rewards = [float(paid.min()), float(paid.max())]
        given = [_numbers(batch[x]).ravel() for x in VALUES if x in batch]
        low, high = self.rewards
        if self.value_discount is None or self.value_discount >= 1 or not given or low == high:
            return
        low, high = low / (1 - self.value_discount), high / (1 - self.value_discount)
        values, margin = np.concatenate(given), 0.2 * (high - low)
        above, below = values > high + margin, values < low - margin
        worst = values[np.argmax(np.maximum(values - high, low - values))]
        limit = high if worst > high else low
        self.values.append((float((above | below).mean()), float(worst), float(limit)))

    def column(self, name: str) -> _Rows | None:
        """All rows of the newest looks; None where they are too few."""
        looks = self.columns.get(name, ())
        if sum(len(x.stored) for x in looks) < _FEWEST:
            return None
        near = {lag: np.concatenate([x.near[lag] for x in looks]) for lag in (1, -1)}
        whole = [np.concatenate([x[k] for x in looks]) for k in (0, 1, 3, 4)]
        return _Rows(whole[0], whole[1], near, whole[2], whole[3])

    def relation(self, name: str) -> Relation | None:
        """Of a column; None where rows are too few."""
        if name not in self._relations and (rows := self.column(name)):
            self._relations[name] = relation(rows.stored, rows.recorded, rows.near)
        return self._relations.get(name)

    @property
    def shift(self) -> int:
        """Steps by which actions and rewards are later than their observations, if both are."""
        both = [self.relation(name) for name in ("action", "reward")]
        lags = {int(x.number) if x and x.word == "shifted" else 0 for x in both}
        return lags.pop() if len(lags) == 1 else 0

    def findings(self) -> tuple[Finding, ...]:
        """The answers of `CHECKS`."""
        missing = {
            name: f"Hand over `probe.look({{\"{name}\": …}})`"
            for name in COLUMNS if name not in self.columns
        }  # fmt: skip
        if not self.looks:
            missing["observation"] = 'Hand over batches: `probe.look({"observation": …})`'
        if self.log is None:
            missing["env"] = "Record the environment: `env = probe.record(env)`"
        elif self.error:
            missing["env"] = self.error
        if not self.values:
            missing["value"] = 'Hand over `probe.look({"value": …})` and a `discount`'
        if self.soft:
            missing["value"] = "An entropy bonus bounds no value"
        return run_checks(CHECKS, self, missing)


def _observations(storage: Storage) -> Iterator[Finding]:
    log = storage.log
    assert log is not None
    of = storage.searched - storage.twice
    whole = log.count <= log.size and log.environments < _ENVIRONMENTS
    if whole and of >= _FEWEST and 2 * storage.found < of:
        share = storage.found / of
        yield Finding("stored_hidden", "undecided", value=share, threshold=0.5, n=of)
    elif lag := storage.shift:
        yield Finding("stored_shifted", "fail", "observations", value=-lag, at=_LAGS[-lag])


def _batches(storage: Storage) -> Iterator[Finding]:
    n = len(storage.batches)
    if sum(storage.alike) > n / 2 and n >= 3:
        yield Finding("stored_alike", "fail", value=sum(storage.alike), threshold=n, n=n)
    elif n < 6:
        yield Finding("stored_batches", "undecided", n=n, at=f"{n} of 6 batches so far")
    elif 2 * len({*storage.batches}) < n and not storage.rollout:
        yield Finding("stored_again", "fail", value=len({*storage.batches}), threshold=n, n=n)


_LAGS = {1: "the step after", -1: "the step before"}
_CODES = {
    "zero": "stored_zero", "negated": "stored_negated", "unclipped": "stored_unclipped",
    "shifted": "stored_shifted",
}  # fmt: skip


def _told(subject: str, found: Relation, undecided: Sequence[str]) -> Iterator[Finding]:
    """What a relation that is not right is called."""
    at = _LAGS[int(found.number)] if found.word == "shifted" else ""
    code = _CODES.get(found.word, "stored_unlike")
    if found.word in undecided:
        code = "stored_in_part" if found.word == "few" else "stored_related"
        yield Finding(code, "undecided", subject, value=found.number)
    else:
        value = 1 - found.share if code == "stored_unlike" else found.number
        yield Finding(code, "fail", subject, value=value, at=at)


def _actions(storage: Storage, rows: _Rows, found: Relation) -> Iterator[Finding]:
    if found.word == "same" or (found.word == "unclipped" and storage.rollout) or storage.shift:
        return
    if storage.limits is not None and found.word != "few":
        low, high = storage.limits
        within = (np.abs(rows.stored) <= 1 + 1e-4).all()
        if within and _agreeing(low + (rows.stored + 1) * (high - low) / 2, rows.recorded) == 1:
            return  # in shares of the limits
    yield from _told("actions", found, ("few",))


def _rewards(storage: Storage, rows: _Rows, found: Relation) -> Iterator[Finding]:
    stored, paid = rows.stored[:, 0], rows.recorded[:, 0]
    large = np.abs(paid) >= max(float(np.median(np.abs(paid))), 1e-12)
    ratio = stored[large] / paid[large] if large.any() else np.ones(1)
    low, high = np.quantile(ratio, (0.05, 0.95))
    at_limits = np.isclose(stored, paid, rtol=1e-4) | (rows.ended[:, 1] & ~rows.ended[:, 0])
    if found.word in ("same", "scaled", "rising") or at_limits.all() or storage.shift:
        return  # at time limits trainers add values
    if found.word in ("related", "unrelated") and (ratio > 0).all() and high > 30 * low:
        yield Finding("stored_unlike", "fail", "rewards", value=1 - found.share)
        return
    yield from _told("rewards", found, ("few", "related", "unrelated"))


def _ends(storage: Storage, rows: _Rows, found: Relation) -> Iterator[Finding]:
    flag, (ended, cut) = rows.stored[:, 0] > 0, rows.ended.T
    cut = cut & ~ended
    lost, limits = int((ended & ~flag).sum()), int((cut & flag).sum())
    differ = flag != ended
    if differ[~ended & ~cut].mean() > 0.5:
        yield Finding("stored_unlike", "fail", "terminations", value=float(differ.mean()))
    elif storage.shift or not differ.any():
        if not storage.shift and ended.sum() + cut.sum() < _ENDS:
            yield Finding("stored_ends", "undecided", at="no end was drawn so far")
    elif limits >= _ENDS and 2 * limits > cut.sum():
        yield Finding("stored_time_limit", "fail", value=limits, threshold=int(cut.sum()), n=limits)
    elif lost >= _ENDS and 2 * lost > ended.sum():
        if found.word == "shifted":
            yield from _told("terminations", found, ())
        else:
            yield Finding(
                "stored_ends_lost", "fail", value=lost, threshold=int(ended.sum()), n=lost
            )
    else:
        yield Finding("stored_in_part", "undecided", "terminations", value=float(differ.mean()))


def _next(storage: Storage, rows: _Rows, found: Relation) -> Iterator[Finding]:
    differ, (ended, cut) = (rows.stored != rows.recorded)[:, 0], rows.ended.T
    n, within = int(differ[cut].sum()), differ[~cut & ~ended]
    if not n and not within.any():
        return  # nothing is learnt from what comes after a termination
    if (rows.stored[:, 0] == rows.own).mean() > SHARE:
        yield Finding("stored_next_same", "fail", value=1.0)
    elif n >= _ENDS and 2 * n > cut.sum() and within.mean() < 0.05:
        yield Finding("stored_next_episode", "fail", value=n, threshold=int(cut.sum()), n=n)
    elif not storage.shift:
        yield from _told("next observations", found, ("few",))


def _values(storage: Storage) -> Iterator[Finding]:
    newest = storage.values[-10:]
    if len(newest) < 10:
        yield Finding("stored_values", "undecided", at=f"{len(newest)} of 10 looks so far")
        return
    _, worst, limit = newest[-1]
    at_first = max(abs(value - bound) * (share > 0) for share, value, bound in storage.values[:5])
    if all(share > 0.5 for share, *_ in newest) and abs(worst - limit) > 2 * at_first:
        yield Finding("stored_values_beyond", "fail", value=worst, threshold=limit, n=len(newest))


def _of(
    code: str, name: str, test: Callable[[Storage, _Rows, Relation], Iterator[Finding]]
) -> Check[Storage]:
    """The check of a column, once enough of its rows are found."""

    def answer(storage: Storage) -> Iterator[Finding]:
        rows, found = storage.column(name), storage.relation(name)
        if rows is None or found is None:
            n = sum(len(x.stored) for x in storage.columns[name])
            yield Finding(code, "undecided", n=n, at=f"{n} of {_FEWEST} rows are found so far")
        else:
            yield from test(storage, rows, found)

    return Check(code, ("env", "observation", name), answer)


CHECKS: tuple[Check[Storage], ...] = (
    Check("stored_batches", ("observation",), _batches),
    _of("stored_next", "next_observation", _next),
    Check("stored_observations", ("env", "observation"), _observations),
    _of("stored_rewards", "reward", _rewards),
    _of("stored_ends", "terminated", _ends),
    _of("stored_actions", "action", _actions),
    Check("stored_values", ("value",), _values),
)
