"""Certified differences: their errors hold, and kinks and jumps are seen."""

import pytest
import torch

from gradlab.systems import from_function
from gradlab.tools.certify.evaluation import Points, reference

DOUBLE = torch.finfo(torch.float64).eps
SINGLE = torch.finfo(torch.float32).eps


def differenced(step, z, epsilon=DOUBLE):
    system = from_function(step, 1, 1)
    return reference(system, Points(z, None), torch.ones(2, dtype=z.dtype), 1e-3, epsilon)


def line(n=50):
    x = torch.linspace(-2, 2, n, dtype=torch.float64)
    return torch.stack([x, 0.5 * x.flip(0)], 1)


def smooth(s, a):
    return torch.exp(s) * torch.sin(3 * a), (s**3 * a)[:, 0]


def exact(z):
    """∂(s', r)/∂(s, a) of `smooth`."""
    s, a = z.unbind(1)
    after = torch.stack([s.exp() * (3 * a).sin(), 3 * s.exp() * (3 * a).cos()], 1)
    reward = torch.stack([3 * s**2 * a, s**3], 1)
    return torch.stack([after, reward], 1)


def in_float32(s, a):
    after, reward = smooth(s.float(), a.float())
    return after.double(), reward.double()


@pytest.mark.parametrize(("step", "epsilon"), [(smooth, DOUBLE), (in_float32, SINGLE)])
def test_errors_hold_the_distance_from_the_closed_form(step, epsilon):
    z = line()
    made = differenced(step, z, epsilon)
    wrong = (made.D - exact(z)).abs()
    assert bool((wrong <= 5 * made.error).all())
    assert not made.kink.any()
    assert float(made.error.median()) < (1e-8 if epsilon == DOUBLE else 1e-2)


def test_a_kink_is_seen_at_its_place_alone():
    z = torch.tensor([[0.0, 0.3], [1e-3, 0.3], [0.3, 0.0]], dtype=torch.float64)
    made = differenced(lambda s, a: (s.abs() + a, s[:, 0]), z)
    assert made.kink.tolist() == [[True, False], [False, False], [False, False]]
    assert made.D[1, 0, 0] == pytest.approx(1.0)


def test_a_jump_leaves_no_certain_difference():
    z = torch.zeros(1, 2, dtype=torch.float64)
    made = differenced(lambda s, a: ((s > 0).to(s) + 0 * a, s[:, 0]), z)
    assert bool(made.kink[0, 0]) or float(made.error[0, 0, 0]) > 0.1 * float(made.D[0, 0, 0].abs())


def test_a_kink_beside_a_state_is_stepped_over_by_smaller_steps():
    z = torch.tensor([[3e-6, 0.3]], dtype=torch.float64)
    made = differenced(lambda s, a: (s.abs() + a, s[:, 0]), z)
    assert made.D[0, 0, 0] == pytest.approx(1.0) and float(made.error[0, 0, 0]) < 1e-4
