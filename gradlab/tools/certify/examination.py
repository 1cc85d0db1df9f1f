"""The examination of one system at given points: every test, and the findings of all."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.noise import stream
from gradlab.errors import InputError, in_short
from gradlab.networks.interface import check_policy, double_copy
from gradlab.progress import Progress
from gradlab.systems.system import System, check_system, machine_epsilon
from gradlab.tasks import task_from_name
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tools.certify import comparison, repeats
from gradlab.tools.certify.comparison import Units, compared
from gradlab.tools.certify.evaluation import (
    FEW,
    RATIO,
    SIZE,
    Derivative,
    Points,
    at_once,
    evenly,
    noise_of,
    outputs,
    precisions_inside,
    reference,
    size_of,
    sources,
    stairs,
    state_and_action,
    steeper,
)
from gradlab.tools.certify.parameters import parameter_findings
from gradlab.tools.certify.result import BLOCKS, SYMBOLS, Certification, Finding, Names, percentage
from gradlab.tools.certify.sampling import (
    STRATA,
    Law,
    NonFiniteStep,
    Samples,
    not_finite,
    region,
    strata,
)
from gradlab.user_code import is_user_function, load_made
from gradlab.wording import listed


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
    """What "FILE.py:NAME" holds or makes, or a task by its name."""
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


def _described(system: System, epsilon: float, inside: Mapping[str, str | None]) -> list[str]:
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


def _lower_precision(inside: Mapping[str, str | None], epsilon: float) -> list[Finding]:
    """A step on float64 whose values are less precise, with the line that is the first to round."""
    name, line = next((each for each in inside.items() if each[1] is not None), ("float64", None))
    if line is None or epsilon <= torch.finfo(torch.float64).eps:  # constants; what makes a mask
        return []
    text = (
        f"The step computes in {name}{line and f', first at {line}'}: its values are precise to "
        f"{epsilon:.2g} of their size. Use float64 there to judge smaller errors."
    )
    return [Finding("single precision", "note", text, epsilon)]


def _stairs(names: Names, flat: Tensor, share: Tensor) -> list[Finding]:
    """Outputs that move in stairs, with the inputs that move them; else what D is of the slope of
    larger moves, `share` [out, in], where it is another one."""
    beside = torch.isfinite(share).nonzero().tolist()
    if not flat.any() and beside:
        i, j = min(beside, key=lambda at: float(share[at[0], at[1]]))
        more = f" (and {len(beside) - 1} more entries)" if len(beside) > 1 else ""
        text = (
            f"The step moves in stairs beside a smooth part: ∂({names.rows[i]})/∂("
            f"{names.columns[j]}){more} is {percentage(float(share[i, j]))} of the slope of moves "
            f"by a tenth of its spread: certify and differentiate the step without its rounding."
        )
        return [Finding("stairs", "rough", text, 1.0, row=names.rows[i])]
    by: dict[str, list[str]] = {}
    for i, j in flat.nonzero().tolist():
        by.setdefault(names.rows[i], []).append(names.columns[j])
    if not by:
        return []
    row, columns = next(iter(by.items()))
    more = f", and {len(by) - 1} more outputs" if len(by) > 1 else ""
    text = (
        f"The step moves in stairs: {row} by {listed(columns, 4)}{more}. Its derivative is 0 "
        f"between two stairs, so it is not judged: certify and differentiate the step without its "
        f"rounding."
    )
    return [Finding("stairs", "rough", text, 1.0, row=row)]


_POINTS = 16  # that are moved
_NEAR = 1e-3  # of the coordinates' spread, by which they are
_FINE = 1e-4  # of the usual step: a function that oscillates within that one is seen here


def _nearby(
    system: System,
    points: Points,
    derivative: Derivative,
    size: Tensor,
    units: Units,
    tolerance: float,
    epsilon: float,
    usual: Tensor,
    kink: Tensor,
) -> Callable[[Tensor, slice, slice], Tensor]:
    """(points, rows, columns) → bool [M], whether some of the points of one source stay off in a
    block where they are moved. `usual`: size of every entry over all points, [out, in]; `kink`:
    bool [N, in]: an action on its limit, where a policy that is clipped stays, is not moved."""

    def stay(off_points: Tensor, rows: slice, columns: slice) -> Tensor:
        taken = off_points[evenly(len(off_points), _POINTS)]
        here = points.at(taken)
        generator = stream(0, "certify neighbours")
        draw = torch.randn(here.z.shape, generator=generator, dtype=here.z.dtype)
        draw[:, system.state_dim :] *= ~kink[taken, system.state_dim :]
        moved = Points(here.z + _NEAR * units.z * draw, here.noise)
        J = derivative(system, moved)
        coarse, fine = (
            compared(J, reference(system, moved, scale * size, tolerance, epsilon), units,
                     tolerance, epsilon, usual)
            for scale in (1.0, _FINE)
        )  # fmt: skip
        off = coarse.off & ~(fine.judged & ~fine.off)
        return off[:, rows, columns].flatten(1).any(1)

    return stay


_LIMIT = 1e-2  # 95th percentile of the relative error
_STATES = 256


def _in_single_precision(
    about: CertifiedSubject, derivative: Derivative, points: Points, label: Tensor, units: Units
) -> tuple[list[Finding], dict[str, float] | str]:
    """Blocks that float32 spoils, and the 95th percentile of the relative error of each; not at
    kinks and limits, whose side rounding may change."""
    sides = torch.tensor([STRATA.index("onset"), STRATA.index("limit")])
    away = (~torch.isin(label, sides)).nonzero().flatten()
    away = away if len(away) else torch.arange(len(label))
    few, names = points.at(away[evenly(len(away), _STATES)]), about.names
    try:
        exact = derivative(about.system, Points(few.z.float().to(few.z), few.noise))
        short = derivative(about.system, few.float()).to(exact)
    except (RuntimeError, TypeError, InputError) as error:
        return [], f"not supported: {in_short(error)}"
    findings: list[Finding] = []
    errors: dict[str, float] = {}
    for block in BLOCKS:
        i, j = names.block(block)
        scale = units.z[j] / units.y[i, None]
        gap, size = ((x[:, i, j] * scale).flatten(1).norm(dim=1) for x in (short - exact, exact))
        known = torch.isfinite(size)  # a derivative that is not shows nothing of precision
        if not bool(known.any()):
            continue
        gap, size = gap[known], size[known]
        usual = size.square().mean().sqrt()
        relative = (gap / torch.maximum(size, 1e-3 * usual).clamp_min(1e-300)).nan_to_num(nan=1.0)
        errors[block] = float(np.quantile(relative.numpy(), 0.95))
        if errors[block] > _LIMIT:
            text = (
                f"In single precision {SYMBOLS[block]} is off by {percentage(errors[block])} "
                f"(95th percentile): use float64 there."
            )
            findings.append(Finding("single precision", "rough", text, errors[block], block))
    return findings, errors


_AT_LIMIT = 1e-3  # of it, within which a stencil may reach it
_COARSE = 1e-9  # precision of the step, above which its rounding may look like a kink


def _kinks(
    about: CertifiedSubject, taken: Samples, label: Tensor, limit: Tensor | None, epsilon: float
) -> tuple[list[Finding], int]:
    """Kinks and jumps, which make no derivative wrong, and how many lines between visited states
    cross one: not where an action is on its limit, whose derivative is that of one side."""
    onset = label == STRATA.index("onset")
    actions = taken.points.z[:, about.system.state_dim :]
    edge = torch.full(actions.shape[1:], torch.nan) if limit is None else limit
    clipped = ((actions.abs() - edge).abs() <= _AT_LIMIT * edge).any(1)
    count, on_limit = int(onset.sum()), int((onset & clipped).sum())
    if not count:
        return [], 0
    those = "all" if on_limit == count else on_limit
    what = "a kink, a jump or a coarse rounding" if epsilon > _COARSE else "a kink or a jump"
    text = (
        f"The step has {what} at {count} of {len(onset)} states"
        f"{f', at {those} of them where an action is on its limit' * bool(on_limit)}: "
        f"that alone makes no derivative wrong."
    )
    return [Finding("rough", "rough", text, 0.0, stratum="onset")], int(
        (taken.onset & ~clipped).sum()
    )


_ORDER = {"wrong": 0, "rough": 1, "note": 2}
_LOOSE = ("stale", "random", "rows mix", "place")  # dependences on more than the arguments


def examined(
    about: CertifiedSubject,
    taken: Samples,
    loss: NonFiniteStep | None,
    drawn: Law,
    tolerance: float,
    parameters: dict[str, Tensor] | None,
    progress: Progress,
) -> Certification:
    """Every test at the points taken.

    Args:
        loss: the first rollout of these points that left the finite numbers.
        drawn: the law of the points, which knows the limits of actions.
        tolerance: relative error from which a derivative is wrong.
        parameters: tensors of the step whose gradients are judged, or None.
    """
    system, every = about.system, taken.points
    y = stepped(system, every)
    finite = torch.isfinite(y).all(1)
    lost = not_finite(about.names, every.z, y, loss)
    taken = taken.at(finite.nonzero().flatten())  # what is not finite shows nothing
    points, n = taken.points, len(taken)
    begun = points.at(evenly(n, repeats.LATER))
    before = at_once(system, begun)
    size, inside = size_of(points.z), precisions_inside(system, points)
    epsilon = machine_epsilon(y[finite][:FEW])
    behaviour, coupling = repeats.step_findings(
        system, points, y[finite], about.names, epsilon, tolerance
    )
    epsilon = max(epsilon, coupling, noise_of(system, points))
    wrong_behaviour = any(each.severity == "wrong" for each in behaviour)
    progress("differences", 0, n)
    found = reference(system, points, size, tolerance, epsilon)
    flat = stairs(system, points, found, size)
    found.error[:, flat] = torch.inf  # the slope between two stairs is none of the step's
    share = steeper(system, points, found, size)
    progress("differences", n, n)
    units = Units(_spread(found.y), _spread(points.z))
    label = strata(system, taken, found, drawn.action_limit)
    facts: dict[str, Any] = {
        "states": n, "not finite": len(every) - n, "fail_above": tolerance,
        "precision": epsilon, "inside": list(inside),
        "strata": {name: int((label == k).sum()) for k, name in enumerate(STRATA)},
        "origins": {name: taken.origin.count(name) for name in dict.fromkeys(taken.origin)},
        "ranges": [
            {"coordinate": name, "lowest": low, "highest": high}
            for name, low, high in zip(
                about.names.columns, points.z.amin(0).tolist(), points.z.amax(0).tolist(),
                strict=True,
            )
        ],
        "compared": _described(system, epsilon, inside),
    }  # fmt: skip
    rows: list[Mapping[str, Any]] = []
    findings = [*behaviour, *lost]
    findings += _lower_precision(inside, epsilon)
    ways = sources(system)
    for k, (name, derivative) in enumerate(ways.items()):
        progress("derivatives", k, len(ways))
        difference = compared(derivative(system, points), found, units, tolerance, epsilon)
        near = _nearby(
            system, points, derivative, size, units, tolerance, epsilon, difference.usual,
            found.kink,
        )  # fmt: skip
        judged = comparison.JudgedComparison(
            name, difference, label, points.z, taken.step, about.names, units, near
        )
        rows += comparison.numbers(judged)
        if wrong_behaviour:  # J and D are of different functions then
            continue
        findings += comparison.findings(judged)
        findings += repeats.derivative_findings(
            name, system, derivative, points, about.names, epsilon, tolerance, difference.J,
            any(each.kind == "rows mix" for each in behaviour),
        )  # fmt: skip
        if k == 0:
            single, facts["single precision"] = _in_single_precision(
                about, derivative, points, label, units
            )
            findings += single
        if name == "step":
            findings = [
                _traced(each, system, about.names, points, difference.lost) for each in findings
            ]
    progress("derivatives", len(ways), len(ways))
    facts["kinks crossed"] = 0
    if not wrong_behaviour:
        kinks, facts["kinks crossed"] = _kinks(about, taken, label, drawn.action_limit, epsilon)
        findings += kinks
        later = repeats.later_findings(system, begun, before, about.names, epsilon)
        if later:
            findings = [each for each in findings if not repeats.by_later_calls(each)] + later
        if parameters is not None:
            more, facts["parameters"] = parameter_findings(
                system, points, parameters, tolerance, epsilon
            )
            findings += more
    if not any(each.severity == "wrong" and each.block is None for each in findings):
        # Of a step that is a function of its arguments.
        findings += _stairs(about.names, flat, share)
    return Certification(about.name, tolerance, _merged(findings), tuple(rows), facts)


def stepped(system: System, points: Points) -> Tensor:
    """y, of a step that is not NaN everywhere."""
    y = outputs(system, points)
    if not bool(torch.isfinite(y).all(1).any()):
        raise InputError(
            f"step returns NaN at every state: check the states' units and the step. {OTHER_BOUNDS}"
        )
    return y


def _traced(
    finding: Finding, system: System, names: Names, points: Points, lost: Tensor
) -> Finding:
    """A derivative that is not finite with its first row and the operation that made it so."""
    if finding.kind != "not finite" or finding.severity != "wrong" or not bool(lost.any()):
        return finding
    reward = finding.block in ("r_s", "r_a")
    rows = lost[:, -1:] if reward else lost[:, :-1]
    bad = rows.flatten(1).any(1)
    first = int(bad.nonzero()[0])
    here = points.at(slice(first, first + 1))

    def output(z: Tensor) -> Tensor:
        out = system.step(*state_and_action(system, z), here.noise)
        return out.reward if reward else out.state

    origin = _nan_origin(output, here.z)
    row = ", ".join(f"{x:.3g}" for x in here.z[0].tolist())
    by = f"the derivative of {origin} is the first that is not finite, " if origin else ""
    text = f"{finding.sentence[:-1]}; {by}at row {first}: ({row})"
    where, remedy = region(names, points.z, bad)
    return replace(finding, sentence=f"{text}{where if where[0] == ':' else ''}. {remedy}")


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
        nodes, found = [values.grad_fn], set[Any]()
        while nodes:
            if (node := nodes.pop()) is not None and node not in found:
                found.add(node)
                node.register_hook(partial(hear, node))
                nodes += [each for each, _ in node.next_functions]
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


def _merged(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest first; one of both sources where they agree, though one of them says more. Of a
    derivative that depends on more than its arguments nothing else is said."""
    loose = {(each.block, each.source) for each in findings if each.block and each.kind in _LOOSE}
    kept: list[Finding] = []
    for finding in findings:
        if (finding.block, finding.source) in loose and finding.kind not in _LOOSE:
            continue
        same = [
            k for k, other in enumerate(kept)
            if other.sentence.startswith(finding.sentence[:-1]) and other.source != finding.source
        ]  # fmt: skip
        if same:
            kept[same[0]] = replace(kept[same[0]], source="both")
        else:
            kept.append(finding)
    return tuple(
        sorted(kept, key=lambda each: (_ORDER[each.severity], each.kind != "rare", -each.size))
    )


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of columns over finite rows; 1 where there is none."""
    finite = values[torch.isfinite(values).all(1)]
    spread = finite.std(0).nan_to_num() if len(finite) > 1 else torch.zeros(values.shape[1])
    return torch.where(spread > 0, spread, torch.ones_like(spread))
