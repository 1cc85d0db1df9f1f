"""Losses of a model: one value per member, in standardised coordinates.

    nll          ½ mean_j [(ŷ − m)_j² / v_j + log v_j + log 2π]                     (DDPPO eq. 2)
    mse          mean_j (ŷ − m)_j²
    multistep    1/h Σ_t mean_j ((s_{t+1} − ŝ_{t+1}) / f)_j²,  ŝ_{t+1} = μ(ŝ_t, a_t)
                                                                                  (RP-PGM Fig. 6)

with x̂ = ([s, a] − c)/d and ŷ = ([s' − s, r] − e)/f, and m and log v the network's outputs at x̂.
Losses on derivatives: `derivative_losses`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, bounded, predict

LOG_2PI = math.log(2 * math.pi)
BOUNDS = 0.005  # weight of Σ (high − low) of the log variance, as in PETS and MBPO

Prediction = Literal["nll", "mse"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A record in standardised coordinates.

    Attributes:
        record: the rows as they were recorded, in the dtype of training.
        inputs: x̂ [M, ds + da]; targets: ŷ [M, out].
        input_mean, input_std, target_mean, target_std: c, d [ds + da] and e, f [out].
        residual: is s' − s predicted?
    """

    record: Trajectories
    inputs: Tensor
    targets: Tensor
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    residual: bool


@dataclass(frozen=True, eq=False)
class Bound:
    """A loss on given rows.

    Attributes:
        rows: those that a batch may name [m].
        value: (ensemble, rows [E, N], turn) → [E]; turn counts the batches.
        repeated: rows whose (s, a) was there before, where the loss uses neighbours.
    """

    rows: Tensor
    value: Callable[[GaussianEnsemble, Tensor, int], Tensor]
    repeated: int = 0


class Loss(Protocol):
    """A frozen value; `bind` prepares it for training rows and for held-out ones."""

    @property
    def name(self) -> str: ...
    @property
    def prediction(self) -> Prediction: ...

    def bind(self, rows: Rows, training: Tensor, held_out: Tensor) -> tuple[Bound, Bound]: ...


@dataclass(frozen=True)
class OneStep:
    """Likelihood or squared error of the next state and reward."""

    prediction: Prediction = "nll"

    @property
    def name(self) -> str:
        return self.prediction

    def bind(self, rows: Rows, training: Tensor, held_out: Tensor) -> tuple[Bound, Bound]:
        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
            mean, log_variance = outputs(ensemble, rows.inputs[at])
            return predicted(self.prediction, ensemble, mean, log_variance, rows.targets[at])

        return Bound(training, value), Bound(held_out, value)


@dataclass(frozen=True)
class MultiStep:
    """Squared error along `steps` steps of the model's own mean predictions."""

    name: ClassVar[str] = "multistep"
    prediction: ClassVar[Prediction] = "mse"

    steps: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(f"steps is {self.steps!r}, expected an integer from 1")

    def bind(self, rows: Rows, training: Tensor, held_out: Tensor) -> tuple[Bound, Bound]:
        """Batches name the first rows of windows that stay within a trajectory and one part."""

        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
            return self._along(ensemble, rows, at)

        parts = [windows(rows.record, part, self.steps) for part in (training, held_out)]
        return Bound(parts[0], value), Bound(parts[1], value)

    def _along(self, ensemble: GaussianEnsemble, rows: Rows, at: Tensor) -> Tensor:
        record, numbers = rows.record, ensemble.numbers(rows.inputs)
        state, total = record.state[at], rows.inputs.new_zeros(len(at))
        for step in range(self.steps):
            row = at + step
            mean = predict(numbers, torch.cat([state, record.action[row]], dim=2)).mean
            state = mean[..., : state.shape[2]]
            wanted = record.next_state[row]
            if ensemble.reward:
                wanted = torch.cat([wanted, record.reward[row][..., None]], dim=2)
            error = (mean - wanted) / numbers.target_std
            total = total + error.square().mean(dim=(1, 2)) / self.steps
        return total


def outputs(ensemble: GaussianEnsemble, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """m and log v [E, N, out] at x̂ [E, N, in]."""
    numbers = ensemble.numbers(inputs)
    mean, raw = numbers.layers(inputs).chunk(2, dim=-1)
    return mean, bounded(numbers, raw)[0]


def predicted(
    kind: Prediction, ensemble: GaussianEnsemble, mean: Tensor, log_variance: Tensor, target: Tensor
) -> Tensor:
    """Prediction loss per member, [E]; the likelihood with MBPO's pull on the variance's bounds."""
    square = (mean - target).square()
    if kind == "mse":
        return square.mean(dim=(1, 2))
    likelihood = 0.5 * (square * (-log_variance).exp() + log_variance + LOG_2PI).mean(dim=(1, 2))
    return likelihood + BOUNDS * (ensemble.high - ensemble.low).sum(dim=(1, 2)).to(likelihood)


def windows(record: Trajectories, part: Tensor, steps: int) -> Tensor:
    """First rows of `steps` rows in order, of one trajectory and all in `part`.

    Raises:
        InputError: there are none.
    """
    inside = torch.zeros(len(record) + steps, dtype=torch.bool, device=part.device)
    inside[part] = True
    trajectory = torch.nn.functional.pad(record.trajectory, (0, steps), value=-1)
    whole = inside[: len(record)].clone()
    for step in range(1, steps):
        whole &= inside[step : step + len(record)]
        whole &= trajectory[step : step + len(record)] == record.trajectory
    first = whole.nonzero()[:, 0]
    if not len(first):
        raise InputError(
            f"steps is {steps}, but no trajectory of the data has {steps} rows in one part: lower "
            f"it, or record longer ones"
        )
    return first
