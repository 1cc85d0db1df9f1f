"""Points on kinks and jumps of a step, and on both sides of them.

A line between two visited points is cut where the second difference of the outputs is largest, and
the part around the cut is cut again. Where f is smooth the second difference over the width falls
with the width; where it does not, the line has crossed a contact, a limit or a clip.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.certification.evaluation import Points, outputs
from gradlab.certification.sampling import Law, Samples, labelled
from gradlab.systems.system import System

GRID, CUTS = 17, 22  # points of the first cut, and halvings after it
ASIDE = 1e-3  # of the line, how far from the kink its sides are taken
LASTS = 0.25  # of the slope's change at a wide stencil, that is left at a 64 times narrower one
LEAST = 1e-5  # of the outputs' spread over the line: a smaller change is rounding


def pushed(drawn: Law, seen: Samples, n: int) -> Samples:
    """At most n points, a third of them on kinks, the others on both sides."""
    system, z = drawn.system, seen.points.z
    rows = torch.arange(max(n // 3, 1)) * 5 % len(z)
    ends = z[rows], z[rows.flip(0).roll(1) * 3 % len(z)]
    at, kinked = _found(system, seen.points, rows, *ends)
    step = ASIDE * (ends[1] - ends[0])[kinked]
    on = at[kinked]
    points = torch.cat([on, on - step, on + step])
    samples = labelled(system, points, "kinks", drawn.seed, None)
    return Samples(
        samples.points, samples.origin, samples.step, torch.arange(len(points)) < len(on)
    )


def _found(
    system: System, points: Points, rows: Tensor, begin: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the outputs bend most on every line [K, ·], and whether that is a kink, [K]."""
    noise = points.at(rows).noise

    def values(fractions: Tensor) -> Tensor:
        """y [k, K, out] in units of spread at fractions [k, K] of the lines."""
        z = begin + fractions[..., None] * (end - begin)
        given = None if noise is None else noise.repeat(len(fractions), 1)
        y = outputs(system, Points(z.reshape(-1, z.shape[-1]), given))
        return y.reshape(*fractions.shape, -1)

    lines = torch.arange(len(begin))
    grid = torch.linspace(0, 1, GRID).to(begin)
    y = values(grid[:, None].expand(-1, len(begin)))
    spread = (y.amax(0) - y.amin(0)).nan_to_num()
    spread = torch.where(spread > 0, spread, torch.inf)
    low, width = torch.zeros(len(begin)).to(begin), grid[1].expand(len(begin))
    for _ in range(CUTS):
        bend = ((y[2:] - 2 * y[1:-1] + y[:-2]) / spread).nan_to_num().norm(dim=2)
        best = bend.argmax(0)  # of the inner points, and the index of the one before
        low = low + best * width
        before, at, after = (y[best + k, lines] for k in range(3))
        width = width / 2
        quarters = values(torch.stack([low + width, low + 3 * width]))
        y = torch.stack([before, quarters[0], at, quarters[1], after])
    middle = low + 2 * width
    narrow, wide = (
        _slope_change(values, middle, reach * 4 * width, spread) for reach in (1.0, 64.0)
    )
    kinked = (narrow > LASTS * wide) & (narrow > LEAST)
    return begin + middle[:, None] * (end - begin), kinked


def _slope_change(
    values: Callable[[Tensor], Tensor], middle: Tensor, reach: Tensor, spread: Tensor
) -> Tensor:
    """|f(m + d) − 2 f(m) + f(m − d)| / d in spreads of the line, [K]."""
    y = values(torch.stack([middle - reach, middle, middle + reach]))
    bend = ((y[2] - 2 * y[1] + y[0]) / spread).nan_to_num()
    size: Tensor = torch.linalg.vector_norm(bend, dim=1)
    return size / reach
