"""Probabilistic ensembles fitted to recorded transitions, all members in one program.

ensemble = fit_model(collect(task, 5000)).ensemble
gradlab.measure(with_learned_prior(task, ensemble), policy, critic)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch

from gradlab import validation
from gradlab.data.noise import child
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import jacobian_errors
from gradlab.fitting.fitted import Descent, Fit, finished
from gradlab.fitting.losses import Loss, OneStepError, split, standardised
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.products import fast_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.systems.system import System
from gradlab.user_code import differentiating

Prepared = tuple[Descent, tuple[str, ...]]
_AfterEpoch = Callable[[int, GaussianEnsemble], None]


@differentiating
def fit_model(
    data: Trajectories,
    settings: ModelSettings = MBPO,
    loss: Loss | None = None,
    *,
    start: GaussianEnsemble | None = None,
    after_epoch: _AfterEpoch | None = None,
    simulator: System | None = None,
    progress: Progress = silent,
) -> Fit:
    """Fit an ensemble to the record.

    Args:
        loss: None: the likelihood.
        start: an ensemble of the same shape to continue from, as data grows; its normalisers are
            computed again.
        after_epoch: called with the epoch and the ensemble as it is then, in eval mode.
        simulator: whose Jacobians the members' are compared with after every epoch.

    Raises:
        InputError: data too few or of another shape, settings that do not fit.
        Failure: every member left the finite numbers.
    """
    validation.instance("data", data, Trajectories, "transitions, as `collect` records them")
    progress = check_progress(progress)
    loss = OneStepError() if loss is None else loss
    descent, constant = prepared(data, settings, loss, start)
    if simulator is not None:
        held_out = descent.held_out.rows
        descent.jacobian_errors = jacobian_errors(simulator, descent.rows, held_out)
    descend(descent, settings, progress, after_epoch)
    return finished(descent, settings, loss, constant)


def prepared(
    data: Trajectories,
    settings: ModelSettings,
    loss: Loss,
    start: GaussianEnsemble | None = None,
) -> Prepared:
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
    wanted, extra = 2 * _parameters((outer[0], *hidden, outer[1])), 1
    while True:
        wider = tuple(round(width * (1 + extra / max(hidden))) for width in hidden)
        if _parameters((outer[0], *wider, outer[1])) >= wanted:
            return wider
        extra += 1


def _parameters(sizes: tuple[int, ...]) -> int:
    """Weights and biases of a multilayer perceptron."""
    return sum((first + 1) * second for first, second in pairwise(sizes))
