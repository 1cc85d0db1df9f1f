"""Probabilistic ensembles fitted to recorded transitions, all members in one program.

    ensemble = fit_model(collect(task, 5000)).ensemble
    gradlab.measure(with_learned_prior(task, ensemble), policy, critic)

Standardised inputs and targets, a bootstrap per member, and each member at its lowest held-out loss
(PETS, MBPO, DDPPO). Losses: `losses`, `derivative_losses`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gradlab import validation
from gradlab.data.noise import child
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.fitting.descent import Descent
from gradlab.fitting.fitted import Fit, finished
from gradlab.fitting.losses import Loss, OneStep
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.fitting.saved import read_state, write_state
from gradlab.fitting.standardising import split, standardised
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import mlp
from gradlab.networks.products import fast_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.provenance import tensors_hash
from gradlab.user_code.grad_mode import differentiating

SAVE_AFTER = 5.0  # seconds between saved states

AfterEpoch = Callable[[int, GaussianEnsemble], None]


@differentiating
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
        start: an ensemble of the same shape to continue from, as data grows; its normalisers are
            computed again.
        saved: a file for the state of the fit, replaced every few seconds.
        resume: continue from `saved`.
        after_epoch: called with the epoch and the ensemble as it is then, in eval mode.

    Raises:
        InputError: data too few or of another shape, nothing to resume, settings that do not fit.
        Failure: every member left the finite numbers.
    """
    validation.instance("data", data, Trajectories, "transitions, as `collect` records them")
    progress = check_progress(progress)
    loss = OneStep() if loss is None else loss
    descent, constant = prepared(data, settings, loss, start)
    config = {
        "settings": _plain(asdict(settings)),
        "loss": _named(loss),
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
        )
        shape = ensemble.network.architecture
        for k, number in enumerate(settings.numbers):
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


def _named(loss: Loss) -> dict[str, object]:
    plain = {name: value for name, value in vars(loss).items() if _is_plain(value)}
    return {"name": loss.name} | plain


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The configuration as JSON returns it; budgets may change between a fit and its resumption."""
    free = ("epochs", "seconds", "patience")
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
        if name not in free
    }
