"""Rows with a learned model in data, target, loss or path: MAAC, MBPO, STEVE, MAGE, DDPPO.

G = 10 updates for each transition, as the papers or their code have it; models are fitted again and
rolled out after 250 environment steps, which are 2500 iterations, with rollouts of one step.
`docs/model_based_settings.md` has what is smaller here than in the papers.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.algorithm import Algorithm
from gradlab.training.models.branches import Branching
from gradlab.training.models.model_choice import LIKELIHOOD, LOSSES, LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.critics import ActionGradient
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.parts.sources import Branched, Replayed, TwoStores
from gradlab.training.parts.targets import Soft, Steve
from gradlab.training.parts.temperature import Automatic
from gradlab.training.rows.mpg import SAC, TD3

# H steps of the model with entropy in the sum, several paths for each state; critics on STEVE's
# targets over the same H. Ablations of figures 3 and 5 differ in a part or two.
_MAAC = Algorithm(
    "maac",
    (Term(3, "all"),),
    FixedWeights(),
    Steve(3),
    policy="gaussian",
    model=LearnedModel(bootstrap=True, every=2500),
    loss=MixtureLoss(samples=5),
    source=Branched(Branching(every=2500)),
    updates=10,
    paper="MAAC section 3",
)
_ONE_SAMPLE = replace(
    _MAAC, name="maac-one-sample", loss=MixtureLoss(samples=1), paper="MAAC section 4.3, figure 3"
)

_MAAC_ROWS = (
    _MAAC,
    replace(_MAAC, name="maac-h0", terms=(Term(0),), paper="MAAC section 4.3, figure 3"),
    replace(_MAAC, name="maac-no-steve", target=Soft(), paper="MAAC section 4.3, figure 3"),
    _ONE_SAMPLE,
    replace(
        _ONE_SAMPLE,
        name="maac-five-batch",
        batch=5 * _MAAC.batch,
        paper="MAAC appendix A.3, figure 5",
    ),
    replace(_MAAC, name="maac-real-data", source=Replayed(), paper="MAAC appendix A.3, figure 5"),
    replace(
        _MAAC,
        name="maac-no-entropy",
        target=Steve(3, temperature=0.0),
        paper="MAAC appendix A.3, figure 5",
    ),
)

# The data-driven gradient J_0; the model is behind its critic.
_CRITICS_MODEL = LearnedModel(every=2500)

_CRITIC_ROWS = (
    replace(
        SAC,
        name="mbpo",
        model=replace(_CRITICS_MODEL, members=7, elites=5, bootstrap=True),
        source=Branched(Branching(every=2500)),
        updates=10,
        paper="Janner et al. 2019, algorithm 2",
    ),
    replace(
        SAC,
        name="steve",
        model=_CRITICS_MODEL,
        target=Steve(),
        updates=10,
        paper="Buckman et al. 2018, section 3",
    ),
    replace(
        TD3,
        name="mage",
        model=_CRITICS_MODEL,
        critic_loss=ActionGradient(TD3.target, threshold=1.0),
        updates=10,
        paper="D'Oro and Jaśkowski 2020, algorithm 1",
    ),
)

# States of one model, Jacobians of a second one; G1 = G2 = 10 (table 1), 5 of 7 members, the
# temperature holds the policy's entropy (eq. 13).
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

_DDPPO_ROWS = (
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

ROWS = (*_MAAC_ROWS, *_CRITIC_ROWS, *_DDPPO_ROWS)
