"""An attribution in sentences: the attributed horizon of smallest error of each estimator, and
what a table of numbers does not show."""

from __future__ import annotations

from collections.abc import Iterator

from gradlab.runs.attribution import CANCELLING, SOURCES, Attribution, Part, Spread
from gradlab.runs.profile import Profile
from gradlab.verdicts.measurement.sources import source
from gradlab.verdicts.phrases import ZERO
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, percent

ABOUT = "source"


def sentences(attribution: Attribution, profile: Profile) -> list[Sentence]:
    """What the attribution says, the bias first."""
    names = dict.fromkeys(each.estimator for each in attribution.bias)
    texts = [sentence for name in names for sentence in source(profile, attribution, name)]
    texts += [Sentence(ABOUT, True, text) for text in _elsewhere(attribution, profile)]
    texts += [
        Sentence(
            ABOUT,
            any(part.clear for part in each.sources),
            _variance(each, gradient(profile.identities[each.estimator]), attribution.starts),
        )
        for each in _least(attribution, profile)
    ]
    return texts + [Sentence(ABOUT, True, text) for text in _skipped(attribution)]


def _elsewhere(attribution: Attribution, profile: Profile) -> Iterator[str]:
    """Horizons at which shares say little."""
    for name in dict.fromkeys(each.estimator for each in attribution.bias):
        mine = [each for each in attribution.bias if each.estimator == name]
        whose = gradient(profile.identities[name])
        lost = ", ".join(str(each.horizon) for each in mine if each.lost)
        if lost:
            yield f"The squared bias of {whose} is {ZERO} at h = {lost}."
        cancelling = ", ".join(str(each.horizon) for each in mine if each.cancelling)
        if cancelling:
            yield (
                f"Causes cancel in {whose} at h = {cancelling}: a share is more than "
                f"{CANCELLING:g}× the squared bias, and others undo it."
            )


def _least(attribution: Attribution, profile: Profile) -> list[Spread]:
    """One account of each estimator: where its MSE, or without a truth its variance, is least."""
    quantity = "mse" if profile.truth["admissible"] else "variance"

    def error(spread: Spread) -> float:
        return profile.estimate(spread.estimator, quantity, spread.horizon).value

    names = dict.fromkeys(each.estimator for each in attribution.variance)
    return [
        min((s for s in attribution.variance if s.estimator == name), key=error) for name in names
    ]


def _variance(spread: Spread, whose: str, starts: int) -> str:
    where = f"{whose} at h = {spread.horizon}"
    clear = [f"{_fraction(p)} from {SOURCES[p.name]}" for p in spread.sources if p.clear]
    still = [SOURCES[p.name] for p in spread.sources if p.value == 0 and p.se == 0]
    exact = f"; exactly nothing from {', '.join(still)}" if still else ""
    shares = ", ".join(clear) or "no share is clear of 0"
    return f"Variance of {where}: {shares}{exact} (N = {starts})."


def _skipped(attribution: Attribution) -> Iterator[str]:
    for name, why in attribution.skipped.items():
        yield f"Not attributed: {name}, since {why}."


def _fraction(part: Part) -> str:
    low, high, share = map(percent, (part.fraction_low, part.fraction_high, part.fraction))
    return share if low == high else f"{share} (CI {low} to {high})"
