"""A choice of horizon and weights from what was measured, and how sure it is.

    choice_of(profile) → Choice  best (estimator, horizon) with the set that may be best, weights of
                                 mixtures judged on starts that did not choose them, what if

Three criteria: gain, what one small step adds to the return, which decides where the truth is the
gradient of the return (`reports/choice/by-gain`); the mean squared error, for plain steps at rates
near the largest that are stable, which decides under other truths; and the direction (expected
cosine of one batch), for optimisers that drop the scale, as Adam. Without a truth realised gains
are compared. All of it comes from a saved profile, without torch and without running anything
again.
"""

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import (
    Best,
    Cell,
    Choice,
    Contender,
    DirectionCosine,
    Mixing,
    Parting,
    Steps,
    Tried,
    Usable,
    WhatIf,
)

__all__ = [
    "Best",
    "Cell",
    "Choice",
    "Contender",
    "DirectionCosine",
    "Mixing",
    "Parting",
    "Steps",
    "Tried",
    "Usable",
    "WhatIf",
    "choice_of",
]
