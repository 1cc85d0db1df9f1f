"""Path tracking with a bicycle model and linear tires (MPG Appendix B-A, eq. 15-17).

    state  [δu = u - 20, v, r, δy = y - y_ref(x), δφ = φ - φ_ref(x), x]     SI units
    action [steer (rad), acceleration (m/s²)]                               physical units

Simulator: 20 explicit substeps of 5 ms along a path of three sines. Prior: one step of 0.1 s along
a straight line, with a biased noise on y. Both advance (u, v, r) as below. As in MPG's published
code the simulator clips steering at 1.2 π/9 = 0.4189 rad, where the paper prints 0.4, and advances
the heading before y and x, which eq. 15 moves along the old one.
Clips (u, and the simulator's actions) have derivative 0 outside their range, wraps derivative 1.

The velocities of a bicycle model with linear tires, and their Jacobian (MPG eq. 15, Table III).

    u⁺ = u + T (acc + v r)
    v⁺ = [m v u + T (a Cf - b Cr) r - T Cf δ u - T m u² r] / [m u - T (Cf + Cr)]
    r⁺ = [-Iz r u - T (a Cf - b Cr) v + T a Cf δ u] / [T (a² Cf + b² Cr) - Iz u]

Semi-implicit in v and r: old u, v, r on the right. u⁺ is clipped to [1, 35] m/s by its users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.systems.system import (
    Certificate,
    Linearization,
    Noise,
    Transition,
    check_step,
    constant,
    sample_normal,
)

_SPEED_RANGE = (1.0, 35.0)


@dataclass(frozen=True)
class VehicleParameters:
    """Cornering stiffnesses (N/rad), axle distances (m), mass (kg), yaw inertia (kg m²)."""

    Cf: float
    Cr: float
    a: float
    b: float
    m: float
    Iz: float


TABLE3 = VehicleParameters(Cf=-88000.0, Cr=-94000.0, a=1.14, b=1.40, m=1500.0, Iz=2420.0)
PUBLISHED_CODE = VehicleParameters(Cf=-128915.5, Cr=-85943.6, a=1.06, b=1.85, m=1412.0, Iz=1536.7)


def _velocities(
    p: VehicleParameters, T: float, u: Tensor, v: Tensor, r: Tensor, steer: Tensor, acc: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(u⁺ before its clip, v⁺, r⁺)."""
    steer_v, moment_v, drag_v, steer_r, moment_r, drag_r = _tires(p, T)
    grip = torch.addcmul(torch.sub(v, steer, alpha=steer_v), u, r, value=-T)
    side = torch.addcmul(moment_v * r, u, grip)
    turn = torch.addcmul(moment_r * v, u, torch.sub(r, steer, alpha=steer_r))
    faster = torch.addcmul(torch.add(u, acc, alpha=T), v, r, value=T)
    return faster, side / (u - drag_v), turn / (u - drag_r)


def _tires(p: VehicleParameters, T: float) -> tuple[float, float, float, float, float, float]:
    """Numerators and denominators of v⁺ and r⁺ divided by m and -Iz, those of v⁺ first:

    v⁺ = [u (v - steer_v δ - T u r) + moment_v r] / (u - drag_v)
    r⁺ = [u (r - steer_r δ) + moment_r v] / (u - drag_r)
    """
    moment = T * (p.a * p.Cf - p.b * p.Cr)
    of_v = T * p.Cf / p.m, moment / p.m, T * (p.Cf + p.Cr) / p.m
    drag_r = T * (p.a**2 * p.Cf + p.b**2 * p.Cr) / p.Iz
    return *of_v, T * p.a * p.Cf / p.Iz, moment / p.Iz, drag_r


def _velocity_jacobian(
    p: VehicleParameters, T: float, u: Tensor, v: Tensor, r: Tensor, steer: Tensor, acc: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor], list[Tensor]]:
    """(u⁺, v⁺, r⁺) and its derivatives by rows: nine in (u, v, r), six in (steer, acc)."""
    steer_v, moment_v, drag_v, steer_r, moment_r, drag_r = _tires(p, T)
    over_v, over_r = 1 / (u - drag_v), 1 / (u - drag_r)
    curve = T * (u * r)
    grip_v, grip_r = v - steer_v * steer - curve, r - steer_r * steer
    slip = (u * grip_v + moment_v * r) * over_v
    yaw = (u * grip_r + moment_r * v) * over_r
    v_v, r_r = u * over_v, u * over_r
    faster = u + T * (acc + v * r)
    clipped = faster.clamp(*_SPEED_RANGE)
    within = (faster == clipped).to(u.dtype)  # 0 where u⁺ is clipped
    zero, free = torch.zeros_like(u), T * within
    by_velocity = [
        *(within, free * r, free * v),
        *((grip_v - curve - slip) * over_v, v_v, moment_v * over_v - T * (u * v_v)),
        *((grip_r - yaw) * over_r, moment_r * over_r, r_r),
    ]
    by_action = [zero, free, -steer_v * v_v, zero, -steer_r * r_r, zero]
    return (clipped, slip, yaw), by_velocity, by_action


TARGET_SPEED = 20.0
STEER_LIMIT = 1.2 * math.pi / 9
ACCELERATION_LIMIT = 3.0
# The period of the reference path: the least common multiple of 200, 300 and 400 m.
_LAP = 1200.0
_HEIGHTS = (7.5, 2.5, -5.0)  # of its sines, m
_WAVES = tuple(2 * math.pi / length for length in (200.0, 300.0, 400.0))

_STATE_WEIGHTS = (0.01, 0.0, 0.02, 0.04, 0.1, 0.0)
_ACTION_WEIGHTS = (5.0, 0.05)
_STATE_SLOPES = tuple(-2 * weight for weight in _STATE_WEIGHTS)
_ACTION_SLOPES = tuple(-2 * weight for weight in _ACTION_WEIGHTS)

_SIMULATOR_STEP = 1 / 200
_SUBSTEPS = 20
_MODEL_STEP = 0.1
MODEL_BIAS = 0.5
MODEL_NOISE = 0.01


@dataclass(frozen=True)
class VehicleSimulator:
    """The 200 Hz simulator on the curved path; deterministic, actions clipped to the actuator."""

    state_dim: ClassVar[int] = 6
    action_dim: ClassVar[int] = 2
    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = True

    parameters: VehicleParameters = TABLE3

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        applied = _actuate(action)
        steer, acceleration = applied.unbind(1)
        u, v, r, y, phi, x = _from_path(state)
        T, moving = _SIMULATOR_STEP, []
        for _ in range(_SUBSTEPS):
            moving.append((u, v, r))
            faster, slip, yaw = _velocities(self.parameters, T, u, v, r, steer, acceleration)
            u, v, r = faster.clamp(*_SPEED_RANGE), slip, yaw
        # Nothing of a place enters a velocity: all substeps are added up at once. y and x move
        # along the new heading at the old speed.
        ahead, aside, turning = (torch.stack(each) for each in zip(*moving, strict=True))
        heading = phi + T * turning.cumsum(dim=0)
        sine, cosine, phi = heading.sin(), heading.cos(), heading[-1]
        y = y + T * (ahead * sine + aside * cosine).sum(dim=0)
        x = x + T * (ahead * cosine - aside * sine).sum(dim=0)
        after = _to_path(u, v, r, y, phi, x)
        return Transition(after, _reward(state, applied), alive(after))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        applied = _actuate(action)
        A, B = _path_jacobians(self.parameters, state, applied)
        free = (action == applied).to(action)
        r_s, r_a = _reward_gradients(state, applied)
        return Linearization(A, B * free[:, None], r_s, r_a * free, Certificate.exact(state))

    sample_noise = sample_normal


@dataclass(frozen=True)
class VehicleModel:
    """The 10 Hz prior on a straight path; y gains N(bias, std 0.01) per step (eq. 17)."""

    state_dim: ClassVar[int] = 6
    action_dim: ClassVar[int] = 2
    noise_dim: ClassVar[int] = 1
    differentiable: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True

    parameters: VehicleParameters = TABLE3
    bias: float = MODEL_BIAS

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        steer, acceleration = action.unbind(1)
        du, v, r, y, phi, x = state.unbind(1)
        u, T = du + TARGET_SPEED, _MODEL_STEP
        faster, slip, yaw = _velocities(self.parameters, T, u, v, r, steer, acceleration)
        drift = self.bias if noise is None else self.bias + MODEL_NOISE * noise[:, 0]
        sine, cosine = phi.sin(), phi.cos()
        after = torch.stack(
            [
                faster.clamp(*_SPEED_RANGE) - TARGET_SPEED,
                slip,
                yaw,
                y + T * (u * sine + v * cosine) + drift,
                wrap_angle(phi + T * r),
                x + T * (u * cosine - v * sine),
            ],
            1,
        )
        return Transition(after, _reward(state, action), alive(after))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        A, B = _straight_jacobians(self.parameters, state, action)
        r_s, r_a = _reward_gradients(state, action)
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    sample_noise = sample_normal

    def infer_noise(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """[N, 1], the noise that moves y where `next_state` has it."""
        mean = self.step(state, action).state
        return (next_state - mean)[:, 3:4] / MODEL_NOISE


def alive(state: Tensor) -> Tensor:
    """Outside the terminal set |δy| > 3, |δφ| > π/4, u < 2, |r| > 0.8. [N] bool.

    An aggressive controller ends half of the task's starts on its first step.
    """
    du, _, r, dy, dphi, _ = state.unbind(1)
    on_path = (dy.abs() <= 3) & (dphi.abs() <= math.pi / 4)
    return on_path & (du >= 2 - TARGET_SPEED) & (r.abs() <= 0.8)


def _reference_path(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y_ref, φ_ref = atan(dy_ref/dx) and their derivatives in x, all like x."""
    k, height = constant(_WAVES, x), constant(_HEIGHTS, x)
    sine, cosine = (k[:, None] * x).sin(), (k[:, None] * x).cos()
    slope, bend = (height * k) @ cosine, -(height * k * k) @ sine
    return height @ sine, slope.atan(), slope, bend / (1 + slope.square())


def wrap_angle(angle: Tensor) -> Tensor:
    """To (-π, π], with derivative 1."""
    return angle - 2 * math.pi * ((angle - math.pi) / (2 * math.pi)).ceil()


def _actuate(action: Tensor) -> Tensor:
    limit = constant((STEER_LIMIT, ACCELERATION_LIMIT), action)
    return action.clamp(-limit, limit)


def _from_path(state: Tensor) -> tuple[Tensor, ...]:
    """Task coordinate to (u, v, r, y, φ, x)."""
    du, v, r, dy, dphi, x = state.unbind(1)
    height, heading, _, _ = _reference_path(x)
    return du + TARGET_SPEED, v, r, dy + height, dphi + heading, x


def _to_path(u: Tensor, v: Tensor, r: Tensor, y: Tensor, phi: Tensor, x: Tensor) -> Tensor:
    """(u, v, r, y, φ, unwrapped x) to the task coordinate, x wrapped to (0, 1200]."""
    height, heading, _, _ = _reference_path(x)
    lap = x - _LAP * ((x / _LAP).ceil() - 1)
    return torch.stack([u - TARGET_SPEED, v, r, y - height, wrap_angle(phi - heading), lap], 1)


def _straight_jacobians(
    p: VehicleParameters, state: Tensor, action: Tensor
) -> tuple[Tensor, Tensor]:
    """A [N, 6, 6] and B [N, 6, 2] of the prior."""
    T = _MODEL_STEP
    du, v, r, _, phi, _ = state.unbind(1)
    steer, acc = action.unbind(1)
    u = du + TARGET_SPEED
    _, by_velocity, by_action = _velocity_jacobian(p, T, u, v, r, steer, acc)
    sine, cosine = T * phi.sin(), T * phi.cos()
    ahead, aside = u * cosine - v * sine, u * sine + v * cosine
    zero = torch.zeros_like(phi)
    one, still = torch.ones_like(zero), [zero] * 3
    rows = [
        *(*by_velocity[:3], *still, *by_velocity[3:6], *still, *by_velocity[6:], *still),
        *(sine, cosine, zero, one, ahead, zero),
        *(zero, zero, T * one, zero, one, zero),
        *(cosine, -sine, zero, zero, -aside, one),
        *(*by_action, *still, *still),
    ]
    # One stack by rows and one transposition take half the time of stacking columns.
    flat, n = torch.stack(rows).T.contiguous(), state.shape[0]
    return flat[:, :36].view(n, 6, 6), flat[:, 36:].view(n, 6, 2)


def _path_jacobians(p: VehicleParameters, state: Tensor, applied: Tensor) -> tuple[Tensor, Tensor]:
    """A [N, 6, 6] and B [N, 6, 2] of the simulator, in the applied action.

    The chain runs in (u, v, r | y, φ, x) with the six columns (u, v, r, φ, steer, acc) of the first
    substep: y and x enter as plain translations. Batch last: `V` and `P` are [3, 6, N].
    """
    T = _SIMULATOR_STEP
    u, v, r, y, phi, x = _from_path(state)
    steer, acc = applied.unbind(1)
    zero = torch.zeros_like(u)
    one = zero + 1
    V = torch.stack([one, *[zero] * 6, one, *[zero] * 6, one, *[zero] * 3]).view(3, 6, -1)
    P = torch.stack([*[zero] * 9, one, *[zero] * 8]).view(3, 6, -1)
    for _ in range(_SUBSTEPS):
        faster, by_velocity, by_action = _velocity_jacobian(p, T, u, v, r, steer, acc)
        phi = phi + T * r
        sine, cosine = T * phi.sin(), T * phi.cos()
        ahead, aside = u * cosine - v * sine, u * sine + v * cosine
        y, x = y + aside, x + ahead
        turn = P[1] + T * V[2]
        rise = P[0] + sine * V[0] + cosine * V[1] + ahead * turn
        run = P[2] + cosine * V[0] - sine * V[1] - aside * turn
        P = torch.stack([rise, turn, run])
        # ∂(u, v, r)⁺ = J ∂(u, v, r) + direct effect of (steer, acc)
        V = torch.einsum("ijn,jkn->ikn", torch.stack(by_velocity).view(3, 3, -1), V)
        V = torch.cat([V[:, :4], V[:, 4:] + torch.stack(by_action).view(3, 2, -1)], 1)
        u, v, r = faster
    return _in_path_coordinate(state[:, 5], x, V, P)


def _in_path_coordinate(
    x_before: Tensor, x_after: Tensor, V: Tensor, P: Tensor
) -> tuple[Tensor, Tensor]:
    """Columns to (δu, v, r, δy, δφ, x) and rows to the same, by the path's slope and bend."""
    _, _, slope, bend = _reference_path(x_before)
    S = torch.cat([V, P])
    zero = torch.zeros_like(x_before)
    one = zero + 1
    by_y = torch.stack([zero, zero, zero, one, zero, zero])
    # x moves the start along the path, y and φ with it.
    by_x = torch.stack([zero, zero, zero, slope, zero, one]) + bend * S[:, 3]
    G = torch.cat([S[:, :3], by_y[:, None], S[:, 3:4], by_x[:, None], S[:, 4:]], 1)
    _, _, slope, bend = _reference_path(x_after)
    G = torch.cat([G[:3], G[3:4] - slope * G[5:], G[4:5] - bend * G[5:], G[5:]])
    G = G.permute(2, 0, 1)
    return G[:, :, :6].contiguous(), G[:, :, 6:].contiguous()


def _reward(state: Tensor, applied: Tensor) -> Tensor:
    """Eq. 16 on the state before the step and the applied action. [N]."""
    by_state = state.square() @ constant(_STATE_WEIGHTS, state)
    return -(by_state + applied.square() @ constant(_ACTION_WEIGHTS, state))


def _reward_gradients(state: Tensor, applied: Tensor) -> tuple[Tensor, Tensor]:
    return state * constant(_STATE_SLOPES, state), applied * constant(_ACTION_SLOPES, state)
