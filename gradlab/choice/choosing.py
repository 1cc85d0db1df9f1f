"""The parts of a choice, put together.

Candidates without a truth: realised gains, and mutual agreement.

Realised gains need no derivative of the simulator; the best possible gain stays unknown, and cells
that were not stepped along are not judged. Agreement is the cosine of two mean gradients, and no
accuracy: estimators that share a model or a critic share its error.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import combinations

import numpy as np

from gradlab import validation
from gradlab.choice.best import (
    TRUTHS,
    Candidates,
    at_batch,
    best,
    beyond,
    candidates,
    singles,
    steps,
)
from gradlab.choice.values import (
    CRITERIA,
    Best,
    Cell,
    Choice,
    Criterion,
    DirectionCosine,
    Steps,
)
from gradlab.choice.weights import mixing, pair_cells
from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import Kernels, mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import estimates


def _tried(profile: Profile, among: Candidates) -> tuple[Steps | None, Best | None]:
    """None where no competitor was stepped along."""
    realised = profile.realised
    if realised is not None:
        only = realised.of_competing if among.excluded else realised.among
        realised = only(among.names)
    best = None if realised is None else realised.best()
    if realised is None or best is None:
        return None, None
    steps = Steps(
        raises=tuple(cell for cell in realised.stepped if realised.helps(cell)),
        lowers=tuple(cell for cell in realised.stepped if realised.harms(cell)),
        realised=True,
    )
    gained = realised.change(best).value
    return steps, Best("return", best, gained, realised.ends(best), realised.not_excluded())


def _agreements(profile: Profile, among: Candidates) -> tuple[DirectionCosine, ...]:
    """Of every pair of competitors, and of gradients along the simulator's states, at horizons 1,
    the middle and the longest that both have."""
    if among.kernels is None:
        return ()
    agreements = []
    beside = [name for name in among.excluded if profile.identities[name].needs_states]
    shown = [name for name in profile.estimators if name in (*among.names, *beside)]
    for first, second in combinations(shown, 2):
        for cells in _pairs(among.kernels, first, second):
            each = _agreement(profile, among.kernels, *cells)
            if each is not None:
                agreements.append(each)
    return tuple(agreements)


def _pairs(kernels: Kernels, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """The same horizon for both; J_0 beside every horizon of the other."""
    horizons = {
        name: [h for other, h in kernels.cells if other == name] for name in (first, second)
    }
    if horizons[first] == [0]:
        return [((first, 0), (second, h)) for h in _few(horizons[second])]
    return [
        ((first, h), (second, h))
        for h in _few(sorted(set(horizons[first]) & set(horizons[second])))
    ]


def _few(horizons: list[int]) -> list[int]:
    long = [h for h in horizons if h > 0]
    return sorted({long[0], long[len(long) // 2], long[-1]}) if long else []


def _agreement(
    profile: Profile, kernels: Kernels, first: Cell, second: Cell
) -> DirectionCosine | None:
    try:
        moments = mixture_moments(kernels.grams([first], truth=second), np.ones(1))
    except InputError:  # gradients that are not finite
        return None
    cosine = estimates(moments, profile.batch)["cosine"]
    return DirectionCosine(first, second, cosine.value, interval("cosine", cosine))


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
    every = {name: best(profile, among, name) for name in _known(among) if truth["admissible"]}
    choice = Choice(
        among.names, among.excluded, profile.batch, int(profile.config["starts"]), False,
        identities=profile.identities,
    )  # fmt: skip
    if every.get("mse") is None:
        steps_taken, tried = _tried(profile, among)
        agreement = _agreements(profile, among)
        return replace(choice, steps=steps_taken, tried=tried, agreement=agreement)
    gain = every.get("gain")
    return replace(
        choice,
        truth=True,
        # Where no gain is a number errors decide.
        by="mse" if by is None and criterion == "gain" and gain is None else criterion,
        gain=gain,
        mse=every["mse"],
        direction=every["direction"],
        steps=None if gain is None else steps(profile, among),
        pair=mixing(profile, among, pair_cells(profile, among)),
        carried=truth.get("status") == "imprecise" and bool(truth.get("carried_by_few", False)),
        beyond=beyond(profile, gain, among),
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
