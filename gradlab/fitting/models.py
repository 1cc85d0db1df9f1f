"""Probabilistic ensembles fitted to recorded transitions, all members in one program.

ensemble = fit_model(collect(task, 5000)).ensemble
gradlab.measure(with_learned_prior(task, ensemble), policy, critic)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from gradlab import validation
from gradlab.data.noise import child
from gradlab.data.trajectories import Trajectories
from gradlab.errors import Failure, InputError
from gradlab.fitting.derivative_losses import jacobian_errors
from gradlab.fitting.fitted import Descent, Fit, finished
from gradlab.fitting.losses import Loss, OneStepError, split, standardised
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.networks import checkpoint, spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.products import fast_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.provenance import tensors_hash
from gradlab.storage.whole_files import placed
from gradlab.systems.system import System
from gradlab.user_code.calls import differentiating

_KEY = "gradlab.fit"


def write_state(path: Path, state: Mapping[str, Tensor], config: Mapping[str, object]) -> None:
    """Replace the saved state in one step."""
    held = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path) as temporary:
            temporary.write_bytes(save(held, checkpoint.metadata(_KEY, config, held)))
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error}); the one before is kept") from error


def read_state(path: Path, config: Mapping[str, object]) -> dict[str, Tensor]:
    """The state saved for this configuration."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, nothing to resume: start with resume=False")
    try:
        loaded, configuration = checkpoint.read(path, _KEY)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or foreign: start again with resume=False") from error
    if configuration != config:
        changed = [name for name in config if configuration.get(name) != config[name]]
        raise InputError(f"{path} was made with other {', '.join(changed)}: repeat the arguments")
    return loaded


SAVE_AFTER = 5.0  # seconds between saved states

_AfterEpoch = Callable[[int, GaussianEnsemble], None]


@differentiating
def fit_model(
    data: Trajectories,
    settings: ModelSettings = MBPO,
    loss: Loss | None = None,
    *,
    start: GaussianEnsemble | None = None,
    saved: Path | None = None,
    resume: bool = False,
    after_epoch: _AfterEpoch | None = None,
    simulator: System | None = None,
    progress: Progress = silent,
) -> Fit:
    """Fit an ensemble to the record.

    Args:
        loss: None: the likelihood.
        start: an ensemble of the same shape to continue from, as data grows; its normalisers are
            computed again.
        saved: a file for the state of the fit, replaced every few seconds.
        resume: continue from `saved`.
        after_epoch: called with the epoch and the ensemble as it is then, in eval mode.
        simulator: whose Jacobians the members' are compared with after every epoch.

    Raises:
        InputError: data too few or of another shape, nothing to resume, settings that do not fit.
        Failure: every member left the finite numbers.
    """
    validation.instance("data", data, Trajectories, "transitions, as `collect` records them")
    progress = check_progress(progress)
    loss = OneStepError() if loss is None else loss
    descent, constant = prepared(data, settings, loss, start)
    if simulator is not None:
        held_out = descent.held_out.rows
        descent.jacobian_errors = jacobian_errors(simulator, descent.rows, held_out)
    # As JSON returns it; budgets may change between a fit and its resumption.
    fixed = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.plain().items()
        if name not in ("epochs", "seconds", "patience")
    }
    plain = {
        name: value
        for name, value in vars(loss).items()
        if value is None or isinstance(value, str | int | float | bool)
    }
    config = {
        "settings": fixed,
        "loss": {"name": loss.name} | plain,
        "data": tensors_hash(data.state, data.action, data.reward, data.next_state),
    }
    if resume:
        if saved is None:
            raise InputError("resume needs the file of a saved state")
        descent.load(read_state(saved, config))
    _descend(descent, settings, saved, config, after_epoch, progress)
    return finished(descent, settings, loss, constant)


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
    return Descent(ensemble, rows, bounds, settings), constant


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
            settings.network,
        )
        for k, number in enumerate(settings.numbers):
            torch.manual_seed(child(settings.seed, f"member {number}"))
            ensemble.network.draw_member(k)
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
    after_epoch: _AfterEpoch | None,
    progress: Progress,
) -> None:
    begun, kept = time.monotonic() - descent.seconds, time.monotonic()
    while not descent.stopped.all() and descent.epoch < settings.epochs:
        with fast_products(settings.device):
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


def doubled(hidden: tuple[int, ...], outer: tuple[int, int]) -> tuple[int, ...]:
    """The least widening of all hidden layers that gives twice the parameters.

    Args:
        outer: inputs and outputs of the network.
    """
    wanted, extra = 2 * _parameters((outer[0], *hidden, outer[1])), 1
    while True:
        wider = tuple(round(width * (1 + extra / max(hidden))) for width in hidden)
        if _parameters((outer[0], *wider, outer[1])) >= wanted:
            return wider
        extra += 1


def _parameters(sizes: tuple[int, ...]) -> int:
    """Weights and biases of a multilayer perceptron."""
    return sum((first + 1) * second for first, second in pairwise(sizes))
