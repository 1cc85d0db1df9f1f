"""`choose`: a choice with its words, which are those of the report's first screen.

Where gains or steps decide and nobody asked for other candidates, batches or criteria, the choice
and the report answer one question, and one function answers it (`verdicts.measurement
.recommendation`); else the choice has words of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import Choice, Criterion
from gradlab.errors import InputError
from gradlab.runs.check_results import failed_premises
from gradlab.runs.profile import Profile, check_profile
from gradlab.verdicts.choice.first_screen import as_recommended, screen
from gradlab.verdicts.facts import facts
from gradlab.verdicts.screen import Screen


def choose(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    *,
    by: Criterion | None = None,
    iteration: int | None = None,
    ramp: int | None = None,
) -> Choice:
    """The horizon, the estimator and the weights that a measurement supports, and how surely.

    `print(choice)` says it in a few lines, those of the report's first screen.

    Args:
        batch: N′, samples that one update averages; None: as the profile was measured for.
        estimators: who competes; None: what a user can run, of the gradients under the truth of the
            model's: those that need neither states nor derivatives of the simulator, where there
            are such (`runs.competing`).
        by: the criterion that decides. "gain": what one small step along the mean gradient adds to
            the return, only under its gradient as the truth (the default there); "mse": the mean
            squared error (the default elsewhere); "direction": the expected cosine of one batch.
            All that can be computed are in the choice.
        iteration: training time at which the papers' rule-based weights are shown; None: at the
            start, in the middle and at the end of their ramp.
        ramp: T of these rules, in iterations; None: 9000, as in MPG.

    Raises:
        InputError: a measurement from which nothing can be decided (its reward is constant, say),
            an unknown estimator or criterion, estimators under different truths, gains under a
            truth that is not the gradient of the return, or numbers out of range.
    """
    return chosen(profile, batch, estimators, by, iteration, ramp)[0]


def chosen(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    by: Criterion | None = None,
    iteration: int | None = None,
    ramp: int | None = None,
) -> tuple[Choice, Screen]:
    """The choice and its first screen; arguments and errors as of `choose`."""
    check_profile(profile)
    if void := failed_premises(profile.sanity):
        raise InputError(f"nothing can be chosen: {void[0].result}; {void[0].meaning}")
    choice = choice_of(profile, batch, estimators, by, iteration, ramp)
    asked = batch is None and not estimators and by in (None, "gain")
    first = screen(choice)
    if asked and choice.by in (None, "gain"):
        first = as_recommended(choice, facts(profile))
    return replace(choice, recommendation=_text(first)), first


def _text(first: Screen) -> str:
    """A few lines."""
    numbers = [f"{each.label}: {each.text}" for each in first.numbers]
    return "\n".join([first.headline, f"How sure: {first.sure}.", *numbers])
