"""What a remedy costs: prediction on held-out rows, and time.

    held_out_nll   mean ½ ((ŷ − m)²/v + log v + log 2π) per output, in nats
    held_out_mse   mean (ŷ − m)², of one step in standardised coordinates

Every model is asked about the rows that its own fit held out: the same ones for all models of a
record. A pair of models predicts by its first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradlab.data.trajectories import Trajectories
from gradlab.fitting.losses import LOG_2PI, outputs
from gradlab.fitting.standardising import split, standardised
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.remedies.fits import Made, Recipe
from gradlab.runs.remedies.values import Key, Value


def price_values(
    name: str, parts: Sequence[Made], recipe: Recipe, data: Trajectories, cost: float
) -> list[Value]:
    """
    Args:
        recipe: of the part that predicts; cost: of a step, in steps of the baseline.
    """
    nll, mse = held_out(parts[0].ensemble, recipe, data)
    seconds = sum(float(each.told["seconds"]) for each in parts)
    found = {"held_out_nll": nll, "held_out_mse": mse, "fit_seconds": seconds, "step_cost": cost}
    return [Value(name, Key(quantity), value) for quantity, value in found.items()]


@torch.no_grad()
def held_out(ensemble: GaussianEnsemble, recipe: Recipe, data: Trajectories) -> tuple[float, float]:
    """Likelihood and squared error, averaged over members."""
    record, settings = recipe.rows(data), recipe.settings
    training, held = split(record, settings.held_out, settings.seed)
    rows, _ = standardised(
        record,
        training,
        residual=settings.residual,
        reward=settings.reward,
        dtype=torch.float64,
        device="cpu",
    )
    inputs = rows.inputs[held]
    mean, log_variance = outputs(ensemble, inputs.expand(ensemble.members, *inputs.shape))
    square = (mean - rows.targets[held]).square()
    return _likelihood(square, log_variance), float(square.mean())


def _likelihood(square: Tensor, log_variance: Tensor) -> float:
    terms = square * (-log_variance).exp() + log_variance + LOG_2PI
    return float(0.5 * terms.mean())
