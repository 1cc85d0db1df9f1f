"""RP-PGM: a few steps of a learned model from a mixture of first states, then a critic.

ReLU, a policy of 4 layers and a model of 5 (appendix B.1), fitted along h steps (B.2). The critic
is fitted by TD (algorithm 1), with entropy as in MAAC (section 7.1). The share of starts is ours:
remark 5.9 wants a mixture and names none.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.fitting.losses import MultiStep
from gradlab.training.algorithm import Algorithm
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.targets import Soft
from gradlab.training.parts.weights import FixedWeights

MODEL = LearnedModel(loss=MultiStep(3), hidden=(64, 64, 64, 64), activation="relu")

RP_DP = Algorithm(
    "rp-dp",
    (Term(3, "all"),),
    FixedWeights(),
    Soft(),
    policy="gaussian",
    hidden=(256, 256, 256),
    activation="relu",
    model=MODEL,
    loss=FromStarts(0.5),
)


def normalised(row: Algorithm) -> Algorithm:
    """All layers of the policy at norm 1, and all but the last of the model (appendix B.1)."""
    model = replace(MODEL, spectral="all_but_last")
    return replace(row, name=f"{row.name}-sn", policy_spectral="all", model=model)


ROWS = (RP_DP, normalised(RP_DP))
