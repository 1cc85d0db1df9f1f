"""θ in every action of a model's path, or of a replayed one: BPTT, SVG, RP-PGM.

    rp-dp   model derivatives on predictions, from a mixture of first states           (eq. 4.2)
    rp-dr   model derivatives on real samples: on-policy paths, their noise inferred    (eq. 4.5)

RP-PGM: ReLU, a policy of 4 layers and a model of 5 (appendix B.1), fitted along h steps (B.2). The
critic is fitted by TD (algorithm 1): with entropy for rp-dp, as in MAAC, without for rp-dr, as in
SVG on policy (section 7.1). Ours are the share of starts (remark 5.9 wants a mixture and names
none) and the length of the windows, ten paths of each environment.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.fitting.losses import MultiStep
from gradlab.training.algorithm import Algorithm
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.critics import ImportanceWeighted
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.replayed_losses import ReplayedExpansion, ReplayedPath, ReplayedStep
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import Copied, NoCritic, Soft, StateOneStep

_PATHWISE_ROWS = (
    Algorithm(
        "bptt",
        (Term(25, "all"),),
        FixedWeights(),
        NoCritic(),
        loss=FromStarts(),
        paper="RP-PGM section 4.2, h = ∞; MAAC appendix A.1",
    ),
    Algorithm(
        "svg",
        (Term(1, "all"),),
        FixedWeights(),
        StateOneStep(),
        policy="gaussian",
        model=LearnedModel(),
        loss=ReplayedStep(),
        critic_loss=ImportanceWeighted(),
        log_std=(-1.0, 2.0),  # else σ collapses, and with it π/μ of replayed actions
        target_critic=Copied(100),
        paper="Heess et al. 2015, algorithm 2",
    ),
    Algorithm(
        "svg-inf",
        (Term(32, "all"),),
        FixedWeights(),
        NoCritic(stochastic=True),
        policy="gaussian",
        model=LearnedModel(),
        loss=ReplayedPath(),
        source=Newest(32),
        paper="Heess et al. 2015, algorithm 1",
    ),
)

_MODEL = LearnedModel(loss=MultiStep(3), hidden=(64, 64, 64, 64), activation="relu")

_RP_DP = Algorithm(
    "rp-dp",
    (Term(3, "all"),),
    FixedWeights(),
    Soft(),
    policy="gaussian",
    hidden=(256, 256, 256),
    activation="relu",
    model=_MODEL,
    loss=FromStarts(0.5),
    paper="RP-PGM eq. 4.2, section 7.1",
)

_RP_DR = replace(
    _RP_DP,
    name="rp-dr",
    target=Soft(temperature=0.0),
    loss=ReplayedExpansion(),
    source=Newest(30),
    paper="RP-PGM eq. 4.5, section 7.1",
)


def _normalised(row: Algorithm) -> Algorithm:
    """All layers of the policy at norm 1, and all but the last of the model (appendix B.1)."""
    model = replace(_MODEL, spectral="all_but_last")
    return replace(
        row,
        name=f"{row.name}-sn",
        policy_spectral="all",
        model=model,
        paper="RP-PGM section 7.3, appendix B.1",
    )


ROWS = (*_PATHWISE_ROWS, _RP_DP, _normalised(_RP_DP), _RP_DR, _normalised(_RP_DR))
