"""`gradlab.certify`: arguments, every test at the states that are drawn, and what they find."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.data.trajectories import finite_rows
from gradlab.errors import InputError
from gradlab.networks.interface import check_policy, double_copy
from gradlab.progress import Progress, check_progress, silent
from gradlab.systems.system import System, check_system, machine_epsilon
from gradlab.tasks import task_from_name
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tools.certify import comparison, evaluation, repeats, result, sampling
from gradlab.tools.certify.evaluation import FEW, Points, evenly, outputs
from gradlab.tools.certify.result import BlockErrors, Certification, Deviation, Entry, Names
from gradlab.tools.certify.sampling import STRATA, Loss, Samples, StartLaw
from gradlab.user_code import differentiating, graph_nodes, is_user_function, load_made

_FEWEST = 16  # samples
_MANY = 0.25  # of the rollouts, which ran off
_VERSIONS = ("gradlab", "commit", "python", "torch", "numpy", "mujoco")


@differentiating
def certify(
    system: System | Task,
    states: Any = None,
    actions: Any = None,
    *,
    noise: Any = None,
    task: Task | None = None,
    policy: nn.Module | None = None,
    samples: int = 2048,
    seed: int = 0,
    fail_above: float = 1e-3,
    progress: Progress = silent,
) -> Certification:
    """Whether a system's derivatives are those of its own step, and where not.

    Args:
        system: a System, or a Task, whose simulator, start law, limits and names are used. With a
            method `contacts(state) -> bool [N]`, states in contact are a stratum of their own.
        states, actions: [N, ds] and [N, da], where derivatives are taken. With both, only there;
            states alone are pooled with what is drawn.
        noise: [N, noise_dim] of the given states; None: drawn.
        task: of a bare system, for its start law, limits and names.
        policy: module, state → action, of all rollouts; None: random actions.
        samples: number of states that are drawn.
        seed: of every draw.
        fail_above: relative error from which a derivative is wrong.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    progress = check_progress(progress)
    if isinstance(system, Task):
        task, system = system, system.simulator
    check_system("system", system)
    if task is not None:
        validation.instance("task", task, Task, "a gradlab Task")
    given = {
        name: None if values is None else finite_rows(name, values, width)
        for name, values, width in (
            ("states", states, system.state_dim), ("actions", actions, system.action_dim),
            ("noise", noise, system.noise_dim),
        )
    }  # fmt: skip
    s, a, xi = given.values()
    for name, rows in (("actions", a), ("noise", xi)):
        if rows is not None and (s is None or len(rows) != len(s)):
            want = "states with as many rows" if s is None else f"{len(s)} rows, one per state"
            raise InputError(f"{name} has shape {tuple(rows.shape)}, expected {want}")
    if policy is not None:
        policy = double_copy("policy", policy)
        start = torch.zeros(2, system.state_dim, dtype=torch.float64) if s is None else s
        check_policy(policy, start, system.action_dim)
    validation.whole("samples", samples, _FEWEST)
    validation.whole("seed", seed)
    tolerance = validation.number("fail_above", fail_above, above=0)
    names = Names(
        tuple(task.state_names if task else ()) or tuple(f"s{k}" for k in range(system.state_dim)),
        tuple(task.action_names if task else ())
        or tuple(f"a{k}" for k in range(system.action_dim)),
    )
    drawn = sampling.law(system, task, policy, s, seed, -(-samples // 2))
    try:
        taken, loss, off, found = sampling.sampled(drawn, (s, a, xi), samples, _stepped)
        more, table, facts = _examined(names, taken, loss, drawn, tolerance, progress)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise InputError(
                f"samples is {samples}, which does not fit into memory: lower it"
            ) from error
        raise
    found = [*more, *found]
    if off is not None:
        ranges = facts["ranges"][: system.state_dim]
        lowest = min(each["lowest"] for each in ranges)
        highest = max(each["highest"] for each in ranges)
        facts |= {"ran off": off[0], "rollouts": off[1], "drawn states": [lowest, highest]}
        if off[0] >= _MANY * off[1]:
            found.append(Deviation("many_ran_off", off[0], off[1]))
    origin = "rollouts from normal states: give a Task, or states="
    if s is not None:
        origin = "given states and actions" if a is not None else "rollouts from the given states"
    elif task is not None:
        origin = "rollouts from the task's starts"
    environment = provenance.environment()  # without the time: the same states say the same
    facts |= {
        "command": f"gradlab.certify(system, {samples=}, {seed=}, fail_above={tolerance!r})",
        "seed": seed, "starts": origin,
        "versions": {name: environment[name] for name in _VERSIONS},
    }  # fmt: skip
    name = type(system).__name__ if task is None else task.name
    return result.certification(name, tolerance, found, table, facts)


def _examined(
    names: Names, taken: Samples, loss: Loss | None, drawn: StartLaw, tolerance: float,
    progress: Progress,
) -> tuple[list[Deviation], list[BlockErrors], dict[str, Any]]:  # fmt: skip
    """Every test at the points taken: deviations, rows of the table and facts.

    Args:
        loss: the first rollout of these points that left the finite numbers.
        drawn: the law of the points, which knows the limits of actions.
        tolerance: relative error from which a derivative is wrong.
    """
    system, every = drawn.system, taken.points
    y = _stepped(system, every)
    finite = torch.isfinite(y).all(1)
    lost = sampling.not_finite(names, every.z, y, loss)
    taken = taken.at(finite.nonzero().flatten())  # what is not finite shows nothing
    points, n = taken.points, len(taken)
    begun = points.at(evenly(n, repeats.LATER))
    before = evaluation.at_once(system, begun)
    size, inside = evaluation.size_of(points.z), evaluation.precisions_inside(system, points)
    epsilon = machine_epsilon(y[finite][:FEW])
    of_step, coupling = repeats.of_step(system, points, y[finite], names, epsilon, tolerance)
    epsilon = max(epsilon, coupling, evaluation.noise_of(system, points))
    pure = all(each.decision != "fail" for each in of_step)
    coupled = any(each.code == "coupled" for each in of_step)
    progress("differences", 0, n)
    found = evaluation.reference(system, points, size, tolerance, epsilon)
    flat, share = evaluation.stairs(system, points, found, size)
    found.error[:, flat] = torch.inf  # the slope between two stairs is none of the step's
    progress("differences", n, n)
    label = sampling.strata(system, taken, found, drawn.action_limit)
    units = comparison.Units(_spread(found.y), _spread(points.z))
    exam = comparison.Examination(
        system, names, taken, tolerance, epsilon, size, found, label, units
    )
    ranges = zip(
        names.columns, points.z.amin(0).tolist(), points.z.amax(0).tolist(), strict=True
    )  # fmt: skip
    facts: dict[str, Any] = {
        "states": n, "not finite": len(every) - n, "fail_above": tolerance,
        "precision": epsilon, "inside": list(inside),
        "strata": {name: int((label == k).sum()) for k, name in enumerate(STRATA)},
        "origins": {name: taken.origin.count(name) for name in dict.fromkeys(taken.origin)},
        "ranges": [
            {"coordinate": name, "lowest": low, "highest": high} for name, low, high in ranges
        ],
        "derivatives": getattr(system, "derivatives", ""), "kinks crossed": 0,
    }  # fmt: skip
    rows: list[BlockErrors] = []
    of_derivatives: list[Deviation] = []
    ways = evaluation.sources(system)
    for k, (name, derivative) in enumerate(ways.items()):
        progress("derivatives", k, len(ways))
        J = derivative(system, points)
        compared = comparison.compared(exam, J, found)
        rows += comparison.numbers(exam, name, compared)
        if not pure:  # J and D are of different functions then
            continue
        mine = comparison.deviations(exam, name, derivative, compared)
        if name == "step":
            mine = [_traced(each, exam, compared.lost) for each in mine]
        mine += repeats.of_derivative(exam, name, derivative, J, coupled)
        if k == 0:
            single, facts["single precision"] = comparison.in_single_precision(exam, derivative)
            mine += single
        of_derivatives += mine
    progress("derivatives", len(ways), len(ways))
    if pure:
        kinks, facts["kinks crossed"] = _kinks(exam, drawn.action_limit)
        later = repeats.after_calls(exam, begun, before)
        if later:  # which makes derivatives seem to depend on rows and places, too
            of_derivatives = [each for each in of_derivatives if each.code not in result.LOOSE]
        of_derivatives += kinks
        of_step += later
    if all(each.decision != "fail" for each in of_step):  # a function of its arguments
        of_derivatives += _stairs(names, flat, share)
    return [*of_step, *lost, *_low_precision(inside, epsilon), *of_derivatives], rows, facts


def _stepped(system: System, points: Points) -> Tensor:
    """y, of a step that is not NaN everywhere."""
    y = outputs(system, points)
    if not bool(torch.isfinite(y).all(1).any()):
        raise InputError(
            f"step returns NaN at every state: check the states' units and the step. {OTHER_BOUNDS}"
        )
    return y


def _low_precision(inside: Mapping[str, str | None], epsilon: float) -> list[Deviation]:
    """A step on float64 whose values are less precise, with the line that is the first to round."""
    name, line = next((each for each in inside.items() if each[1] is not None), ("float64", None))
    if line is None or epsilon <= torch.finfo(torch.float64).eps:  # constants; what makes a mask
        return []
    return [Deviation("low_precision", epsilon, detail=f"{name}{line and f', first at {line}'}")]


def _stairs(names: Names, flat: Tensor, share: Tensor) -> list[Deviation]:
    """Outputs that move in stairs, with the inputs that move them; else what D is of the slope of
    larger moves, `share` [out, in], where it is another one."""
    code, where = ("stairs", flat) if bool(flat.any()) else ("stairs_beside", share.isfinite())
    size = torch.where(flat, torch.nan, share)
    at = sorted(where.nonzero().tolist(), key=lambda at: float(size.nan_to_num()[*at]))
    entries = tuple(Entry(names.rows[i], names.columns[j]) for i, j in at)
    return [Deviation(code, float(size[*at[0]]), entries=entries)] if at else []


_AT_LIMIT = 1e-3  # of it, within which a stencil may reach it


def _kinks(exam: comparison.Examination, limit: Tensor | None) -> tuple[list[Deviation], int]:
    """Kinks and jumps, which make no derivative wrong, and how many lines between visited states
    cross one: not where an action is on its limit, whose derivative is that of one side."""
    onset = exam.label == STRATA.index("onset")
    actions = exam.points.z[:, exam.system.state_dim :]
    edge = torch.full(actions.shape[1:], torch.nan) if limit is None else limit
    clipped = ((actions.abs() - edge).abs() <= _AT_LIMIT * edge).any(1)
    count, on_limit = int(onset.sum()), int((onset & clipped).sum())
    at = f"an action on its limit at {on_limit}"
    crossed = int((exam.taken.onset & ~clipped).sum())
    return [Deviation("rough", n=count, detail=at)] * bool(count), crossed


def _traced(found: Deviation, exam: comparison.Examination, lost: Tensor) -> Deviation:
    """A derivative that is not finite with its first row and the operation that made it so."""
    system, points = exam.system, exam.points
    if found.code != "not_finite" or not bool(lost.any()):
        return found
    reward = found.block in ("r_s", "r_a")
    rows = lost[:, -1:] if reward else lost[:, :-1]
    bad = rows.flatten(1).any(1)
    first = int(bad.nonzero()[0])
    here = points.at(slice(first, first + 1))

    def output(z: Tensor) -> Tensor:
        out = system.step(*evaluation.state_and_action(system, z), here.noise)
        return out.reward if reward else out.state

    origin = _nan_origin(output, here.z)
    at = found.detail, origin, f"row {first}", sampling.first_of(exam.names, points.z, bad)
    return replace(found, detail=", ".join(filter(None, at)))


_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def _nan_origin(output: Callable[[Tensor], Tensor], z: Tensor) -> str:
    """The operation whose derivative first leaves the finite numbers, with its line; "" unknown.
    `output`: z → outputs that carry a graph, at rows where a derivative is not finite."""
    lost: list[Any] = []  # nodes that were sent finite numbers, and sent back others

    def hear(node: Any, back: Sequence[Tensor | None], sent: Sequence[Tensor | None]) -> None:
        if _finite(sent) and not _finite(back):
            lost.append(node)

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly(check_nan=False):  # which keeps every node's line
            values = output(z.detach().clone().requires_grad_()).flatten()
        for node in graph_nodes(values):
            node.register_hook(partial(hear, node))
        with suppress(RuntimeError):
            for value in values:
                if not lost and value.requires_grad:
                    value.backward(retain_graph=True)
    if not lost:
        return ""
    name = re.sub(r"Backward\d*$", "", lost[0].name()).lower()
    lines = "".join(lost[0].metadata.get("traceback_", ()))
    places = [
        match for match in _PLACE.finditer(lines)
        if "/torch/" not in match["file"] and "/gradlab/" not in match["file"]
    ]  # fmt: skip
    if not places:
        return name
    return f"{name} ({places[-1]['file'].rsplit('/', 1)[-1]}:{places[-1]['line']})"


def _finite(gradients: Sequence[Tensor | None]) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in gradients if x is not None)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of columns over finite rows; 1 where there is none."""
    finite = values[torch.isfinite(values).all(1)]
    spread = finite.std(0).nan_to_num() if len(finite) > 1 else torch.zeros(values.shape[1])
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def simulator_of(name: str) -> System | Task:
    """What "FILE.py:NAME" holds or makes, or a task by its name."""
    made = load_made(name) if is_user_function(name) else task_from_name(name, {})
    if not isinstance(made, System | Task):
        raise InputError(
            f"{name} is {type(made).__name__}, expected a System or a Task, "
            f"as of systems.from_function"
        )
    return made
