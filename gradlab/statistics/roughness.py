"""How rough a sampled surface is, whatever its scale.

    mean |second difference| / (max − min), averaged over the axes

A straight line has 0; the parabola α² on 21 points of [−1, 1] has 0.02.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def roughness(values: NDArray[np.float64]) -> float:
    """Of returns on a grid of at least 3 points along every axis; NaN where it is flat
    or not finite."""
    if not np.isfinite(values).all():
        return float("nan")
    bends = [np.abs(np.diff(values, 2, axis=axis)).mean() for axis in range(values.ndim)]
    spread = float(values.max() - values.min())
    return float(np.mean(bends)) / spread if spread > 0 else float("nan")
