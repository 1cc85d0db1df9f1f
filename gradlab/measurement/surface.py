"""The slice of the model's value estimate around a policy (`runs.surface`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.rollout import rollout
from gradlab.measurement.problem import Problem
from gradlab.progress import Progress
from gradlab.runs.surface import Surface

_POINTS, _STARTS = 21, 32
_STREAM = "surface"


def check_surface(unrolled: Sequence[int]) -> tuple[int, ...]:
    """The horizons, each once, from the shortest."""
    for each in unrolled:
        validation.whole("surface", each, 0)
    return tuple(sorted(set(unrolled)))


@torch.no_grad()
def surface(asked: Problem, unrolled: Sequence[int], progress: Progress) -> Surface:
    """At 21 × 21 points, from the first 32 starts; on the task's prior, or else its simulator."""
    tail = next(iter(asked.chosen.values())).tail
    if tail.critic is None:
        raise InputError("surface needs a critic, which values where the model's steps end")
    task, critic = asked.task, tail.critic
    model = task.simulator if task.prior is None else task.prior
    starts = asked.setting.starts.block(slice(0, _STARTS))
    policy = copy.deepcopy(asked.original)
    parameters = list(policy.parameters())
    theta = [each.clone() for each in parameters]
    u, v = (_direction(theta, stream(asked.setting.seed, _STREAM, k)) for k in range(2))
    line = torch.linspace(-1, 1, _POINTS, dtype=torch.float64)
    loss = np.full((len(unrolled), _POINTS, _POINTS), np.nan)
    for i, alpha in enumerate(line):
        progress("surface", i, _POINTS)
        for j, beta in enumerate(line):
            for each, value, along, across in zip(parameters, theta, u, v, strict=True):
                each.copy_(value + alpha * along + beta * across)
            path = rollout(model, policy, starts, max(unrolled), asked.setting.seed)
            sums = [torch.zeros_like(path.weight)]
            for t, reward in enumerate(path.rewards):
                sums.append(sums[-1] + task.discount**t * reward)
            for k, h in enumerate(unrolled):
                valued = (
                    (path.states[h], path.actions[h]) if tail.value == "Q" else (path.states[h],)
                )
                total = sums[h] + task.discount**h * critic(*valued).reshape(-1)
                loss[k, i, j] = -float((path.weight * total).mean())
    progress("surface", _POINTS, _POINTS)
    points = line.numpy()
    return Surface(np.array(unrolled), points, points.copy(), loss)


def _direction(theta: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Random, each tensor with the norm that it has in θ (1 where that is 0)."""
    drawn = [torch.randn(each.shape, generator=generator, dtype=each.dtype) for each in theta]
    norms = [float(each.norm()) or 1.0 for each in theta]
    return [each / each.norm() * norm for each, norm in zip(drawn, norms, strict=True)]
