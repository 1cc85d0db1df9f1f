# Warp reads annotations as array types: no `from __future__ import annotations` here.
"""A substep in Warp."""

import warp as wp


@wp.kernel
def slid(
    state: wp.array2d(dtype=wp.float64),
    action: wp.array2d(dtype=wp.float64),
    after: wp.array2d(dtype=wp.float64),
):
    """v' = v + 10 a dt, x' = x + v' dt, dt = 0.02."""
    i = wp.tid()
    speed = state[i, 1] + wp.float64(0.2) * action[i, 0]
    after[i, 1] = speed
    after[i, 0] = state[i, 0] + wp.float64(0.02) * speed
