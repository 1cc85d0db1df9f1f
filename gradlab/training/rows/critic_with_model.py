"""The data-driven gradient J_0, with a learned model behind its critic: in data, target or loss."""

from __future__ import annotations

from dataclasses import replace

from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.sources import Branched
from gradlab.training.rows.mpg import SAC

ROWS = (replace(SAC, name="mbpo", model=LearnedModel(), source=Branched()),)
