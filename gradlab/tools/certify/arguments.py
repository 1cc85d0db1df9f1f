"""What `certify` is given, checked.

What a certificate compares, where, and how it is made again, in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.errors import InputError
from gradlab.networks.interface import check_policy, double_copy
from gradlab.systems.system import System, check_system
from gradlab.tasks import task_from_name
from gradlab.tasks.task import Task
from gradlab.tools.certify.evaluation import RATIO, SIZE
from gradlab.tools.certify.result import Names
from gradlab.user_code.loading import is_user_function, load_made


@dataclass(frozen=True)
class CertifiedSubject:
    """A system, its task where it has one, names, and the points that the user gave."""

    name: str
    system: System
    task: Task | None
    names: Names
    states: Tensor | None
    actions: Tensor | None
    noise: Tensor | None
    policy: nn.Module | None


def subject(
    system: System | Task,
    task: Task | None,
    states: Any,
    actions: Any,
    noise: Any,
    policy: nn.Module | None,
) -> CertifiedSubject:
    """
    Raises:
        InputError: names the argument, what it got and what was expected.
    """
    if isinstance(system, Task):
        task, system = system, system.simulator
    check_system("system", system)
    if task is not None:
        validation.instance("task", task, Task, "a gradlab Task")
    ds, da = system.state_dim, system.action_dim
    s, a = _rows("states", states, ds), _rows("actions", actions, da)
    if a is not None and (s is None or len(a) != len(s)):
        want = "states with as many rows" if s is None else f"[{len(s)}, {da}], one per state"
        raise InputError(f"actions has shape {tuple(a.shape)}, expected {want}")
    xi = _rows("noise", noise, system.noise_dim)
    if xi is not None and (s is None or len(xi) != len(s)):
        raise InputError(f"noise has shape {tuple(xi.shape)}, expected one row per state")
    if policy is not None:
        policy = double_copy("policy", policy)
        check_policy(policy, torch.zeros(2, ds, dtype=torch.float64) if s is None else s, da)
    named = () if task is None else task.state_names
    actions_named = () if task is None else task.action_names
    names = Names(
        tuple(named) or tuple(f"s{k}" for k in range(ds)),
        tuple(actions_named) or tuple(f"a{k}" for k in range(da)),
    )
    name = type(system).__name__ if task is None else task.name
    return CertifiedSubject(name, system, task, names, s, a, xi, policy)


def simulator_of(name: str) -> System | Task:
    """What "FILE.py:NAME" holds or makes, or a task by its name.

    Raises:
        InputError: no System and no Task.
    """
    made = load_made(name) if is_user_function(name) else task_from_name(name, {})
    if not isinstance(made, System | Task):
        raise InputError(
            f"{name} is {type(made).__name__}, expected a System or a Task: "
            f"systems.from_function(step, state_dim, action_dim) makes one"
        )
    return made


def _rows(name: str, values: Any, width: int) -> Tensor | None:
    """Finite float64 [N, width]."""
    if values is None:
        return None
    try:
        rows = torch.as_tensor(values).detach().cpu().double()
        rows = rows.to_dense() if rows.layout is not torch.strided else rows
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} holds no numbers: {error}") from None
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InputError(f"{name} has shape {tuple(rows.shape)}, expected [N, {width}]")
    if not bool(torch.isfinite(rows).all()):
        raise InputError(f"{name} has entries that are not finite: leave those rows out")
    return rows


_VERSIONS = ("gradlab", "commit", "python", "torch", "numpy", "mujoco")


def compared(system: System, epsilon: float, inside: Sequence[str]) -> list[str]:
    """J, D, and the step's own precision, a sentence each.

    A system whose `linearize` takes differences itself says which in an attribute `derivatives`.
    """
    own = str(getattr(system, "derivatives", ""))
    by = f"`linearize`: {own}" if own else "`linearize`"
    ways = f"reverse-mode autodiff of the step, and {by}" if system.differentiable else by
    size = SIZE * epsilon ** (1 / 3)
    return [
        f"J is what the system offers: {ways}.",
        f"D is certified central differences of the system's own step as a whole, one coordinate "
        f"of state or action at a time, at {size:.2g} and {size / RATIO:.2g} of its spread.",
        f"The step's own precision is {epsilon:.2g} of its outputs' size"
        + (f", with {' and '.join(inside)} inside" if len(inside) > 1 else "")
        + ": nothing is called wrong, a kink or mixed below it.",
    ]


def starts(about: CertifiedSubject) -> str:
    """Where the examined states come from."""
    if about.states is not None and about.actions is not None:
        return "states and actions are the given ones"
    if about.states is not None:
        return "rollouts begin at the given states"
    if about.task is not None:
        return "rollouts begin at the task's own starts"
    return (
        "rollouts begin at normal states of scales 0.1, 1 and 4, since a System has no start law: "
        "give a Task, "
        "or states="
    )


def versions() -> dict[str, str]:
    """Without the time: the same states give the same certificate."""
    found = provenance.environment()
    return {name: found[name] for name in _VERSIONS}


def call(settings: dict[str, Any]) -> str:
    """The call in Python."""
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"gradlab.certify(system, {given})"
