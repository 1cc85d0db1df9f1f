"""The best choice elsewhere, from the same samples: other batches, a better model or critic.

    half the model error     (g + g*)/2                g*: true dynamics with the same critic
    half the critic error    g − (g* − t)/2            t: the truth; all per sample

Both are of first order: g − g* is what the model's states and Jacobians do with this critic, g* − t
what the critic does under the true dynamics; what the two errors do together is left as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradlab.choice.batches import Singles, at_batch
from gradlab.choice.best import best
from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Cell, Criterion, Trial, WhatIf
from gradlab.errors import InputError
from gradlab.runs.decision_rules import horizons_of, needed_batch
from gradlab.runs.identity import same_as
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import Grams, mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.kernels import TRUTH, Kernels
from gradlab.statistics.mixing import gain_weights, mse_weights
from gradlab.statistics.moments import Estimate, estimates

FACTORS = (0.25, 0.5, 1, 2, 4, 8, 16)
# Weights of g, g* and t.
CHANGES = {"half the model error": (0.5, 0.5, 0.0), "half the critic error": (1.0, -0.5, 0.5)}


def what_if(
    profile: Profile, among: Candidates, measured: Singles, pair: Grams | None, criterion: Criterion
) -> WhatIf | None:
    """None where no candidate is finite.

    Args:
        known: moments of single candidates; pair: of J_0 and J_H.
        criterion: "mse", or "direction", the gain of one batch.
    """
    sizes = [max(1, round(factor * profile.batch)) for factor in FACTORS]
    batches = [_batch(at_batch(profile, size, measured), among, pair, criterion) for size in sizes]
    tried = tuple(each for each in batches if each is not None)
    if not tried:
        return None
    cell = tried[-1].best
    errors, omitted = _errors(profile, among, criterion)
    imprecise = profile.truth.get("status") == "imprecise"
    needed = None if imprecise else needed_batch(profile, *cell)
    return WhatIf(tried, errors, cell, needed, omitted)


def _batch(
    profile: Profile, among: Candidates, pair: Grams | None, criterion: Criterion
) -> Trial | None:
    chosen = best(profile, among, criterion)
    if chosen is None:
        return None
    weigh = mse_weights if criterion == "mse" else gain_weights
    mse = profile.estimate(chosen.cell[0], "mse", chosen.cell[1])
    cosine = profile.estimate(chosen.cell[0], "cosine_batch", chosen.cell[1])
    return Trial(
        change=f"N′ = {profile.batch}",
        batch=profile.batch,
        best=chosen.cell,
        kept=chosen.kept,
        mse=mse.value,
        mse_interval=interval("mse", mse),
        cosine=cosine.value,
        cosine_interval=interval("cosine_batch", cosine),
        weights=None if pair is None else weigh(pair, profile.batch),
    )


def _errors(
    profile: Profile, among: Candidates, criterion: Criterion
) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
    """Smaller errors of model and critic, for everybody that has a twin under true dynamics."""
    kernels = among.kernels
    if kernels is None:
        return (), ("smaller errors: this file has no kernels; measure again",)
    measured = {name for name, _ in kernels.cells}
    names = [name for name in among.names if _control(profile, name) in measured]
    if not names:
        why = "the simulator's own gradient was not measured beside a model's, same truth"
        return (), (f"smaller errors of model and critic: {why}",)
    tried = [
        _changed(profile, kernels, name, change, criterion) for name in names for change in CHANGES
    ]
    return tuple(each for each in tried if each is not None), ()


def _control(profile: Profile, name: str) -> str | None:
    """The simulator's own gradient, with θ in the same actions."""
    own = profile.identities[name]
    if own.data or own.control:
        return None
    simulated = replace(own, states="simulator", jacobians="simulator", gradient_model=False)
    return next(iter(same_as(profile.identities, simulated)), None)


def _changed(
    profile: Profile, kernels: Kernels, name: str, change: str, criterion: Criterion
) -> Trial | None:
    """The best horizon of one estimator with one error smaller."""
    found, control = {}, _control(profile, name)
    for h in range(max(profile.horizons) + 1):
        cells = (name, h), (str(control), h)
        if not all(cell in kernels.cells for cell in cells):
            continue
        with_error = _mixture(profile, kernels, cells, change)
        if with_error is not None:
            found[name, h] = with_error
    if not found:
        return None
    if criterion == "mse":
        at = min(found, key=lambda cell: found[cell]["mse"].value)
    else:
        at = max(found, key=lambda cell: np.nan_to_num(found[cell]["cosine_batch"].value, nan=-2.0))
    mse, cosine = found[at]["mse"], found[at]["cosine_batch"]
    return Trial(
        change=f"{change} of {name}",
        batch=profile.batch,
        best=at,
        kept=(),
        mse=mse.value,
        mse_interval=interval("mse", mse),
        cosine=cosine.value,
        cosine_interval=interval("cosine_batch", cosine),
        weights=None,
        over=tuple(h for _, h in found) if len(found) < len(horizons_of(profile, name)) else (),
    )


def _mixture(
    profile: Profile, kernels: Kernels, cells: tuple[Cell, Cell], change: str
) -> dict[str, Estimate] | None:
    try:
        moments = mixture_moments(kernels.grams([*cells, TRUTH]), np.array(CHANGES[change]))
    except InputError:  # gradients that are not finite
        return None
    found = dict(estimates(moments, profile.batch))
    return found if np.isfinite(found["mse"].left_out).all() else None
