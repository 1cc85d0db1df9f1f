"""Advice as code: the recommended gradient as a loss in a loop of one's own.

    advice = gradlab.load("runs/pendulum.h5").recommendation
    optimizer, measured = torch.optim.Adam(policy.parameters(), advice.rate), deepcopy(policy)
    for _ in range(advice.updates):
        loss = advice.loss(policy, critic, advice.states(256, policy=measured))
        optimizer.zero_grad(), loss.backward(), optimizer.step()

States and noise are drawn from torch's global stream: `torch.manual_seed` repeats them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients.bptt import objective
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Tail, as_starts
from gradlab.gradients.start_laws import visitation
from gradlab.gradients.ways import WAYS
from gradlab.measurement.assembly import predictions
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.runs.identity import Identity
from gradlab.tasks import Task, task_from_name, trimmed

_VISITS = 8  # states of one rollout


def loss(
    identity: Identity,
    horizon: int,
    config: Mapping[str, Any],
    policy: nn.Module,
    critic: CriticLike | None,
    states: Tensor,
    task: Task,
) -> Tensor:
    """Minus the objective whose gradient is the recommended one: a scalar with its graph in θ.

    Args:
        identity, horizon: of the recommended gradient; config: of its measurement.
        states: [N, ds], as of `states`; task: as measured.

    Raises:
        InputError: the task has no model.
    """
    dtype = next(policy.parameters()).dtype
    of_states, of_jacobians = (
        {"simulator": task.simulator, "model": task.prior}.get(whose)
        for whose in (identity.states, identity.jacobians)
    )
    if of_states is None or (of_jacobians is None and identity.jacobians != "none"):
        raise InputError(
            f"the gradient needs states of the {identity.states} and Jacobians of the "
            f"{identity.jacobians}, task {task.name} has not both: give task= with prior="
        )
    module = None if critic is None else copy.deepcopy(as_critic(critic)).to(dtype)
    tail = Tail(horizon, module, task.discount)
    entropy = float(config.get("entropy", 0.0))
    estimator = Estimator(of_states, of_jacobians, identity.actions, tail, entropy)  # type: ignore[arg-type]
    termination = str(config.get("termination", "ignore"))
    return -objective(estimator, policy, states.to(dtype), _seed(), termination)


def states(
    identity: Identity,
    config: Mapping[str, Any],
    n: int,
    task: Task,
    policy: nn.Module | None = None,
) -> Tensor:
    """n states [n, ds] for one update, of the law at which the gradient was measured: the task's
    starts where θ is in all actions, else states that the policy visits.

    Raises:
        InputError: visited states without a policy.
    """
    if WAYS[identity.actions].truth == "all":
        return task.starts(n, stream(_seed(), "followed starts"))
    if policy is None:
        raise InputError("this gradient is taken at visited states: give policy= to visit them")
    each = max(k for k in range(1, _VISITS + 1) if not n % k)
    ends = str(config.get("termination", "ignore"))
    path = visitation(task, double_copy("policy", policy), n, _seed(), each, ends)
    visited = as_starts(path, task.simulator.state_dim)
    return visited.states[visited.weight > 0]  # alive


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of a measurement, made again from its name and arguments.

    Raises:
        InputError: it was not one of gradlab.tasks, or predicts otherwise.
    """
    task, settings = None, dict(config.get("task_parameters", {}))
    share = float(settings.pop("trim_starts", 0.0))
    source = config.get("source", {"task": config.get("task", ""), "parameters": settings})
    try:
        task = task_from_name(str(source["task"]), source["parameters"])
        same = predictions(task) == config.get("model", "none")
    except InputError:
        same = False
    if task is None or not same:
        raise InputError(
            f"task {config.get('task')!r} cannot be made again from its name: give task= as it was "
            f"measured"
        )
    return trimmed(task, share) if share else task


def _seed() -> int:
    return int(torch.randint(2**31, ()))
