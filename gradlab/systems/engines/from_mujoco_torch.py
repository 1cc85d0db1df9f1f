"""A MuJoCo model stepped and differentiated by mujoco-torch, MJX ported to torch, as a System.

The state is (qpos, qvel), the action `ctrl`; a step is `frame_skip` substeps with fixed numbers of
iterations of the solver and of its line search, through which autograd passes. They are nearly all
of a step's time: all of them are made at every state, one after the other.

mujoco-torch 0.2.0 wants MuJoCo 3.5, older than gradlab's own MuJoCo tasks do: it lives in an
environment of its own (`constraints-mujoco-torch.txt`), where every other system works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.engines.from_mjx import checked
from gradlab.systems.function import AliveFunction, from_function
from gradlab.systems.system import System

_Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
_INSTALL = "pip install mujoco-torch==0.2.0 mujoco==3.5.0"


def from_mujoco_torch(
    model: mujoco.MjModel,
    reward: _Reward,
    frame_skip: int = 1,
    alive: AliveFunction | None = None,
    iterations: int = 10,
    line_search: int = 6,
) -> System:
    """A System from a MuJoCo model; float64.

    Args:
        model: without activations or motion-capture bodies; it is copied.
        reward: of tensors (state [N, nq + nv], action [N, nu], next_state) -> [N].
        frame_skip: substeps per step.
        alive: next_state [N, nq + nv] -> bool [N]; None: every state is alive.
        iterations: of the constraint solver.
        line_search: of the line search in every iteration, in place of the model's `ls_iterations`,
            before which MuJoCo stops early: 50 take 3 to 4 times as long as 6, and change Hopper's
            steps by nothing.

    Raises:
        InputError: mujoco-torch is not installed, does not work with this MuJoCo, or an argument
            is wrong.
    """
    validation.whole("line_search", line_search, 1)
    limited = checked(model, reward, frame_skip, iterations)
    limited.opt.ls_iterations = line_search
    mujoco_torch = _imported()
    on_device, nq = mujoco_torch.device_put(limited), model.nq
    blank = mujoco_torch.make_data(on_device)
    substep = torch.vmap(lambda d: mujoco_torch.step(on_device, d, fixed_iterations=True))

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        data: Any = blank.expand(len(state)).clone()
        data = data.replace(qpos=state[:, :nq], qvel=state[:, nq:], ctrl=action)
        for _ in range(frame_skip):
            data = substep(data)
        after = torch.cat([data.qpos, data.qvel], 1)
        return after, reward(state, action, after)

    return from_function(step, nq + model.nv, model.nu, alive=alive)


def _imported() -> Any:
    try:
        import mujoco_torch
    except ImportError as error:
        raise InputError(
            f"mujoco-torch is not installed: {_INSTALL}, in an environment of its own"
        ) from error
    except AttributeError as error:  # it reads names that later MuJoCos have no more
        raise InputError(
            f"mujoco-torch does not work with MuJoCo {mujoco.__version__}: {_INSTALL}, in an "
            f"environment of its own"
        ) from error
    return mujoco_torch
