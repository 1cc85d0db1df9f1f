"""Certified differences: their order, their limits, and what the certificate catches."""

import numpy as np
import pytest

from gradlab.systems.differences import certified_jacobian

FREE = np.array([-np.inf]), np.array([np.inf])


def smooth(s: np.ndarray, a: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(s[:, 0] + 2 * a[:, 0]), np.exp(0.5 * s[:, 1]) * a[:, 0]], 1)


def points(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)), rng.normal(size=(n, 1))


def exact(s: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope, growth = np.cos(s[:, 0] + 2 * a[:, 0]), np.exp(0.5 * s[:, 1])
    zero = 0 * slope
    A = np.stack([slope, zero, zero, 0.5 * growth * a[:, 0]], 1).reshape(-1, 2, 2)
    return A, np.stack([2 * slope, growth], 1)[:, :, None]


def test_differences_converge_with_order_two():
    s, a = points()
    A, B = exact(s, a)
    errors = []
    for epsilon in (4e-2, 2e-2, 1e-2):
        got = certified_jacobian(smooth, s, a, *FREE, epsilon)
        errors.append([np.abs(got.A - A).max(), np.abs(got.B - B).max()])
    assert np.diff(np.log2(errors), axis=0) == pytest.approx(np.full((2, 2), -2), abs=0.02)


def test_estimated_error_bounds_the_true_one_of_most_states():
    s, a = points(400)
    A, _ = exact(s, a)
    got = certified_jacobian(smooth, s, a, *FREE, 1e-3)
    true = np.abs(got.A - A).max((1, 2)) / np.abs(A).max((1, 2))
    assert np.median(got.error_A / true) > 0.5


def test_a_jump_inside_the_stencil_is_flagged_and_outside_it_is_not():
    def jump(s: np.ndarray, a: np.ndarray) -> np.ndarray:
        return s + a + 1e-4 * (s[:, :1] > 0)

    s = np.array([[0.0], [2e-9], [2e-8], [0.5e-6], [2e-6], [-1.0]])
    got = certified_jacobian(jump, s, 0 * s, *FREE, 1e-6)
    # The next three are clean at a step that does not reach the jump.
    assert got.flags.tolist() == [True, False, False, False, False, False]
    assert got.step == pytest.approx([1e-6, 1e-9, 1e-8, 1e-7, 1e-6, 1e-6])
    assert got.A[1:, 0, 0] == pytest.approx(1, abs=1e-6)
    # The first keeps the step at which the jump weighs least: 1e-4 over 2e-6.
    assert got.A[0, 0, 0] == pytest.approx(51, rel=1e-3)


def test_a_step_that_returns_nan_is_flagged():
    s = np.ones((2, 1))
    got = certified_jacobian(lambda s, a: np.where(a > 0, np.nan, s), s, 0 * s, *FREE, 1e-6)
    assert got.flags.all()


def test_limits_give_the_inside_derivative_on_them_and_zero_beyond():
    def clipped(s: np.ndarray, a: np.ndarray) -> np.ndarray:
        return s + np.clip(a, -1, 2) ** 2

    a = np.array([[-1.0], [2.0], [2.0 - 1e-7], [-1.5], [2 + 1e-12], [0.5]])
    limits = np.array([-1.0]), np.array([2.0])
    got = certified_jacobian(clipped, 0 * a, a, *limits, 1e-6)
    assert got.B[:, 0, 0] == pytest.approx([-2, 4, 4, 0, 0, 1], abs=3e-6)
    assert got.B[3:5].any() == np.False_
    assert not got.flags.any()
