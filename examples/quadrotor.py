"""A task of your own: a planar quadrotor flies home, past a pillar or through nothing.

    state (x, z, φ, ẋ, ż, φ̇), SI units; action: the two rotors' thrusts, in shares of hovering's

    m ẍ = −(u₁ + u₂) sin φ,   m z̈ = (u₁ + u₂) cos φ − m g,   I φ̈ = l (u₂ − u₁)

    python examples/quadrotor.py quadrotor.safetensors      trains a policy that begins to fly
    gradlab measure examples/quadrotor.py:make_task --policy quadrotor.safetensors
    gradlab measure examples/quadrotor.py:make_task_with_collision --policy quadrotor.safetensors

The pillar stands on the way home, and whoever is within half a metre of it pays 5 a step: the
return jumps there, which no derivative of the step sees.
"""

import sys

import torch
from torch import Tensor

import gradlab
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy
from gradlab.systems.system import System

MASS, INERTIA, ARM, G, DT = 0.5, 0.01, 0.2, 9.81, 0.05  # kg, kg m², m, m/s², s
PILLAR, NEAR, PRICE = (-1.0, 0.0), 0.5, 5.0


def flight(mass: float, inertia: float, collision: bool) -> System:
    """Flight with a mass and an inertia that are believed in; the thrusts are the real ones."""

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        position, angle, speed, turn = state[:, :2], state[:, 2], state[:, 3:5], state[:, 5]
        thrust = MASS * G / 2 * (1 + action.clamp(-1, 1))  # N
        force = thrust.sum(1)
        pull = torch.stack([-force * angle.sin(), force * angle.cos() - mass * G], 1) / mass
        turn = turn + DT * ARM * (thrust[:, 1] - thrust[:, 0]) / inertia
        speed = speed + DT * pull
        after = torch.cat(
            [position + DT * speed, (angle + DT * turn)[:, None], speed, turn[:, None]], 1
        )
        cost = position.square().sum(1) + 0.1 * speed.square().sum(1) + 0.1 * angle.square()
        cost = cost + 0.01 * state[:, 5].square() + 0.1 * action.square().sum(1)
        if collision:
            away = (position - position.new_tensor(PILLAR)).norm(dim=1)
            cost = cost + PRICE * (away < NEAR)
        return after, -cost

    return gradlab.systems.from_function(step, state_dim=6, action_dim=2)


def starts(n: int, generator: torch.Generator) -> Tensor:
    """Two metres left of home, half a metre up or down, almost at rest."""
    draw = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    middle, spread = (-2.0, 0.0, 0.0, 0.0, 0.0, 0.0), (0.3, 0.5, 0.1, 0.2, 0.2, 0.2)
    return draw.new_tensor(middle) + draw.new_tensor(spread) * draw


def make_task(collision: bool = False) -> gradlab.Task:
    """The prior believes in a quadrotor that is a quarter heavier, and has 30% more inertia."""
    simulator = flight(MASS, INERTIA, collision)
    prior = flight(1.25 * MASS, 1.3 * INERTIA, collision)
    name = "quadrotor_with_pillar" if collision else "quadrotor"
    return gradlab.Task(name, simulator, prior, starts, discount=0.97, horizon=25)


def make_task_with_collision() -> gradlab.Task:
    return make_task(collision=True)


def train(task: gradlab.Task, updates: int, seed: int = 0, steps: int = 60) -> Policy:
    """A small policy after some updates of plain backpropagation through the simulator."""
    torch.manual_seed(seed)
    policy = Policy(6, 2, (32, 32), "tanh", limit=(1.0, 1.0)).double()
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        state, total = task.starts(64, generator), torch.zeros(64, dtype=torch.float64)
        for t in range(steps):
            out = task.simulator.step(state, policy(state))
            state, total = out.state, total + task.discount**t * out.reward
        optimizer.zero_grad()
        (-total.mean()).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
    return policy


if __name__ == "__main__":
    checkpoint.save(train(make_task(), updates=100), sys.argv[1])
