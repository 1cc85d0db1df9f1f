"""Certify: the whole examination of one system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.certification import judgement, precision, repeats
from gradlab.certification.arguments import Subject, subject
from gradlab.certification.certification import Certification, Finding
from gradlab.certification.comparison import Units, compared
from gradlab.certification.derivatives import sources
from gradlab.certification.evaluation import outputs
from gradlab.certification.nearby import Nearby
from gradlab.certification.reference import precision_of, reference
from gradlab.certification.sampling import (
    Law,
    Samples,
    labelled,
    law,
    limits,
    moved,
    pooled,
    visited,
)
from gradlab.certification.strata import strata
from gradlab.errors import InputError
from gradlab.progress import Progress, silent
from gradlab.systems.system import System
from gradlab.tasks.task import Task
from gradlab.user_code.grad_mode import differentiating

FEWEST = 16  # samples
SHARES = {"random": 0.25, "limits": 0.15}


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
        system: a System, or a Task, whose simulator, start law, limits and names are used.
        states, actions: [N, ds] and [N, da], where derivatives are taken. With both, only there;
            states alone are pooled with what is drawn.
        noise: [N, noise_dim] of the given states; None: drawn.
        task: of a bare system, for its start law, limits and names.
        policy: module, state → action, whose visits are half of the rollouts.
        samples: number of states that are drawn.
        seed: of every draw.
        fail_above: relative error from which a derivative is wrong.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    about = subject(system, task, states, actions, noise, policy)
    validation.whole("samples", samples, FEWEST)
    validation.whole("seed", seed)
    tolerance = validation.number("fail_above", fail_above, "a number above 0")
    if tolerance <= 0:
        raise InputError(f"fail_above is {fail_above!r}, expected a number above 0")
    taken = _samples(about, samples, seed)
    return _examined(about, taken, tolerance, progress)


def _samples(about: Subject, n: int, seed: int) -> Samples:
    """The given points alone, or pooled with drawn ones."""
    drawn = law(about.system, about.task, about.policy, about.states, seed)
    if about.states is not None and about.actions is not None:
        z = torch.cat([about.states, about.actions], 1)
        return labelled(about.system, z, "given", seed, about.noise)
    given: list[Samples] = []
    if about.states is not None:
        a = drawn.action_size * drawn.draw("given", len(about.states), about.system.action_dim)
        z = torch.cat([about.states, a], 1)
        given = [labelled(about.system, z, "given", seed, about.noise)]
    return pooled([*given, *_drawn(drawn, n)])


def _drawn(drawn: Law, n: int) -> list[Samples]:
    counts = {name: int(share * n) for name, share in SHARES.items()}
    seen = visited(drawn, n - sum(counts.values()))
    return [seen, moved(drawn, seen, counts["random"]), limits(drawn, seen, counts["limits"])]


def _examined(
    about: Subject, taken: Samples, tolerance: float, progress: Progress
) -> Certification:
    system, points, n = about.system, taken.points, len(taken)
    epsilon = precision_of(_first_step(system, taken))
    findings = repeats.step_findings(system, points, epsilon)
    progress("differences", 0, n)
    found = reference(system, points, _size(points.z), tolerance, epsilon)
    progress("differences", n, n)
    units = Units(_spread(found.y), _spread(points.z))
    label = strata(system, taken, found, _limit(about.task, points.z))
    rows: list[Mapping[str, Any]] = []
    facts: dict[str, Any] = {"states": n, "fail_above": tolerance, "precision": epsilon}
    depends = bool(findings)
    ways = sources(system)
    for k, (name, derivative) in enumerate(ways.items()):
        progress("derivatives", k, len(ways))
        J = derivative(system, points)
        comparison = compared(J, found, units, tolerance)
        near = Nearby(system, points, derivative, _size(points.z), units, tolerance, epsilon)
        judged = judgement.Judged(name, comparison, label, about.names, units, near)
        rows += judgement.numbers(judged)
        if depends:  # J and D are of different functions then
            continue
        findings += judgement.findings(judged)
        findings += repeats.derivative_findings(
            name, system, derivative, points, about.names, epsilon
        )
        single, facts["single precision"] = precision.tried(
            system, derivative, points, J, about.names, units
        )
        findings += single
    progress("derivatives", len(ways), len(ways))
    return Certification(about.name, tolerance, _merged(findings), tuple(rows), facts)


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


def _first_step(system: System, taken: Samples) -> Tensor:
    y = outputs(system, taken.points.at(slice(0, 256)))
    if not bool(torch.isfinite(y).all(1).any()):
        raise InputError("step returns NaN at every state: check the states' units and the step")
    return y


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of columns over finite rows; 1 where there is none."""
    finite = values[torch.isfinite(values).all(1)]
    spread = finite.std(0).nan_to_num() if len(finite) > 1 else torch.zeros(values.shape[1])
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def _limit(task: Task | None, z: Tensor) -> Tensor | None:
    return None if task is None or task.action_limit is None else z.new_tensor(task.action_limit)
