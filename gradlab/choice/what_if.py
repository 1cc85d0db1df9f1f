"""The best choice at other batch sizes, from the same samples."""

from __future__ import annotations

from gradlab.choice.batches import Singles, at_batch
from gradlab.choice.best import best
from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Criterion, Trial, WhatIf
from gradlab.runs.decision_rules import needed_batch
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import Grams
from gradlab.statistics.intervals import interval
from gradlab.statistics.mixing import gain_weights, mse_weights

FACTORS = (0.25, 0.5, 1, 2, 4, 8, 16)


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
    imprecise = profile.truth.get("status") == "imprecise"
    needed = None if imprecise else needed_batch(profile, *cell)
    return WhatIf(tried, cell, needed)


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
