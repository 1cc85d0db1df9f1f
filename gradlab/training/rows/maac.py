"""MAAC and its ablations (figures 3 and 5), each in one part or two of the row before.

H steps of a bootstrap ensemble with θ in every action and entropy inside the sum, from several
paths for each state; critics on STEVE's targets over the same H; batches of both from states
visited and imagined, as in `mbpo`.

G = 10 updates for each transition, as the published code has them; models are fitted again and
rolled out after 250 environment steps, which are 2500 iterations. `docs/model_based_settings.md`
has what is smaller here than in the paper.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.algorithm import Algorithm
from gradlab.training.models.branches import Branching
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.parts.sources import Branched, Replayed
from gradlab.training.parts.targets import Soft, Steve

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

ROWS = (
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
