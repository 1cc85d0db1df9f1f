"""MJX against MuJoCo itself, and against differences of its own step."""

import gymnasium
import mujoco
import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import MujocoEnvironment, System, from_mjx
from gradlab.systems.environments import ENVIRONMENTS

NAME = "InvertedPendulum-v5"


def cost(state, action, after):
    return -(after[:2] @ after[:2]) - 0.1 * action[0] ** 2


@pytest.fixture(scope="module")
def mjx() -> System:
    environment = gymnasium.make(NAME).unwrapped
    return from_mjx(environment.model, cost, environment.frame_skip, rows=32)


def inputs(scale: float) -> tuple[Tensor, Tensor]:
    draws = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scale * draws[:, :4], draws[:, 4:].clamp(-2.5, 2.5)


def test_steps_and_jacobians_are_those_of_mujoco_where_no_constraint_acts(mjx: System) -> None:
    own, at = MujocoEnvironment(ENVIRONMENTS[NAME]), inputs(0.1)
    torch.testing.assert_close(mjx.step(*at).state, own.step(*at).state, rtol=0, atol=1e-12)
    ours, theirs = mjx.linearize(*at), own.linearize(*at)
    torch.testing.assert_close(ours.A, theirs.A, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.B, theirs.B, rtol=0, atol=1e-6)


def test_both_modes_agree_with_differences_of_the_step_at_joint_limits_too(mjx: System) -> None:
    s, a = inputs(0.5)
    assert (s[:, 0].abs() > 1).any()  # the slide's limit
    linear = mjx.linearize(s, a)
    for i in range(4):
        move = 1e-6 * torch.eye(4, dtype=s.dtype)[i]
        up, down = mjx.step(s + move, a), mjx.step(s - move, a)
        difference = (up.state - down.state) / 2e-6
        torch.testing.assert_close(linear.A[:, :, i], difference, rtol=1e-5, atol=1e-6)
    x = s.clone().requires_grad_()
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
        from_mjx(gymnasium.make(NAME).unwrapped.model, None)
