"""Profiles of one task, policy and set of starts, which can be compared."""

from __future__ import annotations

from dataclasses import replace

from gradlab.runs.profile import Profile
from tests.verdicts.planted_profiles import planted

SAME = {"task": "pendulum", "policy_hash": "abc", "starts_hash": "s", "seed": 0, "truth": "matched"}


def profile(mse=lambda n: 1.0, cosine=lambda n: 0.9, noise=0.02, facts=(), **config) -> Profile:
    """A planted profile of one task, policy and set of starts."""
    found = planted(mse, cosine, noise=noise, **dict(facts))
    return replace(found, config={**found.config, **SAME, **config})
