"""The vehicle against a scalar program written from MPG's equations 15-17, and its edges."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.systems import VehicleModel, VehicleSimulator
from gradlab.systems.vehicle import PUBLISHED_CODE, TABLE3, alive, wrap_angle

TABLE = {"Cf": -88000, "Cr": -94000, "a": 1.14, "b": 1.40, "m": 1500, "Iz": 2420}
CODE = {"Cf": -128915.5, "Cr": -85943.6, "a": 1.06, "b": 1.85, "m": 1412, "Iz": 1536.7}
SETS = pytest.mark.parametrize(
    ("numbers", "parameters"), [(TABLE, TABLE3), (CODE, PUBLISHED_CODE)], ids=["table3", "code"]
)


def path(x: float) -> tuple[float, float]:
    y = (
        7.5 * math.sin(2 * math.pi * x / 200)
        + 2.5 * math.sin(2 * math.pi * x / 300)
        - 5 * math.sin(2 * math.pi * x / 400)
    )
    slope = (
        7.5 * 2 * math.pi / 200 * math.cos(2 * math.pi * x / 200)
        + 2.5 * 2 * math.pi / 300 * math.cos(2 * math.pi * x / 300)
        - 5 * 2 * math.pi / 400 * math.cos(2 * math.pi * x / 400)
    )
    return y, math.atan(slope)


def velocities(p: dict[str, float], T: float, u: float, v: float, r: float, d: float, acc: float):
    Cf, Cr, a, b, m, Iz = (p[name] for name in ("Cf", "Cr", "a", "b", "m", "Iz"))
    return (
        u + T * (acc + v * r),
        (m * v * u + T * (a * Cf - b * Cr) * r - T * Cf * d * u - T * m * u**2 * r)
        / (m * u - T * (Cf + Cr)),
        (-Iz * r * u - T * (a * Cf - b * Cr) * v + T * a * Cf * d * u)
        / (T * (a**2 * Cf + b**2 * Cr) - Iz * u),
    )


def into_half_open(angle: float) -> float:
    while angle > math.pi:
        angle -= 2 * math.pi
    while angle <= -math.pi:
        angle += 2 * math.pi
    return angle


def simulate(p: dict[str, float], state: list[float], action: list[float]) -> list[float]:
    T = 1 / 200
    du, v, r, dy, dphi, x = state
    d = min(max(action[0], -1.2 * math.pi / 9), 1.2 * math.pi / 9)
    acc = min(max(action[1], -3), 3)
    u, y, phi = du + 20, dy + path(x)[0], dphi + path(x)[1]
    for _ in range(20):
        new_u, new_v, new_r = velocities(p, T, u, v, r, d, acc)
        phi = phi + T * r
        y = y + T * (u * math.sin(phi) + v * math.cos(phi))
        x = x + T * (u * math.cos(phi) - v * math.sin(phi))
        u, v, r = min(max(new_u, 1), 35), new_v, new_r
        dy, dphi = y - path(x)[0], into_half_open(phi - path(x)[1])
        phi = into_half_open(phi)
        if x > 1200:
            x -= 1200
        if x <= 0:
            x += 1200
    return [u - 20, v, r, dy, dphi, x]


def predict(p: dict[str, float], state: list[float], action: list[float], xi: float) -> list[float]:
    T = 0.1
    du, v, r, y, phi, x = state
    u = du + 20
    new_u, new_v, new_r = velocities(p, T, u, v, r, *action)
    y = y + T * (u * math.sin(phi) + v * math.cos(phi)) + 0.5 + 0.01 * xi
    x = x + T * (u * math.cos(phi) - v * math.sin(phi))
    return [min(max(new_u, 1), 35) - 20, new_v, new_r, y, into_half_open(phi + T * r), x]


def inputs() -> tuple[Tensor, Tensor]:
    rng, n = np.random.default_rng(0), 300
    columns = [
        rng.uniform(-19, 15, n),
        rng.normal(0, 2, n),
        rng.normal(0, 0.5, n),
        rng.normal(0, 2, n),
        rng.uniform(-math.pi, math.pi, n),
        rng.uniform(0, 1200, n),
    ]
    columns[5][:20] = np.linspace(1199, 1200, 20)
    columns[5][20:40] = np.linspace(0.001, 1, 20)
    action = rng.normal(size=(n, 2)) * [0.4, 3.0]
    return torch.tensor(np.stack(columns, 1)), torch.tensor(action)


@SETS
def test_simulator_is_twenty_substeps_along_the_curved_path(numbers, parameters):
    state, action = inputs()
    want = [simulate(numbers, s, a) for s, a in zip(state.tolist(), action.tolist(), strict=True)]
    got = VehicleSimulator(parameters).step(state, action).state
    want = torch.tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-11)
    # The random inputs reach every clip and the seam in both directions.
    assert (got[:, 0] == -19).any() and (got[:, 0] == 15).any()
    assert ((got[:, 5] - state[:, 5]).abs() > 600).sum() > 10


@SETS
def test_model_is_one_step_along_a_straight_path_with_biased_noise(numbers, parameters):
    state, action = inputs()
    model = VehicleModel(parameters)
    noise = model.sample_noise(len(state), torch.Generator().manual_seed(0))
    rows = zip(state.tolist(), action.tolist(), noise[:, 0].tolist(), strict=True)
    want = torch.tensor([predict(numbers, s, a, xi) for s, a, xi in rows], dtype=torch.float64)
    torch.testing.assert_close(model.step(state, action, noise).state, want, atol=1e-11, rtol=0)


def test_reward_is_equation_16_of_the_applied_action():
    state = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64)
    action = torch.tensor([[1.0, 10.0]], dtype=torch.float64)
    before = 0.01 * 1 + 0.04 * 16 + 0.1 * 25 + 0.02 * 9
    clipped = 5 * (1.2 * math.pi / 9) ** 2 + 0.05 * 9
    assert VehicleSimulator().step(state, action).reward.item() == pytest.approx(-before - clipped)
    assert VehicleModel().step(state, action).reward.item() == pytest.approx(-before - 5 - 5)


def test_beyond_the_actuator_nothing_depends_on_the_simulators_action():
    state, action = inputs()
    jacobian = VehicleSimulator().linearize(state, torch.full_like(action, 4.0))
    assert not jacobian.B.any() and not jacobian.r_a.any()
    assert VehicleModel().linearize(state, torch.full_like(action, 4.0)).B.any()


def test_the_terminal_set_is_the_papers():
    edge = torch.zeros(6, 6, dtype=torch.float64)
    edge[1, 3], edge[2, 4], edge[3, 0], edge[4, 2] = -3.01, 0.79, -18.01, -0.81
    edge[5] = torch.tensor([-18, 9, 0.8, 3, -math.pi / 4, 0], dtype=torch.float64)
    assert alive(edge).tolist() == [True, False, False, False, False, True]


def test_angles_wrap_to_the_half_open_interval():
    angles = torch.tensor([math.pi, -math.pi, 0.3, 3.5, -3.5, 9.5], dtype=torch.float64)
    want = [into_half_open(angle) for angle in angles.tolist()]
    torch.testing.assert_close(wrap_angle(angles), torch.tensor(want, dtype=torch.float64))
    assert wrap_angle(angles)[2] == angles[2]
