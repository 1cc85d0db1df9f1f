"""MJX against MuJoCo itself, and both modes against differences of its own step."""

import mujoco
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_mjx
from tests.engines.cart_pole import by_mujoco, extrapolated, inputs, model


def cost(state, action, after):
    return -(after[:2] @ after[:2]) - 0.1 * action[0] ** 2


@pytest.fixture(scope="module")
def mjx():
    return from_mjx(model(), cost, frame_skip=2, rows=32)


def test_steps_are_those_of_mujoco_at_the_joint_limit_too(mjx):
    """One limit is one row of constraints, where both solvers are exact after one Newton step: only
    rounding is between them."""
    s, a = inputs()
    assert (s[:, 0].abs() > 1).any()
    torch.testing.assert_close(mjx.step(s, a).state, by_mujoco(s, a), rtol=0, atol=1e-12)


def test_forward_mode_is_mujocos_jacobian(mjx):
    s, a = inputs()
    linear = mjx.linearize(s, a)
    J = torch.cat([linear.A, linear.B], 2)
    torch.testing.assert_close(J, extrapolated(s, a), rtol=0, atol=1e-9)


def test_three_iterations_are_gradlabs_own_environment_under_runge_kutta():
    """The solver is at its limit after three iterations: steps differ by rounding, Jacobians by
    what the environment's certified differences are off, 2e-9 of entries up to 20."""
    truth = gradlab.tasks.mujoco("InvertedPendulum-v5").simulator
    world, skip = truth.physics.model, truth.physics.frame_skip
    assert world.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    system = from_mjx(world, cost, skip, iterations=3, rows=32)
    s, a = inputs(0.5)
    s[:8, 0] = 1.02 * s[:8, 0].sign()
    assert truth.beyond_limits(s).any()
    torch.testing.assert_close(system.step(s, a).state, truth.step(s, a).state, rtol=0, atol=1e-13)
    ours, theirs = system.linearize(s, a), truth.linearize(s, a)
    for block in ("A", "B"):
        torch.testing.assert_close(getattr(ours, block), getattr(theirs, block), rtol=0, atol=1e-8)


def test_reverse_mode_is_forward_mode(mjx):
    s, a = inputs()
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
