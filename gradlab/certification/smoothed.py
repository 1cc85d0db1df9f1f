"""At kinks, the gradient of the smoothed return beside that of the return.

    ∇_a E R_T(a + σu)  =  E u (R_T(a + σu) − R_T(a − σu)) / 2σ,     u ~ N(0, I)

A kink has no derivative that could be wrong, yet a gradient that is exact on one side can be far
from that of the smoothed return, which is what a stochastic policy follows (Suh et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.certification.chains import Chain
from gradlab.certification.evaluation import Derivative

POINTS, PAIRS, STEPS = 16, 128, 5


@dataclass(frozen=True)
class Smoothed:
    """Medians over the kinks.

    Attributes:
        gap: |∇R − ∇E R| over |∇E R|.
        noise: standard error of the smoothed gradient over its norm.
        cosine: of both.
        points: number of kinks.
    """

    gap: float
    noise: float
    cosine: float
    points: int


def smoothed(chain: Chain, derivative: Derivative, sigma: Tensor, draw: Tensor) -> Smoothed:
    """
    Args:
        chain: from kinks.
        sigma: σ of every action, [da].
        draw: u, [pairs, M, da].
    """
    pairs, m, da = draw.shape
    ds = chain.system.state_dim
    moves = torch.cat([draw.new_zeros(pairs, m, ds), sigma * draw], 2)
    z = torch.cat([chain.first + moves, chain.first - moves]).reshape(2 * pairs * m, -1)
    R = chain.rolled(z)[0][-1].reshape(2, pairs, m, 1)
    samples = (draw * (R[0] - R[1]) / 2).nan_to_num()
    mean, error = samples.mean(0), samples.std(0) / pairs**0.5
    into = torch.cat([draw.new_zeros(ds, da), torch.diag(sigma)]).expand(m, -1, -1)
    path = chain.tangents(derivative, into, chain.rolled(chain.first)[1])[-1]
    size = mean.norm(dim=1).clamp_min(1e-300)
    finite = torch.isfinite(path).all(1)
    if not bool(finite.any()):
        return Smoothed(float("nan"), float("nan"), float("nan"), 0)
    gap = ((path - mean).norm(dim=1) / size)[finite].median()
    cosine = torch.nn.functional.cosine_similarity(path, mean, dim=1)[finite].median()
    noise = (error.norm(dim=1) / size)[finite].median()
    return Smoothed(float(gap), float(noise), float(cosine), int(finite.sum()))
