"""Models named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradlab.errors import InputError

if TYPE_CHECKING:
    from gradlab.systems.system import System
    from gradlab.tasks import Task


def named_model(name: str, task: Task) -> System:
    """A learned model from a checkpoint, or what a function of the user's own returns.

    Raises:
        InputError: the file holds no model of a step.
    """
    from gradlab.networks.checkpoint import load
    from gradlab.networks.gaussian_ensemble import GaussianEnsemble
    from gradlab.systems.learned import LearnedSystem
    from gradlab.systems.system import System
    from gradlab.user_code import load_function

    own = name.rpartition(":")[0].endswith(".py")
    found: object = load_function(name)() if own else load(name)
    if isinstance(found, GaussianEnsemble):
        found = LearnedSystem(found, alive=task.alive)
    if not isinstance(found, System):
        kind = type(found).__name__
        raise InputError(f"--model {name} is a {kind}, expected a System (step, linearize, …)")
    return found
