"""mujoco-torch against MuJoCo itself; skipped where it is not installed (it wants MuJoCo 3.5)."""

import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems import from_mujoco_torch

pytest.importorskip("mujoco_torch")
pytest.importorskip("mujoco")
from tests.engines.cart_pole import by_mujoco, extrapolated, inputs, model


def cost(state, action, after):
    return -after[:, :2].square().sum(1) - 0.1 * action[:, 0].square()


@pytest.fixture(scope="module")
def system():
    return from_mujoco_torch(model(), cost, frame_skip=2, iterations=3)


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
