"""The data-driven gradient J_0, with a learned model behind its critic: in data, target or loss."""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.mage import ActionGradient
from gradlab.training.parts.sources import Branched
from gradlab.training.parts.steve import Steve
from gradlab.training.rows.mpg import SAC, TD3

ROWS = (
    replace(SAC, name="mbpo", model=LearnedModel(), source=Branched()),
    replace(SAC, name="steve", model=LearnedModel(), target=Steve()),
    replace(TD3, name="mage", model=LearnedModel(), critic_loss=ActionGradient(TD3.target)),
)
