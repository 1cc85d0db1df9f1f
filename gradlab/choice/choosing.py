"""`choose`: the parts of a choice, put together."""

from __future__ import annotations

from collections.abc import Collection

from gradlab.choice.advice import advice
from gradlab.choice.agreement import agreement
from gradlab.choice.batches import Singles, at_batch, singles
from gradlab.choice.best import best
from gradlab.choice.field import Field, field
from gradlab.choice.values import Best, Choice, Mixing, Usable
from gradlab.choice.weights import (
    Times,
    alpha_order,
    mixing,
    pair_cells,
    rule_times,
    several_cells,
)
from gradlab.choice.what_if import what_if
from gradlab.errors import InputError
from gradlab.judgement import usable_horizon
from gradlab.profile import Profile

FEWEST = 6  # groups, so that each half of them has three


def choose(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    *,
    iteration: int | None = None,
    ramp: int | None = None,
) -> Choice:
    """The horizon, the estimator and the weights that a measurement supports, and how surely.

    Args:
        batch: N′, samples that one update averages; None: as the profile was measured for.
        estimators: who competes; None: everybody under the truth of the model's gradient but
            true_dynamics, a control arm that needs a differentiable simulator.
        iteration: training time at which the papers' rule-based weights are shown; None: at the
            start, in the middle and at the end of their ramp.
        ramp: T of these rules, in iterations; None: 9000, as in MPG.

    Raises:
        InputError: an unknown estimator, estimators under different truths, or numbers out of
            range.
    """
    times = rule_times(iteration, ramp)
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise InputError(f"batch is {batch!r}, expected an integer ≥ 1")
    among = field(profile, estimators)
    known = singles(profile, among.cells)
    profile = at_batch(profile, profile.batch if batch is None else batch, known)
    found = best(profile, among, "mse") if profile.truth["admissible"] else None
    if found is None:
        return _without_truth(profile, among)
    return _with_truth(profile, among, found, known, times)


def _without_truth(profile: Profile, among: Field) -> Choice:
    if profile.truth["admissible"]:
        why = "No estimator has a finite error: there is nothing to choose."
    else:
        why = (
            f"No horizon and no weights without an admissible truth ({profile.truth['reason']}): "
            f"variance, its growth and the agreement of estimators are all that can be said."
        )
    return Choice(
        estimators=among.names,
        excluded=among.excluded,
        batch=profile.batch,
        samples=int(profile.config["starts"]),
        truth=False,
        alpha=alpha_order(profile),
        theory=advice(profile, among),
        agreement=agreement(profile, among),
        notes=(why, *_notes(profile, among)),
    )


def _with_truth(
    profile: Profile, among: Field, found: Best, known: Singles, times: Times
) -> Choice:
    two = pair_cells(profile, among)
    pair = mixing(profile, among, two, times)
    grams = among.kernels.grams(two) if among.kernels is not None and len(two) == 2 else None
    return Choice(
        estimators=among.names,
        excluded=among.excluded,
        batch=profile.batch,
        samples=int(profile.config["starts"]),
        truth=True,
        mse=found,
        direction=best(profile, among, "direction"),
        usable=_usable(profile, among.judged),
        pair=pair,
        several=_several(profile, among, found, times),
        alpha=alpha_order(profile),
        theory=advice(profile, among),
        what_if=what_if(profile, among, known, grams),
        notes=_notes(profile, among),
    )


def _usable(profile: Profile, judged: str | None) -> Usable | None:
    """None where an imprecise truth leaves cosines in doubt."""
    if judged is None or profile.truth.get("status") == "imprecise":
        return None
    return Usable(judged, usable_horizon(profile, judged))


def _several(profile: Profile, among: Field, found: Best, times: Times) -> Mixing | None:
    return mixing(profile, among, several_cells(profile, among, found.cell), times)


def _notes(profile: Profile, among: Field) -> tuple[str, ...]:
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
