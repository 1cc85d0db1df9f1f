"""MPG's two tasks, with the constants of its Table VI.

Path tracking has the parameters of its Table III or of its published code, the inverted pendulum
is MuJoCo's or in closed form.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gradlab import validation
from gradlab.systems.cartpole import (
    ACTION_LIMIT,
    CartPoleModel,
    CartPoleSimulator,
    Timing,
)
from gradlab.systems.cartpole import alive as pole_alive
from gradlab.systems.mujoco_pendulum import MujocoPendulum, Slider, pendulum_parameters
from gradlab.systems.system import System
from gradlab.systems.vehicle import (
    ACCELERATION_LIMIT,
    PUBLISHED_CODE,
    STEER_LIMIT,
    TABLE3,
    TARGET_SPEED,
    VehicleModel,
    VehicleSimulator,
)
from gradlab.systems.vehicle import alive as vehicle_alive
from gradlab.tasks.task import Task

DISCOUNT = 0.98
HORIZON = 25
EXPLORATION = 0.1  # standard deviation, in units of the actuator's limit

_VEHICLES = {"table3": TABLE3, "code": PUBLISHED_CODE}


def path_tracking(parameters: Literal["table3", "code"] = "table3") -> Task:
    """MPG's path tracking. parameters: "table3" as printed, "code" as in its experiments."""
    validation.word("parameters", parameters, _VEHICLES)
    vehicle = _VEHICLES[parameters]
    limit = (STEER_LIMIT, ACCELERATION_LIMIT)
    return Task(
        name="path_tracking",
        simulator=VehicleSimulator(vehicle),
        prior=VehicleModel(vehicle),
        starts=_vehicle_starts,
        discount=DISCOUNT,
        horizon=HORIZON,
        state_names=("δu [m/s]", "v [m/s]", "r [rad/s]", "δy [m]", "δφ [rad]", "x [m]"),
        action_names=("steer [rad]", "acceleration [m/s²]"),
        observation_scale=(1.0, 1.0, 2.0, 1.0, 2.4, 1 / 1200),
        exploration=(EXPLORATION * limit[0], EXPLORATION * limit[1]),
        action_limit=limit,
        alive=vehicle_alive,
        parameters={"parameters": parameters},
    )


def _vehicle_starts(n: int, generator: torch.Generator) -> Tensor:
    """x ~ U(0, 600), u ~ U(15, 25), v = u tan N(0, 0.15), r ~ N(0, 0.3), on the path's own axes
    δy ~ N(0, 1) and δφ ~ N(0, π/9)."""
    x, speed = torch.rand(2, n, generator=generator, dtype=torch.float64)
    dy, dphi, slip, r = torch.randn(4, n, generator=generator, dtype=torch.float64)
    u = 15 + 10 * speed
    v = u * (0.15 * slip).tan()
    return torch.stack([u - TARGET_SPEED, v, 0.3 * r, dy, math.pi / 9 * dphi, 600 * x], 1)


def inverted_pendulum(
    engine: Literal["mujoco", "analytic"] = "mujoco",
    slider: Slider = "stock",
    reward: Timing = "pre_step",
) -> Task:
    """MPG's inverted pendulum.

    Args:
        engine: "mujoco", or "analytic": the same in torch, differentiable, without joint limits.
        slider: "stock" stops the cart at ±1 m, "wide" never (always so for the analytic engine).
        reward: eq. 18 on the state "pre_step" or, as in the published code, "post_step".
    """
    validation.word("engine", engine, ("mujoco", "analytic"))
    simulator: System = MujocoPendulum(slider, reward)
    if engine == "analytic":
        simulator = CartPoleSimulator(pendulum_parameters(), reward)
    return Task(
        name="inverted_pendulum",
        simulator=simulator,
        prior=CartPoleModel(reward),
        starts=_pendulum_starts,
        discount=DISCOUNT,
        horizon=HORIZON,
        state_names=("x [m]", "θ [rad]", "ẋ [m/s]", "θ̇ [rad/s]"),
        action_names=("force / 100 N",),
        exploration=(EXPLORATION * ACTION_LIMIT,),
        action_limit=(ACTION_LIMIT,),
        alive=pole_alive,
        parameters={"engine": engine, "slider": slider, "reward": reward},
    )


def _pendulum_starts(n: int, generator: torch.Generator) -> Tensor:
    """U(-0.05, 0.05) in every coordinate."""
    return 0.1 * torch.rand(n, 4, generator=generator, dtype=torch.float64) - 0.05
