"""The loss surface of RP-PGM's Figure 3: a slice of the model's value estimate around θ.

    −V_h(θ + α u + β v),     V_h = E[Σ_{t<h} γᵗ r_t + γʰ Q(s_h, a_h)],     α, β in [−1, 1]

u and v are random, each parameter tensor of them with the norm that it has in θ; every point has
the same starts and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from gradlab.storage.codec import stored


@dataclass(frozen=True, eq=False)
class Surface:
    """Attributes:
    unrolled: [h], model steps; alpha, beta: [points], in norms of θ; loss: [h, points, points].
    """

    unrolled: Annotated[NDArray[np.int64], stored("unrolled", name="unrolled", unit="model steps")]
    alpha: Annotated[NDArray[np.float64], stored("alpha", name="alpha", unit="norm of θ")]
    beta: Annotated[NDArray[np.float64], stored("beta", name="beta", unit="norm of θ")]
    loss: Annotated[NDArray[np.float64], stored("unrolled", "alpha", "beta", unit="return")]

    def roughness(self) -> NDArray[np.float64]:
        """Mean |second difference| along both directions, in shares of the range, [h]; 0.01 for
        a parabola over 21 points."""
        bent = [np.abs(np.diff(self.loss, 2, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        return np.asarray(sum(bent) / 2 / np.ptp(self.loss, axis=(1, 2)))
