"""DDPPO: states of one learned model, Jacobians of a second one, and its ablations.

G1 = G2 = 10 updates of policy and critic for each environment step (table 1) are 10 iterations for
each transition, interval / agents, with neither delay nor reuse. The models are fitted again and
rolled out after 250 environment steps, which are 2500 iterations; rollouts take 5 of 7 members. The
temperature holds the policy's entropy (eq. 13). As in `mbpo` and `maac`: members of two layers, and
rollouts of k = 1 (k grows on Hopper and Humanoid: `Branching(first, last)`).
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.algorithm import Algorithm
from gradlab.training.models.branches import Branching
from gradlab.training.models.model_choice import LIKELIHOOD, LOSSES, LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import TwoStores
from gradlab.training.parts.targets import Soft
from gradlab.training.parts.temperature import Automatic

_ONE_MODEL = LearnedModel(loss=LOSSES["dd"], members=7, elites=5, every=2500)
# As many parameters as two of 64: 96² + 96 w ≈ 2 (64² + 64 w), w inputs and outputs.
_LARGER = replace(_ONE_MODEL, loss=LIKELIHOOD, hidden=(96, 96))

_DDPPO = Algorithm(
    "ddppo",
    (Term(3, "all"),),
    FixedWeights(),
    Soft(Automatic()),
    policy="gaussian",
    model=replace(_ONE_MODEL, two_models=True),
    source=TwoStores(Branching(every=2500)),
    updates=10,
    paper="DDPPO algorithm 1, section 4.3",
)

ROWS = (
    _DDPPO,
    replace(
        _DDPPO,
        name="ddppo-no-gradient-loss",
        model=replace(_ONE_MODEL, two_models=True, loss=LIKELIHOOD),
        paper="DDPPO section 5.3, figures 3 and 5",
    ),
    replace(
        _DDPPO,
        name="ddppo-one-model",
        model=_ONE_MODEL,
        paper="DDPPO section 5.3, figures 3 and 5",
    ),
    replace(
        _DDPPO,
        name="ddppo-double-parameters",
        model=_LARGER,
        paper="DDPPO section 5.3, figures 4 and 7",
    ),
)
