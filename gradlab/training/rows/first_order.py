"""First-order rows: the gradient through the simulator, along windows that go on with the episode.

Every update collects its own window of each environment, and uses it once.
`docs/model_based_settings.md` has what differs from papers and published code.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.algorithm import Algorithm
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.adaptive_horizon import Stiffness
from gradlab.training.parts.context import FixedWeights, Passes
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import Copied, NoCritic, Polyak
from gradlab.training.parts.temperature import Automatic
from gradlab.training.parts.window_losses import StateLambda, WindowReturn

_SHAC = Algorithm(
    "shac",
    (Term(32, "all"),),
    FixedWeights(),
    StateLambda(),
    policy="gaussian",
    policy_rate=(2e-3, 1e-5),
    value_rate=(2e-3, 1e-5),
    clip=1.0,
    loss=WindowReturn(),
    fit=Passes(16, 4),
    target_critic=Polyak(0.8),
    source=Newest(32),
    paper="Xu et al. 2022 (SHAC), algorithm 1",
)

ROWS = (
    _SHAC,
    replace(
        _SHAC,
        name="ahac",
        target=StateLambda(critics=2),
        target_critic=Copied(1),
        adaptive=Stiffness(),
        paper="Georgiev et al. 2024 (AHAC), algorithm 1",
    ),
    replace(
        _SHAC,
        name="sapo",
        target=StateLambda(critics=2, temperature=Automatic(rate=5e-3)),
        loss=WindowReturn(tail="mean"),
        target_critic=Copied(1),
        value_rate=(5e-4, 1e-5),
        clip=0.5,
        paper="Xing et al. 2025 (SAPO), section 4",
    ),
    replace(
        _SHAC,
        name="abpt",
        target=StateLambda(temperature=Automatic(rate=5e-3), actions=True),
        loss=WindowReturn(blend="half"),
        paper="Li et al. 2025 (ABPT), section 4",
    ),
    replace(
        _SHAC,
        name="agpo",
        target=StateLambda(critics=2, actions=True),
        loss=WindowReturn(blend="variance"),
        target_critic=Polyak(0.05),
        policy_rate=(1e-3, 1e-5),
        clip=0.5,
        paper="Gao et al. 2024 (AGPO)",
    ),
    Algorithm(
        "apg",
        (Term(32, "all"),),
        FixedWeights(),
        NoCritic(stochastic=True),
        policy="gaussian",
        policy_rate=(2e-3, 1e-5),
        clip=1.0,
        loss=WindowReturn(tail="none"),
        source=Newest(32),
        paper="Freeman et al. 2021 (Brax), analytic policy gradients",
    ),
    replace(
        _SHAC,
        name="dmo",
        terms=(Term(16, "all"),),
        model=LearnedModel(every=1, first_steps=1000, steps=128, rows=100_000),
        loss=WindowReturn("model"),
        source=Newest(16),
        paper="Amigo et al. 2025 (DMO), on SHAC",
    ),
)
