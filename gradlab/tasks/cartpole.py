"""MPG's inverted pendulum, in MuJoCo or in closed form."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gradlab.systems.cartpole import (
    ACTION_LIMIT,
    CartPoleModel,
    CartPoleSimulator,
    Timing,
    alive,
)
from gradlab.systems.mujoco_pendulum import MujocoPendulum, Slider, pendulum_parameters
from gradlab.systems.system import System
from gradlab.tasks.checks import check_choice
from gradlab.tasks.mpg_constants import DISCOUNT, EXPLORATION, HORIZON
from gradlab.tasks.task import Task

ENGINES = ("mujoco", "analytic")


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
    check_choice("engine", engine, ENGINES)
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
        alive=alive,
        parameters={"engine": engine, "slider": slider, "reward": reward},
    )


def _pendulum_starts(n: int, generator: torch.Generator) -> Tensor:
    """U(-0.05, 0.05) in every coordinate."""
    return 0.1 * torch.rand(n, 4, generator=generator, dtype=torch.float64) - 0.05
