"""Linear dynamics with quadratic rewards, where every truth has a closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.linear import LinearQuadratic, check_covariance, symmetric_root
from gradlab.tasks.task import Task, check_number

_Matrix = Tensor | Sequence[Sequence[float]]
_HORIZON = 25

# A mass on a line pushed for 0.1 s at a time, and a prior that believes in some friction and in a
# weaker push.
EXAMPLE_A, EXAMPLE_B = ((1.0, 0.1), (0.0, 1.0)), ((0.005,), (0.1,))
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
        A, B, prior = EXAMPLE_A, EXAMPLE_B, _EXAMPLE_PRIOR if prior is None else prior
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
    if prior is not None:
        validation.instance("prior", prior, (tuple, list), "two matrices, (A, B), or None")
        if len(prior) != 2:
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
        horizon=_HORIZON,
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
        check_number(name, value, least)
    for name, value in (("prior_push", prior_push), ("prior_friction", prior_friction)):
        check_number(name, value, -math.inf)
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


def _matrix(name: str, value: _Matrix) -> Tensor:
    matrix = _numbers(name, value, "a matrix of numbers")
    if matrix.ndim != 2 or not torch.isfinite(matrix).all():
        got = f"shape {tuple(matrix.shape)}"
        raise InputError(f"{name} has {got}, expected two dimensions and finite numbers")
    return matrix


def _vector(name: str, value: Tensor | Sequence[float], width: int) -> Tensor:
    vector = _numbers(name, value, "a list of numbers")
    if vector.shape != (width,) or not torch.isfinite(vector).all():
        got = f"shape {tuple(vector.shape)}"
        raise InputError(f"{name} has {got}, expected ({width},) and finite numbers")
    return vector


def _numbers(name: str, value: Any, expected: str) -> Tensor:
    """Float64 numbers of a tensor, an array or lists, apart from any graph."""
    try:
        if getattr(value, "layout", torch.strided) is not torch.strided or np.iscomplexobj(value):
            raise TypeError("its numbers are complex or sparse")
        return torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        got = validation.shown(value)
        raise InputError(f"{name} is not {expected} but {got}: {reason}") from None
