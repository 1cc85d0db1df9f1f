"""Are neighbours near enough for a directional-derivative loss to help? From the data alone.

    target error   T = E ‖Δy − J v‖² / ‖v‖²        J: the true Jacobian at x
    with a model   D = E ‖Δy − J_m v‖² / ‖v‖² = T + E ‖(J − J_m) v‖² / ‖v‖²

The loss pulls J_m v towards Δy, which is an improvement where the targets are better than the
model: D − T > T. D is seen on rows that the model was not fitted to. T is estimated without any
model, from a linear regression of Δy on v over a wider neighbourhood: its residuals, studentised,
hold both the noise of Δy, which grows as the points come near, and the curvature, which grows as
they part. The wider neighbourhood bends more than the near one, so T errs upwards, and the answer
towards "cannot help". Everything in standardised coordinates, per output, as the loss has it;
without the division where the loss has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import pushed
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import Rows
from gradlab.fitting.neighbours import Neighbours
from gradlab.fitting.standardising import split, standardised
from gradlab.statistics.intervals import skewness_corrected
from gradlab.statistics.moments import Estimate

SAMPLE = 1000  # rows that are asked
WIDER = 4  # points of the regression, per coordinate of (s, a)


@dataclass(frozen=True)
class Nearness:
    """The answer, in squared standardised units.

    Attributes:
        target_error: T; model_error: D − T, the model's own along the same directions.
        gain: model_error − target_error with its 95% interval, the trajectories left out in turn.
        distance: median standardised ‖v‖ of the neighbours.
        verdict: "can help", "cannot help", or "undecided".
        rows: that were asked.
    """

    target_error: float
    model_error: float
    gain: tuple[float, float, float]
    distance: float
    verdict: Literal["can help", "cannot help", "undecided"]
    rows: int


def nearness(
    data: Trajectories, fit: Fit, neighbours: int = 10, divided: bool = True, seed: int = 0
) -> Nearness:
    """Judge the directional loss on `data` against a model that was fitted to it without that loss.

    Args:
        fit: of `fit_model` on the same data; its held-out rows are asked.
        neighbours: n of the loss.
        divided: by ‖v‖², as in the loss.

    Raises:
        InputError: too few points, or fewer than two trajectories (or pieces) held out.
    """
    _, held = split(data, fit.settings.held_out, fit.settings.seed)
    held = held[torch.randperm(len(held), generator=stream(seed, "nearness"))[:SAMPLE]]
    rows = _rows(data, fit)
    width = rows.inputs.shape[1]
    wider = max(WIDER * width, neighbours)
    near = Neighbours(wider, np.ones(width), torch.get_num_threads())
    near.add(rows.inputs.numpy())
    index = torch.from_numpy(near.index)[held]
    v = rows.inputs[index] - rows.inputs[held][:, None]
    change = rows.targets[index] - rows.targets[held][:, None]
    square = v.square().sum(dim=2) if divided else torch.ones_like(v[..., 0])
    target = target_errors(v, change, square)[:, :neighbours].mean(dim=1)
    model = _model_errors(fit, rows.inputs[held], v[:, :neighbours], change[:, :neighbours])
    own = (model / square[:, :neighbours]).mean(dim=1) - target
    gain, low, high = _with_interval((own - target).numpy(), _groups(data, held))
    return Nearness(
        target_error=float(target.mean()),
        model_error=float(own.mean()),
        gain=(gain, low, high),
        distance=float(v[:, :neighbours].norm(dim=2).median()),
        verdict="can help" if low > 0 else "cannot help" if high < 0 else "undecided",
        rows=len(held),
    )


def target_errors(v: Tensor, change: Tensor, square: Tensor) -> Tensor:
    """‖Δy − Jv‖²/(out · square) [R, L] of every neighbour, J unknown.

    Args:
        v: [R, L, in]; change: Δy [R, L, out]; square: ‖v‖², or ones [R, L].
    """
    root = square.sqrt()[..., None]
    Q, _ = torch.linalg.qr(v / root)
    y = change / root
    residual = y - Q @ (Q.mT @ y)
    leverage = Q.square().sum(dim=2)
    errors: Tensor = residual.square().mean(dim=2) / (1 - leverage).clamp_min(1e-6)
    return errors


def _rows(data: Trajectories, fit: Fit) -> Rows:
    training, _ = split(data, fit.settings.held_out, fit.settings.seed)
    rows, _ = standardised(
        data,
        training,
        residual=fit.settings.residual,
        reward=fit.settings.reward,
        dtype=torch.float64,
        device="cpu",
    )
    return rows


@torch.no_grad()
def _model_errors(fit: Fit, inputs: Tensor, v: Tensor, change: Tensor) -> Tensor:
    """Squared error of the members' J_m v per output, averaged over outputs and members, [R, n]."""
    count = fit.ensemble.members
    moved = pushed(fit.ensemble, inputs.expand(count, -1, -1), v.expand(count, -1, -1, -1))[2]
    error: Tensor = (moved - change).square().mean(dim=(0, 3))
    return error


def _groups(data: Trajectories, held: Tensor) -> NDArray[np.int64]:
    """[R], one number per trajectory; per row where there are fewer than five of them."""
    group = data.trajectory[held].cpu().numpy()
    return group if len(np.unique(group)) >= 5 else np.arange(len(held))


def _with_interval(
    values: NDArray[np.float64], group: NDArray[np.int64]
) -> tuple[float, float, float]:
    _, number = np.unique(group, return_inverse=True)
    sums, counts = np.bincount(number, values), np.bincount(number)
    if len(counts) < 2:
        raise InputError("one row is held out: record more")
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    mean = float(values.mean())
    low, high = skewness_corrected(Estimate(mean, left_out))
    return mean, float(low), float(high)
