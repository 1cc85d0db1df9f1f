"""MPG's path tracking, with the parameters of its Table III or of its published code."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gradlab.systems.bicycle import PUBLISHED_CODE, TABLE3
from gradlab.systems.vehicle import (
    ACCELERATION_LIMIT,
    STEER_LIMIT,
    TARGET_SPEED,
    VehicleModel,
    VehicleSimulator,
    alive,
)
from gradlab.tasks.checks import check_choice
from gradlab.tasks.mpg_constants import DISCOUNT, EXPLORATION, HORIZON
from gradlab.tasks.task import Task

VEHICLES = {"table3": TABLE3, "code": PUBLISHED_CODE}


def path_tracking(parameters: Literal["table3", "code"] = "table3") -> Task:
    """MPG's path tracking. parameters: "table3" as printed, "code" as in its experiments."""
    check_choice("parameters", parameters, VEHICLES)
    vehicle = VEHICLES[parameters]
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
        alive=alive,
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
