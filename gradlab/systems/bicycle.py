"""The velocities of a bicycle model with linear tires, and their Jacobian (MPG eq. 15, Table III).

    u⁺ = u + T (acc + v r)
    v⁺ = [m v u + T (a Cf - b Cr) r - T Cf δ u - T m u² r] / [m u - T (Cf + Cr)]
    r⁺ = [-Iz r u - T (a Cf - b Cr) v + T a Cf δ u] / [T (a² Cf + b² Cr) - Iz u]

Semi-implicit in v and r: old u, v, r on the right. u⁺ is clipped to [1, 35] m/s by its users.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SPEED_RANGE = (1.0, 35.0)


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


def velocities(
    p: VehicleParameters, T: float, u: Tensor, v: Tensor, r: Tensor, steer: Tensor, acc: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(u⁺ before its clip, v⁺, r⁺)."""
    c = _tires(p, T)
    side = u * (v - c.steer_v * steer - T * (u * r)) + c.moment_v * r
    turn = u * (r - c.steer_r * steer) + c.moment_r * v
    return u + T * (acc + v * r), side / (u - c.drag_v), turn / (u - c.drag_r)


@dataclass(frozen=True)
class _Tires:
    """Numerators and denominators of v⁺ and r⁺ divided by m and -Iz:

    v⁺ = [u (v - steer_v δ - T u r) + moment_v r] / (u - drag_v)
    r⁺ = [u (r - steer_r δ) + moment_r v] / (u - drag_r)
    """

    steer_v: float
    moment_v: float
    drag_v: float
    steer_r: float
    moment_r: float
    drag_r: float


def _tires(p: VehicleParameters, T: float) -> _Tires:
    moment = T * (p.a * p.Cf - p.b * p.Cr)
    return _Tires(
        steer_v=T * p.Cf / p.m,
        moment_v=moment / p.m,
        drag_v=T * (p.Cf + p.Cr) / p.m,
        steer_r=T * p.a * p.Cf / p.Iz,
        moment_r=moment / p.Iz,
        drag_r=T * (p.a**2 * p.Cf + p.b**2 * p.Cr) / p.Iz,
    )


@dataclass(frozen=True)
class VelocityJacobian:
    """(u⁺, v⁺, r⁺) and its nonzero derivatives, each [N]; `free` is 0 where u⁺ is clipped.

    u⁺: (free, T r free, T v free; 0, T free), v⁺: (v_u, v_v, v_r; v_steer, 0), r⁺ likewise.
    """

    u: Tensor
    v: Tensor
    r: Tensor
    free: Tensor
    v_u: Tensor
    v_v: Tensor
    v_r: Tensor
    v_steer: Tensor
    r_u: Tensor
    r_v: Tensor
    r_r: Tensor
    r_steer: Tensor


def velocity_jacobian(
    p: VehicleParameters, T: float, u: Tensor, v: Tensor, r: Tensor, steer: Tensor, acc: Tensor
) -> VelocityJacobian:
    c = _tires(p, T)
    over_v, over_r = 1 / (u - c.drag_v), 1 / (u - c.drag_r)
    curve = T * (u * r)
    grip_v, grip_r = v - c.steer_v * steer - curve, r - c.steer_r * steer
    slip = (u * grip_v + c.moment_v * r) * over_v
    yaw = (u * grip_r + c.moment_r * v) * over_r
    v_v, r_r = u * over_v, u * over_r
    faster = u + T * (acc + v * r)
    clipped = faster.clamp(*SPEED_RANGE)
    return VelocityJacobian(
        u=clipped,
        v=slip,
        r=yaw,
        free=(faster == clipped).to(u.dtype),
        v_u=(grip_v - curve - slip) * over_v,
        v_v=v_v,
        v_r=c.moment_v * over_v - T * (u * v_v),
        v_steer=-c.steer_v * v_v,
        r_u=(grip_r - yaw) * over_r,
        r_v=c.moment_r * over_r,
        r_r=r_r,
        r_steer=-c.steer_r * r_r,
    )
