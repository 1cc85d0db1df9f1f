"""Unit quaternions (w, x, y, z) as MuJoCo turns them: q ⊗ exp(δ), δ in the body's own frame.

exp(δ) = (cos |δ|/2, sin |δ|/2 · δ/|δ|),    log its inverse,    ∂(q ⊗ exp δ)/∂δ at 0 = E(q)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def product(p: Array, q: Array) -> Array:
    """p ⊗ q, [..., 4]."""
    a, b, c, d = np.moveaxis(p, -1, 0)
    w, x, y, z = np.moveaxis(q, -1, 0)
    parts = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    return np.stack(parts, -1)


def turned(q: Array, rotation: Array) -> Array:
    """q ⊗ exp(δ): [..., 4] turned by rotation vectors [..., 3], of the same norm as q."""
    angle = np.linalg.norm(rotation, axis=-1, keepdims=True)
    # np.sinc is sin(πx)/(πx), 1 at 0.
    half = 0.5 * np.sinc(angle / (2 * np.pi)) * rotation
    return product(q, np.concatenate([np.cos(angle / 2), half], -1))


def between(end: Array, begin: Array) -> Array:
    """log(begin* ⊗ end), the rotation vector from one to the other, [..., 3] (mju_subQuat)."""
    apart = product(begin * np.array([1.0, -1.0, -1.0, -1.0]), end)
    scalar, vector = apart[..., :1], apart[..., 1:]
    size = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(size, scalar)
    angle = np.where(angle > np.pi, angle - 2 * np.pi, angle)
    slope = np.divide(angle, size, out=np.zeros_like(size), where=size > 0)
    return np.asarray(slope * vector)


def lift(q: Array) -> Array:
    """E(q) [..., 4, 3] of unit quaternions: how q moves per unit of δ. 4 Eᵀ E = 1."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = ((-x, -y, -z), (w, -z, y), (z, w, -x), (-y, x, w))
    return 0.5 * np.stack([np.stack(row, -1) for row in rows], -2)


def drop(q: Array) -> Array:
    """4 E(q/|q|)ᵀ/|q| [..., 3, 4]: the δ of a move of q; 0 along q itself."""
    size = np.linalg.norm(q, axis=-1, keepdims=True)
    return np.asarray(4 * np.swapaxes(lift(q / size), -1, -2) / size[..., None])
