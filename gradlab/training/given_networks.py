"""Networks of the user's that every seed begins with, instead of fresh ones.

A horizon or weights are measured for one policy, critic and model. A run can begin with the first
two; a learned model is fitted anew.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from gradlab.errors import InputError
from gradlab.networks.checkpoint import architecture_of
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.networks.spectral import Which
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.members import LOG_STD
from gradlab.training.parts.critics import Critic, Q


@dataclass(frozen=True, eq=False)
class GivenNetworks:
    """
    Attributes:
        policy: state [N, ds] → action [N, da]; a deterministic one keeps its own limits, or none.
            None: fresh ones.
        critic: of that policy, in the task's own rewards; None: fresh ones. Twin critics both begin
            as it, and so stay equal.
    """

    policy: nn.Module | None = None
    critic: nn.Module | None = None

    def digests(self) -> dict[str, str]:
        """Of each network, by which a resumed run knows its own."""
        both = {"policy": self.policy, "critic": self.critic}
        return {role: _digest(module) for role, module in both.items() if module is not None}

    def own_policy(self) -> Policy | GaussianPolicy | None:
        """A copy of the policy; None without one."""
        assert self.policy is None or isinstance(self.policy, Policy | GaussianPolicy)
        return copy.deepcopy(self.policy)

    def own_critics(self, count: int, reward_scale: float) -> list[Critic] | None:
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


FRESH = GivenNetworks()


def check(algorithm: Algorithm, task: Task, given: GivenNetworks) -> None:
    """
    Raises:
        InputError: a network is not of the kind that the row trains, does not fit the task, or
            would be changed by spectral norms.
    """
    where = f"{algorithm.name} on {task.name}"
    states, actions = task.simulator.state_dim, task.simulator.action_dim
    if given.policy is not None:
        _check_unchanged("policy", algorithm.policy_spectral)
        shape: dict[str, object] = {"state_dim": states, "action_dim": actions}
        if algorithm.policy == "gaussian":
            most = None if task.action_limit is None else list(map(float, task.action_limit))
            shape |= {"squash": most is not None, "limit": most, "log_std_bounds": list(LOG_STD)}
            _check_shape("policy", given.policy, GaussianPolicy, shape, where)
        else:
            _check_shape("policy", given.policy, Policy, shape | {"bias": True}, where)
    if given.critic is not None:
        _check_unchanged("critic", algorithm.critic_spectral)
        if algorithm.critics == 0:
            raise InputError(f"critic is given, but {algorithm.name} has none: leave it out")
        shape = {"state_dim": states, "bias": True}
        if algorithm.target.kind == Q:
            _check_shape("critic", given.critic, QCritic, shape | {"action_dim": actions}, where)
        else:
            _check_shape("critic", given.critic, VCritic, shape, where)


def _check_unchanged(role: str, spectral: Which | None) -> None:
    if spectral is not None:
        raise InputError(
            f"{role} is given, but spectral norms would change it: leave the {role} out, or its "
            f"spectral norm"
        )


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
        if isinstance(own, float) and isinstance(wanted, list):
            own = [own] * len(wanted)  # one limit for all actions
        if own != wanted:
            raise InputError(
                f"{role} has {name} {own}, expected {wanted} for {where}: give another one, or "
                f"leave the {role} out"
            )


def _digest(module: nn.Module) -> str:
    """Of the architecture, the numbers and their names."""
    digest = hashlib.sha256(json.dumps(architecture_of(module), sort_keys=True).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
