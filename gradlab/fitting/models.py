"""Probabilistic ensembles fitted to recorded transitions, all members in one program.

    ensemble = fit_model(collect(task, 5000)).ensemble
    gradlab.measure(with_learned_prior(task, ensemble), policy, critic)

Standardised inputs and targets, a bootstrap per member, and each member at its lowest held-out loss
(PETS, MBPO, DDPPO). Losses: `losses`, `derivative_losses`.

The state of a fit on disk: tensors in safetensors, their configuration as JSON beside them.

DDPPO's two models and its ablations, each from the same record (DDPPO Figs. 3, 4, 5 and 7).

    ddppo               prediction: likelihood            gradient: likelihood + directional loss
    no_gradient_loss    prediction: likelihood            gradient: likelihood, another seed
    single_model        one model with the directional loss for both
    double_parameters   one model with twice the parameters, likelihood

Each returns a `System` for every measurement, and its fits with their held-out curves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Descent, Fit, finished
from gradlab.fitting.losses import Loss, OneStepError, split, standardised
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.networks import checkpoint, spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.products import fast_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.provenance import tensors_hash
from gradlab.storage.whole_files import placed
from gradlab.systems.function import AliveFunction
from gradlab.systems.learned import LearnedSystem, RewardFunction, TwoModels
from gradlab.systems.system import System
from gradlab.user_code.calls import differentiating

_KEY = "gradlab.fit"


def write_state(path: Path, state: Mapping[str, Tensor], config: Mapping[str, object]) -> None:
    """Replace the saved state in one step.

    Raises:
        Failure: it cannot be written; the one before is kept.
    """
    held = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path) as temporary:
            temporary.write_bytes(save(held, checkpoint.metadata(_KEY, config, held)))
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error}); the one before is kept") from error


def read_state(path: Path, config: Mapping[str, object]) -> dict[str, Tensor]:
    """The state saved for this configuration.

    Raises:
        InputError: there is none, it is damaged, or it belongs to another configuration.
    """
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
    loss = OneStepError() if loss is None else loss
    descent, constant = prepared(data, settings, loss, start)
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


_GRADIENT_LOSS = DirectionalDerivative()


@dataclass(frozen=True, eq=False)
class _Models:
    """Result of a recipe.

    Attributes:
        system: for every measurement.
        fits: by role, "prediction" and "gradient", or "both".
    """

    system: System
    fits: Mapping[str, Fit]


@dataclass(frozen=True, eq=False)
class Recipe:
    """Common settings of all recipes.

    Attributes:
        data: the record that every model is fitted to.
        settings: of every model.
        gradient_loss: where there is one.
        reward: (state, action, next_state) -> [N] in the place of the models' heads, or None.
        alive: the task's termination, or None.
    """

    data: Trajectories
    settings: ModelSettings = MBPO
    gradient_loss: DirectionalDerivative = _GRADIENT_LOSS
    reward: RewardFunction | None = None
    alive: AliveFunction | None = None
    progress: Progress = silent

    def fitted(self, role: str, loss: Loss, saved: Path | None = None, resume: bool = False) -> Fit:
        """A model of its own; recipes share what plays one role under one loss, to the bit.

        Args:
            saved, resume: as in `fit_model`.
        """
        settings = replace(self.settings, seed=child(self.settings.seed, role) % 2**31)
        return fit_model(
            self.data, settings, loss, saved=saved, resume=resume, progress=self.progress
        )

    def learned(self, fit: Fit) -> LearnedSystem:
        return LearnedSystem(fit.ensemble, self.reward, self.alive)


def ddppo(recipe: Recipe) -> _Models:
    """Two models (DDPPO Algorithm 1)."""
    return _two(recipe, recipe.gradient_loss)


def no_gradient_loss(recipe: Recipe) -> _Models:
    """Two models, both by likelihood (Fig. 3, right)."""
    return _two(recipe, OneStepError("nll"))


def single_model(recipe: Recipe) -> _Models:
    """The gradient model of `ddppo` in both roles (Fig. 3, right)."""
    fit = recipe.fitted("gradient", recipe.gradient_loss)
    return _Models(recipe.learned(fit), {"both": fit})


def double_parameters(recipe: Recipe) -> _Models:
    """One larger model by likelihood in both roles (Figs. 4 and 7)."""
    data, settings = recipe.data, recipe.settings
    outer = data.state.shape[1] + data.action.shape[1], 2 * (data.state.shape[1] + settings.reward)
    larger = replace(recipe, settings=replace(settings, hidden=doubled(settings.hidden, outer)))
    fit = larger.fitted("prediction", OneStepError("nll"))
    return _Models(recipe.learned(fit), {"both": fit})


# Rows of a comparison.
RECIPES: Mapping[str, Callable[[Recipe], _Models]] = {
    "ddppo": ddppo,
    "no_gradient_loss": no_gradient_loss,
    "single_model": single_model,
    "double_parameters": double_parameters,
}


def doubled(hidden: tuple[int, ...], outer: tuple[int, int]) -> tuple[int, ...]:
    """The least widening of all hidden layers that gives twice the parameters.

    Args:
        outer: inputs and outputs of the network.
    """
    wanted, extra = 2 * parameters((outer[0], *hidden, outer[1])), 1
    while True:
        wider = tuple(round(width * (1 + extra / max(hidden))) for width in hidden)
        if parameters((outer[0], *wider, outer[1])) >= wanted:
            return wider
        extra += 1


def parameters(sizes: tuple[int, ...]) -> int:
    """Weights and biases of a multilayer perceptron."""
    return sum((first + 1) * second for first, second in pairwise(sizes))


def _two(recipe: Recipe, loss: Loss) -> _Models:
    fits = {
        "prediction": recipe.fitted("prediction", OneStepError("nll")),
        "gradient": recipe.fitted("gradient", loss),
    }
    system = TwoModels(recipe.learned(fits["prediction"]), recipe.learned(fits["gradient"]))
    return _Models(system, fits)
