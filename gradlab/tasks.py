"""Start here: a task is a simulator, its prior model, a start law, a discount and a horizon.

    task = gradlab.tasks.path_tracking(parameters="table3")
    task = Task("mine", simulator, prior, starts, discount=0.98, horizon=25)

In every N(m, x) below, x is the standard deviation.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.bicycle import PUBLISHED_CODE, TABLE3
from gradlab.systems.cartpole import (
    ACTION_LIMIT,
    CartPoleModel,
    CartPoleSimulator,
    Timing,
)
from gradlab.systems.linear import LinearQuadratic, check_covariance, symmetric_root
from gradlab.systems.mujoco import MujocoPendulum, Slider, pendulum_parameters
from gradlab.systems.system import System
from gradlab.systems.vehicle import (
    ACCELERATION_LIMIT,
    STEER_LIMIT,
    TARGET_SPEED,
    VehicleModel,
    VehicleSimulator,
)
from gradlab.user_code import load_function

Starts = Callable[[int, torch.Generator], Tensor]
Matrix = Tensor | Sequence[Sequence[float]]

VEHICLES = {"table3": TABLE3, "code": PUBLISHED_CODE}
ENGINES = ("mujoco", "analytic")
# MPG Table VI: 0.98, 25 steps, exploration N(0, 0.1) in units of the actuator's limit.
MPG_DISCOUNT = 0.98
MPG_HORIZON = 25
EXPLORATION = 0.1


@dataclass(frozen=True, eq=False)
class Task:
    """What a gradient is measured on.

    Attributes:
        simulator: the truth.
        prior: a model of it, in the same state and action, or None.
        starts: (n, generator) -> float64 [n, ds], the start law.
        discount: γ in (0, 1).
        horizon: largest horizon measured by default.
        state_names, action_names: one name per coordinate, with its unit where it has one.
        observation_scale: fixed factors [ds] of the first layer of policy and critic.
        reference_state: [ds], where the prior's Riccati gain is taken; None: zeros.
        exploration: standard deviation per action of exploratory noise.
        action_limit: largest |action| per action, beyond which the simulator clips.
        parameters: how the task was built, as JSON.
    """

    name: str
    simulator: System
    prior: System | None
    starts: Starts
    discount: float
    horizon: int
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    observation_scale: tuple[float, ...] | None = None
    reference_state: tuple[float, ...] | None = None
    exploration: tuple[float, ...] | None = None
    action_limit: tuple[float, ...] | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ds, da = self.simulator.state_dim, self.simulator.action_dim
        if self.prior is not None:
            for name, width in (("state_dim", ds), ("action_dim", da)):
                if getattr(self.prior, name) != width:
                    got = f"{name} {getattr(self.prior, name)}"
                    raise InputError(f"prior has {got}, but the simulator has {width}")
        # Settings may come from a command line: types are not certain.
        if not isinstance(self.discount, int | float) or not 0 < self.discount < 1:
            raise InputError(f"discount is {self.discount!r}, expected a number between 0 and 1")
        if not isinstance(self.horizon, int) or self.horizon < 0:
            raise InputError(f"horizon is {self.horizon!r}, expected an integer from 0")
        self._check_widths(ds, da)

    def _check_widths(self, ds: int, da: int) -> None:
        widths = {
            "state_names": ds,
            "action_names": da,
            "observation_scale": ds,
            "reference_state": ds,
            "exploration": da,
            "action_limit": da,
        }
        for name, width in widths.items():
            value = getattr(self, name)
            if value and len(value) != width:
                raise InputError(f"{name} has {len(value)} entries, expected {width}")


def path_tracking(parameters: Literal["table3", "code"] = "table3") -> Task:
    """MPG's path tracking. parameters: "table3" as printed, "code" as in its experiments."""
    _check_choice("parameters", parameters, VEHICLES)
    vehicle = VEHICLES[parameters]
    limit = (STEER_LIMIT, ACCELERATION_LIMIT)
    return Task(
        name="path_tracking",
        simulator=VehicleSimulator(vehicle),
        prior=VehicleModel(vehicle),
        starts=_vehicle_starts,
        discount=MPG_DISCOUNT,
        horizon=MPG_HORIZON,
        state_names=("δu [m/s]", "v [m/s]", "r [rad/s]", "δy [m]", "δφ [rad]", "x [m]"),
        action_names=("steer [rad]", "acceleration [m/s²]"),
        observation_scale=(1.0, 1.0, 2.0, 1.0, 2.4, 1 / 1200),
        exploration=(EXPLORATION * limit[0], EXPLORATION * limit[1]),
        action_limit=limit,
        parameters={"parameters": parameters},
    )


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
    _check_choice("engine", engine, ENGINES)
    simulator: System = MujocoPendulum(slider, reward)
    if engine == "analytic":
        simulator = CartPoleSimulator(pendulum_parameters(), reward)
    return Task(
        name="inverted_pendulum",
        simulator=simulator,
        prior=CartPoleModel(reward),
        starts=_pendulum_starts,
        discount=MPG_DISCOUNT,
        horizon=MPG_HORIZON,
        state_names=("x [m]", "θ [rad]", "ẋ [m/s]", "θ̇ [rad/s]"),
        action_names=("force / 100 N",),
        exploration=(EXPLORATION * ACTION_LIMIT,),
        action_limit=(ACTION_LIMIT,),
        parameters={"engine": engine, "slider": slider, "reward": reward},
    )


# A mass on a line pushed for 0.1 s at a time, and a prior that believes in some friction and in a
# weaker push.
EXAMPLE_A, EXAMPLE_B = ((1.0, 0.1), (0.0, 1.0)), ((0.005,), (0.1,))
EXAMPLE_PRIOR = (((1.0, 0.1), (0.0, 0.95)), ((0.005,), (0.08,)))


def linear_quadratic(
    A: Matrix | None = None,
    B: Matrix | None = None,
    Q: Matrix | None = None,
    R: Matrix | None = None,
    noise_covariance: Matrix | None = None,
    start_mean: Tensor | Sequence[float] | None = None,
    start_covariance: Matrix | None = None,
    discount: float = 0.95,
    prior: tuple[Matrix, Matrix] | None = None,
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
        A, B, prior = EXAMPLE_A, EXAMPLE_B, EXAMPLE_PRIOR if prior is None else prior
    a, b = _matrix("A", A), _matrix("B", B)
    ds, da = b.shape
    one = torch.eye(ds, dtype=torch.float64)
    q = one if Q is None else _matrix("Q", Q)
    r = torch.eye(da, dtype=torch.float64) if R is None else _matrix("R", R)
    w = 0.01 * one if noise_covariance is None else _matrix("noise_covariance", noise_covariance)
    mean = _vector("start_mean", [0.0] * ds if start_mean is None else start_mean, ds)
    spread = one if start_covariance is None else _matrix("start_covariance", start_covariance)
    check_covariance("start_covariance", spread, ds)
    root = symmetric_root(spread)
    if prior is not None and len(prior) != 2:
        raise InputError(f"prior has {len(prior)} entries, expected A and B")
    prior_a, prior_b = (a, b) if prior is None else map(_matrix, ("prior A", "prior B"), prior)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return mean + torch.randn(n, ds, generator=generator, dtype=torch.float64) @ root

    return Task(
        name="linear_quadratic",
        simulator=LinearQuadratic(a, b, q, r, w),
        prior=LinearQuadratic(prior_a, prior_b, q, r, w),
        starts=starts,
        discount=discount,
        horizon=MPG_HORIZON,
        parameters={
            "A": a.tolist(),
            "B": b.tolist(),
            "Q": q.tolist(),
            "R": r.tolist(),
            "noise_covariance": w.tolist(),
            "start_mean": mean.tolist(),
            "start_covariance": spread.tolist(),
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
    for name, value, least in (("dt", dt, 1e-6), ("noise", noise, 0.0)):
        _check_number(name, value, least)
    for name, value in (("prior_push", prior_push), ("prior_friction", prior_friction)):
        _check_number(name, value, -math.inf)
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
        parameters={
            "dt": dt,
            "position_weight": position_weight,
            "velocity_weight": velocity_weight,
            "action_weight": action_weight,
            "noise": noise,
            "start_mean": [float(x) for x in start_mean],
            "discount": discount,
            "prior_push": prior_push,
            "prior_friction": prior_friction,
        },
    )


TASKS: dict[str, Callable[..., Task]] = {
    "path_tracking": path_tracking,
    "inverted_pendulum": inverted_pendulum,
    "linear_quadratic": linear_quadratic,
    "double_integrator": double_integrator,
}


def task_from_name(name: str, settings: Mapping[str, object]) -> Task:
    """The task called `name`, or made by `function` of a user's own "file.py:function".

    Args:
        name: one of `TASKS`, or path and function.
        settings: arguments of the factory.
    """
    factory = load_function(name) if ".py:" in name else _named_factory(name)
    signature = inspect.signature(factory)
    try:
        signature.bind(**settings)
    except TypeError as error:
        unknown = [setting for setting in settings if setting not in signature.parameters]
        hint = _nearest(unknown[0], signature.parameters) if unknown else ""
        raise InputError(f"{name} {error}{hint}") from None
    task = factory(**settings)
    if not isinstance(task, Task):
        raise InputError(f"{name} returned {type(task).__name__}, expected a gradlab Task")
    return task


def _named_factory(name: str) -> Callable[..., object]:
    if name not in TASKS:
        raise InputError(f"no task is called {name!r}{_nearest(name, TASKS)}")
    return TASKS[name]


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known)) or sorted(known)
    return f": expected {', '.join(near)}" if near else ""


def _check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in list(allowed):
        raise InputError(f"{name} is {value!r}, expected one of {list(allowed)}")


def _check_number(name: str, value: float, least: float) -> None:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise InputError(f"{name} is {value!r}, expected a finite number from {least:g}")


def _matrix(name: str, value: Matrix) -> Tensor:
    try:
        matrix = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not a matrix of numbers: {error}") from None
    if matrix.ndim != 2 or not torch.isfinite(matrix).all():
        got = f"shape {tuple(matrix.shape)}"
        raise InputError(f"{name} has {got}, expected two dimensions and finite numbers")
    return matrix


def _vector(name: str, value: Tensor | Sequence[float], width: int) -> Tensor:
    try:
        vector = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not a list of numbers: {error}") from None
    if vector.shape != (width,) or not torch.isfinite(vector).all():
        got = f"shape {tuple(vector.shape)}"
        raise InputError(f"{name} has {got}, expected ({width},) and finite numbers")
    return vector


def _vehicle_starts(n: int, generator: torch.Generator) -> Tensor:
    """x ~ U(0, 600), u ~ U(15, 25), v = u tan N(0, 0.15), r ~ N(0, 0.3), on the path's own axes
    δy ~ N(0, 1) and δφ ~ N(0, π/9)."""
    x, speed = torch.rand(2, n, generator=generator, dtype=torch.float64)
    dy, dphi, slip, r = torch.randn(4, n, generator=generator, dtype=torch.float64)
    u = 15 + 10 * speed
    v = u * (0.15 * slip).tan()
    return torch.stack([u - TARGET_SPEED, v, 0.3 * r, dy, math.pi / 9 * dphi, 600 * x], 1)


def _pendulum_starts(n: int, generator: torch.Generator) -> Tensor:
    """U(-0.05, 0.05) in every coordinate."""
    return 0.1 * torch.rand(n, 4, generator=generator, dtype=torch.float64) - 0.05
