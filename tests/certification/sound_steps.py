"""Torch steps written by hand whose derivatives are right, and hard to certify.

Jumps and kinks, clips, dead zones, tables, windows; stiff, chaotic and implicit steps; odd units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.certification.contact import TIMESTEP
from tests.certification.smooth_steps import Step


def _bounce(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A ball whose velocity jumps by restitution: between jumps the derivative is right."""
    y, speed = s[:, 0], s[:, 1] + TIMESTEP * (a[:, 0] - 9.81)
    below = y + TIMESTEP * speed
    hit = (below < 0) & (speed < 0)
    after = torch.stack(
        [torch.where(hit, -0.8 * below, below), torch.where(hit, -0.8 * speed, speed)], 1
    )
    return after, -((after[:, 0] - 1) ** 2)


def _stiff(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Implicit Euler of a 1e6-stiff spring between two masses."""
    k, dt = 1e6, 1e-2
    grid = torch.tensor([[1 + k * dt**2, -k * dt**2], [-k * dt**2, 1 + k * dt**2]], dtype=s.dtype)
    pushed = s[:, 2:] + dt * a
    pull = dt * k * (s[:, :2].flip(1) - s[:, :2])
    speed = torch.linalg.solve(grid, (pushed + pull)[..., None])[..., 0]
    after = torch.cat([s[:, :2] + dt * speed, speed], 1)
    return after, -s.square().sum(1)


def _clipped(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    speed = (s[:, 1:] + 0.2 * a.clamp(-0.5, 0.5)).clamp(-1, 1)
    return torch.cat([(s[:, :1] + 0.2 * speed).clamp(-2, 2), speed], 1), -s.square().sum(1)


def _dead_zone(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * s + nn.functional.hardshrink(a, 0.3), -s.abs().sum(1)


def _stick(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Coulomb friction that holds: speeds below what it can brake become 0."""
    pushed = s[:, 1:] + 0.1 * a
    speed = pushed.sign() * (pushed.abs() - 0.05).clamp(min=0)
    return torch.cat([s[:, :1] + 0.1 * speed, speed], 1), -s.square().sum(1)


def _rounded(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A sensor that counts whole ticks of 1/64: its derivative is 0 almost everywhere."""
    after = 0.9 * s + 0.3 * torch.tanh(a)
    return after, -((s * 64).round() / 64).square().sum(1)


def tiny(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """States near 1e-8, actions near 1."""
    return 1e-8 * (torch.sin(1e8 * s) + torch.tanh(a)), -(1e6 * s).square().sum(1)


def _huge(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 1e9 * torch.tanh(s) + 1e3 * a, 1e12 * torch.cos(s).sum(1)


def _logistic(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Chaos: 3.9 x (1 − x), twelve times a step."""
    x = torch.sigmoid(s)
    for _ in range(12):
        x = 3.9 * x * (1 - x)
    return torch.logit(0.01 + 0.98 * x) + 0.1 * a, -s.square().sum(1)


def _wrapped(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    angle = s[:, :1] + 0.3 * s[:, 1:]
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    speed = 0.95 * s[:, 1:] + 0.4 * torch.sin(3 * s[:, :1]) + a
    return torch.cat([wrapped, speed], 1), torch.cos(s[:, 0]) - 0.1 * s[:, 1] ** 2


def _sticky_max(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.maximum(0.8 * s + a, torch.minimum(s, a + 0.5)), -s.norm(dim=1)


def _gated(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A controller that switches between two dynamics."""
    on = s[:, :1] > 0.2
    return torch.where(on, 0.5 * s - a, torch.sin(2 * s) + a), -s.square().sum(1)


def _steep(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A softened contact, steeper than any difference can see from afar."""
    return s + 0.1 * torch.tanh(1e3 * (s - a)), -nn.functional.softplus(50 * s).sum(1) / 50


def _exponential(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - torch.exp(-2 * s.abs()) + a, -torch.expm1(s.abs()).sum(1)


def _solved(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """x' = s + 0.3 tanh(x' + a) by Newton's method to 1e-9 over the batch, derivative implicit."""
    with torch.no_grad():
        x = s.clone()
        for _ in range(50):
            slope = 1 - 0.3 / torch.cosh(x + a).square()
            change = (s + 0.3 * torch.tanh(x + a) - x) / slope
            x = x + 0.7 * change
            if bool(change.abs().max() < 1e-9):
                break
        slope = 1 - 0.3 / torch.cosh(x + a).square()
    residual = s + 0.3 * torch.tanh(x + a) - x
    after = x + (residual - residual.detach()) / slope
    return after, -after.square().sum(1)


def _heights(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Terrain from a table, interpolated linearly every 5 cm."""
    grid = s[:, 0] / 0.05
    cell = grid.floor()
    left, right = torch.sin(7 * 0.05 * cell), torch.sin(7 * 0.05 * (cell + 1))
    height = left + (grid - cell) * (right - left)
    speed = s[:, 1] + 0.1 * (a[:, 0] - height)
    return torch.stack([s[:, 0] + 0.1 * speed, speed], 1), -height.square()


def _unrewarded(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A parameter is a coordinate that never changes; every reward is 1."""
    return torch.stack([s[:, 0].cos() * s[:, 1] + a[:, 0], s[:, 1]], 1), torch.ones_like(s[:, 0])


def far(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in a national grid, where the origin is a thousand kilometres away."""
    x = s[:, :1] - 1e6
    return torch.cat([1e6 + torch.sin(2 * x) + s[:, 1:], 0.9 * s[:, 1:] + a], 1), -(x[:, 0] ** 2)


def _bistable(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Two hundred small steps of a double well."""
    x = s
    for _ in range(200):
        x = x + 0.02 * (x - x**3 + 0.2 * a)
    return x, -(x - 1).square().sum(1)


def _sorted(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return s.sort(1).values * 0.9 + 0.1 * a.cumsum(1), s.median(1).values


def _pulses(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A reward in a narrow window, and a short-range force."""
    force = torch.exp(-((s / 0.02) ** 2))
    return s + 0.1 * a - 0.05 * s * force, torch.exp(-((s - 1) / 0.01).square()).sum(1)


def _quaternion(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A turned and renormalised unit quaternion."""
    w, x, y, z = s.unbind(1)
    p, q, r = 0.1 * a.unbind(1)[0], 0.1 * a.unbind(1)[1], 0.1 * a.unbind(1)[2]
    turned = [w - x * p - y * q - z * r, x + w * p + y * r - z * q]
    turned += [y + w * q + z * p - x * r, z + w * r + x * q - y * p]
    after = torch.stack(turned, 1)
    return after / after.norm(dim=1, keepdim=True), after[:, 0]


HAND_MADE: dict[str, tuple[Step, int, int]] = {
    "restitution": (_bounce, 2, 1),
    "stiff spring": (_stiff, 4, 2),
    "clips": (_clipped, 2, 1),
    "dead zone": (_dead_zone, 2, 2),
    "sticking friction": (_stick, 2, 1),
    "rounded sensor": (_rounded, 2, 2),
    "huge units": (_huge, 2, 2),
    "chaos": (_logistic, 2, 2),
    "wrapped angle": (_wrapped, 2, 1),
    "maximum and minimum": (_sticky_max, 3, 3),
    "switched dynamics": (_gated, 2, 2),
    "steep tanh": (_steep, 2, 2),
    "exponential": (_exponential, 2, 2),
    "implicit step": (_solved, 3, 3),
    "table of heights": (_heights, 2, 1),
    "unrewarded parameter": (_unrewarded, 2, 1),
    "double well": (_bistable, 2, 2),
    "sorted": (_sorted, 4, 4),
    "pulses": (_pulses, 2, 2),
    "quaternion": (_quaternion, 4, 3),
}
