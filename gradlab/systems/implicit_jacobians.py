"""Certified Jacobians of MuJoCo steps by the implicit function theorem, evaluation by evaluation.

Inverse dynamics τ = f(q, v, a) need no constraint solver, and every evaluation of the forward
dynamics a(q, v, u) solves f(q, v, a) = G u, with G the actuators' gears. Therefore

    ∂a/∂q = −F_a⁻¹ F_q,     ∂a/∂v = −F_a⁻¹ F_v,     ∂a/∂u = F_a⁻¹ G,

F by one-sided differences of f (`mjd_inverseFD`; those in v and a may be wide: f is quadratic in v
and, between two switches of a constraint, linear in a). The integrator's own formulas chain them:

    RK4    X_i = X_0 + α_i h F(X_{i−1}),   X' = X_0 + h Σ_i β_i F(X_i),   F(X) = (v, a)
    Euler  v' = v + h a,   q' = q + h v',   a the discrete acceleration, damping implicit in it

The difference's sign alternates with the evaluations, whose states lie close together: what errors
ε f″/2 have in common cancels. Each Jacobian is tested as in `differences`, by a pair of whole
steps along a direction, and more strictly; where it fails, central differences of whole steps take
its place. Todorov, "Analytically-invertible dynamics with contacts and constraints", ICRA 2014.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import mujoco
import numpy as np
from numpy.typing import NDArray

from gradlab.systems.chart import Chart
from gradlab.systems.differences import CertifiedJacobian, LimitedStep, certified_jacobian, tested
from gradlab.systems.physics import SECONDS, BatchedPhysics, thread_count, warnings_caught

_Array = NDArray[np.float64]

# Of q, against the curvature of contacts; and of v and a, against rounding. Errors on HalfCheetah,
# the worst: 1e-6 in the median, 3e-5 at most.
EPSILON, WIDE = 2e-9, 3e-6
_TOLERANCE = 1e-4  # of the test: a thirtieth of that of differences
# Seconds of one core of 2023 per degree of freedom: inverse dynamics with new positions, and with
# old ones; then per evaluation in Python, which threads cannot share.
INVERSE, AGAIN, PYTHON = 6e-7, 2e-7, 1.2e-5
ALPHA, BETA = (0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
_INTEGRATORS = (mujoco.mjtIntegrator.mjINT_EULER, mujoco.mjtIntegrator.mjINT_RK4)


def unsupported(model: mujoco.MjModel) -> str | None:
    """Why a model's steps are not differentiated this way; None where they are."""
    if model.nq != model.nv:
        return f"it has quaternions (nq = {model.nq}, nv = {model.nv})"
    if model.opt.integrator not in _INTEGRATORS:
        return f"its integrator is {mujoco.mjtIntegrator(model.opt.integrator).name}"
    plain = (
        (model.actuator_gaintype == mujoco.mjtGain.mjGAIN_FIXED).all()
        and (model.actuator_biastype == mujoco.mjtBias.mjBIAS_NONE).all()
        and (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT).all()
        and not model.actuator_forcelimited.any()
        and not model.jnt_actfrclimited.any()
    )
    return None if plain else "an actuator's torque is not its control times a constant"


def price(physics: BatchedPhysics, threads: int = 1) -> float:
    """Seconds for the Jacobians of one state, by operation count."""
    nv = int(physics.model.nv)
    slopes = INVERSE * nv * (nv + 1) + AGAIN * nv * (2 * nv + 1) + PYTHON
    per_evaluation = slopes + 2 * SECONDS * nv  # the pair of the test
    return physics.evaluations * max(per_evaluation / threads, PYTHON)


class ImplicitJacobians:
    """Jacobians of `frame_skip` substeps of a model that is not `unsupported`.

    Args:
        physics: with a solver tolerance fit for differences.
    """

    def __init__(self, physics: BatchedPhysics, chart: Chart) -> None:
        self.physics, self.chart = physics, chart
        model = copy.deepcopy(physics.model)
        self.runge_kutta = model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        if self.runge_kutta:
            model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
        else:
            model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_INVDISCRETE
        self.inverse, self.h = model, float(model.opt.timestep)
        self.gears = np.zeros((model.nv, model.nu))  # generalised force per control
        dofs = model.jnt_dofadr[model.actuator_trnid[:, 0]]
        gains = model.actuator_gear[:, 0] * model.actuator_gainprm[:, 0]
        self.gears[dofs, range(model.nu)] = gains
        self.substep = BatchedPhysics(physics.model, 1)

    def certified(
        self, state: _Array, control: _Array, low: _Array, high: _Array, epsilon: float
    ) -> CertifiedJacobian:
        """As `differences.certified_jacobian`, whose Jacobian stands where this one fails."""
        J = self._chained(state, control.clip(low, high))
        J[:, :, self.chart.tangent_dim :] *= ((control >= low) & (control <= high))[:, None]
        step, moves = self.physics.step, self.chart
        certified = tested(J, LimitedStep(step, low, high, moves), state, control, epsilon)
        certified.step[:] = EPSILON
        largest = np.abs(J).max((1, 2))
        again = np.flatnonzero(~(certified.residual.max(1) <= _TOLERANCE * largest))
        if len(again):
            rows = state[again], control[again]
            exact = certified_jacobian(step, *rows, low, high, epsilon, moves)
            for field in fields(certified):
                getattr(certified, field.name)[again] = getattr(exact, field.name)
        return certified

    def _chained(self, state: _Array, control: _Array) -> _Array:
        """∂(q', v')/∂(δ, u), [N, 2 nv, tangent_dim + nu]."""
        slopes = self._slopes(*self._evaluations(state, control))
        chained = self._runge_kutta if self.runge_kutta else self._euler
        stages = len(ALPHA) + 1 if self.runge_kutta else 1
        n, nv, width = len(state), self.chart.nv, self.chart.tangent_dim
        begin = np.zeros((2 * nv, width + self.gears.shape[1]))
        begin[self.chart.root :, :width] = np.eye(width)
        d = np.broadcast_to(begin, (n, *begin.shape))
        for k in range(0, len(slopes), stages):
            d = chained(d, slopes[k : k + stages])
        return d

    def _evaluations(self, state: _Array, control: _Array) -> tuple[_Array, _Array]:
        """(q, v) and a at every evaluation of the forward dynamics, [E, N, 2 nv] and [E, N, nv]."""
        states, accelerations, x, nv = [], [], state, self.chart.nv
        for _ in range(self.physics.frame_skip):
            if not self.runge_kutta:
                after = self.substep.step(x, control)
                states.append(x)
                accelerations.append((after[:, nv:] - x[:, nv:]) / self.h)
                x = after
                continue
            at, moves = x, np.zeros_like(x)
            for i, weight in enumerate(BETA):
                a = self.substep.accelerations(at, control)
                states.append(at)
                accelerations.append(a)
                slope = np.concatenate([at[:, nv:], a], 1)
                moves += weight * slope
                if i < len(ALPHA):
                    at = x + ALPHA[i] * self.h * slope
            x = x + self.h * moves
        return np.stack(states), np.stack(accelerations)

    def _slopes(self, states: _Array, accelerations: _Array) -> _Array:
        """∂a/∂(q, v, u) at every evaluation, [E, N, nv, 2 nv + nu]."""
        E, n, nv = accelerations.shape
        x, at = states.reshape(E * n, 2 * nv), accelerations.reshape(E * n, nv)
        by = np.empty((3, E * n, nv, nv))  # of q, v and a; transposed, as MuJoCo has them
        signs = np.repeat((-1.0) ** np.arange(E), n)
        none = (None, None, None, None)

        def differenced(rows: range) -> None:
            model, data = self.inverse, mujoco.MjData(self.inverse)
            qpos, qvel, qacc = data.qpos, data.qvel, data.qacc
            for i in rows:
                qpos[:], qvel[:], qacc[:] = x[i, :nv], x[i, nv:], at[i]
                q, v, a = by[:, i]
                mujoco.mjd_inverseFD(model, data, signs[i] * EPSILON, 0, q, None, None, *none)
                mujoco.mjd_inverseFD(model, data, signs[i] * WIDE, 0, None, v, a, *none)

        with warnings_caught:
            _in_threads(differenced, E * n)
        by_q, by_v, by_a = by.transpose(0, 1, 3, 2)
        gears = np.broadcast_to(self.gears, (E * n, *self.gears.shape))
        slopes = np.linalg.solve(by_a, np.concatenate([-by_q, -by_v, gears], 2))
        return slopes.reshape(E, n, nv, slopes.shape[2])

    def _runge_kutta(self, d: _Array, slopes: _Array) -> _Array:
        at, moves = d, np.zeros_like(d)
        for i, weight in enumerate(BETA):
            slope = self._slope(at, slopes[i])
            moves += weight * slope
            if i < len(ALPHA):
                at = d + ALPHA[i] * self.h * slope
        return d + self.h * moves

    def _euler(self, d: _Array, slopes: _Array) -> _Array:
        nv = self.chart.nv
        by_v = d[:, nv:] + self.h * self._slope(d, slopes[0])[:, nv:]
        return np.concatenate([d[:, :nv] + self.h * by_v, by_v], 1)

    def _slope(self, d: _Array, slopes: _Array) -> _Array:
        """∂(v, a) along the columns of d."""
        nv, nu = self.chart.nv, self.gears.shape[1]
        by_a = slopes[:, :, : 2 * nv] @ d
        by_a[:, :, d.shape[2] - nu :] += slopes[:, :, 2 * nv :]
        return np.concatenate([d[:, nv:], by_a], 1)


def _in_threads(function: Callable[[range], None], n: int) -> None:
    """`function` of all n rows, which MuJoCo's calls work on beside each other."""
    threads = min(thread_count(), n)
    if threads <= 1:
        function(range(n))
        return
    size = -(-n // threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, [range(i, min(i + size, n)) for i in range(0, n, size)]))
