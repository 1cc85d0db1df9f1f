"""Form 6: how many samples one update needs; and where a few of them carry the numbers."""

from __future__ import annotations

import numpy as np

from gradlab.runs.check_results import rare_starts
from gradlab.runs.decision_rules import (
    DIRECTION,
    heavy_horizons,
    horizons_of,
    judged_horizons,
    needed_batch,
)
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import jackknife_se
from gradlab.verdicts.phrases import further
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import batches, cosine, gradient, samples, span


def batch(profile: Profile, name: str) -> list[Sentence]:
    """Samples that one update needs for a usable direction, or the bias that no number of them
    overcomes."""
    over = [h for h in judged_horizons(profile, name) if h > 0]
    if not over:
        return []
    at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    needed, n = needed_batch(profile, name, at), samples(profile.config)
    if needed is None:
        return []
    yours = f"You average N′ = {profile.batch}"
    goal = f"a cosine of one batch with the truth of at least {DIRECTION:g} at h = {at}"
    mean = f"{cosine(needed.value)} (CI {span(needed.cosine.low, needed.cosine.high)}, {n})"
    if needed.cosine.high < DIRECTION:
        text = f"{yours}; no N′ reaches {goal}: bias alone caps it at {mean}."
        return [Sentence("samples", True, text)]
    if needed.batch is None or not np.isfinite(needed.batch.high):
        se = jackknife_se(profile.estimate(name, "cosine", at).left_out)
        gap, starts = abs(needed.value - DIRECTION), int(profile.config["starts"])
        enough = further(more_samples(gap, se, starts))
        text = (
            f"Undecided whether any N′ reaches {goal}: that of the mean is {mean}; {enough} decide."
        )
        return [Sentence("samples", False, text)]
    ends = f"{batches(needed.batch.low)}–{batches(needed.batch.high)}"
    text = f"{yours}; {goal} needs N′ ≈ {batches(needed.size)} (CI {ends}, {n})"
    return [Sentence("samples", True, f"{text}{_longest(profile, name, over[-1], at)}.")]


def _longest(profile: Profile, name: str, H: int, at: int) -> str:
    """The same at the user's horizon, where it is another and known."""
    needed = None if at == H else needed_batch(profile, name, H)
    if needed is None:
        return ""
    if needed.cosine.high < DIRECTION:
        return f", and at h = {H} no N′ does"
    if needed.batch is None or not np.isfinite(needed.batch.high):
        return ""
    ends = f"{batches(needed.batch.low)}–{batches(needed.batch.high)}"
    return f", at h = {H} {batches(needed.size)} (CI {ends})"


def tails(profile: Profile, name: str) -> list[Sentence]:
    """Where a few starts carry the numbers, intervals promise more than they keep.

    Where starts were drawn from their law for it (`measurement.rare_starts`), that check says so
    instead: products of Gaussians have tails that the index does not tell from those that matter.
    """
    heavy = heavy_horizons(profile, name)
    if not heavy or rare_starts(profile.sanity) is not None:
        return []
    index = max(profile.estimate(name, "tail_index", h).value for h in heavy)
    where = "every horizon"
    if len(heavy) < len(horizons_of(profile, name)):
        where = f"h = {heavy[0]}" if len(heavy) == 1 else f"{len(heavy)} horizons"
    n = samples(profile.config)
    whose = gradient(profile.identities[name])
    text = (
        f"At {where} a few starts carry much of {whose} (tail index up to {index:.2g}, "
        f"1: Gaussian, {n}): intervals there may cover less than 95%, and more starts would help "
        f"more than usual."
    )
    return [Sentence("tails", True, text)]
