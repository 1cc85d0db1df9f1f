"""Form 2: does the variance explode with the horizon, and how fast?"""

from __future__ import annotations

from math import log

from gradlab.runs.decision_rules import growth_of
from gradlab.runs.profile import Profile
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, samples, span


def variance(profile: Profile, name: str) -> list[Sentence]:
    """Doubling time of the variance, a power law, slow growth, or none."""
    n, who = samples(profile.config), gradient(profile.identities[name])
    growth = growth_of(profile, name)
    if growth is None:
        text = f"Growth of the variance of {who}: too few horizons to tell ({n})."
        return [Sentence("variance", False, text)]
    stretch = f"from h = {growth.onset} to {growth.last}"
    slope = (
        f"slope of its logarithm {growth.slope:.2g} per step {stretch}, CI "
        f"{span(growth.low, growth.high)}, {n}"
    )
    if not growth.grows:
        text = f"No exponential growth of the variance of {who} detected ({slope})."
        return [Sentence("variance", growth.high < 0, text)]
    if growth.factor < 2:
        text = f"The variance of {who} grows slowly, {growth.factor:.2g}× {stretch} ({slope})."
        return [Sentence("variance", True, text)]
    if growth.law == "power":
        text = (
            f"The variance of {who} grows {stretch} like h^{growth.power:.2g}, a power law rather "
            f"than an exponential ({slope})."
        )
        return [Sentence("variance", True, text)]
    doubling = log(2) / growth.slope
    text = (
        f"The variance of {who} doubles every {doubling:.2g} steps {stretch} "
        f"(CI {span(log(2) / growth.high, log(2) / growth.low)}, {n})"
    )
    doubt = f"; a power law h^{growth.power:.2g} fits as well, so do not extrapolate"
    full = text + _exponent(profile) + (doubt if growth.law == "either" else "")
    return [Sentence("variance", True, f"{full}.")]


def _exponent(profile: Profile) -> str:
    """What the simulator's own closed loop would do: e^{2 (λ + ln γ)} per step, of the worst
    start."""
    found, discount = profile.truth.get("lyapunov"), float(profile.config.get("discount", 1.0))
    if not isinstance(found, int | float):
        return ""
    rate = 2 * (float(found) + log(discount))
    if not rate > 0:
        return ""
    return (
        f"; the simulator's fastest start, λ = {found:.2g} per step, predicts {log(2) / rate:.2g}"
    )
