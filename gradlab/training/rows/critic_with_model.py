"""The data-driven gradient J_0, with a learned model behind its critic: in data, target or loss.

G = 10 updates for each transition, as published for MBPO's inverted pendulum and MAGE; models are
fitted again and rolled out after 250 environment steps, which are 2500 iterations.
`docs/model_based_settings.md` has what is smaller here than in the papers.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.models.branches import Branching
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.mage import ActionGradient
from gradlab.training.parts.sources import Branched
from gradlab.training.parts.targets import Steve
from gradlab.training.rows.mpg import SAC, TD3

_MODEL = LearnedModel(every=2500)

ROWS = (
    replace(
        SAC,
        name="mbpo",
        model=replace(_MODEL, members=7, elites=5, bootstrap=True),
        source=Branched(Branching(every=2500)),
        updates=10,
        paper="Janner et al. 2019, algorithm 2",
    ),
    replace(
        SAC,
        name="steve",
        model=_MODEL,
        target=Steve(),
        updates=10,
        paper="Buckman et al. 2018, section 3",
    ),
    replace(
        TD3,
        name="mage",
        model=_MODEL,
        critic_loss=ActionGradient(TD3.target, threshold=1.0),
        updates=10,
        paper="D'Oro and Jaśkowski 2020, algorithm 1",
    ),
)
