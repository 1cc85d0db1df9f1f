"""Certify: arguments, and the states at which a system is examined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gradlab import validation
from gradlab.certification import descriptions
from gradlab.certification.arguments import Subject, subject
from gradlab.certification.certification import Certification
from gradlab.certification.evaluation import outputs
from gradlab.certification.examination import Settings, examined, first_steps
from gradlab.certification.kinks import pushed
from gradlab.certification.parameters import named
from gradlab.certification.sampling import (
    Law,
    Loss,
    Samples,
    labelled,
    law,
    limits,
    pooled,
    shifted,
    thinned,
    visited,
)
from gradlab.errors import InputError
from gradlab.progress import Progress, check_progress, silent
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
    parameters: Any = None,
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
        parameters: of the step, a module or a dict of float tensors that it reads: the gradients
            in them are judged, too, by autograd through `step`.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    about = subject(system, task, states, actions, noise, policy)
    progress = check_progress(progress)
    validation.whole("samples", samples, FEWEST)
    validation.whole("seed", seed)
    tolerance = _above_0("fail_above", fail_above)
    width = _above_0("smoothing", smoothing)
    steps = (
        _default_horizon(about.task) if horizon is None else validation.whole("horizon", horizon, 1)
    )
    varied = None if parameters is None else named(parameters)
    discount = DISCOUNT if about.task is None else about.task.discount
    drawn = law(about.system, about.task, about.policy, about.states, seed)
    settings = Settings(drawn, tolerance, discount, steps, width, varied)
    result = examined(about, *_samples(about, drawn, samples), settings, progress)
    asked = {"samples": samples, "seed": seed, "fail_above": tolerance, "horizon": steps}
    made = {
        "command": descriptions.call(asked), "seed": seed, "starts": descriptions.starts(about),
        "versions": descriptions.versions(),
    }  # fmt: skip
    return replace(result, facts={**result.facts, **made})


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
    first_steps(about.system, seen)  # refuses a step that is NaN at once, before more are made
    ways = {"random": shifted, "limits": limits, "kinks": pushed}
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
