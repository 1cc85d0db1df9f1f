"""Certify: the whole examination of one system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.certification import judgement, precision, repeats, sentences
from gradlab.certification.arguments import Subject, subject
from gradlab.certification.certification import Certification, Finding
from gradlab.certification.comparison import Units, compared
from gradlab.certification.derivatives import Derivative, sources
from gradlab.certification.evaluation import FEW, outputs
from gradlab.certification.kinks import pushed
from gradlab.certification.nearby import Nearby
from gradlab.certification.reference import precision_of, reference
from gradlab.certification.rollouts import Ahead, at_kinks, chained
from gradlab.certification.sampling import (
    Law,
    Loss,
    Samples,
    labelled,
    law,
    limits,
    moved,
    pooled,
    thinned,
    visited,
)
from gradlab.certification.strata import STRATA, strata
from gradlab.errors import InputError
from gradlab.progress import Progress, silent
from gradlab.systems.system import System
from gradlab.tasks.task import Task
from gradlab.user_code.grad_mode import differentiating

FEWEST = 16  # samples
SHARES = {"random": 0.2, "limits": 0.12, "kinks": 0.18}
HORIZON, LONGEST = 16, 25  # steps of a chain: without a task, and at most by default
DISCOUNT = 0.99  # without a task


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
    horizon: int | None = None,
    smoothing: float = 0.1,
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
        policy: module, state → action, whose visits are half of the rollouts.
        samples: number of states that are drawn.
        seed: of every draw.
        fail_above: relative error from which a derivative is wrong.
        horizon: most steps of the chained gradient; None: the task's, at most 25, or 16.
        smoothing: σ of the smoothed return at kinks, in spreads of the actions.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    about = subject(system, task, states, actions, noise, policy)
    validation.whole("samples", samples, FEWEST)
    validation.whole("seed", seed)
    tolerance = _above_0("fail_above", fail_above)
    width = _above_0("smoothing", smoothing)
    drawn = law(about.system, about.task, about.policy, about.states, seed)
    taken, loss = _samples(about, drawn, samples)
    steps = (
        _default_horizon(about.task) if horizon is None else validation.whole("horizon", horizon, 1)
    )
    discount = DISCOUNT if about.task is None else about.task.discount
    return _examined(about, taken, loss, tolerance, (drawn, discount, steps, width), progress)


def _above_0(name: str, value: Any) -> float:
    number = validation.number(name, value, "a number above 0")
    if number <= 0:
        raise InputError(f"{name} is {value!r}, expected a number above 0")
    return number


def _default_horizon(task: Task | None) -> int:
    return HORIZON if task is None else min(max(task.horizon, 1), LONGEST)


def _samples(about: Subject, drawn: Law, n: int) -> tuple[Samples, Loss | None]:
    """The given points alone, or pooled with drawn ones."""
    if about.states is not None and about.actions is not None:
        z = torch.cat([about.states, about.actions], 1)
        return labelled(about.system, z, "given", drawn.seed, about.noise), None
    given: list[Samples] = []
    if about.states is not None:
        a = drawn.action_size * drawn.draw("given", len(about.states), about.system.action_dim)
        z = torch.cat([about.states, a], 1)
        given = [labelled(about.system, z, "given", drawn.seed, about.noise)]
    seen, loss = visited(drawn, n)
    _check_finite(about.system, seen)
    ways = {"random": moved, "limits": limits, "kinks": pushed}
    more = [way(drawn, seen, max(int(SHARES[name] * n), 1)) for name, way in ways.items()]
    kept = [part for part in more if _accepted(about.system, part)]
    return pooled([*given, thinned(seen, n - sum(map(len, kept))), *kept]), loss


def _accepted(system: System, samples: Samples) -> bool:
    """Whether the system steps these states: some refuse what no rollout reaches."""
    if not len(samples):
        return False
    try:
        outputs(system, samples.points)
    except InputError:
        return False
    return True


def _check_finite(system: System, samples: Samples) -> None:
    y = outputs(system, samples.points.at(slice(0, FEW)))
    if not bool(torch.isfinite(y).all(1).any()):
        raise InputError("step returns NaN at every state: check the states' units and the step")


def _examined(
    about: Subject,
    taken: Samples,
    loss: Loss | None,
    tolerance: float,
    rolled: tuple[Law, float, int, float],
    progress: Progress,
) -> Certification:
    system, points, n = about.system, taken.points, len(taken)
    _check_finite(system, taken)
    epsilon = precision_of(outputs(system, points.at(slice(0, FEW))))
    findings = repeats.step_findings(system, points, epsilon)
    if loss is not None:
        findings.append(_lost(loss, about))
    depends = any(finding.severity == "wrong" for finding in findings)
    progress("differences", 0, n)
    size = _size(points.z)
    found = reference(system, points, size, tolerance, epsilon)
    progress("differences", n, n)
    units = Units(_spread(found.y), _spread(points.z))
    label = strata(system, taken, found, _limit(about.task, points.z))
    drawn, discount, horizon, width = rolled
    ahead = Ahead(drawn, points, units, epsilon, discount, horizon, width)
    rows: list[Mapping[str, Any]] = []
    facts: dict[str, Any] = {
        "states": n, "fail_above": tolerance, "precision": epsilon, "horizon": horizon,
        "strata": {name: int((label == k).sum()) for k, name in enumerate(STRATA)},
    }  # fmt: skip
    ways = sources(system)
    for k, (name, derivative) in enumerate(ways.items()):
        progress("derivatives", k, len(ways))
        J = derivative(system, points)
        comparison = compared(J, found, units, tolerance)
        near = Nearby(system, points, derivative, size, units, tolerance, epsilon)
        judged = judgement.Judged(name, comparison, label, taken.step, about.names, units, near)
        rows += judgement.numbers(judged)
        if depends:  # J and D are of different functions then
            continue
        findings += judgement.findings(judged)
        findings += repeats.derivative_findings(
            name, system, derivative, points, about.names, epsilon
        )
        if k == 0:
            more, numbers = _once(ahead, name, derivative, label, about)
            findings += more
            facts |= numbers
    progress("derivatives", len(ways), len(ways))
    return Certification(about.name, tolerance, _merged(findings), tuple(rows), facts)


def _away(label: Tensor) -> Tensor:
    """Points away from kinks and limits, whose side rounding may change; all where there is
    none."""
    sides = torch.tensor([STRATA.index("onset"), STRATA.index("limit")])
    away = (~torch.isin(label, sides)).nonzero().flatten()
    return away if len(away) else torch.arange(len(label))


def _once(
    ahead: Ahead, name: str, derivative: Derivative, label: Tensor, about: Subject
) -> tuple[list[Finding], dict[str, Any]]:
    """What one source of derivatives is enough for: single precision, chains, kinks."""
    single, precisions = precision.tried(
        about.system, derivative, ahead.points.at(_away(label)), about.names, ahead.units
    )
    turning, sign = chained(ahead, name, derivative)
    kinks, gap = at_kinks(ahead, name, derivative, label == STRATA.index("onset"))
    numbers = {
        "single precision": precisions, "sign horizon": sign.horizon, "certain signs": sign.certain,
        "signs that agree": sign.agree, "smoothed": gap,
    }  # fmt: skip
    return [*single, *turning, *kinks], numbers


def _lost(loss: Loss, about: Subject) -> Finding:
    output = about.names.rows[loss.output]
    text = sentences.lost((loss.rollouts, loss.of), loss.step, output)
    return Finding("not finite", None, None, output, None, 1.0, None, "note", text)


def _size(z: Tensor) -> Tensor:
    """Root mean square of every coordinate; 1 where it is 0 in every state."""
    size = z.square().mean(0).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))


def _merged(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest first; one of both sources where they agree."""
    kept: list[Finding] = []
    for finding in findings:
        same = [
            k for k, other in enumerate(kept)
            if other.sentence == finding.sentence and other.source != finding.source
        ]  # fmt: skip
        if same:
            kept[same[0]] = Finding(**{**vars(kept[same[0]]), "source": "both"})
        else:
            kept.append(finding)
    order = {"wrong": 0, "rough": 1, "note": 2}
    return tuple(sorted(kept, key=lambda finding: (order[finding.severity], -finding.size)))


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of columns over finite rows; 1 where there is none."""
    finite = values[torch.isfinite(values).all(1)]
    spread = finite.std(0).nan_to_num() if len(finite) > 1 else torch.zeros(values.shape[1])
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def _limit(task: Task | None, z: Tensor) -> Tensor | None:
    return None if task is None or task.action_limit is None else z.new_tensor(task.action_limit)
