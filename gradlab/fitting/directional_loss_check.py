"""Whether a directional-derivative loss can help at the distances between the data's neighbours.

    target error   T = E ‖Δy − J v‖² / ‖v‖²        J: the true Jacobian at x
    with a model   D = E ‖Δy − J_m v‖² / ‖v‖² = T + E ‖(J − J_m) v‖² / ‖v‖²

The loss pulls J_m v towards Δy, an improvement where D − T > T. D is of held-out rows; T of the
studentised residuals of a linear regression of Δy on v over a wider neighbourhood, which errs
upwards, towards "cannot help". Standardised, per output; `by_group` has states and reward apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.trajectories import Trajectories, stream
from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import Neighbours, pushed
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import rows_of_fit, units
from gradlab.statistics.intervals import skewness_corrected
from gradlab.statistics.moments import Estimate

_SAMPLE = 1000  # rows that are used
_WIDER = 4  # points of the regression, per coordinate of (s, a)


@dataclass(frozen=True)
class _LossCheck:
    """The result of the check, in squared standardised units per output.

    Attributes:
        target_error: T; model_error: D − T, the model's own along the same directions.
        gain: model_error − target_error with its 95% interval, the trajectories left out in turn.
        distance: median standardised ‖v‖ of the neighbours.
        verdict: "can help", "cannot help", or "undecided".
        rows: number of held-out rows.
    """

    target_error: float
    model_error: float
    gain: tuple[float, float, float]
    distance: float
    verdict: Literal["can help", "cannot help", "undecided"]
    rows: int


def by_group(
    data: Trajectories, fit: Fit, neighbours: int = 10, divided: bool = True, seed: int = 0
) -> Mapping[str, _LossCheck]:
    """Check the directional loss on `data` against a model that was fitted to it without that loss,
    for the states' outputs and, where the model has it, the reward's.

    Args:
        fit: of `fit_model` on the same data; its held-out rows are used.
        neighbours: n of the loss.
        divided: by ‖v‖², as in the loss.
    """
    settings = fit.settings
    rows, _, held, _ = rows_of_fit(data, settings)
    held = held[torch.randperm(len(held), generator=stream(seed, "nearness"))[:_SAMPLE]]
    width = rows.inputs.shape[1]
    near = Neighbours(max(_WIDER * width, neighbours), np.ones(width), torch.get_num_threads())
    near.add(rows.inputs.numpy())
    index = torch.from_numpy(near.index)[held]
    v = rows.inputs[index] - rows.inputs[held][:, None]
    change = rows.targets[index] - rows.targets[held][:, None]
    square = v.square().sum(dim=2) if divided else torch.ones_like(v[..., 0])
    nearest = (slice(None), slice(neighbours))
    T = target_errors(v, change, square)[nearest].mean(dim=1)
    many, near_v = rows.inputs[held].expand(fit.ensemble.members, -1, -1), v[nearest]
    with torch.no_grad():  # squared error of J_m v, averaged over members, [R, n, out]
        moved = pushed(fit.ensemble, many, near_v.expand(len(many), -1, -1, -1))[2]
        model = (moved - change[nearest]).square().mean(dim=0)
    D = (model / square[nearest][..., None]).mean(dim=1)
    distance, unit = float(v[nearest].norm(dim=2).median()), units(data, held)
    states = data.state.shape[1]
    found = {"state": _judged(T[:, :states], D[:, :states], distance, unit)}
    if settings.reward:
        found["reward"] = _judged(T[:, states:], D[:, states:], distance, unit)
    return found


def _judged(target: Tensor, whole: Tensor, distance: float, unit: NDArray[np.int64]) -> _LossCheck:
    """Of T and D [R, out] of some outputs; `unit` [R]: what resampling leaves out together."""
    target, own = target.mean(dim=1), (whole - target).mean(dim=1)
    values = (own - target).numpy()
    sums, counts = np.bincount(unit, values), np.bincount(unit)
    if len(counts) < 2:
        raise InputError("one row is held out: record more")
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    mean = float(values.mean())
    low, high = map(float, skewness_corrected(Estimate(mean, left_out)))
    return _LossCheck(
        target_error=float(target.mean()),
        model_error=float(own.mean()),
        gain=(mean, low, high),
        distance=distance,
        verdict="can help" if low > 0 else "cannot help" if high < 0 else "undecided",
        rows=len(target),
    )


def target_errors(v: Tensor, change: Tensor, square: Tensor) -> Tensor:
    """(Δy − Jv)² / square of every neighbour and output [R, L, out], J unknown.

    Args:
        v: [R, L, in]; change: Δy [R, L, out]; square: ‖v‖², or ones [R, L].
    """
    root = square.sqrt()[..., None]
    Q, _ = torch.linalg.qr(v / root)
    y = change / root
    residual = y - Q @ (Q.mT @ y)
    leverage = Q.square().sum(dim=2, keepdim=True)
    errors: Tensor = residual.square() / (1 - leverage).clamp_min(1e-6)
    return errors
