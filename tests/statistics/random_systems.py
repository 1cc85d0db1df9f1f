"""Random systems on which bounds are tried."""

import numpy as np

from gradlab.statistics.bounds.improvement import MPGConstants

ROUNDING = 1 + 1e-9


def stable_pairs(trials, seed):
    """Rows (A, B, θ, Â, B̂) with |A|, |B|, |θ|, |A + Bθ| < 1, for model and simulator."""
    rng = np.random.default_rng(seed)
    A, B, theta = rng.uniform(-0.98, 0.98, (3, 20 * trials))
    scale = 10.0 ** rng.uniform(-3, -0.5, 20 * trials)
    A_, B_ = A + scale * rng.normal(size=len(A)), B + scale * rng.normal(size=len(A))
    rows = np.stack([A, B, theta, A_, B_], axis=1)
    closed = np.maximum(abs(A + B * theta), abs(A_ + B_ * theta))
    kept = rows[np.maximum(np.abs(rows).max(axis=1), closed) < 1][:trials]
    assert len(kept) == trials
    return kept, rng


def perfect_model(**change):
    constants = dict(gamma=0.9, B_theta=2.0, c_m=0.0, B_fs=0.8, B_ps=0.8, B_fa=1.0, B_pa=1.0)
    constants |= dict(B_delta_s=0.0, B_delta_a=0.0, B_rs=1.0, B_Qs=1.0, B_qs=0.0, B_qa=0.0)
    return MPGConstants(**(constants | change))
