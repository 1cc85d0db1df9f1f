"""Probabilistic ensembles fitted to recorded transitions, all members in one program.

    ensemble = fit_model(collect(task, 5000)).ensemble
    gradlab.measure(with_learned_prior(task, ensemble), policy, critic)

Standardised inputs and targets, a bootstrap per member, and each member as it was when its held-out
loss was lowest (PETS, MBPO, DDPPO). What the loss is: `losses`, `derivative_losses`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.noise import child
from gradlab.data.trajectories import Trajectories
from gradlab.errors import Failure, InputError
from gradlab.fitting.descent import Descent
from gradlab.fitting.losses import Loss, OneStep, Rows, outputs
from gradlab.fitting.saved import read_state, write_state
from gradlab.fitting.standardising import split, standardised
from gradlab.hooks import Progress, silent
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import mlp

SAVE_AFTER = 5.0  # seconds between saved states
LEAST_VARIANCE = 1e-12  # of standardised targets

AfterEpoch = Callable[[int, GaussianEnsemble], None]


@dataclass(frozen=True)
class ModelSettings:
    """How an ensemble is made and fitted; the papers' widths are `MBPO` and `SMALL`.

    Attributes:
        members, first_member: members are numbered from `first_member`; one number and seed give
            one network, whatever is fitted beside it.
        hidden, activation: of every member.
        residual: predict s' − s.
        reward: a head for the reward.
        spectral: which layers are held at norm 1 (`networks.spectral`), or None.
        learning_rate, weight_decay: Adam's.
        batch: rows per step and member.
        epochs: at most; seconds: at most, too.
        patience: epochs without a lower held-out loss after which a member stops; None: never.
        held_out: share of the rows that stopping is judged by.
        bootstrap: each member sees rows drawn with replacement; False: all rows.
        precision: "float32" or "float64".
    """

    members: int = 7
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    activation: str = "silu"
    residual: bool = True
    reward: bool = True
    spectral: spectral.Which | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 256
    epochs: int = 200
    seconds: float | None = None
    patience: int | None = 5
    held_out: float = 0.1
    bootstrap: bool = True
    precision: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    first_member: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("members", "batch", "epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, expected a positive integer")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience is {self.patience}, expected at least 1, or None")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            got = f"learning_rate {self.learning_rate}, weight_decay {self.weight_decay}"
            raise InputError(f"{got}: expected a positive number and one from 0")
        if self.precision not in ("float32", "float64"):
            raise InputError(f"precision is {self.precision!r}, expected float32 or float64")


MBPO = ModelSettings()  # DDPPO and MAAC use the same network
SMALL = ModelSettings(hidden=(64, 64))  # for low-dimensional tasks
RP_PGM = ModelSettings(  # five layers of ReLU units, its width is not printed
    members=1, activation="relu", spectral="all_but_last", bootstrap=False
)
PRESETS: Mapping[str, ModelSettings] = {"mbpo": MBPO, "small": SMALL, "rp-pgm": RP_PGM}


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted ensemble, and how it came about.

    Attributes:
        ensemble: the members that did not diverge, with plain weights, in eval mode.
        members: their numbers among those that were fitted.
        dropped: number → epoch in which that member left the finite numbers.
        held_out_loss, best_epoch: of each remaining member.
        explained: [members, out], held-out 1 − MSE / variance per output (s' − s or s', then r).
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


def fit_model(
    data: Trajectories,
    settings: ModelSettings = MBPO,
    loss: Loss | None = None,
    *,
    start: GaussianEnsemble | None = None,
    saved: Path | None = None,
    resume: bool = False,
    after_epoch: AfterEpoch | None = None,
    progress: Progress = silent,
) -> Fit:
    """Fit an ensemble to the record.

    Args:
        loss: None: the likelihood.
        start: an ensemble of the same shape to go on from, as data grows; its normalisers are
            taken anew.
        saved: a file for the state of the fit, replaced every few seconds.
        resume: go on from `saved`.
        after_epoch: called with the epoch and the ensemble as it is then, in eval mode.

    Raises:
        InputError: data too few or of another shape, nothing to resume, settings that do not fit.
        Failure: every member left the finite numbers.
    """
    loss = OneStep() if loss is None else loss
    descent, constant = prepared(data, settings, loss, start)
    config = {"settings": _plain(asdict(settings)), "loss": _named(loss), "rows": len(data)}
    if resume:
        if saved is None:
            raise InputError("resume needs the file of a saved state")
        descent.load(read_state(saved, config))
    _descend(descent, settings, saved, config, after_epoch, progress)
    return _finished(descent, settings, loss, constant)


def prepared(
    data: Trajectories,
    settings: ModelSettings,
    loss: Loss,
    start: GaussianEnsemble | None = None,
) -> tuple[Descent, tuple[str, ...]]:
    """The descent before its first epoch, and the names of what is constant in the data."""
    training, held_out = split(data, settings.held_out, settings.seed)
    rows, constant = standardised(
        data,
        training,
        residual=settings.residual,
        reward=settings.reward,
        dtype=getattr(torch, settings.precision),
        device=settings.device,
    )
    bounds = loss.bind(rows, training.to(settings.device), held_out.to(settings.device))
    ensemble = _made(data, settings, start).to(rows.inputs)
    ensemble.set_normalisers(rows.input_mean, rows.input_std, rows.target_mean, rows.target_std)
    if settings.spectral is not None:
        spectral.normalise(ensemble, settings.spectral)
    descent = Descent(
        ensemble,
        rows,
        bounds,
        members=_numbers(settings),
        bootstrap=settings.bootstrap,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
    return descent, constant


def _numbers(settings: ModelSettings) -> tuple[int, ...]:
    return tuple(range(settings.first_member, settings.first_member + settings.members))


def _made(
    data: Trajectories, settings: ModelSettings, start: GaussianEnsemble | None
) -> GaussianEnsemble:
    """A fresh ensemble, every member from a stream of its own, or one that goes on from `start`."""
    with torch.random.fork_rng(devices=[]):
        ensemble = GaussianEnsemble(
            data.state.shape[1],
            data.action.shape[1],
            settings.members,
            settings.hidden,
            settings.activation,
            settings.residual,
            settings.reward,
        )
        shape = ensemble.network.architecture
        for k, number in enumerate(_numbers(settings)):
            torch.manual_seed(child(settings.seed, f"member {number}"))
            ensemble.network.set_member(k, mlp(shape["sizes"], shape["activation"]))
    if start is not None:
        if start.architecture != ensemble.architecture:
            raise InputError("start has another architecture than the settings describe")
        ensemble.load_state_dict(start.state_dict())
    return ensemble


def _descend(
    descent: Descent,
    settings: ModelSettings,
    saved: Path | None,
    config: Mapping[str, object],
    after_epoch: AfterEpoch | None,
    progress: Progress,
) -> None:
    begun, kept = time.monotonic() - descent.seconds, time.monotonic()
    while not descent.stopped.all() and descent.epoch < settings.epochs:
        descent.run_epoch()
        descent.judge(settings.patience, time.monotonic() - begun)
        if after_epoch is not None:
            after_epoch(descent.epoch, descent.ensemble)
        progress("model", descent.epoch, settings.epochs)
        over = settings.seconds is not None and time.monotonic() - begun >= settings.seconds
        if saved is not None and (over or time.monotonic() - kept > SAVE_AFTER):
            write_state(saved, descent.state(), config)
            kept = time.monotonic()
        if over:
            return
    if saved is not None:
        write_state(saved, descent.state(), config)


def _finished(
    descent: Descent, settings: ModelSettings, loss: Loss, constant: tuple[str, ...]
) -> Fit:
    numbers = _numbers(settings)
    kept = [k for k in range(len(numbers)) if descent.best_epoch[k] and not descent.diverged[k]]
    dropped = {numbers[k]: int(epoch) for k, epoch in enumerate(descent.diverged) if epoch}
    if not kept:
        raise Failure(
            f"all {len(numbers)} members left the finite numbers, the last in epoch "
            f"{max(dropped.values())}: lower learning_rate, or look for outliers in the data"
        )
    descent.ensemble.load_state_dict(descent.best)
    norms = spectral.norms(descent.ensemble.eval())
    ensemble = _of_members(spectral.baked(descent.ensemble), kept)
    square = _errors(ensemble, descent.rows, descent.held_out.rows)
    if loss.prediction == "mse":
        _set_constant_noise(ensemble, square)
    return Fit(
        ensemble=ensemble,
        members=tuple(numbers[k] for k in kept),
        dropped=dropped,
        held_out_loss=tuple(descent.best_loss[kept].tolist()),
        best_epoch=tuple(descent.best_epoch[kept].tolist()),
        explained=1 - square,
        curves={name: torch.stack(curve).numpy() for name, curve in descent.curves.items()},
        norms=norms,
        constant=constant,
        repeated=descent.training.repeated,
        training_rows=len(descent.training.rows),
        held_out_rows=len(descent.held_out.rows),
        settings=settings,
        loss=loss,
    )


def _of_members(whole: Any, kept: list[int]) -> GaussianEnsemble:
    """Some of the members, in eval mode and without gradients."""
    arguments = {name: value for name, value in whole.architecture.items() if name != "kind"}
    with torch.random.fork_rng(devices=[]):
        some = GaussianEnsemble(**arguments | {"members": len(kept)}).to(whole.input_mean)
    some.load_state_dict({name: value[kept] for name, value in whole.state_dict().items()})
    return some.eval().requires_grad_(False)


@torch.no_grad()
def _errors(ensemble: GaussianEnsemble, rows: Rows, held_out: Tensor) -> Tensor:
    """Held-out mean squared standardised errors, [E, out], float64."""
    inputs, target = rows.inputs[held_out], rows.targets[held_out]
    mean, _ = outputs(ensemble, inputs.expand(ensemble.members, *inputs.shape))
    return (mean - target).double().square().mean(dim=1).cpu()


@torch.no_grad()
def _set_constant_noise(ensemble: GaussianEnsemble, square: Tensor) -> None:
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


def _named(loss: Loss) -> dict[str, object]:
    plain = {name: value for name, value in vars(loss).items() if _is_plain(value)}
    return {"name": loss.name} | plain


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back; budgets may change between a run and its resumption."""
    free = ("epochs", "seconds", "patience")
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
        if name not in free
    }
