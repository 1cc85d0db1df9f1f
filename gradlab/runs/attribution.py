"""The attribution of an error to parts of a model: shares of bias and variance, with intervals.

    squared bias = Σ shares of {states, ∂f/∂s, ∂f/∂a, reward gradient, critic ∇_s, critic ∇_a}
    variance     = start states + policy noise + dynamics noise + ensemble members

Shares of the squared bias are Shapley's (`statistics.shapley`) and may be negative: `first` is what
curing a part does while all others stay wrong, `last` once they are right, `replacement` the one
part, or the two, whose cure takes off most. fraction = share / total, where that is clear of 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.runs.profile import Profile, check_profile
from gradlab.runs.substitutions import Label, SubstitutionResults
from gradlab.statistics.intervals import LEVEL, Interval, interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.selection import best_replacement
from gradlab.statistics.shapley import fraction_interval, share_interval, shares

_Place = tuple[str, str, str, str]
_Row = dict[str, str | int | float]

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
CANCELLING = 2.0  # a share beyond this multiple of the total stands against others that undo it


@dataclass(frozen=True)
class Part:
    """A part of a squared bias or of a variance, in squared gradient norms.

    Attributes:
        name: a key of `CAUSES` or `SOURCES`; "total"; or what the part is a part of.
        value, se, low, high: with the 95% interval; either sign.
        fraction, fraction_low, fraction_high: of the total; NaN, −∞ and ∞ where the total is lost
            in noise.
    """

    name: str
    value: float
    se: float
    low: float
    high: float
    fraction: float
    fraction_low: float
    fraction_high: float

    @property
    def clear(self) -> bool:
        """Is its sign beyond doubt?"""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class BlockEntry:
    """One entry of one block within one cause's share.

    Attributes:
        cause: a key of `CAUSES`.
        block: "A", "B", "r_s", "r_a", "q_s", "q_a" or "K" (the policy's, along other states).
        output, input: names of coordinates; the output of a gradient is "reward" or "critic".
    """

    cause: str
    block: str
    output: str
    input: str
    part: Part


@dataclass(frozen=True)
class StepShare:
    """What one cause's share has at one step."""

    cause: str
    step: int
    part: Part


@dataclass(frozen=True)
class Replacement:
    """The cure of one or two causes that takes most off the total per cause, all others staying.

    Attributes:
        part: what it takes off; its interval holds although it was chosen among all.
        rivals: cures that may take off more per cause, the likeliest first.
    """

    causes: tuple[str, ...]
    part: Part
    rivals: tuple[tuple[str, ...], ...]


# lost: the squared bias is not told from 0; unknown: too few starts to rank replacements; none: no
# replacement lowers it; open: whether the best one does; contested: it does, others may by more.
_Advice = Literal["lost", "unknown", "none", "open", "contested", "sure"]


@dataclass(frozen=True)
class Account:
    """Where the squared bias of one estimator at one horizon comes from.

    Attributes:
        total: the squared bias; `lost`: its interval contains 0, so that fractions are undefined.
        shapley: one part per cause, in the order of `CAUSES`; they sum to the total.
        first, last: what curing that cause alone, or last, takes off the total.
        entries: of all causes; those of one cause sum to its share. Entries that are exactly 0
            are left out. Those of "states" are the blocks that change along other states.
        outputs, inputs: entries of the Jacobians and gradients (every cause but "states") summed
            by the coordinate that comes out or goes in.
        steps: one part per cause and step that is not exactly 0.
        cancelling: causes whose share is clear of 0 and larger than `CANCELLING` times the upper
            end of the total: others undo it, and curing one alone may make things worse.
        replacement: what to fix first; None with fewer than three groups of starts.
    """

    estimator: str
    horizon: int
    total: Part
    lost: bool
    shapley: tuple[Part, ...]
    first: tuple[Part, ...]
    last: tuple[Part, ...]
    entries: tuple[BlockEntry, ...]
    outputs: tuple[Part, ...]
    inputs: tuple[Part, ...]
    steps: tuple[StepShare, ...]
    cancelling: tuple[str, ...]
    replacement: Replacement | None

    @property
    def advice(self) -> _Advice:
        """What the replacements decide."""
        best = self.replacement
        if self.lost:
            return "lost"
        if best is None:
            return "unknown"
        if best.part.high <= 0:
            return "none"
        if not best.part.low > 0:
            return "open"
        return "contested" if best.rivals else "sure"

    def share(self, cause: str) -> Part:
        """The Shapley share of one cause."""
        return next(each for each in self.shapley if each.name == cause)


@dataclass(frozen=True)
class Spread:
    """Where the variance of one estimator at one horizon comes from.

    Attributes:
        total: the trace of the per-sample covariance.
        sources: one part per key of `SOURCES`, in that order; they sum to the total. Each is what
            its draws add once those before it are known.
        critics: the variance across critics (of the mean gradient, not of a sample, and so beside
            the sum); None where one critic was measured.
    """

    estimator: str
    horizon: int
    total: Part
    sources: tuple[Part, ...]
    critics: Part | None


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
    variance: tuple[Spread, ...]
    skipped: Mapping[str, str]
    starts: int
    rule: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]

    def account(self, estimator: str, horizon: int) -> Account | None:
        """One account, if there is one."""
        matching = (a for a in self.bias if (a.estimator, a.horizon) == (estimator, horizon))
        return next(matching, None)

    def table(self) -> pd.DataFrame:
        """One row per part, entries that are exactly 0 included (but those of "states").

        For `figures.ledger` and `figures.entries`.

        Columns: account ("bias" or "variance"), kind ("total", "shapley", "first", "last", "entry",
        "output", "input", "step", "replacement", "source", "critics"), estimator, horizon, cause
        (also a source, the coordinate of an output or input, or "A + B" of a replacement), block,
        output, input, step, and the part's value, se, ci_low, ci_high, fraction, fraction_low,
        fraction_high.
        """
        grid = list(_grid(self.state_names, self.action_names))
        rows = [row for each in self.bias for row in _bias_rows(each, grid)]
        rows += [row for each in self.variance for row in _variance_rows(each)]
        return pd.DataFrame(rows, columns=_COLUMNS)


def _grid(states: Sequence[str], actions: Sequence[str]) -> Iterator[_Place]:
    """Every (cause, block, output, input) of the dynamics, the reward and the critic."""
    for output in states:
        yield from (("A", "A", output, each) for each in states)
        yield from (("B", "B", output, each) for each in actions)
    for name, (cause_s, cause_a), letter in (
        ("reward", ("reward", "reward"), "r"),
        ("critic", ("critic_s", "critic_a"), "q"),
    ):
        yield from ((cause_s, f"{letter}_s", name, each) for each in states)
        yield from ((cause_a, f"{letter}_a", name, each) for each in actions)


def _bias_rows(account: Account, grid: Sequence[_Place]) -> Iterator[_Row]:
    at = (account.estimator, account.horizon)
    yield _row("bias", "total", *at, account.total)
    for kind in ("shapley", "first", "last"):
        for part in getattr(account, kind):
            yield _row("bias", kind, *at, part)
    for kind, parts in (("output", account.outputs), ("input", account.inputs)):
        for part in parts:
            yield _row("bias", kind, *at, part)
    ends = (np.nan, -np.inf, np.inf) if account.lost else (0.0, 0.0, 0.0)
    nothing = Part("entry", 0.0, 0.0, 0.0, 0.0, *ends)
    part_at = {(e.cause, e.block, e.output, e.input): e.part for e in account.entries}
    for place in dict.fromkeys((*grid, *part_at)):
        names: _Row = dict(zip(("cause", "block", "output", "input"), place, strict=True))
        yield _row("bias", "entry", *at, part_at.get(place, nothing)) | names
    for step in account.steps:
        yield _row("bias", "step", *at, step.part) | {"cause": step.cause, "step": step.step}
    if account.replacement is not None:
        yield _row("bias", "replacement", *at, account.replacement.part)


def _variance_rows(spread: Spread) -> Iterator[_Row]:
    at = (spread.estimator, spread.horizon)
    yield _row("variance", "total", *at, spread.total)
    for part in spread.sources:
        yield _row("variance", "source", *at, part)
    if spread.critics is not None:
        yield _row("variance", "critics", *at, spread.critics)


def _row(account: str, kind: str, estimator: str, horizon: int, part: Part) -> _Row:
    return {
        "account": account,
        "kind": kind,
        "estimator": estimator,
        "horizon": horizon,
        "cause": part.name,
        "block": "",
        "output": "",
        "input": "",
        "step": -1,
        "value": part.value,
        "se": part.se,
        "ci_low": part.low,
        "ci_high": part.high,
        "fraction": part.fraction,
        "fraction_low": part.fraction_low,
        "fraction_high": part.fraction_high,
    }


_Floats = NDArray[np.float64]


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
        bias=tuple(_account(results, k) for k in range(len(results.coalitions.cells))),
        variance=tuple(_spread(profile, results, k) for k in range(len(results.draws.cells))),
        skipped=results.skipped,
        starts=int(profile.config["starts"]),
        rule=results.rule,
        state_names=results.state_names,
        action_names=results.action_names,
    )


attribution = attribute  # by the noun


def _account(results: SubstitutionResults, cell: int) -> Account:
    """Everything about one game."""
    estimator, horizon = results.coalitions.cells[cell]
    game = results.coalitions.game(cell)
    split = shares(game)
    whole = _whole(split.total.value, interval("bias2", split.total))

    def parts(several: Sequence[Estimate]) -> tuple[Part, ...]:
        pairs = zip(split.players, several, strict=True)
        return tuple(_part(name, each, split.total) for name, each in pairs)

    rows = [
        (label, results.rows.estimate(k))
        for k, label in enumerate(results.rows.labels)
        if label.cell == cell
    ]
    shapley = parts(split.shapley)
    entries = [
        (*_coordinates(results, label), label, share) for label, share in rows if label.block
    ]
    dynamics = [each for each in entries if each[2].cause != "states"]
    best, replacement = best_replacement(game), None
    if best is not None:
        taken = _part(" + ".join(best.players), best.taken_off, split.total, best.level)
        replacement = Replacement(best.players, taken, best.rivals)
    return Account(
        estimator=estimator,
        horizon=horizon,
        total=whole,
        lost=not whole.low > 0,
        shapley=shapley,
        first=parts(split.first),
        last=parts(split.last),
        entries=tuple(
            BlockEntry(label.cause, label.block, out, into, _part("entry", share, split.total))
            for out, into, label, share in entries
        ),
        outputs=_summed([(out, share) for out, _, _, share in dynamics], split.total),
        inputs=_summed([(into, share) for _, into, _, share in dynamics], split.total),
        steps=tuple(
            StepShare(label.cause, label.step, _part("step", share, split.total))
            for label, share in rows
            if not label.block
        ),
        cancelling=tuple(
            each.name
            for each in shapley
            if each.clear and abs(each.value) > CANCELLING * whole.high
        ),
        replacement=replacement,
    )


def _spread(profile: Profile, results: SubstitutionResults, cell: int) -> Spread:
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
            profile.estimate(estimator, quantity, horizon).value,
            profile.interval(estimator, quantity, horizon),
        )
        for quantity in ("variance", "variance_critics")
    )
    return Spread(
        estimator=estimator,
        horizon=horizon,
        total=whole,
        sources=tuple(_part(name, each, total) for name, each in sources),
        critics=None if np.isnan(critics.value) else critics,
    )


def _whole(value: float, ends: Interval) -> Part:
    return Part("total", value, ends.se, ends.low, ends.high, 1.0, 1.0, 1.0)


def _part(name: str, share: Estimate, total: Estimate, level: float = LEVEL) -> Part:
    plain, of_total = share_interval(share, level), fraction_interval(share, total, level)
    unknown = of_total.low == -np.inf
    fraction = np.nan if unknown else share.value / total.value
    ends = (plain.se, plain.low, plain.high, fraction, of_total.low, of_total.high)
    return Part(name, share.value, *(float(each) for each in ends))


def _coordinates(results: SubstitutionResults, label: Label) -> tuple[str, str]:
    """Names of an entry's output and input."""
    states, actions = results.state_names, results.action_names
    outputs = {"A": states, "B": states, "K": actions}.get(label.block)
    gradient = "critic" if label.block in ("q_s", "q_a") else "reward"
    inputs = actions if label.block in ("B", "r_a", "q_a") else states
    return gradient if outputs is None else outputs[label.output], inputs[label.input]


def _summed(shares: Sequence[tuple[str, Estimate]], total: Estimate) -> tuple[Part, ...]:
    """One part per name, the largest first."""
    value: dict[str, float] = defaultdict(float)
    left_out: dict[str, _Floats] = {}
    for name, share in shares:
        value[name] += share.value
        left_out[name] = left_out.get(name, 0.0) + share.left_out
    parts = [_part(name, Estimate(value[name], left_out[name]), total) for name in value]
    return tuple(sorted(parts, key=lambda part: -abs(part.value)))
