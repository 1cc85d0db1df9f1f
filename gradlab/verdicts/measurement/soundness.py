"""Forms 7 and 8: are the gradients finite and alive?"""

from __future__ import annotations

import numpy as np

from gradlab.runs.check_results import (
    EFFECT,
    FINITE,
    IDLE,
    PREMISE,
    CheckResult,
    failed_premises,
)
from gradlab.runs.decision_rules import horizons_of
from gradlab.runs.profile import Profile
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, samples


def lost(profile: Profile, name: str) -> list[Sentence]:
    """Where the mean gradient stops being finite, if it does."""
    e, q = profile.estimators.index(name), profile.quantities.index("variance")
    value = profile.columns["value"][e, q]
    gone = [h for h in horizons_of(profile, name) if not np.isfinite(value[h])]
    if not gone:
        return []
    text = (
        f"{capital(gradient(profile.identities[name]))} is not finite from h = {gone[0]} on "
        f"({profile.method[e, q, gone[0]]}, {samples(profile.config)}): use a shorter horizon."
    )
    return [Sentence("health", True, text)]


def health(profile: Profile) -> list[Sentence]:
    """Samples that are lost or exactly 0, and inputs without effect: counts, steps, coordinates."""
    texts = [each.sentence for each in profile.sanity or () if _ill(each)]
    return [Sentence("health", True, text) for text in dict.fromkeys(texts)]


def premises(profile: Profile) -> list[Sentence]:
    """Why nothing can be decided from this measurement, if there is a reason."""
    failures = failed_premises(profile.sanity)
    return [Sentence("premises", True, each.sentence) for each in failures]


def checks(profile: Profile) -> list[Sentence]:
    """The other checks that ask for attention, by name."""
    failed = [e for e in profile.sanity or () if not e.passed]
    named = [e.check for e in failed if not _ill(e) and not e.check.startswith(PREMISE)]
    if not named:
        return []
    asks = "asks" if len(named) == 1 else "ask"
    total = len(profile.sanity or ())
    text = f"{len(named)} of {total} sanity checks {asks} for attention: {'; '.join(named)}."
    return [Sentence("sanity", True, text)]


def _ill(finding: CheckResult) -> bool:
    kinds = (FINITE, EFFECT, IDLE)
    return not finding.passed and finding.check.startswith(kinds)
