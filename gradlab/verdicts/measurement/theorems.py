"""Form 9: which theorems apply to what was measured, and which formulas may be used."""

from __future__ import annotations

from gradlab.choice import Advice, Choice
from gradlab.runs.bound_comparison import bounds_sentence
from gradlab.runs.profile import Profile
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import samples, two


def theorems(profile: Profile, choice: Choice | None, name: str) -> list[Sentence]:
    """Bounds beside the measured bias and variance, then the horizons that theories recommend."""
    text = bounds_sentence(profile, name)
    sentences = [Sentence("theory", True, text)] if text else []
    given = () if choice is None else choice.theory
    advice = [each for each in given if each.applies or each.horizon is not None]
    if advice:
        advised = "; ".join(_advised(each) for each in advice)
        n = samples(profile.config)
        sentences.append(Sentence("advice", True, f"Horizons by formula ({n}): {advised}."))
    return sentences


def _advised(advice: Advice) -> str:
    if not advice.applies:
        return f"{advice.theory} does not apply ({advice.why}), so its h* is not used"
    at = "recommends no horizon" if advice.horizon is None else f"says h = {two(advice.horizon)}"
    return f"{advice.theory} {at} ({advice.why})"
