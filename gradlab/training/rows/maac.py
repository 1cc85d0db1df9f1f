"""MAAC: H steps of a learned model, entropy inside the sum, several paths from each state."""

from __future__ import annotations

from gradlab.training.algorithm import Algorithm
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.policy_losses import Mixture, Term
from gradlab.training.parts.targets import Soft
from gradlab.training.parts.weights import FixedWeights

MAAC = Algorithm(
    "maac",
    (Term(3, "all"),),
    FixedWeights(),
    Soft(),
    policy="gaussian",
    model=LearnedModel(),
    loss=Mixture(samples=5),
)

ROWS = (MAAC,)
