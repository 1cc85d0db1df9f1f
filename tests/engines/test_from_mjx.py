"""MJX against MuJoCo itself, and both modes against differences of its own step."""

import mujoco
import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_mjx

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


def model():
    return mujoco.MjModel.from_xml_string(CART_POLE)


@pytest.fixture(scope="module")
def mjx():
    return from_mjx(model(), cost, frame_skip=2, rows=32)


def inputs(scale):
    draws = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scale * draws[:, :4], draws[:, 4:].clamp(-2.5, 2.5)


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


def test_steps_are_those_of_mujoco_at_the_joint_limit_too(mjx):
    """One limit is one row of constraints, where both solvers are exact after one Newton step: only
    rounding is between them."""
    s, a = inputs(0.7)
    assert (s[:, 0].abs() > 1).any()
    torch.testing.assert_close(mjx.step(s, a).state, by_mujoco(s, a), rtol=0, atol=1e-12)


def test_forward_mode_is_mujocos_jacobian(mjx):
    s, a = inputs(0.7)
    linear = mjx.linearize(s, a)
    J = torch.cat([linear.A, linear.B], 2)
    torch.testing.assert_close(J, extrapolated(s, a), rtol=0, atol=1e-9)


def test_three_iterations_are_gradlabs_own_environment_under_runge_kutta():
    """The solver is at its limit after three iterations: steps differ by rounding, Jacobians by
    what the environment's certified differences are off, 2e-9 of entries up to 20."""
    truth = gradlab.tasks.mujoco("InvertedPendulum-v5").simulator
    model, skip = truth.physics.model, truth.physics.frame_skip
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    system = from_mjx(model, cost, skip, iterations=3, rows=32)
    s, a = inputs(0.5)
    s[:8, 0] = 1.02 * s[:8, 0].sign()
    assert truth.beyond_limits(s).any()
    torch.testing.assert_close(system.step(s, a).state, truth.step(s, a).state, rtol=0, atol=1e-13)
    ours, theirs = system.linearize(s, a), truth.linearize(s, a)
    for block in ("A", "B"):
        torch.testing.assert_close(getattr(ours, block), getattr(theirs, block), rtol=0, atol=1e-8)


def test_reverse_mode_is_forward_mode(mjx):
    s, a = inputs(0.7)
    linear, x = mjx.linearize(s, a), s.clone().requires_grad_()
    out = mjx.step(x, a)
    (gradient,) = torch.autograd.grad(out.state[:, 3].sum() + out.reward.sum(), x)
    torch.testing.assert_close(gradient, linear.A[:, 3] + linear.r_s, rtol=1e-10, atol=1e-12)


def test_hidden_state_and_wrong_arguments_are_refused():
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
