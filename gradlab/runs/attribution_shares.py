"""Shares, fractions and their intervals from the substitutions that a run has stored.

fraction = share / total, known where the total's interval is clear of 0
start states = variance that was measured − what the other sources add to it
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.runs.attribution import (
    CANCELLING,
    Account,
    Attribution,
    Entry,
    Part,
    Replacement,
    Spread,
    Step,
)
from gradlab.runs.profile import Profile, check_profile
from gradlab.runs.substitutions import Label, SubstitutionResults
from gradlab.statistics.intervals import LEVEL, interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.replacements import BestReplacement, best_replacement
from gradlab.statistics.shapley import fraction_interval, share_interval, shares

Floats = NDArray[np.float64]


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
            "--attribute` keep them, `gradlab attribute RUN.h5` makes them again for a saved run"
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
    whole = _whole(split.total)

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
    return Account(
        estimator=estimator,
        horizon=horizon,
        total=whole,
        lost=not whole.low > 0,
        shapley=shapley,
        first=parts(split.first),
        last=parts(split.last),
        entries=tuple(
            Entry(label.cause, label.block, out, into, _part("entry", share, split.total))
            for out, into, label, share in entries
        ),
        outputs=_summed([(out, share) for out, _, _, share in dynamics], split.total),
        inputs=_summed([(into, share) for _, into, _, share in dynamics], split.total),
        steps=tuple(
            Step(label.cause, label.step, _part("step", share, split.total))
            for label, share in rows
            if not label.block
        ),
        cancelling=tuple(
            each.name
            for each in shapley
            if each.clear and abs(each.value) > CANCELLING * whole.high
        ),
        replacement=_replacement(best_replacement(game), split.total),
    )


def _replacement(best: BestReplacement | None, total: Estimate) -> Replacement | None:
    if best is None:
        return None
    name = " + ".join(best.players)
    return Replacement(best.players, _part(name, best.taken_off, total, best.level), best.rivals)


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
    critics = profile.estimate(estimator, "variance_critics", horizon)
    return Spread(
        estimator=estimator,
        horizon=horizon,
        total=_whole(total, "variance"),
        sources=tuple(_part(name, each, total) for name, each in sources),
        critics=None if np.isnan(critics.value) else _whole(critics, "variance_critics"),
    )


def _whole(total: Estimate, quantity: str = "bias2") -> Part:
    """The interval that the profile's own table gives."""
    ends = interval(quantity, total)
    return Part("total", total.value, ends.se, ends.low, ends.high, 1.0, 1.0, 1.0)


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
    left_out: dict[str, Floats] = {}
    for name, share in shares:
        value[name] += share.value
        left_out[name] = left_out.get(name, 0.0) + share.left_out
    parts = [_part(name, Estimate(value[name], left_out[name]), total) for name in value]
    return tuple(sorted(parts, key=lambda part: -abs(part.value)))
