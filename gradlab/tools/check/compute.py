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

from gradlab.errors import InputError
from gradlab.networks.interface import check_rows
from gradlab.systems.system import System, lost_step
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tasks.world_models import is_world_model, lacking
from gradlab.user_code import (
    called,
    executed,
    load_object,
    makes,
    needs_nothing,
    own_names,
    running,
)

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
        lines += [*_of_task(each, one)]
    task = next(iter(tasks.values()), None)
    for each, x in found.items():
        if isinstance(x, Task):
            continue
        if is_world_model(x):
            lacks = lacking(x)
            lines += [_Line("missing", each, lack) for lack in lacks]
            if not lacks:
                how = f"task, policy, critic = gradlab.tasks.with_world_model(task, {each})"
                lines.append(_Line("ok", each, f"a world model: {how}"))
        elif isinstance(x, nn.Module):
            line, role = _of_network(each, x, task)
            lines.append(line)
            roles |= {role: each} if role else {}
        elif isinstance(x, System):
            line = _of_model(each, x, task)
            lines.append(line)
            roles |= {"model": each} if line.state == "ok" else {}
        elif callable(getattr(x, "step", None)) and task is None:
            lines.append(_of_environment(each, x))
    if not lines:
        module = executed(file)
        functions = [x for x in own_names(module) if inspect.isroutine(getattr(module, x))]
        free = [f"gradlab check {file}:{x}" for x in functions if needs_nothing(getattr(module, x))]
        text = "nothing to look at: a gradlab.Task, or a function make_task that returns one"
        text += f" ({' or '.join(free)}, if it does)" if free and not name else _BEGIN
        return [_Line("missing", file, text)], ""
    if "" not in roles or any(line.state == "missing" for line in lines):
        return lines, ""
    given = [f"--{role} {file}:{each}" for role, each in roles.items() if role]
    return lines, " ".join(["gradlab measure", f"{file}:{roles['']}", *given])


def _objects(file: str, name: str) -> tuple[dict[str, Any], list[_Line]]:
    """By name: what the file holds or makes; and a line for each function that fails."""
    if name:
        held = {name: load_object(f"{file}:{name}")}
    else:
        module = executed(file)
        held = {k: x for k, x in vars(module).items() if not k.startswith("_")}
    found: dict[str, Any] = {}
    lines: list[_Line] = []
    for each, x in held.items():
        asked = name and callable(x) and not isinstance(x, nn.Module) and needs_nothing(x)
        if makes(each, x) or asked:
            try:
                x = called(f"{file}:{each}", x)
            except InputError as error:
                lines.append(_Line("missing", each, str(error)))
                continue
        if inspect.isclass(x) or inspect.ismodule(x) or inspect.isroutine(x):
            continue
        found[each] = x
    return found, lines


def _of_task(name: str, task: Task) -> Iterator[_Line]:
    simulator = task.simulator
    try:
        begin = task.starts(_ROWS, torch.Generator().manual_seed(0))
    except InputError as error:
        yield _Line("missing", f"{name}.starts", str(error))
        return
    action = 0.1 * torch.randn(_ROWS, simulator.action_dim, dtype=torch.float64)
    noise = torch.zeros(_ROWS, simulator.noise_dim, dtype=torch.float64)
    drawn = noise if simulator.noise_dim else None
    widths = f"{begin.shape[1]} states, {action.shape[1]} actions"
    yield _Line("ok", name, f'"{task.name}", {widths}, {task.horizon} steps')
    try:
        with running("the simulator's step"), torch.no_grad():
            after = simulator.step(begin, action, drawn)
        check_rows("the simulator's step", lambda s, a: _stepped(simulator, s, a), begin, action)
    except InputError as error:
        yield _Line("missing", f"{name}.simulator", str(error))
        return
    if (lost := lost_step(begin, action, after)) is not None:
        yield _Line("missing", f"{name}.simulator", f"{lost[1]}. {OTHER_BOUNDS}")
        return
    yield from _of_derivatives(f"{name}.simulator", simulator, begin, action, drawn)
    if task.prior is None:
        text = "none: gradients of the simulator alone are measured; `gradlab fit` learns a model"
        yield _Line("note", f"{name}.prior", text)
        return
    still = begin.new_zeros(_ROWS, task.prior.noise_dim) if task.prior.noise_dim else None
    yield from _of_derivatives(f"{name}.prior", task.prior, begin, action, still)


def _stepped(system: System, state: Tensor, action: Tensor) -> Tensor:
    noise = torch.zeros(len(state), system.noise_dim, dtype=state.dtype)
    found = system.step(state, action, noise if system.noise_dim else None)
    return torch.cat([found.state, found.reward[:, None]], 1)


def _of_derivatives(
    name: str, system: System, state: Tensor, action: Tensor, noise: Tensor | None
) -> Iterator[_Line]:
    """Of every block along one random direction, against central differences."""
    try:
        with running("its derivatives"):
            found = system.linearize(state, action, noise)
    except InputError as error:
        yield _Line("missing", name, str(error))
        return
    generator, sound = torch.Generator().manual_seed(1), True
    values = _stepped(system, state, action)
    single = torch.equal(values.float().to(values), values)
    step, close = (_ROUGH, _ROUGH) if single else (_STEP, _CLOSE)
    for k, (of, by, paid) in enumerate(
        ((state, found.A, found.r_s), (action, found.B, found.r_a)),
    ):
        u = torch.randn(of.shape, generator=generator, dtype=of.dtype)
        up, down = (
            _stepped(system, *(x + h * u if x is of else x for x in (state, action)))
            for h in (step, -step)
        )
        wanted = (up - down).detach() / (2 * step)
        blocks = {
            "next state": (torch.einsum("nij,nj->ni", by, u), wanted[:, :-1]),
            "reward": ((paid * u).sum(1, keepdim=True), wanted[:, -1:]),
        }
        for what, (mine, its) in blocks.items():
            wrong = (mine - its).abs().amax(1) > close * its.abs().amax(1).clamp_min(1.0)
            if 2 * int(wrong.sum()) > len(wrong):
                about = f"its {what}'s derivative by the {('state', 'action')[k]}"
                constant = (
                    its.abs().amax(0) <= _STILL
                )  # coordinates that do not follow a small step
                beside = (mine - its)[:, ~constant].abs() <= close * its.abs().max().clamp_min(1.0)
                own = constant & (mine.abs().amax(0) > _STILL)
                if own.any() and beside.all():
                    text = (
                        f"is a surrogate in {int(own.sum())} of {len(constant)} coordinates, "
                        f"which by differences do not move (straight-through, rounding): it is "
                        f"measured as it is, by what it does to the return"
                    )
                    yield _Line("note", name, f"{about} {text}")
                    continue
                sound = False
                text = (
                    "is 0 and should not be: look for detach(), torch.no_grad() or numpy in its "
                    "step"
                )
                if float(mine.abs().max()) > _FLAT:
                    text = f"is not that of its step at {int(wrong.sum())} of {len(wrong)} states"
                yield _Line("missing", name, f"{about} {text}")
    if sound:
        yield _Line("ok", name, "steps, rows and derivatives fit together")
    else:
        yield _Line("note", name, "`gradlab certify` says where, and by how much")


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
        except Exception as error:
            shapes.append(f"{role}: {type(error).__name__}")
            continue
        found = found[0] if isinstance(found, tuple) else found
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if got == shape:
            return _Line("ok", name, f"a {role} of the task"), role
        shapes.append(f"{role}: gave {got}, expected {shape}")
    return _Line("note", name, f"neither policy nor critic of the task ({'; '.join(shapes)})"), ""


def _of_model(name: str, model: System, task: Task | None) -> _Line:
    if task is None:
        return _Line("ok", name, f"a system, {model.state_dim} states, {model.action_dim} actions")
    own = task.simulator.state_dim, task.simulator.action_dim
    if (model.state_dim, model.action_dim) == own:
        return _Line("ok", name, "a model of the task")
    mine = f"{model.state_dim} states and {model.action_dim} actions"
    text = f"has {mine}, the task {own[0]} and {own[1]}"
    return _Line("missing", name, text)


def _of_environment(name: str, env: Any) -> _Line:
    """How an object with a step becomes a task."""
    if isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        text = (
            "steps in numpy, without gradients: gradlab.Probe(policy, optimizer, env=…) watches a "
            "loop in it, and `gradlab measure` takes a simulator in torch"
        )
        return _Line("missing", name, text)
    system = hasattr(env, "linearize")  # a class with the methods of a System needs no adapter
    adapted = f"gradlab.systems.from_environment({name}, read, write, action_dim=…)"
    text = (
        f"def make_task(): return gradlab.Task(name, {name if system else adapted}, None, starts, "
        f"discount, horizon)"
    )
    return _Line("missing", "make_task", text + _BEGIN)
