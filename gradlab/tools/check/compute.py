"""What a user's file gives gradlab, and what it lacks: a finding for each; what fails is missing.

    Task            starts, a step of the simulator, its rows
    policy, critic  their shapes at the task's states
    world model     the methods of `tasks.with_world_model`
    environment     how it becomes a task

Tried on eight states: `gradlab certify` looks at a simulator's derivatives.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from gradlab import user_code
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.networks.interface import check_rows
from gradlab.systems.system import System, lost_step
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tasks.world_models import is_world_model, lacking

_ROWS = 8  # states


def checked(file: str, name: str = "") -> tuple[list[Finding], str]:
    """Findings about a file's objects, and the command to go on with ("" where there is none).
    `name`: of the one object to look at; "": all tasks, systems and modules of the file, and what
    its functions `make…` and `…task` return."""
    found, findings = _objects(file, name)
    roles: dict[str, str] = {}
    tasks = {each: x for each, x in found.items() if isinstance(x, Task)}
    for each, one in tasks.items():
        roles.setdefault("", each)
        findings += _of_task(each, one)
    task = next(iter(tasks.values()), None)
    for each, x in found.items():
        if isinstance(x, Task):
            continue
        if is_world_model(x):
            lacks = lacking(x)
            findings += [Finding("check.lacks", "fail", each, at=lack) for lack in lacks]
            findings += [] if lacks else [Finding("check.world model", "pass", each)]
        elif isinstance(x, nn.Module):
            finding, role = _of_network(each, x, task)
            findings.append(finding)
            roles |= {role: each} if role else {}
        elif isinstance(x, System):
            mine, own = ((y.state_dim, y.action_dim) for y in (x, task.simulator if task else x))
            kind = "model of the task" if task else "system"
            if mine == own:
                findings.append(Finding("check.role", "pass", each, at=kind))
                roles["model"] = each
            else:
                widths = "has {} states and {} actions, the task {} and {}".format(*mine, *own)
                findings.append(Finding("check.widths", "fail", each, at=widths))
        elif callable(getattr(x, "step", None)) and task is None:
            adapted = each  # a class with the methods of a System needs no adapter
            if not hasattr(x, "linearize"):
                adapted = f"gradlab.systems.from_environment({each}, read, write, action_dim=…)"
            gym = isinstance(x, gymnasium.Env | gymnasium.vector.VectorEnv)
            findings.append(
                Finding("check.gymnasium", "fail", each)
                if gym
                else Finding("check.environment", "fail", "make_task", at=adapted)
            )
    if not findings:
        module = user_code.executed(file)
        functions = {x: getattr(module, x) for x in user_code.own_names(module)}
        free = [
            f"gradlab check {file}:{x}" for x, function in functions.items()
            if inspect.isroutine(function) and user_code.needs_nothing(function)
        ]  # fmt: skip
        if free and not name:
            return [Finding("check.uncalled", "fail", file, at=" or ".join(free))], ""
        return [Finding("check.nothing", "fail", file)], ""
    if "" not in roles or any(each.decision == "fail" for each in findings):
        return findings, ""
    given = [f"--{role} {file}:{each}" for role, each in roles.items() if role]
    return findings, " ".join(["gradlab measure", f"{file}:{roles['']}", *given])


def _objects(file: str, name: str) -> tuple[dict[str, Any], list[Finding]]:
    """By name: what the file holds or makes; and a finding for each function that fails."""
    held = {name: user_code.load_object(f"{file}:{name}")} if name else {
        k: x for k, x in vars(user_code.executed(file)).items() if not k.startswith("_")
    }  # fmt: skip
    found: dict[str, Any] = {}
    failed: list[Finding] = []
    for each, x in held.items():
        asked = name and callable(x) and not isinstance(x, nn.Module) and user_code.needs_nothing(x)
        if user_code.makes(each, x) or asked:
            try:
                x = user_code.called(f"{file}:{each}", x)
            except InputError as error:
                failed.append(Finding("check.fails", "fail", each, at=str(error)))
                continue
        if not (inspect.isclass(x) or inspect.ismodule(x) or inspect.isroutine(x)):
            found[each] = x
    return found, failed


def _of_task(name: str, task: Task) -> Iterator[Finding]:
    simulator, about = task.simulator, f"{name}.starts"
    action = 0.1 * torch.randn(_ROWS, simulator.action_dim, dtype=torch.float64)
    try:
        begin = task.starts(_ROWS, torch.Generator().manual_seed(0))
        about = f"{name}.simulator"
        with user_code.running("the simulator's step"), torch.no_grad():
            after = simulator.step(begin, action, _still(simulator, begin))

        def stepped(state: Tensor, action: Tensor) -> Tensor:
            found = simulator.step(state, action, _still(simulator, state))
            return torch.cat([found.state, found.reward[:, None]], 1)

        check_rows("the simulator's step", stepped, begin, action)
        if (lost := lost_step(begin, action, after)) is not None:
            raise InputError(f"{lost[1]}. {OTHER_BOUNDS}")
    except InputError as error:
        yield Finding("check.fails", "fail", about, at=str(error))
        return
    widths = f"{begin.shape[1]} states, {action.shape[1]} actions"
    yield Finding("check.task", "pass", name, at=f'"{task.name}", {widths}, {task.horizon} steps')
    yield Finding("check.certify", "skipped", about)
    if task.prior is None:
        yield Finding("check.no prior", "skipped", f"{name}.prior")


def _still(system: System, state: Tensor) -> Tensor | None:
    return state.new_zeros(len(state), system.noise_dim) if system.noise_dim else None


def _of_network(name: str, network: nn.Module, task: Task | None) -> tuple[Finding, str]:
    """Is it the task's policy, or its critic?"""
    if task is None:
        return Finding("check.no task", "skipped", name), ""
    state = task.starts(_ROWS, torch.Generator().manual_seed(0))
    action = torch.zeros(_ROWS, task.simulator.action_dim, dtype=torch.float64)
    kind = next((p.dtype for p in network.parameters()), torch.float64)
    shapes: list[str] = []
    for role, inputs, shape in (
        ("policy", (state,), tuple(action.shape)), ("critic", (state, action), (_ROWS,)),
    ):  # fmt: skip
        try:
            with torch.no_grad():
                found = network(*(x.to(kind) for x in inputs))
            found = found[0] if isinstance(found, tuple) else found
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        except Exception as error:
            got = type(error).__name__
        if got == shape:
            return Finding("check.role", "pass", name, at=f"{role} of the task"), role
        shapes.append(f"{role}: gave {got}, expected {shape}")
    return Finding("check.neither", "skipped", name, at="; ".join(shapes)), ""
