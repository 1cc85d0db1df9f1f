"""The parts of a choice, put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gradlab import validation
from gradlab.choice.batches import Singles, at_batch, singles
from gradlab.choice.best import best, beyond, steps
from gradlab.choice.candidates import TRUTHS, Candidates, candidates
from gradlab.choice.values import CRITERIA, Best, Choice, Criterion, Mixing, Usable
from gradlab.choice.weights import (
    Times,
    alpha_order,
    mixing,
    pair_cells,
    rule_times,
    several_cells,
)
from gradlab.choice.what_if import what_if
from gradlab.choice.without_truth import agreement, tried
from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.runs.usable_horizons import usable_horizons

FEWEST = 6  # groups, so that each half of them has three


def choice_of(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    by: Criterion | None = None,
    iteration: int | None = None,
    ramp: int | None = None,
) -> Choice:
    """What `gradlab.choose` answers from, whatever the measurement's premises: a training may begin
    with an absurd critic."""
    times = rule_times(iteration, ramp)
    if batch is not None:
        validation.whole("batch", batch, 1)
    among = candidates(profile, estimators)
    measured = singles(profile, among.cells)
    profile = at_batch(profile, profile.batch if batch is None else batch, measured)
    criterion = _criterion(by, among)
    if not profile.truth["admissible"]:
        return _without_truth(profile, among)
    every = {name: best(profile, among, name) for name in CRITERIA if name in _known(among)}
    if every["mse"] is None:
        return _without_truth(profile, among)
    if every[criterion] is None and by is None:
        criterion = "mse"  # no gain is a number
    return _with_truth(profile, among, every, criterion, measured, times)


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
            f"by is 'gain', but the truth is {TRUTHS[among.kind]} at the starts, which says "
            f"nothing about the return: choose by 'mse', or measure at visited states "
            f"(law='visited')"
        )
    return by


def _without_truth(profile: Profile, among: Candidates) -> Choice:
    trial = tried(profile, among)
    if profile.truth["admissible"]:
        why = "No estimator has a finite error: there is nothing to choose."
    elif trial is not None:
        why = (
            f"No weights without an admissible truth ({profile.truth['reason']}): estimators are "
            f"compared by what steps along them added to the return."
        )
    else:
        why = (
            f"No horizon and no weights without an admissible truth ({profile.truth['reason']}): "
            f"variance, its growth and the agreement of estimators are all that can be said."
        )
    return Choice(
        steps=None if trial is None else trial[0],
        tried=None if trial is None else trial[1],
        estimators=among.names,
        excluded=among.excluded,
        batch=profile.batch,
        samples=int(profile.config["starts"]),
        truth=False,
        identities=profile.identities,
        alpha=alpha_order(profile),
        agreement=agreement(profile, among),
        notes=(why, *_notes(profile, among)),
    )


def _with_truth(
    profile: Profile,
    among: Candidates,
    every: Mapping[Criterion, Best | None],
    by: Criterion,
    measured: Singles,
    times: Times,
) -> Choice:
    best = every[by] or every["mse"]
    assert best is not None
    two = pair_cells(profile, among)
    pair = mixing(profile, among, two, times)
    grams = among.kernels.grams(two) if among.kernels is not None and len(two) == 2 else None
    return Choice(
        estimators=among.names,
        excluded=among.excluded,
        batch=profile.batch,
        samples=int(profile.config["starts"]),
        truth=True,
        identities=profile.identities,
        by=by,
        gain=every.get("gain"),
        mse=every["mse"],
        direction=every["direction"],
        steps=steps(profile, among) if every.get("gain") is not None else None,
        usable=_usable(profile, among.judged),
        pair=pair,
        several=_several(profile, among, best, times),
        alpha=alpha_order(profile),
        what_if=what_if(profile, among, measured, grams, "mse" if by == "mse" else "direction"),
        carried=_carried(profile),
        beyond=beyond(profile, every.get("gain")),
        notes=_notes(profile, among),
    )


def _carried(profile: Profile) -> bool:
    truth = profile.truth
    return truth.get("status") == "imprecise" and bool(truth.get("carried_by_few", False))


def _usable(profile: Profile, judged: str | None) -> Usable | None:
    """None where an imprecise truth leaves cosines in doubt."""
    if judged is None or profile.truth.get("status") == "imprecise":
        return None
    return Usable(judged, usable_horizons(profile, judged))


def _several(profile: Profile, among: Candidates, best: Best, times: Times) -> Mixing | None:
    return mixing(profile, among, several_cells(profile, among, best.cell), times)


def _notes(profile: Profile, among: Candidates) -> tuple[str, ...]:
    """What a reader has to know about the answer."""
    notes = [f"{name} does not compete: {why}." for name, why in among.excluded.items()]
    if among.kernels is None:
        notes.append(
            "Weights, and directions at other batch sizes, need the kernels that this file of an "
            "older version does not have: measure again."
        )
    elif len(profile.left_out[0, 0, 0]) < FEWEST:
        groups = len(profile.left_out[0, 0, 0])
        notes.append(
            f"No weights: {groups} independent groups of starts cannot be split into a half that "
            f"fits and a half that judges; at least {FEWEST} are needed."
        )
    if profile.truth.get("status") == "imprecise":
        notes.append(
            "The truth's standard error is not small: comparisons are paired and remain sharp, "
            "absolute errors and cosines do not."
        )
    return tuple(notes)
