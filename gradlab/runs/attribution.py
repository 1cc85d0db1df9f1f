"""The attribution of an error to parts of a model: shares of bias and variance, with intervals.

    squared bias = Σ shares of {states, ∂f/∂s, ∂f/∂a, reward gradient, critic ∇_s, critic ∇_a}
    variance     = start states + policy noise + dynamics noise + ensemble members

Shares of the squared bias are Shapley's (`statistics.shapley`) and may be negative: `first` is what
curing a part does while all others stay wrong, `last` once they are right, `replacement` the one
part, or the two, whose cure takes off most. fraction = share / total, where that is clear of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from gradlab.errors import InputError
from gradlab.runs.profile import Profile, check_profile
from gradlab.runs.substitutions import Label, SubstitutionResults
from gradlab.statistics.intervals import LEVEL, Interval, interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.selection import best_replacement
from gradlab.statistics.shapley import fraction_interval, share_interval, shares

CAUSES: Mapping[str, str] = {
    "states": "states",
    "A": "∂f/∂s",
    "B": "∂f/∂a",
    "reward": "reward gradient",
    "critic_s": "critic ∇_s",
    "critic_a": "critic ∇_a",
}
SOURCES: Mapping[str, str] = {
    "start": "start states",
    "policy": "policy noise",
    "dynamics": "dynamics noise",
    "member": "ensemble members",
}
_COLUMNS = (
    "account", "kind", "estimator", "horizon", "cause", "block", "output", "input", "step",
    "value", "se", "ci_low", "ci_high", "fraction", "fraction_low", "fraction_high",
)  # fmt: skip
_KINDS = ("total", "shapley", "first", "last", "entry", "step", "replacement")  # of a bias
CANCELLING = 2.0  # a share beyond this multiple of the total stands against others that undo it


@dataclass(frozen=True)
class Place:
    """What a part is of.

    Attributes:
        kind: "total"; of a bias "shapley", "first", "last", "entry" (of one block, within the share
            of one cause), "step" and "replacement"; of a variance "source" and "critics" (across
            critics, of the mean gradient and so beside the sum).
        cause: a key of `CAUSES` or `SOURCES`, a coordinate, or "A + B" of a replacement.
        block: "A", "B", "r_s", "r_a", "q_s", "q_a" or "K" (the policy's, along other states).
        output, input: names of coordinates; the output of a gradient is "reward" or "critic".
        step: of the path; −1 where it is of none.
    """

    kind: str
    cause: str
    block: str = ""
    output: str = ""
    input: str = ""
    step: int = -1


@dataclass(frozen=True)
class Part:
    """A part of a squared bias or of a variance, in squared gradient norms.

    Attributes:
        value, se, low, high: with the 95% interval; either sign.
        fraction, fraction_low, fraction_high: of the total; NaN, −∞ and ∞ where the total is lost
            in noise.
    """

    place: Place
    value: float
    se: float
    low: float
    high: float
    fraction: float
    fraction_low: float
    fraction_high: float

    @property
    def name(self) -> str:
        return self.place.cause

    @property
    def clear(self) -> bool:
        """Is its sign beyond doubt?"""
        return self.low > 0 or self.high < 0


# lost: the squared bias is not told from 0; unknown: too few starts to rank replacements; none: no
# replacement lowers it; open: whether the best one does; contested: it does, others may by more.
_Advice = Literal["lost", "unknown", "none", "open", "contested", "sure"]


@dataclass(frozen=True)
class Account:
    """Where the squared bias, or the variance, of one estimator at one horizon comes from.

    Attributes:
        of: "bias" or "variance".
        parts: the total, then all of it. Shares per cause, in the order of `CAUSES`, sum to it, as
            do sources: each is what its draws add once those before it are known. Entries and steps
            that are exactly 0 are left out.
        cures: causes whose replacement takes most off per cause, all others staying, and those that
            may take off more, the likeliest first; () with fewer than three groups of starts.
    """

    of: Literal["bias", "variance"]
    estimator: str
    horizon: int
    parts: tuple[Part, ...]
    cures: tuple[tuple[str, ...], ...] = ()

    def rows(self, kind: str) -> tuple[Part, ...]:
        """The parts of one kind."""
        return tuple(each for each in self.parts if each.place.kind == kind)

    def share(self, cause: str) -> Part:
        """The Shapley share of one cause."""
        return next(each for each in self.rows("shapley") if each.name == cause)

    @property
    def total(self) -> Part:
        return self.rows("total")[0]

    @property
    def replacement(self) -> Part | None:
        """What the first cure takes off; its interval holds although it was chosen among all."""
        return next(iter(self.rows("replacement")), None)

    @property
    def lost(self) -> bool:
        """Does the interval of the total contain 0, so that fractions are undefined?"""
        return not self.total.low > 0

    @property
    def cancelling(self) -> tuple[str, ...]:
        """Causes whose share is clear of 0 and larger than `CANCELLING` times the upper end of the
        total: others undo it, and curing one alone may make things worse."""
        most = CANCELLING * self.total.high
        shares = self.rows("shapley")
        return tuple(each.name for each in shares if each.clear and abs(each.value) > most)

    @property
    def advice(self) -> _Advice:
        """What the replacements decide."""
        best = self.replacement
        if self.lost:
            return "lost"
        if best is None:
            return "unknown"
        if best.high <= 0:
            return "none"
        if not best.low > 0:
            return "open"
        return "contested" if self.cures[1:] else "sure"


@dataclass(frozen=True)
class Attribution:
    """All accounts of a run.

    Attributes:
        bias: one account per estimator and attributed horizon; empty where there is no truth.
        variance: one per estimator and horizon.
        skipped: estimator → why it has no account of its bias (or, with "variance of " before the
            name, of its variance).
        starts: N behind every number.
        rule: how the horizons were chosen.
        state_names, action_names: the coordinates of entries.
    """

    bias: tuple[Account, ...]
    variance: tuple[Account, ...]
    skipped: Mapping[str, str]
    starts: int
    rule: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]

    def account(self, estimator: str, horizon: int) -> Account | None:
        """One account of a bias, if there is one."""
        matching = (a for a in self.bias if (a.estimator, a.horizon) == (estimator, horizon))
        return next(matching, None)

    def table(self) -> pd.DataFrame:
        """One row per part, entries that are exactly 0 included (but those of "states").

        For `figures.ledger` and `figures.entries`.

        Columns: account ("bias" or "variance"), kind, estimator, horizon, cause, block, output,
        input, step (what the part is of, see `Place`), and its value, se, ci_low, ci_high,
        fraction, fraction_low, fraction_high.
        """
        grid = tuple(_grid(self.state_names, self.action_names))
        rows = []
        for each in (*self.bias, *self.variance):
            for part in _filled(each, grid) if each.of == "bias" else each.parts:
                (kind, *place), (_, *numbers) = astuple(part.place), astuple(part)
                rows.append((each.of, kind, each.estimator, each.horizon, *place, *numbers))
        return pd.DataFrame(rows, columns=_COLUMNS)


def _grid(states: Sequence[str], actions: Sequence[str]) -> Iterator[Place]:
    """Every entry of the dynamics, the reward and the critic."""
    for output in states:
        yield from (Place("entry", "A", "A", output, each) for each in states)
        yield from (Place("entry", "B", "B", output, each) for each in actions)
    for name, by_state, by_action in (
        ("reward", "reward", "reward"), ("critic", "critic_s", "critic_a"),
    ):  # fmt: skip
        letter = "r" if name == "reward" else "q"
        yield from (Place("entry", by_state, f"{letter}_s", name, each) for each in states)
        yield from (Place("entry", by_action, f"{letter}_a", name, each) for each in actions)


def _filled(account: Account, grid: Sequence[Place]) -> Iterator[Part]:
    """All parts, with the entries that are 0."""
    ends = (np.nan, -np.inf, np.inf) if account.lost else (0.0, 0.0, 0.0)
    entries = {place: Part(place, 0.0, 0.0, 0.0, 0.0, *ends) for place in grid}
    entries |= {each.place: each for each in account.rows("entry")}
    for kind in _KINDS:
        yield from entries.values() if kind == "entry" else account.rows(kind)


def attribute(profile: Profile) -> Attribution:
    """The attribution of a measurement made with `attribute=True`.

    Raises:
        InputError: the profile holds no substitutions; says how to get them.
    """
    check_profile(profile)
    results = profile.attribution
    if results is None:
        raise InputError(
            "the profile holds no substitutions: measure(..., attribute=True) and `gradlab measure "
            "--attribute` compute them"
        )
    return Attribution(
        bias=tuple(_bias(results, k) for k in range(len(results.coalitions.cells))),
        variance=tuple(_variance(profile, results, k) for k in range(len(results.draws.cells))),
        skipped=results.skipped,
        starts=int(profile.config["starts"]),
        rule=results.rule,
        state_names=results.state_names,
        action_names=results.action_names,
    )


attribution = attribute  # by the noun


def _bias(results: SubstitutionResults, cell: int) -> Account:
    """Everything about one game."""
    game = results.coalitions.game(cell)
    split = shares(game)
    parts = [_whole(Place("total", "total"), split.total.value, interval("bias2", split.total))]
    for kind in ("shapley", "first", "last"):
        several = zip(split.players, getattr(split, kind), strict=True)
        parts += [_part(Place(kind, name), each, split.total) for name, each in several]
    rows = [
        (_place(results, label), results.rows.estimate(k))
        for k, label in enumerate(results.rows.labels)
        if label.cell == cell
    ]
    for kind in ("entry", "step"):
        parts += [_part(at, share, split.total) for at, share in rows if at.kind == kind]
    best = best_replacement(game)
    if best is not None:
        at = Place("replacement", " + ".join(best.players))
        parts.append(_part(at, best.taken_off, split.total, best.level))
    cures = () if best is None else (best.players, *best.rivals)
    return Account("bias", *results.coalitions.cells[cell], tuple(parts), cures)


def _variance(profile: Profile, results: SubstitutionResults, cell: int) -> Account:
    """The starts have what the other sources leave of the variance that was measured."""
    draws = results.draws
    estimator, horizon = draws.cells[cell]
    total = profile.estimate(estimator, "variance", horizon)
    later = [
        Estimate(float(value), left_out)
        for value, left_out in zip(draws.value[cell], draws.left_out[cell], strict=True)
    ]
    start = Estimate(
        total.value - sum(each.value for each in later),
        total.left_out - np.sum([each.left_out for each in later], axis=0),
    )
    sources = zip(("start", *draws.sources), (start, *later), strict=True)
    whole, critics = (
        _whole(
            Place(kind, "total"), profile.estimate(estimator, quantity, horizon).value,
            profile.interval(estimator, quantity, horizon),
        )
        for kind, quantity in (("total", "variance"), ("critics", "variance_critics"))
    )  # fmt: skip
    parts = [whole, *(_part(Place("source", name), each, total) for name, each in sources)]
    parts += [] if np.isnan(critics.value) else [critics]
    return Account("variance", estimator, horizon, tuple(parts))


def _whole(place: Place, value: float, ends: Interval) -> Part:
    return Part(place, value, ends.se, ends.low, ends.high, 1.0, 1.0, 1.0)


def _part(place: Place, share: Estimate, total: Estimate, level: float = LEVEL) -> Part:
    plain, of_total = share_interval(share, level), fraction_interval(share, total, level)
    unknown = of_total.low == -np.inf
    fraction = np.nan if unknown else share.value / total.value
    ends = (plain.se, plain.low, plain.high, fraction, of_total.low, of_total.high)
    return Part(place, share.value, *(float(each) for each in ends))


def _place(results: SubstitutionResults, label: Label) -> Place:
    """A step, or an entry with the names of its output and input."""
    if not label.block:
        return Place("step", label.cause, step=label.step)
    states, actions = results.state_names, results.action_names
    outputs = {"A": states, "B": states, "K": actions}.get(label.block)
    gradient = "critic" if label.block in ("q_s", "q_a") else "reward"
    inputs = actions if label.block in ("B", "r_a", "q_a") else states
    output = gradient if outputs is None else outputs[label.output]
    return Place("entry", label.cause, label.block, output, inputs[label.input])
