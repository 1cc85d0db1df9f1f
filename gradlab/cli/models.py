"""Models named on the command line."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from gradlab.errors import InputError

if TYPE_CHECKING:
    from gradlab.systems.system import System
    from gradlab.tasks import Task


def asked_model(task: Task, model: str | None, gradient_model: str | None = None) -> System | None:
    """What --model and --gradient-model name: one system, or two in one; None without either.

    Raises:
        InputError: a file holds no model of a step, "prior" where the task has none, or a gradient
            model without a model whose states it goes with.
    """
    from gradlab.systems.two_models import TwoModels

    if model is None:
        if gradient_model is not None:
            raise InputError("--gradient-model needs --model: the model that gives the states")
        return None
    states = _prior(task) if model == "prior" else named_model(model, task)
    if gradient_model is None:
        return states
    return TwoModels(states, named_model(gradient_model, task, "--gradient-model"))


def named_model(name: str, task: Task | None, option: str = "--model") -> System:
    """A learned model from a checkpoint, or what a function of the user's own returns.

    Raises:
        InputError: the file holds no model of a step.
    """
    from gradlab.networks.checkpoint import load
    from gradlab.networks.gaussian_ensemble import GaussianEnsemble
    from gradlab.systems.function import from_function
    from gradlab.systems.learned import LearnedSystem
    from gradlab.systems.system import System
    from gradlab.user_code.loading import load_made, own

    found: Any = load_made(name) if own(name) else load(name)
    if inspect.isroutine(found) and task is not None:  # a function that is the step
        found = from_function(found, task.simulator.state_dim, task.simulator.action_dim)
    if isinstance(found, GaussianEnsemble):
        found = LearnedSystem(found, alive=None if task is None else task.alive)
    if not isinstance(found, System):
        kind = type(found).__name__
        raise InputError(f"{option} {name} is a {kind}, expected a System (step, linearize, …)")
    return found


def _prior(task: Task) -> System:
    if task.prior is None:
        raise InputError(f"{task.name} has no prior model: name a file with --model")
    return task.prior
