"""VMAS worlds in contact, against differences. Their closed form: test_engines_in_use.py."""

import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems import from_vmas
from gradlab.systems.system import BLOCKS


def random(n, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


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
