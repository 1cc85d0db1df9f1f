"""The result of a fit: the members at their best, with plain weights, and their curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import Failure, InputError
from gradlab.fitting.descent import Descent
from gradlab.fitting.losses import Loss, OneStep, Rows, outputs
from gradlab.fitting.model_settings import ModelSettings
from gradlab.fitting.standardising import units
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble

LEAST_VARIANCE = 1e-12  # of standardised targets


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted ensemble with its curves and held-out errors.

    Attributes:
        ensemble: the members that did not diverge, with plain weights, in eval mode.
        members: their numbers among those that were fitted.
        dropped: number → epoch in which that member diverged.
        held_out_loss, best_epoch: of each remaining member.
        explained: [members, out], held-out 1 − MSE / variance per output (s' − s or s', then r).
        explained_error: [out], standard error of its mean over members, the held-out trajectories
            (rows, where there are few) left out in turn.
        curves: "training", "held_out", "squared_error" [epochs, all members], "seconds" [epochs].
        norms: measured norms of the layers.
        constant: coordinates and targets that are constant in the training rows.
        repeated: training rows whose (s, a) was there before, where the loss has neighbours.
        training_rows, held_out_rows: how many of each.
    """

    ensemble: GaussianEnsemble
    members: tuple[int, ...]
    dropped: Mapping[int, int]
    held_out_loss: tuple[float, ...]
    best_epoch: tuple[int, ...]
    explained: Tensor
    explained_error: Tensor
    curves: Mapping[str, NDArray[np.float64]]
    norms: tuple[spectral.LayerNorm, ...]
    constant: tuple[str, ...]
    repeated: int
    training_rows: int
    held_out_rows: int
    settings: ModelSettings
    loss: Loss = field(default_factory=OneStep)

    def elites(self, count: int = 5) -> tuple[int, ...]:
        """Positions in `ensemble` of the members with the lowest held-out loss (MBPO: 5 of 7)."""
        order = np.argsort(np.array(self.held_out_loss), kind="stable")[:count]
        return tuple(sorted(int(k) for k in order))

    def elite_ensemble(self, count: int = 5) -> GaussianEnsemble:
        """An ensemble of those members alone.

        Raises:
            InputError: a count that is not from 1 to the number of members.
        """
        if not 1 <= count <= len(self.members):
            raise InputError(f"elites is {count}, expected 1 to the {len(self.members)} members")
        return of_members(self.ensemble, list(self.elites(count)))


def finished(
    descent: Descent, settings: ModelSettings, loss: Loss, constant: tuple[str, ...]
) -> Fit:
    """Every member at its lowest held-out loss, those that diverged left out.

    Raises:
        Failure: none is left.
    """
    numbers = descent.members
    kept = [k for k in range(len(numbers)) if descent.best_epoch[k] and not descent.diverged[k]]
    dropped = {numbers[k]: int(epoch) for k, epoch in enumerate(descent.diverged) if epoch}
    if not kept:
        raise Failure(
            f"all {len(numbers)} members left the finite numbers, the last in epoch "
            f"{max(dropped.values())}: lower learning_rate, or look for outliers in the data"
        )
    descent.ensemble.load_state_dict(descent.best)
    norms = spectral.norms(descent.ensemble.eval())
    ensemble = of_members(spectral.baked(descent.ensemble), kept)
    errors = _errors(ensemble, descent.rows, descent.held_out.rows)
    square = errors.mean(dim=1)
    if loss.prediction == "mse":
        set_constant_noise(ensemble, square)
    return Fit(
        ensemble=ensemble,
        members=tuple(numbers[k] for k in kept),
        dropped=dropped,
        held_out_loss=tuple(descent.best_loss[kept].tolist()),
        best_epoch=tuple(descent.best_epoch[kept].tolist()),
        explained=1 - square,
        explained_error=_standard_error(errors.mean(dim=0), descent),
        curves={name: torch.stack(curve).numpy() for name, curve in descent.curves.items()},
        norms=norms,
        constant=constant,
        repeated=descent.training.repeated,
        training_rows=len(descent.training.rows),
        held_out_rows=len(descent.held_out.rows),
        settings=settings,
        loss=loss,
    )


def of_members(whole: GaussianEnsemble, kept: list[int]) -> GaussianEnsemble:
    """Some of the members, in eval mode and without gradients."""
    arguments = {name: value for name, value in whole.architecture.items() if name != "kind"}
    with torch.random.fork_rng(devices=[]):
        some = GaussianEnsemble(**arguments | {"members": len(kept)}).to(whole.input_mean)
    some.load_state_dict({name: value[kept] for name, value in whole.state_dict().items()})
    return some.eval().requires_grad_(False)


@torch.no_grad()
def _errors(ensemble: GaussianEnsemble, rows: Rows, held_out: Tensor) -> Tensor:
    """Held-out squared standardised errors, [E, N, out], float64."""
    inputs, target = rows.inputs[held_out], rows.targets[held_out]
    mean, _ = outputs(ensemble, inputs.expand(ensemble.members, *inputs.shape))
    return (mean - target).double().square().cpu()


def _standard_error(errors: Tensor, descent: Descent) -> Tensor:
    """Of the mean of `errors` [N, out], units of resampling left out in turn."""
    record, held_out = descent.rows.record, descent.held_out.rows
    unit = torch.from_numpy(units(record, held_out))
    count = int(unit.max()) + 1
    if count < 2:
        return torch.full_like(errors[0], torch.nan)
    sums = torch.zeros(count, errors.shape[1], dtype=errors.dtype).index_add_(0, unit, errors)
    rows = torch.bincount(unit)[:, None]
    left_out = (sums.sum(dim=0) - sums) / (rows.sum() - rows)
    spread: Tensor = (left_out - left_out.mean(dim=0)).square().sum(dim=0)
    return ((count - 1) / count * spread).sqrt()


@torch.no_grad()
def set_constant_noise(ensemble: GaussianEnsemble, square: Tensor) -> None:
    """Noise of one size: squared error leaves the variance untrained, held-out errors give it.

    With bounds 20 above and below, log v is its raw output to 1e-8.
    """
    log_variance = square.clamp_min(LEAST_VARIANCE).log().to(ensemble.low)
    last: Any = ensemble.network.linear[-1]
    width = ensemble.outputs
    last.weight[:, :, width:] = 0
    last.bias[:, 0, width:] = log_variance
    ensemble.low.copy_(log_variance[:, None] - 20)
    ensemble.high.copy_(log_variance[:, None] + 20)
