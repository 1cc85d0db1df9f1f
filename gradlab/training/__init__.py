"""Training runs: one table of algorithms, one loop (`gradlab.training.loop`)."""

from gradlab.training.algorithms import ALGORITHMS, Algorithm

__all__ = ["ALGORITHMS", "Algorithm"]
