"""Models named on the command line."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from gradlab.errors import InputError

if TYPE_CHECKING:
    from gradlab.systems.system import System
    from gradlab.tasks import Task


def model_option(task: Task, model: str | None, gradient_model: str | None = None) -> System | None:
    """The system of --model and --gradient-model: one model, or two as one; None without either."""
    from gradlab.systems.learned import TwoModels

    if model is None:
        if gradient_model is not None:
            raise InputError("--gradient-model needs --model: the model that gives the states")
        return None
    if model != "prior":
        states = named_model(model, task)
    elif task.prior is None:
        raise InputError(f"{task.name} has no prior model: name a file with --model")
    else:
        states = task.prior
    if gradient_model is None:
        return states
    return TwoModels(states, named_model(gradient_model, task, "--gradient-model"))


def named_model(name: str, task: Task | None, option: str = "--model") -> System:
    """A learned model from a checkpoint, or the return value of a user's function."""
    from gradlab.networks.checkpoint import OF_OWN, load
    from gradlab.networks.gaussian_ensemble import GaussianEnsemble
    from gradlab.systems.function import from_function
    from gradlab.systems.learned import LearnedSystem
    from gradlab.systems.system import System
    from gradlab.user_code.loading import is_user_function, load_made

    made = is_user_function(name) and not OF_OWN.fullmatch(name)
    model: Any = load_made(name) if made else load(name)
    if inspect.isroutine(model) and task is not None:  # a function that is the step
        model = from_function(model, task.simulator.state_dim, task.simulator.action_dim)
    if isinstance(model, GaussianEnsemble):
        model = LearnedSystem(model, alive=None if task is None else task.alive)
    if not isinstance(model, System):
        kind = type(model).__name__
        raise InputError(f"{option} {name} is a {kind}, expected a System (step, linearize, …)")
    return model
