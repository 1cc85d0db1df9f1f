"""`choose`: the parts of a choice, put together."""

from __future__ import annotations

from collections.abc import Collection

from gradlab.choice.values import Choice
from gradlab.errors import InputError
from gradlab.profile import Profile


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
        InputError: an unknown estimator, estimators under different truths, or too few groups.
    """
    raise InputError("not yet")
