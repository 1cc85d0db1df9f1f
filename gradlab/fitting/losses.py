"""Losses of a model, one value per member, on standardised rows of which some are held out.

    nll          ½ mean_j [(ŷ − m)_j² / v_j + log v_j + log 2π]                     (DDPPO eq. 2)
    mse          mean_j (ŷ − m)_j²
    multistep    1/h Σ_t mean_j ((s_{t+1} − ŝ_{t+1}) / f)_j²,  ŝ_{t+1} = μ(ŝ_t, a_t)
                                                                                  (RP-PGM Fig. 6)

with x̂ = ([s, a] − c)/d and ŷ = ([s' − s, r] − e)/f, c … f means and deviations over training rows;
m and log v are the outputs at x̂. Whole trajectories are held out, or pieces of few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab import validation
from gradlab.data.trajectories import DIMS, NUMBERS, Trajectories, stream
from gradlab.errors import InputError
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, moments, predict
from gradlab.user_code import running

LOG_2PI = math.log(2 * math.pi)
BOUNDS = 0.005  # weight of Σ (high − low) of the log variance, as in PETS and MBPO

Prediction = Literal["nll", "mse"]


@dataclass(frozen=True, eq=False)
class StandardisedRows:
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

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]: ...


@dataclass(frozen=True)
class OneStepError:
    """Likelihood (nll) or squared error (mse) of the next state and reward."""

    prediction: Prediction = "nll"

    @property
    def name(self) -> str:
        return self.prediction

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]:
        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
            mean, log_variance = outputs(ensemble, rows.inputs[at])
            return predicted(self.prediction, ensemble, mean, log_variance, rows.targets[at])

        return Bound(training, value), Bound(held_out, value)


@dataclass(frozen=True)
class OwnLoss:
    """A function of one's own on what the members predict, in standardised coordinates.

    Attributes:
        source: where it comes from, as in "file.py:function".
        function: (m, log v, ŷ), [E, N, out] each → a loss for every row, [E, N], or member, [E].
        prediction: "mse" where it does not use log v, so that the variances are set afterwards from
            held-out errors; else "nll".

    Raises:
        InputError: it fails, or has another shape.
    """

    source: str
    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    prediction: Prediction = field(init=False)

    def __post_init__(self) -> None:
        mean, log_variance = (torch.zeros(2, 3, 4, requires_grad=True) for _ in range(2))
        with torch.enable_grad():
            loss = self._of(mean, log_variance, torch.ones(2, 3, 4)).sum()
            if not loss.requires_grad:
                raise InputError(f"{self.source} has no derivative by the mean that it is given")
            used = torch.autograd.grad(loss, (mean, log_variance), allow_unused=True)
        object.__setattr__(self, "prediction", "mse" if used[1] is None else "nll")

    @property
    def name(self) -> str:
        return self.source

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]:
        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
            mean, log_variance = outputs(ensemble, rows.inputs[at])
            loss = self._of(mean, log_variance, rows.targets[at])
            pull = (ensemble.high - ensemble.low).sum(dim=(1, 2)).to(loss)
            return loss + BOUNDS * pull * (self.prediction == "nll")

        return Bound(training, value), Bound(held_out, value)

    def _of(self, mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
        with running(self.source):
            loss = self.function(mean, log_variance, target)
        shapes = [mean.shape[:1], mean.shape[:2]]
        if not isinstance(loss, Tensor) or loss.shape not in shapes:
            got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            wanted = " or ".join(str(list(shape)) for shape in reversed(shapes))
            raise InputError(f"{self.source} returned {got}, expected a loss of shape {wanted}")
        return loss if loss.dim() == 1 else loss.mean(dim=1)


@dataclass(frozen=True)
class MultiStep:
    """Squared error along `steps` steps of the model's own mean predictions."""

    name: ClassVar[str] = "multistep"
    prediction: ClassVar[Prediction] = "mse"

    steps: int = 5

    def __post_init__(self) -> None:
        validation.whole("steps", self.steps, 1)

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]:
        """Batches name the first rows of windows that stay within a trajectory and one part."""

        def value(ensemble: GaussianEnsemble, at: Tensor, turn: int) -> Tensor:
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

        parts = [windows(rows.record, part, self.steps) for part in (training, held_out)]
        return Bound(parts[0], value), Bound(parts[1], value)


PLAIN: Mapping[str, Loss] = {  # rows of `derivative_losses.LOSSES` without derivatives
    "nll": OneStepError("nll"),
    "mse": OneStepError("mse"),
    "multistep": MultiStep(),
}


def outputs(ensemble: GaussianEnsemble, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """m and log v [E, N, out] at x̂ [E, N, in]."""
    numbers = ensemble.numbers(inputs)
    return moments(numbers, numbers.layers(inputs))


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
    """First rows of `steps` rows in order, of one trajectory and all in `part`."""
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


_PIECES = 50  # the fewest that hold-out chooses from, where the data is large
_LENGTH = 10  # rows of a piece, so that several steps fit in, where the data is not tiny
_MOST = 5000  # held-out rows, as in MBPO
_FEWEST = 10  # rows
_CONSTANT = 1e-7  # deviation over size of a dimension that rounding alone moves


def split(record: Trajectories, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Training and held-out rows, each in order."""
    validation.number("held_out", share, above=0, below=1)
    if len(record) < _FEWEST:
        raise InputError(f"data has {len(record)} rows, expected at least {_FEWEST}")
    # The piece of each row, counted from 0 in the order of the rows.
    rows = torch.arange(len(record))
    trajectory = record.trajectory.cpu()
    length = max(len(record) // _PIECES, min(_LENGTH, len(record) // 5), 1)
    _, number, counts = torch.unique_consecutive(
        trajectory, return_inverse=True, return_counts=True
    )
    begin = (counts.cumsum(0) - counts)[number]
    label = number * len(record) + (rows - begin) // length
    piece: Tensor = torch.unique_consecutive(label, return_inverse=True)[1]
    order = torch.randperm(int(piece[-1]) + 1, generator=stream(seed, "held out"))
    sizes = torch.bincount(piece)[order].cumsum(0)
    wanted = min(share * len(record), _MOST)
    count = max(1, min(int((sizes <= wanted).sum()), len(order) - 1))
    held = torch.isin(piece, order[:count])
    return rows[~held], rows[held]


def units(record: Trajectories, rows: Tensor) -> NDArray[np.int64]:
    """[R], what resampling leaves out together, counted from 0: the trajectory of each row.

    The row itself where there are fewer than five trajectories.
    """
    group = record.trajectory[rows].cpu().numpy()
    if len(np.unique(group)) < 5:
        return np.arange(len(group))
    number: NDArray[np.int64] = np.unique(group, return_inverse=True)[1]
    return number


def rows_of_fit(
    record: Trajectories, settings: ModelSettings, dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> tuple[StandardisedRows, Tensor, Tensor, tuple[str, ...]]:  # fmt: skip
    """The rows of a fit with these settings, those that are for training and held out, and the
    names of what is constant."""
    training, held = split(record, settings.held_out, settings.seed)
    rows, constant = standardised(
        record, training, residual=settings.residual, reward=settings.reward, dtype=dtype,
        device=device,
    )  # fmt: skip
    return rows, training, held, constant


def standardised(
    record: Trajectories,
    training: Tensor,
    *,
    residual: bool,
    reward: bool,
    dtype: torch.dtype,
    device: str,
) -> tuple[StandardisedRows, tuple[str, ...]]:
    """The rows, and the names of what is constant in the training rows."""
    inputs = torch.cat([record.state, record.action], dim=1).double()
    after = record.next_state - record.state if residual else record.next_state
    wanted = [after, record.reward[:, None]] if reward else [after]
    targets = torch.cat(wanted, dim=1).double()
    (c, d, still), (e, f, same) = (_moments(part[training]) for part in (inputs, targets))
    change = "change of " if residual else "next "
    names = [*record.state_names, *record.action_names]
    targets_names = [*(change + name for name in record.state_names), "reward"]
    constant = [
        name
        for group, flags in ((names, still), (targets_names, same))
        for name, flag in zip(group, flags.tolist(), strict=False)
        if flag
    ]
    rows = StandardisedRows(
        record=_converted(record, dtype, device),
        inputs=((inputs - c) / d).to(device, dtype),
        targets=((targets - e) / f).to(device, dtype),
        input_mean=c.to(device, dtype),
        input_std=d.to(device, dtype),
        target_mean=e.to(device, dtype),
        target_std=f.to(device, dtype),
        residual=residual,
    )
    return rows, tuple(constant)


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation (1 where constant), and which are constant."""
    mean, std = values.mean(dim=0), values.std(dim=0)
    constant = std <= _CONSTANT * values.abs().amax(dim=0)
    return mean, torch.where(constant, 1.0, std), constant


def _converted(record: Trajectories, dtype: torch.dtype, device: str) -> Trajectories:
    for name in NUMBERS:
        largest = float(getattr(record, name).detach().abs().max())
        if largest > torch.finfo(dtype).max:
            raise InputError(f"{name} reaches {largest:.3g}, beyond {dtype}: rescale it")
    columns = {name: getattr(record, name).to(device) for name in DIMS}
    return replace(record, **columns | {name: columns[name].to(dtype) for name in NUMBERS})
