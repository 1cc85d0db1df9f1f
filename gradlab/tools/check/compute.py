"""What a user's file gives gradlab, and what it lacks: a line for each.

    Task            starts, a step of the simulator, its rows, its derivatives against differences
    policy, critic  their shapes at the task's states
    world model     the methods of `tasks.with_world_model`
    environment     how it becomes a task

Tried on eight states: `gradlab certify` looks at a simulator closely, this at whether it is one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import torch
from torch import Tensor, nn

from gradlab import user_code
from gradlab.errors import InputError
from gradlab.networks.interface import check_rows
from gradlab.systems.system import System, lost_step, whole
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tasks.world_models import is_world_model, lacking

_ROWS, _STEP, _CLOSE = 8, 1e-5, 1e-3  # states; of a central difference; its relative error
_ROUGH = 1e-2  # both of them, of a step that computes in float32
_FLAT = 1e-12  # a derivative that is 0
_STILL = 1e-8  # the same by differences, rounded
_BEGIN = ": examples/templates has files to begin with"


@dataclass(frozen=True)
class _Line:
    """One thing that was looked at.

    Attributes:
        state: "missing" wants something done; "note" says what is left out without it.
    """

    state: Literal["ok", "missing", "note"]
    about: str
    words: str

    def __str__(self) -> str:
        return f"{self.state:8} {self.about}: {self.words}"


def checked(file: str, name: str = "") -> tuple[list[_Line], str]:
    """Lines about a file's objects, and the command to go on with ("" where there is none). `name`:
    of the one object to look at; "": all tasks, systems and modules of the file, and what its
    functions `make…` and `…task` return."""
    found, lines = _objects(file, name)
    roles: dict[str, str] = {}
    tasks = {each: x for each, x in found.items() if isinstance(x, Task)}
    for each, one in tasks.items():
        roles.setdefault("", each)
        lines += _of_task(each, one)
    task = next(iter(tasks.values()), None)
    for each, x in found.items():
        if isinstance(x, Task):
            continue
        if is_world_model(x):
            lines += [_Line("missing", each, lack) for lack in lacking(x)]
            if not lacking(x):
                how = f"task, policy, critic = gradlab.tasks.with_world_model(task, {each})"
                lines.append(_Line("ok", each, f"a world model: {how}"))
        elif isinstance(x, nn.Module):
            line, role = _of_network(each, x, task)
            lines.append(line)
            roles |= {role: each} if role else {}
        elif isinstance(x, System):
            lines.append(_of_model(each, x, task))
            roles |= {"model": each} if lines[-1].state == "ok" else {}
        elif callable(getattr(x, "step", None)) and task is None:
            lines.append(_of_environment(each, x))
    if not lines:
        module = user_code.executed(file)
        functions = {x: getattr(module, x) for x in user_code.own_names(module)}
        free = [
            f"gradlab check {file}:{x}" for x, function in functions.items()
            if inspect.isroutine(function) and user_code.needs_nothing(function)
        ]  # fmt: skip
        text = "nothing to look at: a gradlab.Task, or a function make_task that returns one"
        text += f" ({' or '.join(free)}, if it does)" if free and not name else _BEGIN
        return [_Line("missing", file, text)], ""
    if "" not in roles or any(line.state == "missing" for line in lines):
        return lines, ""
    given = [f"--{role} {file}:{each}" for role, each in roles.items() if role]
    return lines, " ".join(["gradlab measure", f"{file}:{roles['']}", *given])


def _objects(file: str, name: str) -> tuple[dict[str, Any], list[_Line]]:
    """By name: what the file holds or makes; and a line for each function that fails."""
    held = {name: user_code.load_object(f"{file}:{name}")} if name else {
        k: x for k, x in vars(user_code.executed(file)).items() if not k.startswith("_")
    }  # fmt: skip
    found: dict[str, Any] = {}
    lines: list[_Line] = []
    for each, x in held.items():
        asked = name and callable(x) and not isinstance(x, nn.Module) and user_code.needs_nothing(x)
        if user_code.makes(each, x) or asked:
            try:
                x = user_code.called(f"{file}:{each}", x)
            except InputError as error:
                lines.append(_Line("missing", each, str(error)))
                continue
        if not (inspect.isclass(x) or inspect.ismodule(x) or inspect.isroutine(x)):
            found[each] = x
    return found, lines


def _of_task(name: str, task: Task) -> Iterator[_Line]:
    simulator, about = task.simulator, f"{name}.starts"
    action = 0.1 * torch.randn(_ROWS, simulator.action_dim, dtype=torch.float64)
    try:
        begin = task.starts(_ROWS, torch.Generator().manual_seed(0))
        about = f"{name}.simulator"
        with user_code.running("the simulator's step"), torch.no_grad():
            after = simulator.step(begin, action, _still(simulator, begin))
        check_rows("the simulator's step", lambda s, a: _stepped(simulator, s, a), begin, action)
        if (lost := lost_step(begin, action, after)) is not None:
            raise InputError(f"{lost[1]}. {OTHER_BOUNDS}")
    except InputError as error:
        yield _Line("missing", about, str(error))
        return
    widths = f"{begin.shape[1]} states, {action.shape[1]} actions"
    yield _Line("ok", name, f'"{task.name}", {widths}, {task.horizon} steps')
    yield from _of_derivatives(about, simulator, begin, action)
    if task.prior is not None:
        yield from _of_derivatives(f"{name}.prior", task.prior, begin, action)
    else:
        text = "none: gradients of the simulator alone are measured; `gradlab fit` learns a model"
        yield _Line("note", f"{name}.prior", text)


def _still(system: System, state: Tensor) -> Tensor | None:
    return state.new_zeros(len(state), system.noise_dim) if system.noise_dim else None


def _stepped(system: System, state: Tensor, action: Tensor) -> Tensor:
    found = system.step(state, action, _still(system, state))
    return torch.cat([found.state, found.reward[:, None]], 1)


def _of_derivatives(name: str, system: System, state: Tensor, action: Tensor) -> Iterator[_Line]:
    """Of every block along one random direction, against central differences."""
    try:
        with user_code.running("its derivatives"):
            found = system.linearize(state, action, _still(system, state))
    except InputError as error:
        yield _Line("missing", name, str(error))
        return
    generator, lines = torch.Generator().manual_seed(1), list[_Line]()
    values = _stepped(system, state, action)
    single = torch.equal(values.float().to(values), values)
    step, close = (_ROUGH, _ROUGH) if single else (_STEP, _CLOSE)
    J = torch.split(whole(found), [state.shape[1], action.shape[1]], 2)
    for k, by in enumerate(("state", "action")):
        u = torch.randn((state, action)[k].shape, generator=generator, dtype=state.dtype)
        moved = [
            _stepped(system, state + h * u, action) if k == 0
            else _stepped(system, state, action + h * u)
            for h in (step, -step)
        ]  # fmt: skip
        D = (moved[0] - moved[1]).detach() / (2 * step)
        along = torch.einsum("nij,nj->ni", J[k], u)
        for what, rows in (("next state", slice(0, -1)), ("reward", slice(-1, None))):
            about = f"its {what}'s derivative by the {by}"
            lines += _of_block(name, about, along[:, rows], D[:, rows], close)
    yield from lines
    if any(line.state == "missing" for line in lines):
        yield _Line("note", name, "`gradlab certify` says where, and by how much")
    else:
        yield _Line("ok", name, "steps, rows and derivatives fit together")


def _of_block(name: str, about: str, J: Tensor, D: Tensor, close: float) -> Iterator[_Line]:
    """Of J u against differences along u, [N, out]; a surrogate that differences do not see, as of
    a rounding that derivatives pass through, is no fault."""
    wrong = (J - D).abs().amax(1) > close * D.abs().amax(1).clamp_min(1.0)
    if 2 * int(wrong.sum()) <= len(wrong):
        return
    constant = D.abs().amax(0) <= _STILL  # coordinates that do not follow a small step
    own = constant & (J.abs().amax(0) > _STILL)
    beside = (J - D)[:, ~constant].abs() <= close * D.abs().max().clamp_min(1.0)
    if own.any() and beside.all():
        text = f"is a surrogate in {int(own.sum())} of {len(constant)} coordinates, which do not "
        yield _Line("note", name, f"{about} {text}move by differences: it is measured as it is")
    elif float(J.abs().max()) > _FLAT:
        text = f"is not that of its step at {int(wrong.sum())} of {len(wrong)} states"
        yield _Line("missing", name, f"{about} {text}")
    else:
        text = "is 0 and should not be: look for detach(), torch.no_grad() or numpy in its step"
        yield _Line("missing", name, f"{about} {text}")


def _of_network(name: str, network: nn.Module, task: Task | None) -> tuple[_Line, str]:
    """Is it the task's policy, or its critic?"""
    if task is None:
        return _Line("note", name, "a module without a task to try it on"), ""
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
            return _Line("ok", name, f"a {role} of the task"), role
        shapes.append(f"{role}: gave {got}, expected {shape}")
    return _Line("note", name, f"neither policy nor critic of the task ({'; '.join(shapes)})"), ""


def _of_model(name: str, model: System, task: Task | None) -> _Line:
    systems = model, task.simulator if task else model
    mine, own = ((each.state_dim, each.action_dim) for each in systems)
    if mine == own:
        return _Line("ok", name, f"a {'model of the task' if task else 'system'}")
    text = f"has {mine[0]} states and {mine[1]} actions, the task {own[0]} and {own[1]}"
    return _Line("missing", name, text)


def _of_environment(name: str, env: Any) -> _Line:
    """How an object with a step becomes a task."""
    if isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        text = "steps in numpy, without gradients: gradlab.Probe(policy, optimizer, env=…)"
        return _Line("missing", name, f"{text} watches a loop in it")
    adapted = name  # a class with the methods of a System needs no adapter
    if not hasattr(env, "linearize"):
        adapted = f"gradlab.systems.from_environment({name}, read, write, action_dim=…)"
    task = f"gradlab.Task(name, {adapted}, None, starts, discount, horizon)"
    return _Line("missing", "make_task", f"def make_task(): return {task}{_BEGIN}")
