"""First networks of every seed, fresh or given by the user, and whether task and device will do."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.networks.checkpoint import architecture_of
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import GaussianPolicy
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.parts.critics import Critic

_APART = 0.1  # of a layer's root mean square, which leaves 1% in its square


@dataclass(frozen=True, eq=False)
class GivenNetworks:
    """
    Attributes:
        policy: state [N, ds] → action [N, da]; a deterministic one keeps its own limits, or none.
            None: fresh ones.
        critic: of that policy, in the task's own rewards; None: fresh ones. It is the first critic
            of a seed; a twin begins beside it, each layer moved by normal noise of `_APART` of its
            size: of two that are equal the minimum is no bound, and they would stay equal.
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

    def own_critics(self, count: int, reward_scale: float, seed: int) -> list[Critic] | None:
        """The critic in the rewards of training, and its twins; None without one."""
        if self.critic is None:
            return None
        assert isinstance(self.critic, Critic)
        made = [copy.deepcopy(self.critic) for _ in range(count)]
        with torch.no_grad():
            for k, own in enumerate(made):
                draw = stream(seed, f"twin critic {k}")
                for weight in own.parameters() if k else ():
                    size = weight.square().mean().sqrt()
                    noise = torch.randn(weight.shape, generator=draw)
                    weight.add_(_APART * size * noise.to(weight))
                last = own.network[-1]
                assert isinstance(last, nn.Linear)
                last.weight.mul_(reward_scale)
                last.bias.mul_(reward_scale)
        return made


FRESH = GivenNetworks()


# What a given network may have of its own; a deterministic policy its limits, too.
_FREE = {"hidden", "activation", "scale"}


def check_given(algorithm: Algorithm, task: Task, given: GivenNetworks) -> None:
    """Raises InputError: a network that is not of the kind and the shape that the row makes."""
    if given.policy is None and given.critic is None:
        return
    policy, critics = networks(algorithm, task, 0)
    where = f"{algorithm.name} on {task.name}"
    for role, own, fresh, spectral in (
        ("policy", given.policy, policy, algorithm.policy_spectral),
        ("critic", given.critic, critics[0] if critics else None, algorithm.critic_spectral),
    ):
        if own is None:
            continue
        if spectral is not None:
            raise InputError(
                f"{role} is given, but spectral norms would change it: leave the {role} out, or "
                f"its spectral norm"
            )
        if fresh is None:
            raise InputError(f"critic is given, but {algorithm.name} has none: leave it out")
        kind = type(fresh).__name__
        if type(own).__name__ != kind:
            raise InputError(
                f"{role} is a {type(own).__name__}, expected gradlab's {kind} for {where}: give "
                f"one, or leave the {role} out"
            )
        free = _FREE | {"limit"} if isinstance(fresh, Policy) else _FREE
        for name, wanted in architecture_of(fresh).items():
            found = architecture_of(own)[name]
            if isinstance(found, float) and isinstance(wanted, list):
                found = [found] * len(wanted)  # one limit for all actions
            if found != wanted and name not in free:
                raise InputError(
                    f"{role} has {name} {found}, expected {wanted} for {where}: give another one, "
                    f"or leave the {role} out"
                )


def _digest(module: nn.Module) -> str:
    """Of the architecture, the numbers and their names."""
    digest = hashlib.sha256(json.dumps(architecture_of(module), sort_keys=True).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def usable_device(name: str) -> torch.device:
    if str(name).partition(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}, expected 'cpu' or 'cuda'")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}): take 'cpu'") from error
    return device


def check_fits(algorithm: Algorithm, task: Task, *, masked: bool) -> None:
    """Raises InputError where the algorithm needs a model that the task has not, or Jacobians that
    its simulator has not, or a learned model has to end episodes and the task has no function for
    it."""
    error = without_jacobians(task) if algorithm.loss.of_simulator else None
    if error is not None:
        raise InputError(
            f"{algorithm.name} follows the simulator's Jacobians, but the simulator of {task.name} "
            f"gives none ({error}): take dmo, which learns them, or sac"
        ) from error
    if algorithm.model is not None:
        # Simulators show their termination as `alive`, those of a function and MuJoCo's.
        if masked and task.alive is None and getattr(task.simulator, "alive", None) is not None:
            raise unknown_ends(task)
        return
    if not algorithm.needs_model:
        return
    if task.prior is None:
        raise InputError(
            f"{algorithm.name} needs a model, but {task.name} has no prior: learn one while it "
            f"trains (model=LearnedModel() in its row, --model learned), give one to the task "
            f"(dataclasses.replace(task, prior=…)), or take td3, sac, ddpg or n-step-dpg"
        )
    if algorithm.differentiates_model and not task.prior.differentiable:
        raise InputError(f"{algorithm.name} differentiates its model, but the prior cannot be")


def without_jacobians(task: Task) -> Exception | None:
    """What stands in the way of the simulator's Jacobians, and so of true gradients."""
    simulator, starts = task.simulator, task.starts(2, stream(0, "probe")).double()
    action = starts.new_zeros(2, simulator.action_dim)
    noise = starts.new_zeros(2, simulator.noise_dim)
    try:
        simulator.linearize(starts, action, noise)
    except (AttributeError, NotImplementedError, RuntimeError, InputError) as error:
        return error
    return None


def unknown_ends(task: Task) -> InputError:
    """That a learned model cannot know where the task's episodes end."""
    return InputError(
        f"termination is 'mask', but {task.name} has no termination function for a learned model: "
        f"give one, dataclasses.replace(task, alive=…) of next states, or take 'ignore'"
    )


def networks(
    algorithm: Algorithm,
    task: Task,
    seed: int,
    given: GivenNetworks = FRESH,
    reward_scale: float = 1.0,
) -> tuple[Policy | GaussianPolicy, list[Critic]]:
    """Policy and critics of one seed. What is not given is freshly initialised.

    The global random state is left alone.
    """
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    scale, limit = task.observation_scale, task.action_limit
    shape: dict[str, Any] = {
        "hidden": algorithm.hidden, "activation": algorithm.activation, "scale": scale,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, "training networks"))
        policy: Policy | GaussianPolicy
        if algorithm.policy == "gaussian":
            policy = GaussianPolicy(
                ds,
                da,
                **shape,
                squash=limit is not None,
                limit=limit,
                log_std_bounds=algorithm.log_std,
            )
        else:
            policy = Policy(ds, da, **shape, limit=limit)
        kind = algorithm.target.kind
        critics = [kind.module(ds, da, shape) for _ in range(algorithm.critics)]
    own = given.own_critics(algorithm.critics, reward_scale, seed)
    return given.own_policy() or policy, own or critics
