"""The scalar linear-quadratic world of MPG's theorems, differentiated in two independent ways.

s' = a s + b u + w,  w ~ (0, σ²),   r = −(q s² + ρ u²),   u = θ s
Q(s, u) = −(c_ss s² + 2 c_su s u + c_uu u²)                          a critic, not Q^π

moments   E s_t² is a recursion in θ; returns are differentiated by the complex step
gradlab   Estimator on an orthogonal design of starts and noise
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from analyses.harness.systems import linear_policy
from analyses.identities.quadratic_design import SEED, Designed, design
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy
from gradlab.systems.linear import LinearQuadratic

Terminal = Literal["attached", "detached"]
STEP = 1e-30  # of the complex step: no subtraction, so no cancellation


@dataclass(frozen=True)
class World:
    a: float = 1.05
    b: float = 0.5
    variance: float = 0.09
    q: float = 1.0
    rho: float = 0.3
    theta: float = -0.9
    discount: float = 0.95
    critic: tuple[float, float, float] = (2.0, 0.9, 0.4)  # c_ss, c_su, c_uu

    @property
    def stationary(self) -> float:
        """E s² of the law that the closed loop keeps."""
        return self.variance / (1 - (self.a + self.b * self.theta) ** 2)

    def next_moment(self, moment: complex, theta: complex) -> complex:
        return (self.a + self.b * theta) ** 2 * moment + self.variance

    def reward(self, moment: complex, theta: complex) -> complex:
        return -(self.q + self.rho * theta**2) * moment

    def value(self, moment: complex, theta: complex) -> complex:
        c_ss, c_su, c_uu = self.critic
        return -(c_ss + 2 * c_su * theta + c_uu * theta**2) * moment

    def system(self) -> LinearQuadratic:
        entries = (self.a, self.b, self.q, self.rho, self.variance)
        return LinearQuadratic(*(torch.tensor([[x]], dtype=torch.float64) for x in entries))

    def policy(self) -> Policy:
        return linear_policy(torch.tensor([[self.theta]], dtype=torch.float64))


class QuadraticCritic(nn.Module):
    """The critic above, [N, 1], [N, 1] → [N]."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.weights = world.critic

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        c_ss, c_su, c_uu = self.weights
        return -(c_ss * state**2 + 2 * c_su * state * action + c_uu * action**2)[:, 0]


@dataclass(frozen=True)
class Gradients:
    """Expected gradients from starts with second moment m.

    Attributes:
        full: (n, m, attached) → θ in every action of n model steps (MPG eq. 5); `attached`: in the
            tail action too. attached=None: no critic.
        unified: (n, m) → θ in the first action only (MPG eq. 6).
        unified_return: the same without critic.
    """

    full: Callable[[int, float, bool | None], float]
    unified: Callable[[int, float], float]
    unified_return: Callable[[int, float], float]


def by_moments(world: World) -> Gradients:
    """Complex-step derivatives of the moment recursions."""

    def returns(n: int, moment: float, choose: Callable[[int], complex], tail: bool) -> complex:
        m: complex = moment
        total: complex = 0.0
        for t in range(n):
            total += world.discount**t * world.reward(m, choose(t))
            m = world.next_moment(m, choose(t))
        return total + (world.discount**n * world.value(m, choose(n)) if tail else 0.0)

    moved = world.theta + 1j * STEP

    def full(n: int, moment: float, attached: bool | None) -> float:
        def choose(t: int) -> complex:
            return world.theta if t == n and not attached else moved

        return returns(n, moment, choose, attached is not None).imag / STEP

    def first(n: int, moment: float, tail: bool) -> float:
        return returns(n, moment, lambda t: world.theta if t else moved, tail).imag / STEP

    return Gradients(full, lambda n, m: first(n, m, True), lambda n, m: first(n, m, False))


def by_gradlab(world: World) -> Gradients:
    """gradlab's estimators in exact expectation."""
    system, policy, critic = world.system(), world.policy(), QuadraticCritic(world)

    def mean(
        actions: Literal["first", "all"], n: int, moment: float, attached: bool | None
    ) -> float:
        spread = torch.tensor([[moment]], dtype=torch.float64)
        starts, noise = design(spread.new_zeros(1), spread, n)
        designed = Designed(system, noise)
        terminal: Terminal = "detached" if attached is False else "attached"
        tail = Tail(
            n, None if attached is None else critic, world.discount, terminal_action=terminal
        )
        estimator = Estimator(designed, designed, actions, tail)
        return float(estimator.mean_gradient(policy, starts, SEED)[0])

    return Gradients(
        lambda n, m, attached: mean("all", n, m, attached),
        lambda n, m: mean("first", n, m, True),
        lambda n, m: mean("first", n, m, None),
    )
