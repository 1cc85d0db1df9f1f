"""MPG's two tasks, with the constants of its Table VI, and two swing-ups.

Path tracking has the parameters of its Table III or of its published code, the inverted pendulum
is MuJoCo's or in closed form. The swing-ups are Gymnasium's Pendulum-v1, with a prior model of
another rod if wanted, and a cart-pole. On the circle (cos θ, sin θ in the place of θ) a learner
meets the states that Gymnasium shows; in the inner state Jacobians of models have a meaning in
every direction (`systems.function`).

Linear dynamics with quadratic rewards, where every truth has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.closed_form import (
    ACTION_LIMIT,
    SPEED_LIMIT,
    TORQUE_LIMIT,
    CartPoleModel,
    CartPoleParameters,
    CartPoleSimulator,
    LinearQuadratic,
    Pendulum,
    Timing,
    check_covariance,
    symmetric_root,
)
from gradlab.systems.closed_form import alive as pole_alive
from gradlab.systems.function import from_function, on_circle, to_circle
from gradlab.systems.mujoco_pendulum import MujocoPendulum, Slider, pendulum_parameters
from gradlab.systems.system import System
from gradlab.systems.vehicle import (
    ACCELERATION_LIMIT,
    PUBLISHED_CODE,
    STEER_LIMIT,
    TABLE3,
    TARGET_SPEED,
    VehicleModel,
    VehicleSimulator,
)
from gradlab.systems.vehicle import alive as vehicle_alive
from gradlab.tasks.task import Task

DISCOUNT = 0.98
HORIZON = 25
_EXPLORATION = 0.1  # standard deviation, in units of the actuator's limit

_VEHICLES = {"table3": TABLE3, "code": PUBLISHED_CODE}
_Coordinates = Literal["angle", "circle"]
_LENGTH = 0.6  # m
# PILCO's, but for its friction: 0.1 N s/m under the cart alone.
_PILCO = CartPoleParameters(
    cart_mass=0.5,
    pole_mass=0.5,
    half_length=_LENGTH / 2,
    inertia=0.5 * _LENGTH**2 / 12,
    gravity=9.82,
    gear=10.0,
    damping=0.01,
    offset=0.0,
    timestep=0.025,
    substeps=4,
)


def path_tracking(parameters: Literal["table3", "code"] = "table3") -> Task:
    """MPG's path tracking. parameters: "table3" as printed, "code" as in its experiments."""
    validation.word("parameters", parameters, _VEHICLES)
    vehicle = _VEHICLES[parameters]
    limit = (STEER_LIMIT, ACCELERATION_LIMIT)
    return Task(
        name="path_tracking",
        simulator=VehicleSimulator(vehicle),
        prior=VehicleModel(vehicle),
        starts=_vehicle_starts,
        discount=DISCOUNT,
        horizon=HORIZON,
        state_names=("δu [m/s]", "v [m/s]", "r [rad/s]", "δy [m]", "δφ [rad]", "x [m]"),
        action_names=("steer [rad]", "acceleration [m/s²]"),
        observation_scale=(1.0, 1.0, 2.0, 1.0, 2.4, 1 / 1200),
        exploration=(_EXPLORATION * limit[0], _EXPLORATION * limit[1]),
        action_limit=limit,
        alive=vehicle_alive,
        parameters={"parameters": parameters},
    )


def _vehicle_starts(n: int, generator: torch.Generator) -> Tensor:
    """x ~ U(0, 600), u ~ U(15, 25), v = u tan N(0, 0.15), r ~ N(0, 0.3), on the path's own axes
    δy ~ N(0, 1) and δφ ~ N(0, π/9)."""
    x, speed = torch.rand(2, n, generator=generator, dtype=torch.float64)
    dy, dphi, slip, r = torch.randn(4, n, generator=generator, dtype=torch.float64)
    u = 15 + 10 * speed
    v = u * (0.15 * slip).tan()
    return torch.stack([u - TARGET_SPEED, v, 0.3 * r, dy, math.pi / 9 * dphi, 600 * x], 1)


def inverted_pendulum(
    engine: Literal["mujoco", "analytic"] = "mujoco",
    slider: Slider = "stock",
    reward: Timing = "pre_step",
) -> Task:
    """MPG's inverted pendulum.

    Args:
        engine: "mujoco", or "analytic": the same in torch, differentiable, without joint limits.
        slider: "stock" stops the cart at ±1 m, "wide" never (always so for the analytic engine).
        reward: eq. 18 on the state "pre_step" or, as in the published code, "post_step".
    """
    validation.word("engine", engine, ("mujoco", "analytic"))
    simulator: System = MujocoPendulum(slider, reward)
    if engine == "analytic":
        simulator = CartPoleSimulator(pendulum_parameters(), reward)
    return Task(
        name="inverted_pendulum",
        simulator=simulator,
        prior=CartPoleModel(reward),
        starts=_pendulum_starts,
        discount=DISCOUNT,
        horizon=HORIZON,
        state_names=("x [m]", "θ [rad]", "ẋ [m/s]", "θ̇ [rad/s]"),
        action_names=("force / 100 N",),
        exploration=(_EXPLORATION * ACTION_LIMIT,),
        action_limit=(ACTION_LIMIT,),
        alive=pole_alive,
        parameters={"engine": engine, "slider": slider, "reward": reward},
    )


def _pendulum_starts(n: int, generator: torch.Generator) -> Tensor:
    """U(-0.05, 0.05) in every coordinate."""
    return 0.1 * torch.rand(n, 4, generator=generator, dtype=torch.float64) - 0.05


def pendulum(
    prior_mass: float | None = None,
    prior_length: float | None = None,
    discount: float = DISCOUNT,
    coordinates: _Coordinates = "angle",
) -> Task:
    """Gymnasium's Pendulum-v1 in its inner state (θ not wrapped, θ̇), without time limit.

    Args:
        prior_mass, prior_length: of the prior model's rod, kg and m (true: 1 and 1). Without
            either the task has no prior; with one, the other is the true one.
        discount: γ in (0, 1).
        coordinates: "angle", or "circle" for what Gymnasium shows, (cos θ, sin θ, θ̇).
    """
    validation.word("coordinates", coordinates, get_args(_Coordinates))
    given = {"mass": prior_mass, "length": prior_length}
    wrong = {name: value for name, value in given.items() if value is not None}
    task = Task(
        name="pendulum",
        simulator=Pendulum(),
        prior=Pendulum(**wrong) if wrong else None,
        starts=_hanging_anywhere,
        discount=discount,
        horizon=HORIZON,
        state_names=("θ [rad]", "θ̇ [rad/s]"),
        action_names=("torque [N m]",),
        observation_scale=(1 / math.pi, 1 / SPEED_LIMIT),
        exploration=(_EXPLORATION * TORQUE_LIMIT,),
        action_limit=(TORQUE_LIMIT,),
        parameters={
            "prior_mass": prior_mass,
            "prior_length": prior_length,
            "discount": discount,
        },
    )
    return task if coordinates == "angle" else _on_circle(task)


def cart_pole_swing_up(discount: float = 0.95) -> Task:
    """A cart swings its hanging pole up, at 10 Hz: PILCO's cart-pole, without stops.

    r = exp(−d²) − 1 − 0.001 a², d = |tip − (0, 0.6 m)| before the step; the pole is 0.6 m long.
    States are on the circle: (x, cos θ, sin θ, ẋ, θ̇), θ = 0 upright; episodes begin near θ = π,
    and PILCO's have 40 to 50 steps (Deisenroth and Rasmussen 2011, section 3.2).

    Args:
        discount: γ in (0, 1); a second is ten steps.
    """
    cart_pole = CartPoleSimulator(_PILCO)

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x, theta = state[:, 0], state[:, 1]
        across, short = x + _LENGTH * theta.sin(), _LENGTH * (1 - theta.cos())
        reward = torch.exp(-(across**2) - short**2) - 1 - 0.001 * action[:, 0] ** 2
        return cart_pole.step(state, action).state, reward

    def starts(n: int, generator: torch.Generator) -> Tensor:
        near = 0.1 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
        return to_circle(near + near.new_tensor([0.0, math.pi, 0.0, 0.0]), [1])

    return Task(
        name="cart_pole_swing_up",
        simulator=on_circle(from_function(step, 4, 1), [1]),
        prior=None,
        starts=starts,
        discount=discount,
        horizon=HORIZON,
        state_names=("x [m]", "cos θ", "sin θ", "ẋ [m/s]", "θ̇ [rad/s]"),
        action_names=("force / 10 N",),
        observation_scale=(1.0, 1.0, 1.0, 0.5, 0.1),
        exploration=(_EXPLORATION,),
        action_limit=(1.0,),
        parameters={"discount": discount},
    )


def _on_circle(task: Task) -> Task:
    """The pendulum in (cos θ, sin θ, θ̇)."""

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return to_circle(task.starts(n, generator), [0])

    return replace(
        task,
        simulator=on_circle(task.simulator, [0]),
        prior=None if task.prior is None else on_circle(task.prior, [0]),
        starts=starts,
        state_names=("cos θ", "sin θ", "θ̇ [rad/s]"),
        observation_scale=(1.0, 1.0, 1 / SPEED_LIMIT),
        parameters={**task.parameters, "coordinates": "circle"},
    )


def _hanging_anywhere(n: int, generator: torch.Generator) -> Tensor:
    """θ ~ U(−π, π), θ̇ ~ U(−1, 1)."""
    unit = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
    return unit * torch.tensor([math.pi, 1.0], dtype=torch.float64)


_Matrix = Tensor | Sequence[Sequence[float]]

# A mass on a line pushed for 0.1 s at a time, and a prior that believes in some friction and in a
# weaker push.
_EXAMPLE_A, _EXAMPLE_B = ((1.0, 0.1), (0.0, 1.0)), ((0.005,), (0.1,))
_EXAMPLE_PRIOR = (((1.0, 0.1), (0.0, 0.95)), ((0.005,), (0.08,)))


def linear_quadratic(
    A: _Matrix | None = None,
    B: _Matrix | None = None,
    Q: _Matrix | None = None,
    R: _Matrix | None = None,
    noise_covariance: _Matrix | None = None,
    start_mean: Tensor | Sequence[float] | None = None,
    start_covariance: _Matrix | None = None,
    discount: float = 0.95,
    prior: tuple[_Matrix, _Matrix] | None = None,
) -> Task:
    """s' = A s + B u + w, reward -(sᵀ Q s + uᵀ R u), every truth known in closed form.

    Args:
        A, B: [ds, ds], [ds, da], tensors or nested lists. None for both: a double integrator
            sampled at 10 Hz with a slightly wrong prior.
        Q, R: reward weights; None: the identity.
        noise_covariance: of w; None: 0.01 times the identity.
        start_mean, start_covariance: normal start law; None: 0 and the identity.
        prior: (A, B) of the prior model; None: the same as the simulator's.
    """
    if (A is None) != (B is None):
        raise InputError("only one of A and B was given, expected both or none")
    if A is None or B is None:
        A, B, prior = _EXAMPLE_A, _EXAMPLE_B, _EXAMPLE_PRIOR if prior is None else prior
    a, b = _numbers("A", A), _numbers("B", B)
    ds, da = b.shape
    one = torch.eye(ds, dtype=torch.float64)
    q = _numbers("Q", one if Q is None else Q)
    r = _numbers("R", torch.eye(da) if R is None else R)
    w = _numbers("noise_covariance", 0.01 * one if noise_covariance is None else noise_covariance)
    mean = _numbers("start_mean", [0.0] * ds if start_mean is None else start_mean, ds)
    spread = _numbers("start_covariance", one if start_covariance is None else start_covariance)
    check_covariance("start_covariance", spread, ds)
    root = symmetric_root(spread)
    pair = (a, b) if prior is None else prior
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"prior is {pair!r:.40}, expected two matrices, (A, B), or None")
    prior_a, prior_b = map(_numbers, ("prior A", "prior B"), pair)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return mean + torch.randn(n, ds, generator=generator, dtype=torch.float64) @ root

    matrices = {
        "A": a, "B": b, "Q": q, "R": r, "noise_covariance": w,
        "start_mean": mean, "start_covariance": spread,
    }  # fmt: skip
    return Task(
        name="linear_quadratic",
        simulator=LinearQuadratic(a, b, q, r, w),
        prior=LinearQuadratic(prior_a, prior_b, q, r, w),
        starts=starts,
        discount=discount,
        horizon=HORIZON,
        parameters={
            **{name: matrix.tolist() for name, matrix in matrices.items()},
            "discount": discount,
            "prior": [prior_a.tolist(), prior_b.tolist()],
        },
    )


def double_integrator(
    dt: float = 0.1,
    position_weight: float = 1.0,
    velocity_weight: float = 0.1,
    action_weight: float = 0.1,
    noise: float = 0.1,
    start_mean: Sequence[float] = (0.0, 0.0),
    discount: float = 0.95,
    prior_push: float = 1.0,
    prior_friction: float = 0.0,
) -> Task:
    """MAAC's double integrator (Fig. 2): a mass on a line, the optimal policy known.

        p' = p + dt v + dt²/2 (a + w),   v' = v + dt (a + w),   w ~ N(0, noise)
        r  = −(position_weight p² + velocity_weight v² + action_weight a²)

    The best policy is a = −K s with the discounted Riccati equation's

        P = Q + γ Aᵀ P A − γ² Aᵀ P B (R + γ Bᵀ P B)⁻¹ Bᵀ P A,   K = (R + γ Bᵀ P B)⁻¹ γ Bᵀ P A

    (`gradlab.fitting.policies.riccati_gain`): K = [2.2410, 2.0870] for the default arguments.
    The paper gives none of the numbers; these are gradlab's.

    Args:
        dt: seconds per step.
        noise: standard deviation of a random acceleration, m/s².
        start_mean: of normal starts with standard deviation 1 m and 1 m/s.
        prior_push: the prior's effect of an acceleration, as a multiple of the true one.
        prior_friction: share of its velocity that the prior's mass loses in each step.
    """
    given = {**locals(), "start_mean": [float(x) for x in start_mean]}
    for name, least in (("dt", 1e-6), ("noise", 0.0)):
        validation.number(name, given[name], least=least)
    for name in ("prior_push", "prior_friction"):
        validation.number(name, given[name])
    A, B = [[1.0, dt], [0.0, 1.0]], [[dt**2 / 2], [dt]]
    prior_A = [[1.0, dt], [0.0, 1.0 - prior_friction]]
    task = linear_quadratic(
        A=A,
        B=B,
        Q=[[position_weight, 0.0], [0.0, velocity_weight]],
        R=[[action_weight]],
        noise_covariance=[[noise**2 * x[0] * y[0] for y in B] for x in B],
        start_mean=start_mean,
        discount=discount,
        prior=(prior_A, [[prior_push * b for b in row] for row in B]),
    )
    return replace(
        task,
        name="double_integrator",
        state_names=("position [m]", "velocity [m/s]"),
        action_names=("acceleration [m/s²]",),
        parameters=given,
    )


def _numbers(name: str, value: Any, width: int | None = None) -> Tensor:
    """Finite float64 numbers of a tensor, an array or lists, apart from any graph.

    Args:
        width: of a vector; None: a matrix.
    """
    wanted = f"{'a matrix' if width is None else f'[{width}]'} of finite real numbers"
    try:
        if getattr(value, "layout", torch.strided) is not torch.strided or np.iscomplexobj(value):
            raise TypeError
        numbers = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise validation.expected(name, value, wanted) from None
    fits = numbers.ndim == 2 if width is None else numbers.shape == (width,)
    if not fits or not torch.isfinite(numbers).all():
        raise validation.expected(name, numbers, wanted)
    return numbers
