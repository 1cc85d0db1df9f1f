"""Eight simulators as people write them: two drones, two cars, two teams, two walkers.

    drone-quadrotor    DiffAero's position control: quadrotor, rate controller, RK4      twin
    drone-obstacles    DiffPhysDrone: point mass, lagging thrust, softplus of the        twin
                       distance to pillars; its weight, the approach's speed, has no
                       gradient
    car-parking        highway-env's parking-v0: kinematic bicycle, √ of the distance    twin
    car-lane           highway-env's lane-keeping-v0: slipping tyres, RK4, a sine road   twin
    team-transport     VMAS's scenario, its own world and contacts                       from_vmas
    team-navigation    likewise                                                          from_vmas
    walker-hopper      Brax's environment, generalized pipeline                          from_jax
    walker-cheetah     Brax's environment, spring pipeline                               from_jax

A twin is an object with a state in tensors and `step`, read by `from_environment`: randomisation,
resets inside a step and rendering are left out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gradlab
from analyses.certificates.scenes import brax_system, normal
from gradlab.systems import from_environment
from gradlab.tasks import Task

ROWS = 256  # that a twin steps at once


class Twin(ABC):
    """A batched environment: `state` [n, ds] and `step(action)` → (observation, reward)."""

    action_dim: int
    middle: tuple[float, ...]
    spread: tuple[float, ...]

    def __init__(self) -> None:
        self.state = torch.tensor(self.middle, dtype=torch.float64).repeat(ROWS, 1)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        self.state, reward = self.moved(self.state, action)
        return self.state, reward

    @abstractmethod
    def moved(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Next state and reward."""


def rk4(f: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    k1 = f(x)
    k2 = f(x + dt / 2 * k1)
    k3 = f(x + dt / 2 * k2)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + f(x + dt * k3))


def rotated(q: Tensor, v: Tensor) -> Tensor:
    """v [n, 3] turned by the quaternion q [n, 4], real part last."""
    axis, real = q[:, :3], q[:, 3:]
    once = torch.linalg.cross(axis, v) + real * v
    return v + 2 * torch.linalg.cross(axis, once)


class Quadrotor(Twin):
    """State (p, q, v, w) [13]; action: shares of the range of thrust and body rates."""

    action_dim = 4
    middle = (0.0,) * 6 + (1.0,) + (0.0,) * 6
    spread = (3.0,) * 3 + (0.05,) * 3 + (0.0,) + (0.5,) * 3 + (0.2,) * 3
    dt, gravity, drag, fastest = 0.0333, 9.81, 0.6, 7.5
    inertia = (0.01, 0.01, 0.02)

    def moved(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        a = action.clamp(-1, 1)
        thrust, rates = self.gravity * (1 + a[:, :1]), 3.14 * a[:, 1:]
        J = state.new_tensor(self.inertia)

        def f(x: Tensor) -> Tensor:
            q, v, w = x[:, 3:7], x[:, 7:10], x[:, 10:]
            torque = J * 10 * (rates - w)
            turn = (torque - torch.linalg.cross(w, J * w)) / J
            real, axis = q[:, 3:], q[:, :3]
            spin = torch.cat(
                [real * w + torch.linalg.cross(axis, w), -(axis * w).sum(1, keepdim=True)], 1
            )
            up = rotated(q, torch.tensor([0.0, 0, 1]).to(v).expand_as(v))
            pull = thrust * up - self.drag * v - v.new_tensor([0, 0, self.gravity])
            return torch.cat([v, spin / 2, pull, turn], 1)

        after = rk4(f, state, self.dt)
        q = after[:, 3:7] / after[:, 3:7].norm(dim=1, keepdim=True).detach()
        p, v, w = after[:, :3], after[:, 7:10], after[:, 10:]
        far = p.norm(dim=1, keepdim=True)
        wanted = -p / far.clamp_min(1e-6) * far.clamp_max(self.fastest)
        lag = (v - wanted).norm(dim=1)
        tilt = torch.acos((1 - 2 * (q[:, 0] ** 2 + q[:, 1] ** 2)).clamp(-1 + 1e-6, 1 - 1e-6))
        loss = F.smooth_l1_loss(lag, torch.zeros_like(lag), reduction="none") + 0.1 * tilt**2
        loss = loss + 3 * (1 - (-far[:, 0]).exp()) + 0.001 * w.norm(dim=1)
        return torch.cat([p, q, v, w], 1), -loss


class Obstacles(Twin):
    """State (p, v, acceleration) [9]; action: acceleration beside hovering, in 10 m/s²."""

    action_dim = 3
    middle = (-4.0, 0.0, 0.0) + (0.0,) * 6
    spread = (0.5, 1.0, 0.5, 0.3, 0.3, 0.3, 0.5, 0.5, 0.5)
    dt, delay, radius, margin = 1 / 15, 12.0, 0.4, 0.2
    pillars = ((-1.5, 0.4), (0.5, -0.8), (1.5, 0.9))

    def moved(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        p, v, a = state.split(3, 1)
        kept = math.exp(-self.delay * self.dt)
        push = (1 - kept) * 10 * action.clamp(-1, 1) + kept * a
        p_next = p + v * self.dt + 0.5 * push * self.dt**2
        v_next = v + (0.5 * (a + push) - 0.05 * v * v.norm(dim=1, keepdim=True)) * self.dt
        clear = self.clear(p_next)
        with torch.no_grad():  # as published: the approach's speed is a weight
            approach = ((self.clear(p) - clear) / self.dt).clamp_min(1)
        wanted = F.normalize(p.new_tensor([4.0, 0, 0]) - p.detach(), dim=1) * 3
        lag = (v_next - wanted).norm(dim=1)
        loss = F.smooth_l1_loss(lag, torch.zeros_like(lag), reduction="none")
        near = approach * ((1 - clear).relu() ** 2 + F.softplus(-32 * clear))
        jerk = ((push - a) / self.dt).square().sum(1)
        loss = loss + 1.5 * near + 0.01 * push.square().sum(1) + 1e-3 * jerk
        return torch.cat([p_next, v_next, push], 1), -loss

    def clear(self, p: Tensor) -> Tensor:
        """Metres between the drone's hull and the next pillar's."""
        away = (p[:, None, :2] - p.new_tensor(self.pillars)).norm(dim=2) - self.radius
        return away.min(1).values - self.margin


class Parking(Twin):
    """State (x, y, heading, speed) [4]; action: acceleration and steering, in shares of ranges."""

    action_dim = 2
    middle = (0.0, 0.0, 0.0, 0.0)
    spread = (4.0, 2.0, 1.0, 1.0)
    goal = (8.0, 14.0, math.pi / 2)

    def moved(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x, y, heading, speed = state.unbind(1)
        pedal, wheel = action.clamp(-1, 1).unbind(1)
        slip = torch.atan(0.5 * torch.tan(math.pi / 4 * wheel))
        for _ in range(3):
            x = x + speed * torch.cos(heading + slip) / 15
            y = y + speed * torch.sin(heading + slip) / 15
            heading = heading + speed * torch.sin(slip) / 2.5 / 15
            speed = speed + 5 * pedal / 15
        gx, gy, turned = self.goal
        off = (x - gx).abs() / 100 + 0.3 * (y - gy).abs() / 100
        off = off + 0.02 * (heading.cos() - math.cos(turned)).abs()
        off = off + 0.02 * (heading.sin() - math.sin(turned)).abs()
        return torch.stack([x, y, heading, speed], 1), -off.sqrt()


class LaneKeeping(Twin):
    """State (x, y, heading, lateral speed, yaw rate) [5] at 8.3 m/s; action: steering / (π/3)."""

    action_dim = 1
    middle = (0.0, 0.0, 0.3, 0.0, 0.0)
    spread = (20.0, 1.0, 0.2, 0.2, 0.1)
    speed, friction, arm, width, dt = 8.3, 15.0, 2.5, 4.0, 0.1
    inertia = (5.0**2 + 2.0**2) / 12

    def moved(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        steering = math.pi / 3 * action[:, 0].clamp(-1, 1)
        u = self.speed

        def f(s: Tensor) -> Tensor:
            _, _, heading, side, yaw = s.unbind(1)
            front = 2 * self.friction * (steering - torch.atan2(side + self.arm * yaw, u + 0 * yaw))
            rear = -2 * self.friction * torch.atan2(side - self.arm * yaw, u + 0 * yaw)
            cos, sin = heading.cos(), heading.sin()
            turn = self.arm * (front - rear) / self.inertia
            moves = (u * cos - side * sin, u * sin + side * cos, yaw, front + rear - yaw * u, turn)
            return torch.stack(moves, 1)

        after = rk4(f, state, self.dt)
        lateral = after[:, 1] - 5 * torch.sin(2 * math.pi / 100 * after[:, 0])
        return after, 1 - (lateral / self.width) ** 2


def twin(make: Callable[[], Twin], discount: float = 0.98) -> Task:
    env = make()
    system = from_environment(
        env, lambda e: e.state, lambda e, s: setattr(e, "state", s), env.action_dim
    )
    return Task(
        type(env).__name__, system, None, normal(env.middle, env.spread), discount, 25,
        action_limit=(1.0,) * env.action_dim,
    )  # fmt: skip


def transport() -> Task:
    """Two agents push a package to its goal in the middle."""

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        near = after[:, [0, 1, 6, 7]].view(-1, 2, 2) - after[:, None, 12:14]
        return -after[:, 12:14].norm(dim=1) - 0.1 * near.norm(dim=2).sum(1)

    system = gradlab.systems.from_vmas("transport", reward, n_agents=2)
    middle = (-0.6, 0.1, 0, 0, 0, 0, -0.6, -0.1, 0, 0, 0, 0, -0.4, 0.0, 0, 0)
    spread = (0.05, 0.05, 0.1, 0.1, 0.1, 0.1) * 2 + (0.05, 0.05, 0.05, 0.05)
    return Task(
        "transport", system, None, normal(middle, spread), 0.98, 25, action_limit=(1.0,) * 4
    )


def navigation() -> Task:
    """Three agents cross the middle to goals of their own; a collision costs 1 a step."""
    angle = 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    ring = torch.stack([angle.cos(), angle.sin()], 1)

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        place = torch.stack([after[:, 6 * k : 6 * k + 2] for k in range(3)], 1)
        apart = (place - place.roll(1, 1)).norm(dim=2)
        hit = (apart < 0.205).to(after).sum(1)
        return -(place + 0.8 * ring.to(after)).norm(dim=2).sum(1) - hit

    system = gradlab.systems.from_vmas("navigation", reward, n_agents=3)
    middle = tuple(x for row in 0.8 * ring for x in (*row.tolist(), *(0.0,) * 4))
    start = normal(middle, (0.1, 0.1, *(0.05,) * 4) * 3)
    return Task("navigation", system, None, start, 0.98, 25, action_limit=(1.0,) * 6)


def walker(name: str, backend: str) -> Task:
    """Forward speed, the actions' cost and, on the hopper, 1 a step: one step from (q, q̇)."""
    hops = name == "hopper"

    def reward(before: Any, action: Any, after: Any, dt: Any) -> Any:
        forward = (after.q[0] - before.q[0]) / dt
        return forward + (1.0 if hops else 0.0) - (1e-3 if hops else 0.1) * action @ action

    def alive(state: Any) -> Any:
        return (state[1] > 0.7 - 1.25) & (abs(state[2]) < 0.2)

    system, middle = brax_system(name, backend, reward, alive if hops else None)
    spread = (5e-3 if hops else 0.1,) * len(middle)
    return Task(
        name, system, None, normal(middle, spread), 0.98, 25,
        action_limit=(1.0,) * system.action_dim,
    )  # fmt: skip


TASKS: dict[str, Callable[[], Task]] = {
    "drone-quadrotor": partial(twin, Quadrotor),
    "drone-obstacles": partial(twin, Obstacles),
    "car-parking": partial(twin, Parking),
    "car-lane": partial(twin, LaneKeeping),
    "team-transport": transport,
    "team-navigation": navigation,
    "walker-hopper": partial(walker, "hopper", "generalized"),
    "walker-cheetah": partial(walker, "halfcheetah", "spring"),
}
