"""Gymnasium's MuJoCo environments as tasks: a simulator without a prior model.

State (qpos without the root's translation, qvel), Ant and Humanoid therefore with the truncated
observations of MBPO and DDPPO (27 and 45 numbers). Velocities are never clipped: a policy that
Gymnasium trained on Hopper or Walker2d puts `view("Hopper-v5")` before its first layer.

A task whose prior model is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import mujoco as engine
import numpy as np
from torch import nn

from gradlab import validation
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.interface import ClippedVelocities
from gradlab.systems.learned import LearnedSystem, RewardFunction
from gradlab.systems.mujoco import ENVIRONMENTS, Environment, MujocoEnvironment
from gradlab.systems.physics import Chart
from gradlab.tasks.task import Task


def with_learned_prior(
    task: Task,
    ensemble: GaussianEnsemble,
    reward: RewardFunction | None = None,
    elites: tuple[int, ...] | None = None,
) -> Task:
    """The task with `ensemble` for its prior model, which ends where the task does.

    Args:
        reward: (state, action, next_state) -> [N]; None: the ensemble's own head.
        elites: the members that are used; None: all.

    Raises:
        InputError: dimensions other than the simulator's, numbers that are not finite, no reward.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    return replace(task, prior=LearnedSystem(ensemble, reward, task.alive, elites))


# Returns of the networks in `trained`, SAC's (see the README beside them).
TRAINED = {
    "InvertedPendulum-v5": 1000,
    "Hopper-v5": 310,
    "Walker2d-v5": 370,
    "HalfCheetah-v5": 3000,
    "Ant-v5": 1100,
    "Humanoid-v5": 320,
}
UPDATES = 25_000  # of their training
_DISCOUNT = 0.99
_HORIZON = 25
_EXPLORATION = 0.1  # of the control limit


def mujoco(
    env_id: str,
    forward_reward_weight: float | None = None,
    ctrl_cost_weight: float | None = None,
    healthy_reward: float | None = None,
    terminate_when_unhealthy: bool = True,
) -> Task:
    """InvertedPendulum-v5, Hopper-v5, Walker2d-v5, HalfCheetah-v5, Ant-v5 or Humanoid-v5.

    Starts follow the environment's own reset. The weights are Gymnasium's arguments of the same
    names; None is its default.

    Raises:
        InputError: an unknown environment, or a wrong weight.
    """
    row = _row(env_id)
    validation.flag("terminate_when_unhealthy", terminate_when_unhealthy)
    row = replace(
        row,
        forward_weight=_weight("forward_reward_weight", forward_reward_weight, row.forward_weight),
        control_weight=_weight("ctrl_cost_weight", ctrl_cost_weight, row.control_weight),
        healthy_reward=_weight("healthy_reward", healthy_reward, row.healthy_reward),
        terminates=terminate_when_unhealthy,
    )
    system = MujocoEnvironment(row)
    model, chart, built = system.physics.model, system.chart, system.built
    limit = np.abs(model.actuator_ctrlrange).min(1)
    # An actuator's name, or its joint's; controls have no unit, the gear gives them one.
    joints = [model.joint(int(joint)).name for joint in model.actuator_trnid[:, 0]]
    actions = [model.actuator(i).name or f"{joint} control" for i, joint in enumerate(joints)]
    return Task(
        name=row.env_id,
        simulator=system,
        prior=None,
        starts=system.sample_starts,
        discount=_DISCOUNT,
        horizon=_HORIZON,
        state_names=_state_names(model, chart),
        action_names=tuple(str(name) for name in actions),
        reference_state=tuple(np.concatenate([built.qpos[chart.root :], built.qvel]).tolist()),
        exploration=tuple((_EXPLORATION * limit).tolist()),
        action_limit=tuple(limit.tolist()),
        alive=system.alive,
        parameters={
            "forward_reward_weight": row.forward_weight,
            "ctrl_cost_weight": row.control_weight,
            "healthy_reward": row.healthy_reward,
            "terminate_when_unhealthy": row.terminates,
        },
    )


def trained_networks(task: Task) -> dict[str, Path]:
    """Files of a policy and a critic that SAC trained on the task as it is by default; {} where
    there are none."""
    if task.name not in TRAINED or task.parameters != mujoco(task.name).parameters:
        return {}
    folder = Path(__file__).parent / "trained"
    return {kind: folder / f"{task.name}.{kind}.safetensors" for kind in ("policy", "critic")}


def view(env_id: str) -> nn.Module:
    """The first layer of a policy that sees the state as Gymnasium shows it.

    Velocities clipped to ±10 on Hopper and Walker2d, elsewhere the identity.
    """
    row = _row(env_id)
    if row.velocity_clip is None:
        return nn.Identity()
    chart = MujocoEnvironment(row).chart
    return ClippedVelocities(chart.nq - chart.root, row.velocity_clip)


def _row(env_id: str) -> Environment:
    if not isinstance(env_id, str) or env_id not in ENVIRONMENTS:
        known = f"one of {', '.join(ENVIRONMENTS)}; other tasks are functions of gradlab.tasks"
        raise validation.expected("env_id", env_id, known)
    return ENVIRONMENTS[env_id]


def _weight(name: str, given: float | None, default: float) -> float:
    return default if given is None else validation.number(name, given)


def _state_names(model: engine.MjModel, chart: Chart) -> tuple[str, ...]:
    """One per number, in the state's order, with units."""
    positions, speeds = [], []
    for j in range(model.njnt):
        name = str(model.joint(j).name)
        if model.jnt_type[j] == engine.mjtJoint.mjJNT_FREE:
            positions += [f"{name} {axis} [m]" for axis in "xyz"]
            positions += [f"{name} quaternion {part}" for part in "wxyz"]
            speeds += [f"{name} {axis} velocity [m/s]" for axis in "xyz"]
            speeds += [f"{name} {axis} turn rate [rad/s]" for axis in "xyz"]
        else:
            unit = "m" if model.jnt_type[j] == engine.mjtJoint.mjJNT_SLIDE else "rad"
            positions.append(f"{name} [{unit}]")
            speeds.append(f"{name} rate [{unit}/s]")
    return (*positions[chart.root :], *speeds)


def _factory(env_id: str) -> Callable[..., Task]:
    make = partial(mujoco, env_id)
    make.__doc__ = f"Gymnasium's {env_id} in MuJoCo, its own Jacobians certified; no prior model."
    return make


MUJOCO_TASKS = {env_id: _factory(env_id) for env_id in ENVIRONMENTS}
