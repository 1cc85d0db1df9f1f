"""First networks of every seed, and whether the task has a model and the machine the device."""

from __future__ import annotations

from typing import Any

import torch

from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import GaussianPolicy
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.given_networks import FRESH, GivenNetworks
from gradlab.training.members import LOG_STD
from gradlab.training.parts.critics import Critic


def usable_device(name: str) -> torch.device:
    """
    Raises:
        InputError: no such device, or none on this machine.
    """
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
            f"trains (model=LearnedModel() in its row, --model learned), give one in a task of "
            f"your own (file.py:function that returns dataclasses.replace(task, prior=…) or "
            f"gradlab.tasks.with_learned_prior), or take td3, sac, ddpg or n-step-dpg"
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
                ds, da, **shape, squash=limit is not None, limit=limit, log_std_bounds=LOG_STD
            )
        else:
            policy = Policy(ds, da, **shape, limit=limit)
        kind = algorithm.target.kind
        critics = [kind.module(ds, da, shape) for _ in range(algorithm.critics)]
    own = given.own_critics(algorithm.critics, reward_scale)
    return given.own_policy() or policy, own or critics
