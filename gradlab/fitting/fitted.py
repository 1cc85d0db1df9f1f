"""The descent of all members at once, the fit that it ends in, and the fit's file.

Members are independent: the loss is a sum over them, and each has its own initial numbers,
bootstrap, order of rows and stopping time, by its number and the seed alone.

Probabilistic ensembles fitted to recorded transitions, all members in one program.

ensemble = fit_model(collect(task, 5000)).ensemble
gradlab.measure(with_learned_prior(task, ensemble), policy, critic)
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab import provenance, validation
from gradlab.data.trajectories import Trajectories, child, stream
from gradlab.errors import Failure, InputError
from gradlab.fitting.derivative_losses import jacobian_errors
from gradlab.fitting.losses import (
    Bound,
    Loss,
    OneStepError,
    StandardisedRows,
    outputs,
    rows_of_fit,
    units,
)
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, MemberModules
from gradlab.networks.layers import fast_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.storage import records
from gradlab.storage.records import Array, Attribute, Record
from gradlab.systems.system import System
from gradlab.user_code import differentiating

_EVALUATED = 1024  # held-out rows at once

_CURVES = ("training", "held_out", "squared_error", "jacobian_error", "seconds")


@final
class Descent:
    """State: networks, their optimiser, each member's best so far, and the curves.

    Attributes:
        best_epoch: [E], 1 is the first; 0 where no epoch was finite.
        stopped: [E] bool; diverged: [E], the epoch in which a member left the finite numbers, or 0.
        curves: name → one [E] per epoch ("seconds": one number, the time up to its end).
        jacobian_errors: [E] of the ensemble as it is; None: they are not compared, NaN in `curves`.
    """

    def __init__(
        self,
        ensemble: GaussianEnsemble,
        rows: StandardisedRows,
        bounds: tuple[Bound, Bound],
        settings: ModelSettings,
    ) -> None:
        self.ensemble, self.rows, (self.training, self.held_out) = ensemble, rows, bounds
        self.members, self.batch, self.seed = settings.numbers, settings.batch, settings.seed
        self.adam = torch.optim.Adam(
            ensemble.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        own = self.training.rows
        self.sample = own.expand(len(self.members), -1)
        if settings.bootstrap:  # drawn with replacement
            drawn = [
                torch.randint(len(own), (len(own),), generator=self._stream(member, "bootstrap"))
                for member in self.members
            ]
            self.sample = own[torch.stack(drawn).to(own.device)]
        count = len(self.members)
        self.epoch = 0
        self.best_loss = torch.full((count,), math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(count, dtype=torch.long)
        self.diverged = torch.zeros(count, dtype=torch.long)
        self.stopped = torch.zeros(count, dtype=torch.bool)
        self.best = {name: value.clone() for name, value in ensemble.state_dict().items()}
        self.curves: dict[str, list[Tensor]] = {name: [] for name in _CURVES}
        self.jacobian_errors: Callable[[GaussianEnsemble], Tensor] | None = None

    @property
    def steps(self) -> int:
        """Of the optimiser in an epoch."""
        return -(-self.sample.shape[1] // self.batch)

    @property
    def seconds(self) -> float:
        return float(self.curves["seconds"][-1]) if self.epoch else 0.0

    def run_epoch(self) -> None:
        """One pass over every member's rows, in batches."""
        self.ensemble.train()
        count = self.sample.shape[1]
        drawn = [
            torch.randperm(count, generator=self._stream(member, "order", self.epoch))
            for member in self.members
        ]
        order = self.sample.gather(1, torch.stack(drawn).to(self.sample.device))
        sums = torch.zeros(len(self.members), dtype=torch.float64)
        parts = torch.split(order, self.batch, dim=1)
        for turn, at in enumerate(parts):
            loss = self.training.value(self.ensemble, at, self.epoch * len(parts) + turn)
            self.adam.zero_grad()
            torch.autograd.backward(loss.sum())
            self.adam.step()
            sums += loss.detach().double().cpu()
        self.epoch += 1
        self.curves["training"].append(sums / len(parts))

    def judge(self, patience: int | None, seconds: float) -> None:
        """Compare held-out losses, keep the best members, stop those without progress for
        `patience`."""
        loss, square = self.evaluated()
        for name, value in (("held_out", loss), ("squared_error", square)):
            self.curves[name].append(value)
        unknown = torch.full_like(loss, torch.nan)
        compared = self.jacobian_errors
        error = unknown if compared is None else compared(self.ensemble)
        self.curves["jacobian_error"].append(error)
        self.curves["seconds"].append(torch.tensor(seconds, dtype=torch.float64))
        lost = ~torch.isfinite(loss) & ~self.stopped
        self.diverged[lost] = self.epoch
        self.stopped |= lost
        better = (loss < self.best_loss) & ~self.stopped
        self.best_loss[better] = loss[better]
        self.best_epoch[better] = self.epoch
        for name, value in self.ensemble.state_dict().items():
            self.best[name][better] = value[better]
        if patience is not None:
            self.stopped |= self.epoch - self.best_epoch >= patience

    @torch.no_grad()
    def evaluated(self) -> tuple[Tensor, Tensor]:
        """Held-out loss and mean squared standardised error of one step, [E] each, float64."""
        self.ensemble.eval()
        rows, count = self.held_out.rows, len(self.members)
        loss, square = torch.zeros(2, count, dtype=torch.float64)
        for part in torch.split(rows, _EVALUATED):
            at, share = part.expand(count, -1), len(part) / len(rows)
            loss += share * self.held_out.value(self.ensemble, at, 0).double().cpu()
            mean, _ = outputs(self.ensemble, self.rows.inputs[at])
            error = (mean - self.rows.targets[at]).square().mean(dim=(1, 2))
            square += share * error.double().cpu()
        return loss, square

    def _stream(self, member: int, name: str, step: int = 0) -> torch.Generator:
        return stream(child(self.seed, f"member {member}"), name, step)


_LEAST_VARIANCE = 1e-12  # of standardised targets


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
        curves: "training", "held_out", "squared_error", "jacobian_error" [epochs, all members; NaN
            where no simulator was given], "seconds" [epochs].
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
    loss: Loss = field(default_factory=OneStepError)

    def elites(self, count: int = 5) -> tuple[int, ...]:
        """Positions in `ensemble` of the members with the lowest held-out loss (MBPO: 5 of 7)."""
        order = np.argsort(np.array(self.held_out_loss), kind="stable")[:count]
        return tuple(sorted(int(k) for k in order))

    def elite_ensemble(self, count: int = 5) -> GaussianEnsemble:
        """An ensemble of those members alone."""
        if not 1 <= count <= len(self.members):
            raise InputError(f"elites is {count}, expected 1 to the {len(self.members)} members")
        return of_members(self.ensemble, list(self.elites(count)))


def finished(
    descent: Descent, settings: ModelSettings, loss: Loss, constant: tuple[str, ...]
) -> Fit:
    """Every member at its lowest held-out loss, those that diverged left out; the descent stays
    where it is and may go on."""
    numbers = descent.members
    kept = [k for k in range(len(numbers)) if descent.best_epoch[k] and not descent.diverged[k]]
    dropped = {numbers[k]: int(epoch) for k, epoch in enumerate(descent.diverged) if epoch}
    if not kept:
        raise Failure(
            f"all {len(numbers)} members left the finite numbers by epoch "
            f"{max(dropped.values())}: lower learning_rate, or look for outliers in the data"
        )
    best = copy.deepcopy(descent.ensemble)
    best.load_state_dict(descent.best)
    norms = spectral.norms(best.eval())
    ensemble = of_members(spectral.baked(best), kept)
    rows, held_out = descent.rows, descent.held_out.rows
    inputs = rows.inputs[held_out]
    with torch.no_grad():
        mean, _ = outputs(ensemble, inputs.expand(ensemble.members, *inputs.shape))
    errors = (mean - rows.targets[held_out]).double().square().cpu()  # [E, N, out]
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
    if isinstance(whole.network, MemberModules):
        arguments["network"] = whole.network.own
    with torch.random.fork_rng(devices=[]):
        some = GaussianEnsemble(**arguments | {"members": len(kept)}).to(whole.input_mean)
    some.load_state_dict({name: value[kept] for name, value in whole.state_dict().items()})
    return some.eval().requires_grad_(False)


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

    With bounds 20 above and below, log v is its raw output to 1e-8; where the last layer is not
    known, an upper bound 20 below the lower one leaves log v at the latter. Deterministic models
    have no noise.
    """
    if ensemble.deterministic:
        return
    log_variance = square.clamp_min(_LEAST_VARIANCE).log().to(ensemble.low)
    if isinstance(ensemble.network, MemberModules):
        ensemble.low.copy_(log_variance[:, None])
        ensemble.high.copy_(log_variance[:, None] - 20)
        return
    last: Any = ensemble.network.linear[-1]
    width = ensemble.outputs
    last.weight[:, :, width:] = 0
    last.bias[:, 0, width:] = log_variance
    ensemble.low.copy_(log_variance[:, None] - 20)
    ensemble.high.copy_(log_variance[:, None] + 20)


def save(
    fit: Fit, path: Path, about: Mapping[str, Attribute] | None = None, overwrite: bool = False
) -> None:
    """Write one HDF5 file, complete or not at all.

    Args:
        about: further attributes, such as task and command.
    """
    attributes: dict[str, Attribute] = {
        "kind": "fit",
        "loss": fit.loss.name,
        "settings": json.dumps(fit.settings.plain()),
        "constant": ", ".join(fit.constant),
        "repeated": fit.repeated,
        "training_rows": fit.training_rows,
        "held_out_rows": fit.held_out_rows,
        **provenance.environment(),
        **(about or {}),
    }
    numbers, kept = np.array(fit.settings.numbers), np.array(fit.members)
    curves = dict(fit.curves)
    seconds, error = curves.pop("seconds"), curves["jacobian_error"]
    if not np.isfinite(error).any():
        del curves["jacobian_error"]
    layers = np.array([layer.name for layer in fit.norms], dtype=object)
    norms = np.array([layer.values for layer in fit.norms]).reshape(len(layers), len(numbers))
    dropped = np.array(list(fit.dropped.items()), dtype=int).reshape(-1, 2)
    groups = {
        "curves": {
            "epoch": Array(np.arange(1, len(seconds) + 1), ("epoch",)),
            "member": Array(numbers, ("member",)),
            "seconds": Array(seconds, ("epoch",), "s"),
            **{name: Array(curve, ("epoch", "member")) for name, curve in curves.items()},
        },
        "members": {
            "member": Array(kept, ("member",)),
            "output": Array(np.arange(fit.explained.shape[1]), ("output",)),
            "best_epoch": Array(np.array(fit.best_epoch), ("member",)),
            "held_out_loss": Array(np.array(fit.held_out_loss), ("member",)),
            "explained": Array(fit.explained.numpy(), ("member", "output")),
            "explained_error": Array(fit.explained_error.numpy(), ("output",)),
            "dropped_member": Array(dropped[:, 0], ("dropped_member",)),
            "dropped_in_epoch": Array(dropped[:, 1], ("dropped_member",), "epochs"),
        },
        "norms": {
            "layer": Array(layers, ("layer",)),
            "member": Array(numbers, ("member",)),
            "norm": Array(norms, ("layer", "member")),
            "normalised": Array(np.array([layer.normalised for layer in fit.norms]), ("layer",)),
        },
    }
    records.write(path, Record(attributes, groups), overwrite)


Prepared = tuple[Descent, tuple[str, ...]]
_AfterEpoch = Callable[[int, GaussianEnsemble], None]


@differentiating
def fit_model(
    data: Trajectories,
    settings: ModelSettings = MBPO,
    loss: Loss | None = None,
    *,
    after_epoch: _AfterEpoch | None = None,
    simulator: System | None = None,
    progress: Progress = silent,
) -> Fit:
    """Fit an ensemble to the record.

    Args:
        loss: None: the likelihood.
        after_epoch: called with the epoch and the ensemble as it is then, in eval mode.
        simulator: whose Jacobians the members' are compared with after every epoch.

    Raises:
        InputError: data too few or of another shape, settings that do not fit.
        Failure: every member left the finite numbers.
    """
    validation.instance("data", data, Trajectories, "transitions, as `collect` records them")
    progress = check_progress(progress)
    loss = OneStepError() if loss is None else loss
    descent, constant = prepared(data, settings, loss)
    if simulator is not None:
        held_out = descent.held_out.rows
        descent.jacobian_errors = jacobian_errors(simulator, descent.rows, held_out)
    descend(descent, settings, progress, after_epoch)
    return finished(descent, settings, loss, constant)


def prepared(data: Trajectories, settings: ModelSettings, loss: Loss) -> Prepared:
    """The descent before its first epoch, and the names of what is constant in the data."""
    rows, training, held_out, constant = rows_of_fit(
        data, settings, getattr(torch, settings.precision), settings.device
    )
    bounds = loss.bind(rows, training.to(settings.device), held_out.to(settings.device))
    shape = ("members", "hidden", "activation", "residual", "reward", "network")
    with torch.random.fork_rng(devices=[]):  # every member from a stream of its own
        ensemble = GaussianEnsemble(
            data.state.shape[1],
            data.action.shape[1],
            **{name: getattr(settings, name) for name in shape},
        )
        for k, number in enumerate(settings.numbers):
            torch.manual_seed(child(settings.seed, f"member {number}"))
            ensemble.network.draw_member(k)
    ensemble = ensemble.to(rows.inputs)
    ensemble.set_normalisers(rows.input_mean, rows.input_std, rows.target_mean, rows.target_std)
    if settings.spectral is not None:
        spectral.normalise(ensemble, settings.spectral)
    return Descent(ensemble, rows, bounds, settings), constant


def descend(
    descent: Descent,
    settings: ModelSettings,
    progress: Progress = silent,
    after_epoch: _AfterEpoch | None = None,
) -> None:
    """From the epoch where it stands to the last of the settings."""
    begun = time.monotonic() - descent.seconds
    while not descent.stopped.all() and descent.epoch < settings.epochs:
        with fast_products(settings.device):
            descent.run_epoch()
        descent.judge(settings.patience, time.monotonic() - begun)
        if after_epoch is not None:
            after_epoch(descent.epoch, descent.ensemble)
        progress("model", descent.epoch, settings.epochs)
        if settings.seconds is not None and descent.seconds >= settings.seconds:
            return


def doubled(hidden: tuple[int, ...], outer: tuple[int, int]) -> tuple[int, ...]:
    """The least widening of all hidden layers that gives twice the parameters.

    Args:
        outer: inputs and outputs of the network.
    """

    def parameters(widths: tuple[int, ...]) -> int:
        sizes = (outer[0], *widths, outer[1])
        return sum((first + 1) * second for first, second in pairwise(sizes))

    extra, wider = 0, hidden
    while parameters(wider) < 2 * parameters(hidden):
        extra += 1
        wider = tuple(round(width * (1 + extra / max(hidden))) for width in hidden)
    return wider
