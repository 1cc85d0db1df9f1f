"""mujoco-torch against MuJoCo itself; skipped where it is not installed (it wants MuJoCo 3.5)."""

import numpy as np
import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems import from_mujoco_torch

pytest.importorskip("mujoco_torch")
mujoco = pytest.importorskip("mujoco")

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


def model():
    return mujoco.MjModel.from_xml_string(CART_POLE)


def cost(state, action, after):
    return -after[:, :2].square().sum(1) - 0.1 * action[:, 0].square()


@pytest.fixture(scope="module")
def system():
    return from_mujoco_torch(model(), cost, frame_skip=2, iterations=3)


def inputs():
    draws = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.7 * draws[:, :4], draws[:, 4:].clamp(-2.5, 2.5)


def by_mujoco(state, action):
    world = model()
    data, after = mujoco.MjData(world), []
    for s, a in zip(state.numpy(), action.numpy(), strict=True):
        mujoco.mj_resetData(world, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = s[:2], s[2:], a
        mujoco.mj_step(world, data, 2)
        after.append(np.concatenate([data.qpos, data.qvel]))
    return torch.from_numpy(np.array(after))


def differences(state, action, h):
    """Central differences of MuJoCo's step in (s, a), [N, 4, 5]."""
    z = torch.cat([state, action], 1)
    columns = []
    for move in h * torch.eye(5, dtype=z.dtype):
        up, down = (by_mujoco(*torch.split(z + sign * move, [4, 1], 1)) for sign in (1, -1))
        columns.append((up - down) / (2 * h))
    return torch.stack(columns, 2)


def extrapolated(state, action):
    """MuJoCo's Jacobian by Richardson's extrapolation from h = 1e-3: truncation ∝ h⁴ and rounding
    ε |s'| / h leave 1e-10 of entries up to 20."""
    wide, narrow = (differences(state, action, h) for h in (1e-3, 5e-4))
    return (4 * narrow - wide) / 3


def test_steps_are_those_of_mujoco_at_the_joint_limit_too(system):
    """One limit is one row of constraints, where both solvers are exact: only rounding is between
    them."""
    s, a = inputs()
    assert (s[:, 0].abs() > 1).any()
    torch.testing.assert_close(system.step(s, a).state, by_mujoco(s, a), rtol=0, atol=1e-12)


def test_jacobians_are_mujocos(system):
    s, a = inputs()
    linear = system.linearize(s, a)
    J = torch.cat([linear.A, linear.B], 2)
    torch.testing.assert_close(J, extrapolated(s, a), rtol=0, atol=1e-9)


def test_a_row_does_not_depend_on_its_batch(system):
    s, a = inputs()
    whole, part = system.step(s, a).state, system.step(s[3:5], a[3:5]).state
    torch.testing.assert_close(part, whole[3:5], rtol=0, atol=1e-12)


def test_wrong_arguments_are_one_line():
    with pytest.raises(InputError, match=r"^model is 'cart.xml', expected a mujoco.MjModel"):
        from_mujoco_torch("cart.xml", cost)
    with pytest.raises(InputError, match=r"^reward is None, expected a function"):
        from_mujoco_torch(model(), None)
    with pytest.raises(InputError, match=r"^iterations is 0"):
        from_mujoco_torch(model(), cost, iterations=0)
    with pytest.raises(InputError, match=r"^line_search is 0"):
        from_mujoco_torch(model(), cost, line_search=0)
