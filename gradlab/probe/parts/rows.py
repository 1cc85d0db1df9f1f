"""Rows of the replay against what was recorded around the environment.

    rewards     what the paid ones explain of the stored        flipped, lost, late, unrelated
    next        the observation after the step                  the first, another's, the reset's
    ends        terminated and truncated of ended steps         lost, late, or a time limit as one
    actions     what was stored against what was sent           up to a clip or the limits' scale
    observation whether the rest of the row is of its step      older, newer, another's

Where fewer than half of the rows are found, while every recorded step is kept, observations are
transformed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import NOT_DRAWN, UNCUT, UNTERMINATED
from gradlab.probe.alarms.evidence import STORED as KIND
from gradlab.probe.parts.matched import (
    ROWS,
    SAME,
    Matched,
    Unexplained,
    as_sent_or_scaled,
    cut_to_whole,
    explained,
    of_one,
)
from gradlab.probe.parts.recorder import CheckAnswer, keys, off

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Ring

STORED = ("observation", "action", "reward", "next_observation", "terminated")
TRANSFORMED = (
    "fewer than half of the stored observations were seen: where they are transformed, record the "
    "environment outside of wrappers that do it, env = probe.record(Normalise(env))"
)
CALLED = (
    "the policy is called at other observations than those that were recorded: where the loop "
    "normalises them, hand over each minibatch as it was stored, probe.batch(observation=…); where "
    "a wrapper does, record the environment outside of it, env = probe.record(Normalise(env))"
)
ALIASED = "the stored observations are the same row again and again, not copies: see there"
UNENDED = "the environment is stepped on after the end of its episode: see there"
EMPTY = "many drawn rows are zeros, which the environment never gave: see there"
UNRECORDED = "the environment is not recorded: env = probe.record(env), then probe.batch(…)"
_OLD = 500  # rows, of which half are new by chance
_REPEATED = 3  # looks in a row at one and the same batch, or at rows that no step began at
_BESIDE, _BY_CHANCE = 32, 0.9  # recorded rows; turns between these and zeros
_LAG, _KNOWN = 16, 0.25  # steps by which an observation is older; share of actions that were sent
_LEAST, _TWICE, _ALL = 16, 8, 0.9  # rows; of them repeated ones; share that no step began at
ENOUGH, ENDS = 100, 5  # rows that a check needs, and ended ones
NEWEST = 4  # times as many rows, the newest, of which more than half are a fault
_HALF = 0.5
_FEW = 1e-3  # of all rows, above which those that differ are no rounding: neither sound nor a fault
_MIXED = 0.1  # of the newest rows in another scale than the rest, a fault
FLAT, STEEP = 1e-3, 0.5  # share of its size that is lost; correlation of what is flipped
SCALED, AS_SENT = "scaled", "as sent"  # rows that are no mistakes, but for one among the other
_Array = NDArray[np.float64]


_HELD = {"observation": "begun", "next_observation": "following"}
_Count = Callable[[Matched], tuple[int, Mapping[str, int]]]


def check_lengths(given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises InputError for columns of another length than the observations."""
    rows = len(given["observation"])
    for name in names:
        if name in given and len(given[name]) != rows:
            raise InputError(f"{name} has {len(given[name])} rows, observation has {rows}")


@final
class Rows:
    """One question about stored rows.

    Args:
        name: of the check; needs: a column that the batch must have; least: rows it takes.
        count: of a batch, rows that were looked at, and of these how many have which mistake.
        words: of every mistake; of "": why rows that differ are none.
        others: what rows are that were found and not looked at, where they could have been.
        scale: of rows that are counted as `SCALED`, in words.
        most: share of the newest rows, above which those that differ are a fault.
    """

    def __init__(
        self,
        name: str,
        needs: str,
        count: _Count,
        words: Mapping[str, str],
        least: int = ENOUGH,
        others: str = "",
        scale: str = "",
        most: float = _HALF,
        none: Callable[[Ring], str] | None = None,
    ) -> None:
        self.name, self.needs, self.count, self.words = name, needs, count, words
        self.least, self.others, self.scale, self.most = least, others, scale, most
        self.none = none  # what is said before the first row of its kind
        self._ring: Ring | None = None  # where rows come from
        self.reason = UNRECORDED
        self.hidden = False  # whether too few of the rows are found
        self.beyond = 0  # looks in which the actor's actions were no shares of their limits
        self._newest: deque[tuple[int, Mapping[str, int]]] = deque()
        self._given, self._looked, self._found = False, 0, Counter[str]()
        self._left = 0  # rows that were found and not looked at

    def take(self, rows: Matched) -> None:
        column = _HELD.get(self.needs, self.needs)
        self._given |= getattr(rows, column) is not None
        self.reason = f"probe.batch does not hand over {self.needs}"
        self._ring = rows.ring
        looked, found = self.count(rows)
        self._left += len(rows.begun) - looked
        if looked:
            self._looked += looked
            self._found.update(found)
            self._newest.append((looked, found))
            while self._recent - self._newest[0][0] >= NEWEST * self.least:
                self._newest.popleft()

    @property
    def rare(self) -> bool:
        """Whether rows of its kind were recorded, and too few of them looked at."""
        ring, few = self._ring, self._given and not self.hidden and self._looked < self.least
        return few and self.none is not None and ring is not None and self.none(ring) == NOT_DRAWN

    @property
    def _recent(self) -> int:
        """How many rows are the newest."""
        return sum(looked for looked, _ in self._newest)

    def answer(self, *_: object) -> CheckAnswer:
        if self.hidden or not self._given:
            return off(TRANSFORMED if self.hidden else self.reason)
        newest = Counter[str]()
        for _looked, found in self._newest:
            newest.update(found)
        recent, newest = self._recent, _in_one_scale(newest)
        every = _in_one_scale(self._found).total()
        mistake, times = max(newest.items(), key=lambda each: each[1], default=("", 0))
        share = times / recent if recent else nan
        if self._looked < self.least:
            proof = f"{self._looked} rows of {self.least}"
            if not self._looked and self.none is not None and self._ring is not None:
                proof = self.none(self._ring)
            return CheckAnswer("waiting", proof, share, self.most)
        scaled = 2 * self._found[SCALED] > self._looked
        form = f", {self.scale}" if scaled else ""
        of = f"{every:,} of {self._looked:,} rows"
        most = _MIXED if mistake == "mixed" else self.most
        limit = f"{'a tenth' if most == _MIXED else 'half'} of the newest {NEWEST * self.least}"
        left = f"; {self._left:,} left out, {self.others}" if self._left and self.others else ""
        lately = f", {newest.total():,} of the newest {recent:,}" if every else ""
        if every and not mistake and "" not in self.words:
            lately += ", by none of the known ways"
        proof = f"{of} differ{lately}{form} (fault: more than {limit}){left}"
        if share > most and not mistake and "" in self.words:
            return off(f"{of} {self.words[mistake]}")
        if share <= most and scaled and self.beyond >= ENDS and "apart" in self.words:
            mistake, share = "apart", 1.0
            proof = (
                f"stored {self.scale}: the actor's loss gives the critic actions beyond ±1 in "
                f"{self.beyond} looks (fault: {ENDS})"
            )
        if share > most and mistake:
            return CheckAnswer(
                "fault", proof, share, most, self._looked, KIND, self.words[mistake]
            )  # fmt: skip
        if every > _FEW * self._looked:
            return CheckAnswer("open", proof, share, most, self._looked)
        return CheckAnswer("sound", proof, share, most, self._looked)


def _cut(ring: Ring) -> str:
    return NOT_DRAWN if ring.limits else UNCUT


def _done(ring: Ring) -> str:
    return NOT_DRAWN if ring.terminations else UNTERMINATED


def _in_one_scale(found: Counter[str]) -> Counter[str]:
    """Rows that differ, by mistake; those in the rarer one of two scales among them."""
    differ = Counter({name: n for name, n in found.items() if name not in (SCALED, AS_SENT) and n})
    if mixed := min(found[SCALED], found[AS_SENT]):
        differ["mixed"] = mixed
    return differ


@final
class Drawn:
    """Are batches drawn anew, and from rows that were stored?

    Rows of zeros, of an environment that gave none, are empty ones of a replay where they lie among
    recorded rows as chance has it: those that fill up sequences come in stretches.
    """

    name = "batches are drawn anew"

    def __init__(self) -> None:
        self._last, self._alike, self._looks = 0, 0, 0
        self._reason = UNRECORDED
        self._some = self._most = 0  # looks in a row with rows of zeros, and with mostly these
        self._share, self._known = 0.0, 0  # of rows of zeros, at last; recorded rows beside them
        self._turns = self._chance = 0.0  # from zeros to others and back, and by chance
        self._newest, self._old = -1, 0  # place drawn so far, and rows since twice as many are kept

    def take(self, given: Mapping[str, NDArray[Any]], ring: Ring) -> None:
        """The first batch of a window."""
        observations, recorded = given["observation"], ring.count
        if recorded <= ring.size:
            self._see_zeros(given, ring)
            places = ring.places(observations)
            self._newest = max(self._newest, int(places.max()))
            late = recorded > 2 * (self._newest + 1)
            self._old = self._old + int((places >= 0).sum()) if late else 0
        if (observations[:1] == observations).all():
            self._reason = "all observations of a batch are the same"
        elif recorded > 2 * len(observations):
            mine = hash(observations.tobytes())
            self._alike = self._alike + 1 if mine == self._last else 0
            self._last, self._looks = mine, self._looks + 1

    def _see_zeros(self, given: Mapping[str, NDArray[Any]], ring: Ring) -> None:
        observations = given["observation"]
        rows = len(observations)
        empty = ~np.any([(x.reshape(rows, -1) != 0).any(1) for x in given.values()], axis=0)
        zeros, more = int(empty.sum()), observations[~empty]
        if zeros and ring.gave(np.array(keys(observations[empty][:1]), np.int64)).any():
            zeros = 0
        self._some = self._some + 1 if zeros else 0
        self._most = self._most + 1 if 2 * zeros > rows else 0
        if zeros:
            self._share = zeros / rows
            self._known += int(ring.begin(np.array(keys(more), np.int64)).sum())
            self._turns += int((empty[1:] != empty[:-1]).sum())
            self._chance += 2 * zeros * (rows - zeros) / rows

    @property
    def empty(self) -> bool:
        """Whether rows of zeros come again and again, as by chance."""
        return self._some >= _REPEATED and self._turns >= _BY_CHANCE * self._chance

    def answer(self, *_: object) -> CheckAnswer:
        if self.empty:
            proof = (
                f"{self._share:.0%} of the rows of a batch are zeros, which the environment never "
                f"gave, beside {self._known} recorded rows so far (fault: more than half, beside "
                f"{_BESIDE})"
            )
            given = self._share, _HALF, self._some
            if self._most < _REPEATED or self._known < _BESIDE:
                return CheckAnswer("open", proof, *given)
            return CheckAnswer(
                "fault", proof, *given, KIND,
                f"{self._share:.0%} of the rows of a batch are zeros, which the environment never "
                f"gave: does the replay draw from its empty part, rows that were never stored?",
            )  # fmt: skip
        if not self._looks:
            return off(self._reason)
        proof = f"{self._alike} times in a row the same rows (fault: {_REPEATED})"
        if self._looks <= _REPEATED:
            return CheckAnswer("waiting", proof, self._alike, _REPEATED)
        if self._old >= _OLD and self._alike < _REPEATED:
            return CheckAnswer(
                "open",
                f"none of the last {self._old:,} rows is of the newer half of the recorded steps: "
                f"does the replay keep these, and draw from all that it has?",
                float(self._old), _OLD, self._looks,
            )  # fmt: skip
        if self._alike < _REPEATED:
            return CheckAnswer("sound", proof, self._alike, _REPEATED, self._looks)
        words = "the same batch comes again and again: is the replay sampled once only?"
        return CheckAnswer("fault", proof, self._alike, _REPEATED, self._looks, KIND, words)


@final
class StoredCopies:
    """Are stored observations copies, or one array that the environment changes in place?

    Then rows are at what came last, at which no step began: a sound loop has no such row. Or, where
    each row is copied at its end, they are at their own next observations.
    """

    name = "observations are stored as copies"

    def __init__(self) -> None:
        self._alike = self._looks = self._rows = self._distinct = 0
        self._equal = self._beside = 0  # looks at rows that are their next observations

    @property
    def shared(self) -> bool:
        return max(self._alike, self._equal) >= _REPEATED

    def take(self, observations: Tensor, ring: Ring, following: Tensor | None = None) -> None:
        """Rows that the policy is trained on, or a batch, with its next observations."""
        if observations.ndim == 0 or len(observations) < _LEAST:
            return
        mine = keys(observations[: 4 * ROWS].detach().float().cpu().numpy())
        found, counts = np.unique(np.array(mine, np.int64), return_counts=True)
        rows, alike = len(mine), False
        if rows - len(found) >= _TWICE:  # elsewhere repeated rows are none of this kind
            alike = bool(counts[ring.ahead(found)].sum() > _ALL * rows)
        self._alike = self._alike + 1 if alike else 0
        if following is not None and following.shape == observations.shape:
            full = (observations != 0)[:rows].flatten(1).any(1)  # empty ones have a check
            same = (following == observations)[:rows].flatten(1).all(1) & full
            # Of rows at which steps begin it is the next observation that is wrong.
            last = float(ring.ahead(np.array(mine, np.int64)).mean()) > _KNOWN
            moves = ring.count >= _BESIDE and ring.still < _HALF
            equal = moves and float(same.double().mean()) > _ALL
            self._equal = self._equal + 1 if equal and last else 0
            self._beside = self._beside + 1 if equal and not last else 0
        self._rows, self._distinct, self._looks = rows, len(found), self._looks + 1

    def answer(self, *_: object) -> CheckAnswer:
        if not self._looks:
            return off(UNRECORDED)
        if self._beside >= _REPEATED:
            return off("the stored observations are their own next ones: see there")
        proof = (
            f"{self._alike} times in a row nearly all rows are observations that no step began at, "
            f"{self._equal} times their own next ones (fault: {_REPEATED})"
        )
        if self._looks < _REPEATED:
            return CheckAnswer("waiting", proof, self._alike, _REPEATED, self._looks)
        if not self.shared:
            return CheckAnswer("sound", proof, self._alike, _REPEATED, self._looks)
        if self._alike < _REPEATED:
            return CheckAnswer(
                "fault", proof, self._equal, _REPEATED, self._looks, KIND,
                "the stored observations are their own next ones: does the loop keep the array "
                "that the environment changes, or set `obs = next_obs` before the row is stored? "
                "Copy it, torch.as_tensor(obs).clone()",
            )  # fmt: skip
        proof += f"; {self._distinct} distinct among {self._rows} rows"
        return CheckAnswer(
            "fault", proof, self._alike, _REPEATED, self._looks, KIND,
            f"the stored observations are the same row again and again, that of the last step "
            f"({self._distinct} distinct among {self._rows} rows): does the loop keep the "
            f"array that the environment changes? Copy it, torch.as_tensor(obs).clone()",
        )  # fmt: skip


def _rewards() -> _Count:
    """A scale, a constant that is added, a clip or a running normalisation is no fault."""
    unexplained = Unexplained()

    def count(rows: Matched) -> tuple[int, Mapping[str, int]]:
        paid, earlier, stored = rows.paid(), rows.paid(1), rows.reward
        one = np.ones(len(rows.begun), dtype=bool)
        itself = False
        if rows.steps > 1:
            one = rows.known
        elif rows.following is not None:  # whose next observation is the one after one step
            known = rows.known | (rows.following == rows.begun)
            one = known | rows.ended if known.mean() > _HALF else _one_reward(rows)
            itself = bool(np.mean(rows.following == rows.begun) > _HALF)
        if stored is None or one.sum() < 8 or not paid[one].any():
            return 0, {}
        if not itself and (sums := rows.sums) is not None and sums.steps != rows.steps:
            return len(sums.same), {"several": int(sums.same.sum())}
        begun, earlier = rows.begun[one], earlier[one]
        paid, stored = paid[one], stored[one]
        if np.linalg.norm(stored) < FLAT * np.linalg.norm(paid):
            return len(paid), {"lost": len(paid)}
        if cut_to_whole(paid, stored):
            return len(paid), {"whole": len(paid)}
        same, scaled = explained(paid, stored, rows.steps > 1)
        varies = np.ptp(paid) > SAME * np.abs(paid).max()
        if varies and not itself and (scaled or same.mean() < _HALF):
            size = SAME * np.median(np.abs(paid))
            late = (np.abs(stored - earlier) <= size) & (np.abs(stored - paid) > size)
            if late.mean() > _HALF:  # where rewards change slowly they rise with what was paid, too
                return len(paid), {"late": int(late.sum())}
            other = (np.abs(stored - paid) > size) & rows.ring.pays(stored) & ~_affine(paid, stored)
            if other.mean() > _HALF and len(np.unique(stored[other])) > _HALF * len(paid):
                return len(paid), {"elsewhere": int(other.sum())}
        if same.mean() >= _HALF:
            differ = int((~same).sum())
            return len(paid), {"": differ, SCALED: scaled * (len(paid) - differ)}
        a, b = (x - x.mean() if varies else x for x in (paid, stored))
        if float(a @ b) < -STEEP * float(np.linalg.norm(a) * np.linalg.norm(b)):
            return len(paid), {"flipped": len(paid)}
        elsewhere = ~same & rows.ring.pays(stored)
        if elsewhere.mean() > _HALF and not itself:
            return len(paid), {"elsewhere": int(elsewhere.sum())}
        unexplained.take(begun[~same], paid[~same], stored[~same])
        return len(paid), {"unrelated" * unexplained.unrelated: int((~same).sum())}

    return count


def _affine(paid: _Array, stored: _Array) -> NDArray[np.bool_]:
    """Which rewards are one line through most of them: scaled, or moved by a constant."""
    a, b = (np.quantile(x, (0.25, 0.75)) for x in (paid, stored))  # a rise keeps their order
    slope = (b[1] - b[0]) / (a[1] - a[0]) if a[1] > a[0] else 0.0
    size = SAME * max(np.abs(stored).max(initial=0.0), 1e-12)
    return np.asarray(np.abs(stored - np.median(stored) - slope * (paid - np.median(paid))) <= size)


def _next(rows: Matched) -> tuple[int, Mapping[str, int]]:
    keys, found = rows.following, rows.found
    if keys is None:
        return 0, {}
    wrong = ~rows.ended & ~rows.known
    equal = (keys == rows.begun) & (wrong | (rows.places != found.steps)) & ~rows.ended
    late = wrong & (keys == found.later) & _one_reward(rows) & ~equal
    other = np.zeros(len(keys), dtype=bool)
    if rows.reward is not None:  # paid by this step alone, which no sum over several steps is
        paid = found.reward
        alone = (paid != 0) & (np.abs(rows.reward - paid) <= SAME * np.abs(paid))
        other = wrong & alone & rows.ring.begin(keys) & ~(equal | late)
    kinds = {"equal": equal, "late": late, "other": other, "": wrong & ~(equal | late | other)}
    return int((~rows.ended).sum()), {name: int(each.sum()) for name, each in kinds.items()}


def _last(rows: Matched) -> tuple[int, Mapping[str, int]]:
    """Rows of steps that were cut by a time limit: what comes after them is used."""
    keys = rows.following
    if keys is None:
        return 0, {}
    ends = np.asarray(rows.ring.ends(rows.on[:, : rows.steps]).any(1))
    cut = ends[:, 1] & ~ends[:, 0]
    if rows.terminated is not None:
        cut &= rows.terminated == 0
    firsts = rows.ring.firsts
    first = np.array([each in firsts for each in keys.tolist()], dtype=bool)
    return int(cut.sum()), {"reset": int((cut & first & ~rows.known).sum())}


def _terminated() -> _Count:
    late = elsewhere = 0  # ends that are stored at an episode's first row, and at later ones

    def count(rows: Matched) -> tuple[int, Mapping[str, int]]:
        nonlocal late, elsewhere
        stored, found = rows.terminated, rows.found
        if stored is None:
            return 0, {}
        firsts = rows.ring.firsts
        first = np.array([each in firsts for each in rows.begun.tolist()], dtype=bool)
        stray = (stored > 0) & ~rows.ended
        if rows.following is not None:  # else an end within several steps
            stray &= rows.following == found.following
        late, elsewhere = late + int((first & stray).sum()), elsewhere + int((~first & stray).sum())
        ends = rows.ends[:, 0] & rows.sure
        gone = int((ends & (stored == 0)).sum())
        return int(ends.sum()), {"late" if late > elsewhere else "lost": gone}

    return count


def _truncated(rows: Matched) -> tuple[int, Mapping[str, int]]:
    stored, (terminated, truncated) = rows.terminated, rows.ends.T
    if stored is None:
        return 0, {}
    cut = truncated & ~terminated & rows.sure
    return int(cut.sum()), {"ended": int((cut & (stored > 0)).sum())}


def _actions(low: _Array | None, high: _Array | None) -> _Count:
    """As they were sent, or all of them in shares of the limits."""

    def count(rows: Matched) -> tuple[int, Mapping[str, int]]:
        stored, found = rows.action, rows.found
        if stored is None or stored.shape != found.action.shape:
            return 0, {}
        plain, scaled = as_sent_or_scaled(stored, found.action, low, high, rows.ring.valued)
        kinds = {"others": ~(plain | scaled), SCALED: scaled & ~plain, AS_SENT: plain & ~scaled}
        counts = {name: int(each.sum()) for name, each in kinds.items()}
        if 2 * counts["others"] > len(stored):
            steps = rows.ring.sent(stored)
            known = kinds["others"] & (steps >= 0)  # of actions at a limit none are
            later = rows.ring.apart(steps, found.steps, 1)[known]
            if len(later) > _KNOWN * len(stored):
                names = {"late": later == 1, "ahead": later == -1}
                most = (name for name, each in names.items() if 2 * each.sum() > len(later))
                counts[next(most, "elsewhere")] = counts.pop("others")
        return len(stored), counts

    return count


def _begun(rows: Matched) -> tuple[int, Mapping[str, int]]:
    """Rows whose observation alone is of another step, each with the most of a batch."""
    if rows.following is not None and np.mean(rows.following == rows.begun) > _HALF:
        return 0, {}  # which has a name of its own
    other = rows.places != rows.found.steps
    of = rows.places[other], rows.found.steps[other]
    older = rows.ring.apart(*of, _LAG)
    name = "elsewhere"
    if 2 * (older > 0).sum() > len(older):
        name = f"{older.max()} older"
    elif 2 * (older == -1).sum() > len(older):
        name = "newer"
    return len(other), {name: int(other.sum())}


def _scale(low: _Array | None, high: _Array | None) -> str:
    if low is not None and high is not None:
        ends = np.unique(np.append(high, -low))
        if len(ends) == 1:
            return f"divided by {ends[0]:.3g}"
    return "in shares of their limits"


def _one_reward(rows: Matched) -> NDArray[np.bool_]:
    """Whether the stored reward is that of one step: else rows of several steps are stored."""
    if rows.reward is None:
        return np.zeros(len(rows.begun), dtype=bool)
    return of_one(rows.found.reward, rows.reward)


def questions(low: _Array | None, high: _Array | None) -> list[Rows]:
    """All checks of stored rows, for an environment with these limits of actions."""
    return [
        Rows("rewards are stored as paid", "reward", _rewards(), {
            "flipped": "the stored rewards have the opposite sign of those that the environment "
            "pays: where is the reward negated?",
            "late": "the stored rewards are those of the step before: is the reward stored before "
            "the step is made?",
            "whole": "the stored rewards are whole numbers, the paid ones without their fractions: "
            "does the replay hold rewards as integers?",
            "lost": "the stored rewards are nearly 0 where the environment pays: where is the "
            "reward lost?",
            "several": "the stored rewards are sums over several steps, and the next observation "
            "is that of another number of steps: is the observation stored that came that many "
            "steps on?",
            "elsewhere": "the stored rewards are those that the environment paid for other steps: "
            "are the columns of a row drawn by one and the same index?",
            "unrelated": "the stored rewards have nothing in common with those that the "
            "environment paid, and differ when a row is drawn again: are they of the same rows as "
            "the observations?",
        }, scale="rising with what was paid: scaled, moved, clipped or normalised"),
        Rows("next observations are those after the step", "next_observation", _next, {
            "equal": "the stored next observation is the observation itself: is `obs = next_obs` "
            "set before the row is stored, or the array kept, and not a copy, that the environment "
            "changes?",
            "late": "the stored next observation is that of one step later: when is the row "
            "stored?",
            "other": "the stored next observation is that of another step: does the replay write "
            "over rows, or keep the array that the environment changes?",
            "": "have a next observation that no environment gave after one step: rows of several "
            "steps, or transformed?",
        }, others="which end an episode: of those that a time limit cut, what follows has a "
            "check of its own"),
        Rows("episodes end with their last observation", "next_observation", _last, {
            "reset": "rows that a time limit cut have the next episode's first observation as "
            "their next one: is `final_obs` of the infos stored?",
        }, ENDS, none=_cut),
        Rows("terminations are stored", "terminated", _terminated(), {
            "lost": "steps that ended an episode are not stored as terminated: which flag does "
            "the replay get, and does a sum over several steps end there?",
            "late": "the stored terminations are those of the step before: is the flag stored "
            "before the step is made, or handed over as a rollout may keep it, one row late?",
        }, ENDS, none=_done),
        Rows("time limits are no terminations", "terminated", _truncated, {
            "ended": "steps that a time limit cut are stored as terminated: is "
            "`terminated or truncated` stored where `terminated` is meant?",
        }, ENDS, none=_cut),
        Rows("actions are stored as sent", "action", _actions(low, high), {
            "others": "the stored actions are not those that the environment was given: is the "
            "noise, the clip or the order of steps between the two?",
            "late": "the stored actions are those of the step before: is `obs = next_obs` set "
            "before the row is stored, or the row stored before its action is drawn?",
            "ahead": "the stored actions are sent one step later: is the next action drawn before "
            "the row is stored? A wrapper that delays actions belongs inside: "
            "env = probe.record(Delayed(env))",
            "elsewhere": "the stored actions are those of other steps than the stored "
            "observations: are the columns of a row drawn by one and the same index?",
            "mixed": f"the stored actions are as sent in some rows, {_scale(low, high)} in others: "
            "which of the lines that store them scales?",
            "apart": f"the stored actions are {_scale(low, high)}, those of the policy in the "
            "actor's loss are not: in which of both scales is the critic to have them?",
        }, scale=_scale(low, high)),
        Rows("observations are those before the step", "observation", _begun, {
            "newer": "the stored observations are those after the step: is `obs = next_obs` set "
            "before the row is stored?",
            "elsewhere": "the stored observations are those of other steps than the rest of their "
            "rows: are the columns of a row drawn by one and the same index?",
        } | {
            f"{k} older": f"the stored observations are not those at which the step began but "
            f"{'one step' if k == 1 else f'up to {k} steps'} older: is `obs = next_obs` set after "
            "every step?"
            for k in range(1, _LAG + 1)
        }, most=_MIXED),
    ]  # fmt: skip
