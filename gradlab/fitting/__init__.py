"""Making what a measurement needs where the user has none: policies, critics."""

from gradlab.fitting.critics import fit_critic
from gradlab.fitting.policies import stabilising_policy

__all__ = ["fit_critic", "stabilising_policy"]
