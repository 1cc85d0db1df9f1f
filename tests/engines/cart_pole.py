"""A cart with a limit and a pole in MuJoCo, whose steps and Jacobians others are held against."""

import mujoco
import numpy as np
import torch
from torch import Tensor

CART_POLE = """
<mujoco>
  <option timestep="0.02" iterations="100" tolerance="1e-12" jacobian="dense"/>
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0" range="-1 1" limited="true" damping="1"/>
      <geom type="sphere" size="0.1" mass="10" contype="0" conaffinity="0"/>
      <body>
        <joint name="pole" type="hinge" axis="0 1 0" damping="0.1"/>
        <geom type="sphere" pos="0 0 0.6" size="0.05" mass="5" contype="0" conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="100" ctrlrange="-3 3" ctrllimited="true"/></actuator>
</mujoco>
"""


def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(CART_POLE)


def inputs(scale: float = 0.7) -> tuple[Tensor, Tensor]:
    draws = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scale * draws[:, :4], draws[:, 4:].clamp(-2.5, 2.5)


def by_mujoco(state: Tensor, action: Tensor) -> Tensor:
    """Two of MuJoCo's steps."""
    world = model()
    data, after = mujoco.MjData(world), []
    for s, a in zip(state.numpy(), action.numpy(), strict=True):
        mujoco.mj_resetData(world, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = s[:2], s[2:], a
        mujoco.mj_step(world, data, 2)
        after.append(np.concatenate([data.qpos, data.qvel]))
    return torch.from_numpy(np.array(after))


def _differences(state: Tensor, action: Tensor, h: float) -> Tensor:
    """Central differences of MuJoCo's step in (s, a), [N, 4, 5]."""
    z = torch.cat([state, action], 1)
    columns = []
    for move in h * torch.eye(5, dtype=z.dtype):
        up, down = (by_mujoco(*torch.split(z + sign * move, [4, 1], 1)) for sign in (1, -1))
        columns.append((up - down) / (2 * h))
    return torch.stack(columns, 2)


def extrapolated(state: Tensor, action: Tensor) -> Tensor:
    """MuJoCo's Jacobian by Richardson's extrapolation from h = 1e-3: truncation ∝ h⁴ and rounding
    ε |s'| / h leave 1e-10 of entries up to 20."""
    wide, narrow = (_differences(state, action, h) for h in (1e-3, 5e-4))
    return (4 * narrow - wide) / 3
