"""Random streams keyed by (seed, name, step).

A stream never equals one that the user may hold (`torch.manual_seed(seed)`, the starts), and a
draw covers the whole batch, so that results depend neither on chunks nor on other measurements, and
any two estimators, policies or models can be paired on common random numbers.
"""

import hashlib

import torch


def child(seed: int, name: str) -> int:
    """A seed of its own for a part of a run, so that neighbouring seeds share no draws."""
    digest = hashlib.sha256(f"gradlab:{seed}:child:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, name: str, step: int = 0) -> torch.Generator:
    """A CPU generator of its own for (seed, name, step)."""
    digest = hashlib.sha256(f"gradlab:{seed}:{name}:{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
