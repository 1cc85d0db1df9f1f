"""A ball in Newton in contact, against differences of its own step."""

import newton
import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems import from_newton

DT, SUBSTEPS, GRAVITY, RADIUS = 1 / 60, 4, 9.81, 0.1
STIFFNESS = dict(ke=1e3, kf=0.0, kd=10.0, mu=0.2)


def ball():
    world = newton.ModelBuilder(up_axis=newton.Axis.Z, gravity=(0.0, 0.0, -GRAVITY))
    world.add_particle(pos=(0.0, 0.0, 1.0), vel=(0.0, 0.0, 0.0), mass=2.0, radius=RADIUS)
    world.add_ground_plane(cfg=newton.ModelBuilder.ShapeConfig(**STIFFNESS))
    return world


def stiff(model):
    for name, value in STIFFNESS.items():
        setattr(model, f"soft_contact_{name}", value)


def reward(state, action, after):
    assert after.dtype == torch.float32
    return -after[:, 2].square() - 0.1 * action.square().sum(1)


@pytest.fixture(scope="module")
def system():
    return from_newton(ball(), reward, DT, SUBSTEPS, stiff, rows=16)


def inputs(height):
    draws = torch.randn(20, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = draws[:, :6]
    state[:, 2] = height
    return state, draws[:, 6:]


def test_contact_is_differentiated_as_differences_do(system):
    s, a = inputs(0.5 * RADIUS)
    s[:, 5] = -0.3 + 0.01 * s[:, 5]  # moving into the ground in every substep
    linear, h = system.linearize(s, a), 4e-3
    assert (linear.A[:, 5, 2] < -1).all()
    for i, move in enumerate(h * torch.eye(6, dtype=s.dtype)):
        difference = (system.step(s + move, a).state - system.step(s - move, a).state) / (2 * h)
        torch.testing.assert_close(linear.A[:, :, i], difference, rtol=1e-3, atol=5e-3)


def test_wrong_worlds_are_one_line():
    rigid = newton.ModelBuilder()
    rigid.add_body(mass=1.0)
    with pytest.raises(InputError, match=r"^world has 0 particles and 1 bodies"):
        from_newton(rigid, reward, DT)
    with pytest.raises(InputError, match=r"^world is None, expected a newton.ModelBuilder"):
        from_newton(None, reward, DT)
    with pytest.raises(InputError, match=r"^dt is 0, expected seconds above 0"):
        from_newton(ball(), reward, 0)
