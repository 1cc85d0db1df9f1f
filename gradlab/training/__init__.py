"""Training runs: one table of algorithms, one loop (`gradlab.training.loop`).

Names are imported when they are used: results are read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.training.algorithm import Algorithm, LearnedModel
    from gradlab.training.algorithms import ALGORITHMS

__all__ = ["ALGORITHMS", "Algorithm", "LearnedModel"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gradlab.training import algorithm, algorithms

        return getattr(algorithms if name == "ALGORITHMS" else algorithm, name)
    raise AttributeError(f"module 'gradlab.training' has no attribute {name!r}")
