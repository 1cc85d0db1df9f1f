"""Rows of the probe's tables as a sound loop writes them, and as a planted fault would."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.statistics.successive import signal

NAN = float("nan")


def vitals(**changed: Any) -> dict[str, Any]:
    zero = np.zeros(2)
    row = {"looked": 100, "nonfinite": zero, "nonfinite_updates": 0, "zero": zero, "watched": 100}
    row |= {"grad_norm": 1.0, "saturation": np.array([0.1, 0.2]), "update": 100, "step": 100}
    return row | changed


def bound(share: float, passed: float) -> dict[str, Any]:
    """Vitals whose second action is at its limit."""
    shares, through = np.array([0.1, share]), np.array([0.8, passed])
    return vitals(saturation=shares, attenuation=through)


def burst(size: float, seed: int, **changed: Any) -> dict[str, Any]:
    """32 pairs of gradients in 200 dimensions with |μ| = size, covariance I."""
    g = np.random.default_rng(seed).standard_normal((33, 200))
    g[:, 0] += size
    found = signal((g[1:] * g[:-1]).sum(1), (g**2).sum(1))
    return {
        "pairs": found.pairs, "fresh": found.pairs, "energy": found.energy,
        "signal": found.signal,
        "root_squares": found.root_squares, "signal_share": found.share, "share_se": found.se,
        "update": 100, "step": 100,
    } | changed  # fmt: skip


def measured(**changed: Any) -> dict[str, Any]:
    row = {
        "starts": 64, "variance": np.ones((4, 11)), "bias2": np.ones((4, 11)), "step": 7,
        "growth": 0.01, "growth_se": 0.01, "critic_gap": -1.0, "critic_gap_se": 0.3,
        "value": 5.0, "value_se": 0.1, "return_bound": 10.0, "reward_max": 1.0,
        "jacobian_error": -1.0, "jacobian_error_se": 0.1,
        "cosine": np.full((4, 11), 0.5),
        "cosine_low": np.full((4, 11), 0.4), "cosine_high": np.full((4, 11), 0.6),
        "over_data": 1.0, "over_data_se": 0.1, "kept_high": 10.0, "chosen_horizon": 3.0,
        "lyapunov": -0.1, "lyapunov_se": 0.05, "discount": 0.9, "float32_step": np.inf,
        "jacobian_states": 1600, "jacobian_nonfinite": 0, "starts_lost": 0, "nonfinite_where": "",
        "batch": 256,
    }  # fmt: skip
    row |= changed
    if "cosine" in changed and "cosine_high" not in changed:
        row["cosine_high"] = changed["cosine"] + 0.1
        row["cosine_low"] = changed["cosine"] - 0.1
    return row
