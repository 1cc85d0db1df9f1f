"""θ in every action of a model's path, or of a replayed one: SVG and backpropagation in time."""

from __future__ import annotations

from gradlab.training.algorithm import Algorithm
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.critics import ImportanceWeighted
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.replayed_losses import ReplayedPath, ReplayedStep
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import Copied, NoCritic, StateOneStep

ROWS = (
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
