"""Forty mistakes that a certificate has to find, and the parts that they are made of.

A planted fault is a sound torch system with one mistake in its derivative or its behaviour. A
faulty derivative leaves the forward step as it was: its value is detached, and another expression
carries the derivative (`with_derivative_of`), or `linearize` is bent (`Relinearized`).

Steps that depend on more than the row of their arguments, so that they have no Jacobian; mistakes
in the derivative of the reward alone, while a ball touches the ground or while it does not, in a
`linearize` that is written by hand beside a sound step, and in what automatic differentiation takes
through smooth steps and clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab import tasks
from gradlab.systems import (
    CartPoleModel,
    CartPoleSimulator,
    Linearization,
    System,
    Transition,
    from_function,
)
from gradlab.systems.closed_form import TIMESTEP, TORQUE_LIMIT, wrap
from gradlab.systems.mujoco_pendulum import pendulum_parameters
from gradlab.tasks import Task
from tests.certification.steps import (
    Ball,
    Step,
    ball_task,
    car_task,
    clip_torque,
    depth,
    function_task,
    grip,
    network,
    network_step,
    pendulum_task,
)

WRONG = ("wrong", "dead")


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        blocks: every block whose derivative is broken, as measured by differences; () where the
            behaviour is broken instead.
        codes: of findings, any of which names the fault.
        task: a new faulty system at each call, since some remember their calls.
    """

    name: str
    blocks: tuple[str, ...]
    codes: tuple[str, ...]
    task: Callable[[], Task]


def with_derivative_of(value: Tensor, carrier: Tensor) -> Tensor:
    """`value`, differentiated as if it were `carrier`."""
    return carrier + (value - carrier).detach()


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(x, change):  # type: ignore[no-untyped-def]
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.change = inputs[1]

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return ctx.change(gradient), None


def with_backward(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`x`, whose gradient passes through `change` on the way back."""
    return _Backward.apply(x, change)


Bend = Callable[[System, Tensor, Tensor], Linearization]


@dataclass(frozen=True)
class Relinearized:
    """`system` with another linearize; its step, and automatic differentiation of it, are sound."""

    system: System
    bend: Bend

    @property
    def state_dim(self) -> int:
        return self.system.state_dim

    @property
    def action_dim(self) -> int:
        return self.system.action_dim

    @property
    def noise_dim(self) -> int:
        return self.system.noise_dim

    @property
    def differentiable(self) -> bool:
        return self.system.differentiable

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        return self.system.step(state, action, noise)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        return self.bend(self.system, state, action)

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return self.system.sample_noise(n, generator, dtype)


def _around(system: System, step: Step) -> System:
    return from_function(step, system.state_dim, system.action_dim)


def _detached_action() -> Task:
    task = car_task()
    car = task.simulator

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        out = car.step(s, a.detach())
        return out.state, out.reward

    return replace(task, simulator=_around(car, step))


def _steer_in_degrees() -> Task:
    """Actions in degrees; the factor π/180 is in the forward step alone."""
    task = car_task()
    car, per_degree = task.simulator, torch.tensor([math.pi / 180, 1.0], dtype=torch.float64)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        out = car.step(s, with_derivative_of(a * per_degree.to(a), a))
        return out.state, out.reward

    return replace(task, simulator=_around(car, step), action_limit=(24.0, 3.0))


def _missing_substep() -> Task:
    """The derivative of two substeps of three."""
    task = tasks.inverted_pendulum("analytic")
    once = CartPoleSimulator(replace(pendulum_parameters(), substeps=1))
    reward = task.simulator

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        first = once.step(s, a).state
        after = with_derivative_of(first, s)
        for _ in range(2):
            after = once.step(after, a).state
        return after, reward.step(s, a).reward

    return replace(task, simulator=_around(once, step))


def _kills_inside(torque: Tensor) -> Tensor:
    """Inside the limits the torque is copied without its graph."""
    return torch.where(torque.abs() < TORQUE_LIMIT, torque.detach(), clip_torque(torque))


def _overwritten_sine(theta: Tensor) -> Tensor:
    """sin θ, whose saved θ is advanced in place before the derivative is taken."""
    saved = theta.clone()
    pull = saved.sin()
    saved.data.add_(0.3)
    return pull


def _half_precision() -> Task:
    """The derivative is that of the network in bfloat16."""
    exact = network_step(network(4, 2))

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        after, reward = exact(s, a)
        rough = exact(s.bfloat16().to(s.dtype), a.bfloat16().to(a.dtype))[0]
        return with_derivative_of(after, rough), reward

    return function_task(step, 4, 2)


def _detached_noise() -> Task:
    """s' = m(s, a) + σ(s) ξ, whose σ depends on the state and has no graph."""
    mean = network_step(network(3, 1))

    def step(s: Tensor, a: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        after, reward = mean(s, a)
        return after + (0.3 + 0.2 * s.square()).sqrt().detach() * noise, reward

    return function_task(step, 3, 1, noise_dim=3)


STEPS = (
    Fault(
        "stop-gradient on a term", ("A",), WRONG,
        lambda: pendulum_task(gravity=lambda theta: theta.sin().detach()),
    ),
    Fault(
        "double-counted term", ("A",), WRONG,
        lambda: pendulum_task(gravity=lambda t: with_derivative_of(t.sin(), 2 * t.sin())),
    ),
    Fault(
        "in-place overwrite of a saved tensor", ("A",), WRONG,
        lambda: pendulum_task(gravity=_overwritten_sine),
    ),
    Fault(
        "clip without derivative (straight through)", ("B", "r_a"), WRONG,
        lambda: pendulum_task(clip_torque=lambda u: with_derivative_of(clip_torque(u), u)),
    ),
    Fault(
        "clip that kills the derivative inside", ("B", "r_a"), WRONG,
        lambda: pendulum_task(clip_torque=_kills_inside),
    ),
    Fault(
        "explicit derivative of a semi-implicit step", ("A", "B"), WRONG,
        lambda: pendulum_task(
            advance=lambda theta, before, after: with_derivative_of(
                theta + TIMESTEP * after, theta + TIMESTEP * before
            )
        ),
    ),
    Fault("detached action", ("B", "r_a"), WRONG, _detached_action),
    Fault("derivative per degree taken for one per radian", ("B", "r_a"), WRONG, _steer_in_degrees),
    Fault("missing substep", ("A", "B"), WRONG, _missing_substep),
    Fault("half precision", ("A", "B"), (*WRONG, "single_precision"), _half_precision),
    Fault("detached noise", ("A",), WRONG, _detached_noise),
)  # fmt: skip


ALL = ("A", "B", "r_s", "r_a")


def _bent(task: Task, bend: Bend) -> Task:
    return replace(task, simulator=Relinearized(task.simulator, bend))


def _changed(change: Callable[[Linearization], dict[str, Tensor]]) -> Bend:
    """The sound linearization with some blocks replaced."""

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        sound = system.linearize(s, a)
        return replace(sound, **change(sound))

    return bend


def _random_lq() -> Task:
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(4, 4, generator=generator, dtype=torch.float64) / 2
    B = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    return tasks.linear_quadratic(A=A, B=B)


def _prior() -> Task:
    task = tasks.inverted_pendulum("analytic")
    return replace(task, simulator=CartPoleModel(), prior=None)


def _scaled(block: Tensor, factor: float, *cell: object) -> Tensor:
    scaled = block.clone()
    scaled[cell] *= factor
    return scaled


def _post_step_reward() -> Task:
    """The reward of the state after the step, with the gradients of that before it."""
    task = tasks.inverted_pendulum("analytic", reward="post_step")
    before = tasks.inverted_pendulum("analytic").simulator

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        pre = before.linearize(s, a)
        return replace(system.linearize(s, a), r_s=pre.r_s, r_a=pre.r_a)

    return _bent(task, bend)


def _at_the_next_state(system: System, s: Tensor, a: Tensor) -> Linearization:
    return system.linearize(system.step(s, a).state.detach(), a)


def _previous_row(system: System, s: Tensor, a: Tensor) -> Linearization:
    return system.linearize(s.roll(1, 0), a.roll(1, 0))


def _cached() -> Task:
    """The Jacobian of the first call is kept for all later ones of as many rows."""
    kept: dict[torch.Size, Linearization] = {}

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        return kept.setdefault(s.shape, system.linearize(s, a))

    return _bent(car_task(), bend)


def _lq(change: Callable[[Linearization], dict[str, Tensor]]) -> Callable[[], Task]:
    return lambda: _bent(_random_lq(), _changed(change))


def _car(change: Callable[[Linearization], dict[str, Tensor]]) -> Callable[[], Task]:
    return lambda: _bent(car_task(), _changed(change))


def _pole(change: Callable[[Linearization], dict[str, Tensor]]) -> Callable[[], Task]:
    return lambda: _bent(_prior(), _changed(change))


JACOBIANS = (
    # ∂θ̈/∂θ of the cart-pole.
    Fault(
        "dropped term", ("A",), WRONG,
        _pole(lambda J: {"A": _scaled(J.A, 0.0, slice(None), 3, 1)}),
    ),
    Fault("transposed block", ("A",), WRONG, _lq(lambda J: {"A": J.A.mT})),
    Fault("symmetric part only", ("A",), WRONG, _lq(lambda J: {"A": (J.A + J.A.mT) / 2})),
    Fault(
        "wrong sign", ("B",), WRONG,
        _car(lambda J: {"B": _scaled(J.B, -1.0, ..., 0)}),
    ),
    Fault("wrong scale", ("B",), WRONG, _pole(lambda J: {"B": 1.12 * J.B})),
    Fault("missing chain factor dt", ("B",), WRONG, _pole(lambda J: {"B": J.B / 0.04})),
    # ∂/∂v and ∂/∂r of the vehicle change places.
    Fault("wrong index", ("A",), WRONG, _car(lambda J: {"A": J.A[:, :, [0, 2, 1, 3, 4, 5]]})),
    Fault("factor two of a square", ("r_a",), WRONG, _car(lambda J: {"r_a": J.r_a / 2})),
    Fault("reward from the old state", ("r_s", "r_a"), WRONG, _post_step_reward),
    Fault(
        "linearized at the wrong point", ("A", "B", "r_s"), WRONG,
        lambda: _bent(_prior(), _at_the_next_state),
    ),
    Fault(
        "off-by-one row", ALL, (*WRONG, "rows_mix"),
        lambda: _bent(car_task(), _previous_row),
    ),
    Fault("cached Jacobian of the first call", ALL, (*WRONG, "stale"), _cached),
)  # fmt: skip


SMOOTHNESS = 0.01  # m
EXPLODED = 5.0  # of ∂v'/∂gap in 1/s, which is 8 in most contacts


def soft_depth(gap: Tensor) -> Tensor:
    return SMOOTHNESS * torch.nn.functional.softplus(-gap / SMOOTHNESS)


def _guarded(gap: Tensor) -> Tensor:
    """Gradients that are large are taken for numerical failures and dropped."""

    def guard(gradient: Tensor) -> Tensor:
        return torch.where(gradient.abs() < EXPLODED, gradient, torch.zeros_like(gradient))

    return depth(with_backward(gap, guard))


def _weaker_when_fast(force: Tensor, approach: Tensor) -> Tensor:
    """Right at rest, 30% too weak above 0.5 m/s of approach."""
    return with_derivative_of(force, torch.where(approach > 0.5, 0.7 * force, force))


def _masked_root(gap: Tensor) -> Tensor:
    """Hertz's depth^1.5, whose root of a negative depth is masked in the value alone."""
    return torch.where(gap < 0, -gap * (-gap).sqrt() / 0.1, torch.zeros_like(gap))


def _ball(**parts: Callable[..., Tensor]) -> Task:
    return ball_task(replace(Ball(), **parts))


CONTACTS = (
    Fault(
        "frozen contact normal", ("A",), WRONG,
        lambda: _ball(normal_slope=torch.Tensor.detach),
    ),
    Fault(
        "contact gradient zero", ("A",), WRONG,
        lambda: _ball(normal_force=lambda force, approach: force.detach()),
    ),
    Fault(
        "friction's sign at rest", ("A",), WRONG,
        lambda: _ball(grip=lambda slip: grip(slip).detach()),
    ),
    Fault(
        "softplus derivative approximated", ("A",), WRONG,
        lambda: _ball(depth=lambda gap: with_derivative_of(soft_depth(gap), depth(gap))),
    ),
    Fault("NaN guard that zeroes the gradient", ("A",), WRONG, lambda: _ball(depth=_guarded)),
    Fault(
        "wrong backward of a rare stratum", ("A",), WRONG,
        lambda: _ball(normal_force=_weaker_when_fast),
    ),
    # Backpropagation sends 0 · NaN from the next state into the reward's row, too.
    Fault("where() leaks NaN", ("A", "r_s"), ("not_finite",), lambda: _ball(depth=_masked_root)),
)  # fmt: skip


EARTH = 6.4e6  # m


def _moved(s: Tensor, a: Tensor) -> Tensor:
    """A mass on a line, 0.1 s."""
    return torch.stack([s[:, 0] + 0.1 * s[:, 1], s[:, 1] + 0.1 * a[:, 0]], 1)


def _absolute(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """−|p|, whose derivative has no sign."""
    return _moved(s, a), -with_derivative_of(s[:, 0].abs(), s[:, 0])


def _distance(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """√ of a square that is 0 at the goal."""
    return _moved(s, a), -s.square().sum(1).sqrt()


def _altitude(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The position is measured from the centre of the Earth, then from its surface."""
    return _moved(s, a), -(((EARTH + s[:, 0]) - EARTH) ** 2)


def _half_at_the_goal() -> Task:
    def starts(n: int, generator: torch.Generator) -> Tensor:
        begin = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return begin * (torch.arange(n) % 2)[:, None]

    return Task("reach", from_function(_distance, 2, 1), None, starts, 0.98, 20)


def _half_wrapped(theta: Tensor) -> Tensor:
    """atan2(sin θ, cos θ), whose sine was computed without a graph."""
    return with_derivative_of(wrap(theta), torch.atan2(theta.sin().detach(), theta.cos()))


REWARDS = (
    Fault(
        "dead reward column", ("r_s",), WRONG,
        lambda: pendulum_task(rewarded_speed=torch.Tensor.detach),
    ),
    Fault(
        "angle wrap's derivative", ("r_s",), WRONG,
        lambda: pendulum_task(wrap=_half_wrapped),
    ),
    Fault("abs() without its sign", ("r_s",), WRONG, lambda: function_task(_absolute, 2, 1)),
    # Backpropagation sends 0 · NaN from the reward into the next state's rows, too.
    Fault("sqrt() at 0", ("A", "r_s"), ("not_finite",), _half_at_the_goal),
    Fault(
        "float32 cancellation", ("r_s",), ("single_precision",),
        lambda: function_task(_altitude, 2, 1),
    ),
)  # fmt: skip


NETWORK = network_step(network(3, 2))


class Lagging:
    """Each action is blended with the last row of the call before."""

    def __init__(self) -> None:
        self.previous = torch.zeros(2, dtype=torch.float64)

    def __call__(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        applied = 0.8 * a + 0.2 * self.previous.to(a)
        self.previous = a[-1].detach().clone()
        return NETWORK(s, applied)


class Wearing:
    """A mass that grows by a millionth at each call."""

    def __init__(self) -> None:
        self.mass = 1.0

    def __call__(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        self.mass *= 1 + 1e-6
        return NETWORK(s, a / self.mass)


def _centred(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return NETWORK(s - 0.1 * s.mean(0), a)


def _normalised(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return NETWORK(s, a / (1 + a.abs().max()))


def _shaken(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    after, reward = NETWORK(s, a)
    return after + 1e-4 * torch.randn_like(after), reward


def _task(step: Step) -> Task:
    return function_task(step, 3, 2)


BEHAVIOUR = (
    Fault("stale buffer", (), ("stale",), lambda: _task(Lagging())),
    Fault("parameter buffer mutated", (), ("restless",), lambda: _task(Wearing())),
    Fault("batch mean leaks across rows", (), ("rows_mix",), lambda: _task(_centred)),
    Fault("batch-dependent scale", (), ("rows_mix",), lambda: _task(_normalised)),
    Fault("hidden randomness", (), ("random",), lambda: _task(_shaken)),
)


FAULTS = (*STEPS, *JACOBIANS, *CONTACTS, *REWARDS, *BEHAVIOUR)
