"""States, physics and tangent space: the maps undo one another and are MuJoCo's own."""

import mujoco
import numpy as np
import pytest

from gradlab.systems.chart import Chart

BALLS = """<mujoco><worldbody>
<body><freejoint/><geom size=".1"/>
  <body><joint type="ball"/><geom size=".1" pos="0 0 1"/>
    <body><joint type="hinge" axis="0 1 0"/><geom size=".1" pos="0 0 1"/></body></body></body>
</worldbody></mujoco>"""
MODEL = mujoco.MjModel.from_xml_string(BALLS)
CHART = Chart.of(MODEL, root=2)


def points(n: int = 20, seed: int = 0) -> np.ndarray:
    """Physics states with the root at 0; quaternions of any norm."""
    x = np.random.default_rng(seed).normal(size=(n, MODEL.nq + MODEL.nv))
    x[:, :2] = 0
    return x


def unit(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    for column, _ in CHART.turns:
        x[:, column : column + 4] /= np.linalg.norm(x[:, column : column + 4], axis=1)[:, None]
    return x


def tangents(n: int = 20, size: float = 1.0) -> np.ndarray:
    return size * np.random.default_rng(1).normal(size=(n, CHART.tangent_dim))


def test_free_and_ball_joints_hold_the_quaternions():
    assert CHART.turns == ((3, 3), (7, 6))
    assert (CHART.state_dim, CHART.tangent_dim) == (12 - 2 + 10, 18)


def test_moves_are_those_of_mujoco():
    x, delta = unit(points()), tangents()
    moved = CHART.displaced(x, delta)
    for i in range(len(x)):
        q = x[i, :12].copy()
        mujoco.mj_integratePos(MODEL, q, np.concatenate([[0, 0], delta[i, :8]]), 1.0)
        assert moved[i, :12] == pytest.approx(q, abs=1e-14)
        back = np.empty(10)
        mujoco.mj_differentiatePos(MODEL, back, 1.0, x[i, :12], moved[i, :12])
        assert CHART.between(moved, x)[i, :10] == pytest.approx(back, abs=1e-13)
    assert moved[:, 12:] == pytest.approx(x[:, 12:] + delta[:, 8:])


def test_between_undoes_a_move_of_less_than_half_a_turn():
    x, delta = points(), tangents(size=0.5)
    assert CHART.between(CHART.displaced(x, delta), x)[:, 2:] == pytest.approx(delta, abs=1e-13)


def test_drop_undoes_lift_and_lift_after_drop_projects_on_the_sphere():
    x = unit(points())
    E, T = CHART.lift(x), CHART.drop(x)
    assert pytest.approx(np.broadcast_to(np.eye(18), (20, 18, 18)), abs=1e-14) == T @ E
    P = E @ T
    assert pytest.approx(P, abs=1e-14) == P @ P
    for column, _ in CHART.turns:
        radial = np.zeros((20, CHART.state_dim, 1))
        radial[:, column - 2 : column + 2, 0] = x[:, column : column + 4]
        assert np.abs(P @ radial).max() < 1e-14
    assert np.linalg.matrix_rank(P).tolist() == [18] * 20


def test_lift_is_the_derivative_of_a_move_and_drop_that_of_between():
    x, h = unit(points()), 1e-6
    E = CHART.lift(x)
    for k in range(CHART.tangent_dim):
        step = np.zeros((20, CHART.tangent_dim))
        step[:, k] = h
        slope = (CHART.displaced(x, step) - CHART.displaced(x, -step))[:, 2:] / (2 * h)
        assert E[:, :, k] == pytest.approx(slope, abs=1e-9)
    loose = points(seed=2)  # off the sphere: a step normalises what it is given
    T = CHART.drop(loose)
    for k in range(CHART.state_dim):
        step = np.zeros_like(loose)
        step[:, 2 + k] = h
        slope = CHART.between(loose + step, loose - step)[:, 2:] / (2 * h)
        assert T[:, :, k] == pytest.approx(slope, abs=1e-8)
