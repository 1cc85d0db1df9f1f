"""Which horizon, which weights, how sure: a decision from what was measured.

    choose(profile) → Choice     best (estimator, horizon) with the set that may be best, weights of
                                 mixtures judged on starts that did not choose them, what if

Everything is offered by two criteria: the mean squared error, for plain gradient steps, and the
direction (expected cosine of one batch), for optimisers that drop the scale, as Adam. All of it
comes from a saved profile, without torch and without running anything again.
"""

from gradlab.choice.choosing import choose
from gradlab.choice.values import (
    Advice,
    Agreement,
    Best,
    Cell,
    Choice,
    Contender,
    Mixing,
    Parting,
    Usable,
    WhatIf,
)

__all__ = [
    "Advice",
    "Agreement",
    "Best",
    "Cell",
    "Choice",
    "Contender",
    "Mixing",
    "Parting",
    "Usable",
    "WhatIf",
    "choose",
]
