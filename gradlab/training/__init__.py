"""Training runs: one table of algorithms, one loop (`gradlab.training.loop`).

Names are imported when they are used: results are read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.training.algorithms import ALGORITHMS, Algorithm
    from gradlab.training.models.model_choice import LearnedModel

__all__ = ["ALGORITHMS", "Algorithm", "LearnedModel"]


def __getattr__(name: str) -> Any:
    if name == "LearnedModel":
        from gradlab.training.models.model_choice import LearnedModel

        return LearnedModel
    if name in __all__:
        from gradlab.training import algorithms

        return getattr(algorithms, name)
    raise AttributeError(f"module 'gradlab.training' has no attribute {name!r}")
