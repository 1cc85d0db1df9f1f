"""A profile in a few lines, as `print(profile)` shows it: what helps, how much was measured, where.

The line on what helps follows `runs.competing`, as the report and `choose` do.
"""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from gradlab.runs.check_results import failed_premises
from gradlab.runs.competing import best_shown
from gradlab.runs.identity import competing
from gradlab.statistics.number import Number
from gradlab.wording import cosine, horizons

if TYPE_CHECKING:
    from gradlab.runs.profile import Profile


def summary(profile: Profile) -> str:
    """Name, size, the best gain, and where all numbers are."""
    config = profile.config
    sizes = (
        f"{len(profile.estimators)} gradients, h = {horizons(profile.horizons)}, "
        f"{len(profile.quantities)} quantities, {config.get('starts')} starts"
    )
    return "\n".join(
        [
            f"<Profile of {config.get('task', 'a task')}: {sizes}",
            f"  gradients: {', '.join(profile.estimators)}",
            f"  {_best(profile)}",
            f"  file: {profile.file or 'not saved: profile.save(path)'}",
            "  every number: .table(); a page to decide from: gradlab.report(path)>",
        ]
    )


def _best(profile: Profile) -> str:
    if failed := failed_premises(profile.sanity):
        return f"nothing can be decided: {shorten(failed[0].result, 90, placeholder='…')}"
    if not profile.truth["admissible"]:
        return "no truth, so no gain: variances and agreement only"
    gains = _gains(profile)
    best = best_shown(gains, list(gains))
    if best is None:
        return "no gain: judged against another truth than the gradient of the return"
    name, h, gain = *best, gains[best]
    ends = f"{cosine(gain.value)} (95% {cosine(gain.low)} to {cosine(gain.high)})"
    if not gain.low > 0:
        return f"no gradient is shown to raise the return; best guess: {name}, h = {h}, gain {ends}"
    return f"largest gain of {', '.join(competing(profile.identities))}: {name}, h = {h}, {ends}"


def _gains(profile: Profile) -> dict[tuple[str, int], Number]:
    """Of all that competes, where they are numbers."""
    if "gain" not in profile.quantities:
        return {}
    q, found = profile.quantities.index("gain"), {}
    for name in competing(profile.identities):
        e = profile.estimators.index(name)
        for k, h in enumerate(profile.horizons):
            value, low, high = (
                float(profile.columns[c][e, q, k]) for c in ("value", "ci_low", "ci_high")
            )
            if profile.count[e, q, k] and np.isfinite([value, low, high]).all():
                found[name, h] = Number(value, low, high, int(profile.count[e, q, k]))
    return found
