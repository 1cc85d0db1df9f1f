"""DDPPO's two models and its ablations, each from the same record (DDPPO Figs. 3, 4, 5 and 7).

    ddppo               prediction: likelihood            gradient: likelihood + directional loss
    no_gradient_loss    prediction: likelihood            gradient: likelihood, another seed
    single_model        one model with the directional loss for both
    double_parameters   one model with twice the parameters, likelihood

Each returns a `System` for every measurement, and its fits with their held-out curves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from gradlab.data.noise import child
from gradlab.data.trajectories import Trajectories
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import Loss, OneStep
from gradlab.fitting.model_settings import MBPO, ModelSettings
from gradlab.fitting.models import fit_model
from gradlab.progress import Progress, silent
from gradlab.systems.function import AliveFunction
from gradlab.systems.learned import LearnedSystem, RewardFunction
from gradlab.systems.system import System
from gradlab.systems.two_models import TwoModels

GRADIENT_LOSS = DirectionalDerivative()


@dataclass(frozen=True, eq=False)
class Models:
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
    gradient_loss: DirectionalDerivative = GRADIENT_LOSS
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


def ddppo(recipe: Recipe) -> Models:
    """Two models (DDPPO Algorithm 1)."""
    return _two(recipe, recipe.gradient_loss)


def no_gradient_loss(recipe: Recipe) -> Models:
    """Two models, both by likelihood (Fig. 3, right)."""
    return _two(recipe, OneStep("nll"))


def single_model(recipe: Recipe) -> Models:
    """The gradient model of `ddppo` in both roles (Fig. 3, right)."""
    fit = recipe.fitted("gradient", recipe.gradient_loss)
    return Models(recipe.learned(fit), {"both": fit})


def double_parameters(recipe: Recipe) -> Models:
    """One larger model by likelihood in both roles (Figs. 4 and 7)."""
    data, settings = recipe.data, recipe.settings
    outer = data.state.shape[1] + data.action.shape[1], 2 * (data.state.shape[1] + settings.reward)
    larger = replace(recipe, settings=replace(settings, hidden=doubled(settings.hidden, outer)))
    fit = larger.fitted("prediction", OneStep("nll"))
    return Models(recipe.learned(fit), {"both": fit})


# Rows of a comparison.
RECIPES: Mapping[str, Callable[[Recipe], Models]] = {
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


def _two(recipe: Recipe, loss: Loss) -> Models:
    fits = {
        "prediction": recipe.fitted("prediction", OneStep("nll")),
        "gradient": recipe.fitted("gradient", loss),
    }
    system = TwoModels(recipe.learned(fits["prediction"]), recipe.learned(fits["gradient"]))
    return Models(system, fits)
