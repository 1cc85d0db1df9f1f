"""MJX against MuJoCo itself, and both modes against differences of its own step."""

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import System, from_mjx

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


def cost(state, action, after):
    return -(after[:2] @ after[:2]) - 0.1 * action[0] ** 2


def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(CART_POLE)


@pytest.fixture(scope="module")
def mjx() -> System:
    return from_mjx(model(), cost, frame_skip=2, rows=32)


def inputs(scale: float) -> tuple[Tensor, Tensor]:
    draws = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scale * draws[:, :4], draws[:, 4:].clamp(-2.5, 2.5)


def by_mujoco(state: Tensor, action: Tensor) -> Tensor:
    world = model()
    data, after = mujoco.MjData(world), []
    for s, a in zip(state.numpy(), action.numpy(), strict=True):
        mujoco.mj_resetData(world, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = s[:2], s[2:], a
        mujoco.mj_step(world, data, 2)
        after.append(np.concatenate([data.qpos, data.qvel]))
    return torch.from_numpy(np.array(after))


def test_steps_are_those_of_mujoco_at_the_joint_limit_too(mjx: System) -> None:
    s, a = inputs(0.7)
    assert (s[:, 0].abs() > 1).any()
    torch.testing.assert_close(mjx.step(s, a).state, by_mujoco(s, a), rtol=0, atol=1e-10)


def test_forward_mode_is_mujocos_differences(mjx: System) -> None:
    s, a = inputs(0.7)
    linear, h = mjx.linearize(s, a), 1e-6
    for i, move in enumerate(h * torch.eye(4, dtype=s.dtype)):
        difference = (by_mujoco(s + move, a) - by_mujoco(s - move, a)) / (2 * h)
        torch.testing.assert_close(linear.A[:, :, i], difference, rtol=1e-5, atol=1e-6)
    difference = (by_mujoco(s, a + h) - by_mujoco(s, a - h)) / (2 * h)
    torch.testing.assert_close(linear.B[:, :, 0], difference, rtol=1e-5, atol=1e-6)


def test_reverse_mode_is_forward_mode(mjx: System) -> None:
    s, a = inputs(0.7)
    linear, x = mjx.linearize(s, a), s.clone().requires_grad_()
    out = mjx.step(x, a)
    (gradient,) = torch.autograd.grad(out.state[:, 3].sum() + out.reward.sum(), x)
    torch.testing.assert_close(gradient, linear.A[:, 3] + linear.r_s, rtol=1e-10, atol=1e-12)


def test_hidden_state_and_wrong_arguments_are_refused() -> None:
    muscle = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint name='j'/><geom size='1'/></body></worldbody>"
        "<actuator><general joint='j' dyntype='integrator'/></actuator></mujoco>"
    )
    with pytest.raises(InputError, match=r"^model has 1 activations"):
        from_mjx(muscle, cost)
    with pytest.raises(InputError, match=r"^model is 'cart.xml', expected a mujoco.MjModel"):
        from_mjx("cart.xml", cost)
    with pytest.raises(InputError, match=r"^reward is None, expected a function"):
        from_mjx(model(), None)
