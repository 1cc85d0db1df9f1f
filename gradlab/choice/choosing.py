"""The parts of a choice, put together.

Candidates without a truth: realised gains, and mutual agreement.

Realised gains need no derivative of the simulator; the best possible gain stays unknown, and cells
that were not stepped along are not judged. Agreement is the cosine of two mean gradients, and no
accuracy: estimators that share a model or a critic share its error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from gradlab import validation
from gradlab.choice.best import TRUTHS, Candidates, at_batch, best, beyond, candidates, singles
from gradlab.choice.values import CRITERIA, QUANTITY, Best, Choice, Criterion
from gradlab.choice.weights import against_rule, mixed
from gradlab.errors import InputError
from gradlab.runs.identity import Cell
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import Number
from gradlab.statistics.grams import Kernels, mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import estimates
from gradlab.statistics.selection import signs


def _agreements(profile: Profile, among: Candidates) -> Iterator[tuple[Cell, Cell, Number]]:
    """Of every pair of competitors, and of gradients along the simulator's states, at horizons 1,
    the middle and the longest that both have."""
    if among.kernels is None:
        return
    beside = [name for name in among.excluded if profile.identities[name].needs_states]
    shown = [name for name in profile.estimators if name in (*among.names, *beside)]
    for first, second in combinations(shown, 2):
        for one, other in _pairs(among.kernels, first, second):
            try:
                moments = mixture_moments(among.kernels.grams([one], truth=other), np.ones(1))
            except InputError:  # gradients that are not finite
                continue
            cosine = estimates(moments, profile.batch)["cosine"]
            ends, n = interval("cosine", cosine), int(profile.config["starts"])
            yield one, other, Number(cosine.value, ends.low, ends.high, n)


def _pairs(kernels: Kernels, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """The same horizon for both; J_0 beside every horizon of the other."""
    one, other = ([h for each, h in kernels.cells if each == name] for name in (first, second))
    long = [h for h in (other if one == [0] else sorted({*one} & {*other})) if h > 0]
    few = sorted({long[0], long[len(long) // 2], long[-1]}) if long else []
    return [((first, 0 if one == [0] else h), (second, h)) for h in few]


def choice_of(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    by: Criterion | None = None,
) -> Choice:
    """What `gradlab.choose` answers from, whatever the measurement's premises: a training may begin
    with an absurd critic."""
    if batch is not None:
        validation.whole("batch", batch, 1)
    among = candidates(profile, estimators)
    measured = singles(profile, among.cells)
    profile = at_batch(profile, profile.batch if batch is None else batch, measured)
    criterion = _criterion(by, among)
    truth = profile.truth
    known = _known(among) if truth["admissible"] else ()
    every: dict[Criterion, Best | None] = {name: best(profile, among.cells, name) for name in known}
    choice = Choice(
        among.names, among.excluded, profile.batch, int(profile.config["starts"]), False,
        identities=profile.identities,
    )  # fmt: skip
    least = every.get("mse")
    if least is None:
        return replace(_tried(choice, profile), agreement=tuple(_agreements(profile, among)))
    against, rule = against_rule(profile, among, least)
    every = {name: each and mixed(profile, among, each) for name, each in every.items()}
    gain, sign = every.get("gain"), np.zeros(len(among.cells), dtype=np.int64)
    if gain is not None:
        sign = signs([profile.estimate(name, QUANTITY["gain"], h) for name, h in among.cells])
    return replace(
        choice,
        truth=True,
        # Where no gain is a number errors decide.
        by="mse" if by is None and criterion == "gain" and gain is None else criterion,
        gain=gain,
        mse=every["mse"],
        direction=every["direction"],
        raises=tuple(cell for cell, s in zip(among.cells, sign, strict=True) if s > 0),
        lowers=tuple(cell for cell, s in zip(among.cells, sign, strict=True) if s < 0),
        against=against,
        rule=rule,
        carried=truth.get("status") == "imprecise" and bool(truth.get("carried_by_few", False)),
        beyond={} if gain is None else beyond(profile, among.names, gain.cell),
    )


def _tried(choice: Choice, profile: Profile) -> Choice:
    """With what realised gains say; as it was where no competitor was stepped along."""
    realised = profile.realised
    if realised is not None:
        only = realised.of_competing if choice.excluded else realised.among
        realised = only(choice.estimators)
    cell = None if realised is None else realised.best()
    if realised is None or cell is None:
        return choice
    ends = realised.ends(cell)
    number = Number(realised.change(cell).value, ends.low, ends.high, choice.samples)
    return replace(
        choice,
        tried=Best("return", cell, number, realised.not_excluded()),
        raises=tuple(cell for cell in realised.stepped if realised.helps(cell)),
        lowers=tuple(cell for cell in realised.stepped if realised.harms(cell)),
    )


def _known(among: Candidates) -> tuple[Criterion, ...]:
    """Criteria that the truth has a meaning for."""
    return CRITERIA if among.of_return else ("mse", "direction")


def _criterion(by: Criterion | None, among: Candidates) -> Criterion:
    if by is None:
        return "gain" if among.of_return else "mse"
    if by not in CRITERIA:
        raise InputError(f"by is {by!r}, expected one of {CRITERIA}")
    if by not in _known(among):
        raise InputError(
            f"by is 'gain', but the truth is {TRUTHS[among.kind]} at the starts: choose by 'mse', "
            f"or measure with law='visited'"
        )
    return by
