"""VMAS worlds as Systems: closed form without contact, differences with it."""

import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems import from_vmas
from gradlab.systems.system import BLOCKS


def random(n, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def test_a_lone_agent_moves_as_its_closed_form():
    """v' = (1 - 0.25) v + a dt, x' = x + v' dt, dt = 0.1; turning likewise, without a torque."""
    system = from_vmas("simple")
    s, a = random(40, 6, 0), random(40, 2, 1).clamp(-0.9, 0.9)
    drag, dt = 0.75, 0.1
    out = system.step(s, a)
    velocity, turn = drag * s[:, 2:4] + dt * a, drag * s[:, 5:]
    want = torch.cat([s[:, :2] + dt * velocity, velocity, s[:, 4:5] + dt * turn, turn], 1)
    torch.testing.assert_close(out.state, want, rtol=0, atol=1e-14)
    eye = torch.eye(2, dtype=s.dtype)
    moving = torch.tensor([[1.0, dt * drag], [0.0, drag]], dtype=s.dtype)
    A = torch.block_diag(torch.kron(moving, eye), moving)
    linear = system.linearize(s, a)
    torch.testing.assert_close(linear.A, A.expand(40, 6, 6), rtol=0, atol=1e-14)
    torch.testing.assert_close(linear.B[:, 2:4], (dt * eye).expand(40, 2, 2), rtol=0, atol=1e-14)
    # The reward is -|x' - goal|^2, so that its gradient gives the goal's distance.
    distance = linear.r_s[:, :2] / -2
    torch.testing.assert_close(out.reward, -distance.square().sum(1), rtol=1e-12, atol=0)
    goal = out.state[:, :2] - distance
    torch.testing.assert_close(goal, goal[:1].expand(40, 2), rtol=0, atol=1e-12)


def two_balls_and_goal(state, action, after):
    return -after[:, :2].square().sum(1) - 0.1 * action.square().sum(1)


@pytest.fixture(scope="module")
def package():
    return from_vmas("transport", two_balls_and_goal, n_agents=2)


def test_contact_is_differentiated_as_differences_do(package):
    assert (package.state_dim, package.action_dim) == (16, 4)
    s, a = 0.05 * random(60, 16, 2), random(60, 4, 3)
    linear = package.linearize(s, a)
    # A lone body's velocity does not depend on any position: these rows are in contact.
    assert (linear.A[:, 2, 0].abs() > 1e-3).any() and (linear.A[:, 2, 0] == 0).any()
    for i in range(16):
        move = 1e-6 * torch.eye(16, dtype=s.dtype)[i]
        up, down = package.step(s + move, a), package.step(s - move, a)
        error = (linear.A[:, :, i] - (up.state - down.state) / 2e-6).abs().amax(1)
        scale = linear.A.abs().amax((1, 2))
        assert (error < 1e-6 * scale).all()


def test_a_row_does_not_depend_on_its_batch(package):
    s, a = 0.05 * random(20, 16, 4), random(20, 4, 5)
    whole, part = package.linearize(s, a), package.linearize(s[3:5], a[3:5])
    for block in BLOCKS:
        torch.testing.assert_close(getattr(part, block), getattr(whole, block)[3:5])


def test_wrong_scenarios_are_one_line():
    with pytest.raises(InputError, match=r"^VMAS cannot make 'no_such_scenario'"):
        from_vmas("no_such_scenario")
    with pytest.raises(InputError, match=r"^reward is 1, expected a function"):
        from_vmas("simple", 1)
    with pytest.raises(InputError, match="agents that talk"):
        from_vmas("simple_speaker_listener")
