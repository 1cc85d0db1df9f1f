"""Fitting policies, critics and models for a measurement."""

from gradlab.fitting.collection import collect
from gradlab.fitting.critics import fit_critic
from gradlab.fitting.fitted import fit_model
from gradlab.fitting.model_settings import ModelSettings
from gradlab.fitting.policies import stabilising_policy

__all__ = ["ModelSettings", "collect", "fit_critic", "fit_model", "stabilising_policy"]
