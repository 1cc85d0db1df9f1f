"""Networks that every seed begins with, in the place of fresh ones.

A horizon or weights are measured for one policy and its critic. A run that begins with them takes
the advice where it holds.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from gradlab.errors import InputError
from gradlab.networks.checkpoint import architecture_of
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.parts.critics import Critic, Q

LOG_STD = (-5.0, 2.0)  # bounds of log σ of the Gaussian policies that are trained


@dataclass(frozen=True, eq=False)
class Given:
    """
    Attributes:
        policy: state [N, ds] → action [N, da]; a deterministic one keeps its own limits, or none.
            None: fresh ones.
        critic: of that policy, in the task's own rewards; None: fresh ones. Twin critics both begin
            as it, and so stay equal.
    """

    policy: nn.Module | None = None
    critic: nn.Module | None = None

    def described(self) -> dict[str, str]:
        """A digest of each network, by which a resumed run knows its own."""
        both = {"policy": self.policy, "critic": self.critic}
        return {role: _digest(module) for role, module in both.items() if module is not None}

    def policies(self) -> Policy | GaussianPolicy | None:
        """A copy of the policy; None without one."""
        assert self.policy is None or isinstance(self.policy, Policy | GaussianPolicy)
        return copy.deepcopy(self.policy)

    def critics(self, count: int, reward_scale: float) -> list[Critic] | None:
        """Copies of the critic in the rewards of training; None without one."""
        if self.critic is None:
            return None
        assert isinstance(self.critic, Critic)
        own = copy.deepcopy(self.critic)
        last = own.network[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(reward_scale)
            last.bias.mul_(reward_scale)
        return [own] * count


FRESH = Given()


def shaped(algorithm: Algorithm, task: Task, given: Given) -> Algorithm:
    """The row with the widths of the given policy, which fresh critics have, too.

    Raises:
        InputError: a network is not of the kind that the row trains, or of other widths or limits.
    """
    _check(algorithm, task, given)
    if given.policy is None:
        return algorithm
    own = architecture_of(given.policy)
    return replace(algorithm, hidden=tuple(own["hidden"]), activation=own["activation"])


def _check(algorithm: Algorithm, task: Task, given: Given) -> None:
    """That the networks are of the kind that the row trains, and fit the task."""
    where = f"{algorithm.name} on {task.name}"
    states, actions = task.simulator.state_dim, task.simulator.action_dim
    if given.policy is not None:
        shape: dict[str, object] = {"state_dim": states, "action_dim": actions}
        if algorithm.policy == "gaussian":
            most = None if task.action_limit is None else list(map(float, task.action_limit))
            shape |= {"squash": most is not None, "limit": most, "log_std_bounds": list(LOG_STD)}
            _check_shape("policy", given.policy, GaussianPolicy, shape, where)
        else:
            _check_shape("policy", given.policy, Policy, shape | {"bias": True}, where)
    if given.critic is not None:
        if algorithm.critics == 0:
            raise InputError(f"critic is given, but {algorithm.name} has none: leave it out")
        shape = {"state_dim": states, "bias": True}
        if algorithm.target.kind == Q:
            _check_shape("critic", given.critic, QCritic, shape | {"action_dim": actions}, where)
        else:
            _check_shape("critic", given.critic, VCritic, shape, where)


def _check_shape(
    role: str, module: nn.Module, kind: type[nn.Module], shape: Mapping[str, object], where: str
) -> None:
    """That a network is one of `kind`, and has this shape."""
    if not isinstance(module, kind):
        raise InputError(
            f"{role} is a {type(module).__name__}, expected gradlab's {kind.__name__} for {where}: "
            f"give one, or leave the {role} out"
        )
    for name, wanted in shape.items():
        own = architecture_of(module)[name]
        if own != wanted:
            raise InputError(
                f"{role} has {name} {own}, expected {wanted} for {where}: give another one, or "
                f"leave the {role} out"
            )


def _digest(module: nn.Module) -> str:
    """Of the numbers and their names."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
