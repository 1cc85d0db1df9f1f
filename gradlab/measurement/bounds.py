"""The papers' bounds, from constants of a few of the starts, and the assumptions that do not hold.

    MPG Thm 2      gradients of the first action through a model's own states
    MAAC Lemma A.1 a model's derivatives on the simulator's states
    RP Prop 5.8,   through a model's own states, θ in every action; a first action's share is one
    DDPPO Thm 1    of the terms that they sum, so they bound it too
    RP Prop 5.4    the same gradients' variance; all others bound a bias

The true Q is that of the truth: the simulator unrolled for as many steps from every state of the
path, so that the bounds meet the measured bias on the same objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.setting import Setting
from gradlab.runs.bounds import Bound, Bounds
from gradlab.statistics.bounds import constants
from gradlab.statistics.bounds.constants import Derivatives, Paths
from gradlab.statistics.bounds.ddppo import ddppo_bias
from gradlab.statistics.bounds.improvement import Applies, maac_error, mpg_bias, shortest_minimiser
from gradlab.statistics.bounds.rp import RPConstants, rp_bias, rp_optimal_horizon, rp_variance
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System

FEW = 32
PAIRS = 32  # states at which the policy's ∂π/∂θ is formed explicitly
VARIANCE = "RP Prop 5.4"

Floats = NDArray[np.float64]


def measured_bounds(
    setting: Setting, chosen: Mapping[str, Estimator], steps: int | None
) -> Bounds | None:
    """Bounds of every estimator that some theorem is about; None where there is nothing to bound.

    Args:
        setting, chosen: as measured, without entropy.
        steps: T, how many steps the true return sums; None where there is no truth.
    """
    simulator, horizon = setting.simulator, setting.horizon
    if steps is None or setting.termination != "ignore" or horizon < 1:
        return None
    modelled = {
        name: estimator for name, estimator in chosen.items() if _modelled(estimator, simulator)
    }
    if not modelled:
        return None
    few = setting.starts.block(slice(0, min(FEW, len(setting.starts.states))))
    setting = replace(setting, starts=few)
    true = _simulated(setting, steps)
    bounds: list[Bound] = []
    beliefs: dict[str, float] = {}
    for name, estimator in modelled.items():
        makers = _COMMON if estimator.states is simulator else _OWN[estimator.actions]
        try:
            paths = _paths(setting, estimator, true)
            made = [make(name, estimator, paths, np.arange(horizon + 1)) for make in makers]
        except (RuntimeError, ValueError, ArithmeticError, InputError) as error:
            bounds += [_failed(theorem, name, horizon, error) for theorem in makers.values()]
            continue
        for bound, numbers in made:
            bounds.append(bound)
            beliefs |= {f"{name}, {bound.theorem}: {key}": value for key, value in numbers.items()}
    return Bounds(tuple(bounds), beliefs, len(few.states)) if bounds else None


def _failed(theorem: str, name: str, horizon: int, error: Exception) -> Bound:
    """A bound that could not be computed: a long measurement does not stop for it."""
    reason = str(error).splitlines()[0][:90] if str(error) else type(error).__name__
    values = np.full(horizon + 1, np.nan)
    quantity = "variance" if theorem == VARIANCE else "bias"
    return Bound(theorem, name, values, False, f"could not be computed: {reason}", -1, quantity)


def _modelled(estimator: Estimator, simulator: System) -> bool:
    """Is it differentiated, whole, through a model, on states of that or of the simulator?"""
    model, states = estimator.jacobians, estimator.states
    if model is None or model is simulator or isinstance(states, Recorded) or estimator.cut:
        return False
    q_tail = estimator.tail.critic is not None and estimator.tail.value == "Q"
    return q_tail and (states is model or states is simulator)


# Paths ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulated:
    """The simulator's path of H steps, its derivatives, and those of the true Q."""

    path: Path
    K: Tensor
    derivatives: Derivatives


def _simulated(setting: Setting, T: int) -> Simulated:
    """Q of the T-step return by one backward sweep:

    Q_a = r_a + γ Bᵀ p,  Q_s = r_s + γ Aᵀ p,  p ← Q_s + Kᵀ Q_a,  p_T = 0
    """
    simulator, discount, horizon = setting.simulator, setting.discount, setting.horizon
    path, K = rollout_with_jacobians(
        simulator, setting.policy, setting.starts, max(T, horizon + 1), setting.seed
    )
    linear = linearize_path(path, simulator, K, path.dynamics_noise)
    p, values = torch.zeros_like(path.states[0]), []
    for t in reversed(range(path.horizon)):
        inside = 1.0 if t < T else 0.0
        q_s = inside * (linear.r_s[t] + discount * torch.einsum("nij,ni->nj", linear.A[t], p))
        q_a = inside * (linear.r_a[t] + discount * torch.einsum("nsa,ns->na", linear.B[t], p))
        p = q_s + torch.einsum("nas,na->ns", linear.K[t], q_a)
        values.append((q_s, q_a))
    q_s, q_a = (torch.stack(part[::-1])[: horizon + 1] for part in zip(*values, strict=True))
    short = replace(linear, path=path.cut(horizon), K=K[: horizon + 1])
    return Simulated(short.path, short.K, _derivatives(short, q_s, q_a, horizon))


def _derivatives(linear: LinearizedPath, q_s: Tensor, q_a: Tensor, h: int) -> Derivatives:
    parts = linear.A[:h], linear.B[:h], linear.r_s[:h], linear.r_a[:h], linear.K, q_s, q_a
    return Derivatives(*(np.asarray(x.detach().numpy(), dtype=np.float64) for x in parts))


def _paths(setting: Setting, estimator: Estimator, true: Simulated) -> Paths:
    """The model beside the simulator.

    Raises:
        InputError: it leaves the finite numbers.
    """
    simulator, policy, few = setting.simulator, setting.policy, setting.starts
    model, tail, h = estimator.jacobians, estimator.tail, true.path.horizon
    assert model is not None
    noise = jacobian_noise(simulator, model, true.path)
    on_true = linearize_path(true.path, model, true.K, noise)
    critic = tail_gradient(true.path, tail.critic, tail.value)
    path, K = rollout_with_jacobians(model, policy, few, h, setting.seed)
    on_own = linearize_path(path, model, K, path.dynamics_noise)
    own_critic = tail_gradient(path, tail.critic, tail.value)
    if not all(torch.isfinite(x).all() for x in (path.states, true.path.states, on_own.A)):
        raise InputError("the model or the simulator leaves the finite numbers")
    carrying = h + 1 if estimator.way.every else 1
    reach = max(_reach(policy, along, carrying) for along in (true.path, path))
    one_step = [_prediction_error(simulator, model, along) for along in (true.path, path)]
    own = _derivatives(on_own, own_critic.q_s, own_critic.q_a, h)
    # Explicit ∂π/∂θ are costly, and only a contraction has a theorem that asks for their change.
    contracts = constants.largest(own.M, True) < 1
    return Paths(
        truth=true.derivatives,
        guess=_derivatives(on_true, critic.q_s, critic.q_a, h),
        own=own,
        drift=(path.states - true.path.states).norm(dim=2).numpy(),
        one_step=torch.cat(one_step).numpy(),
        policy=reach,
        policy_change=_policy_change(policy, true.path, path) if contracts else None,
        weight=float(few.weight.max()),
    )


def _reach(policy: nn.Module, path: Path, steps: int) -> float:
    """Largest |∂π/∂θ| (Frobenius) over the first steps of a path."""
    s, e = path.states[:steps].flatten(0, 1), path.policy_noise[:steps].flatten(0, 1)
    jacobian = policy_jacobian(policy, s, e)
    eye = torch.eye(jacobian.action_dim, dtype=s.dtype)
    rows = eye[:, None].expand(-1, jacobian.samples, -1)
    return float(gram.squared_norms(jacobian, rows).sum(dim=0).sqrt().max())


def _prediction_error(simulator: System, model: System, path: Path) -> Tensor:
    """|f̂ − f| of the mean transitions along a path, [H · N]."""
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    with torch.no_grad():
        apart: Tensor = model.step(s, a, None).state - simulator.step(s, a, None).state
    return apart.square().sum(dim=1).sqrt()


def _policy_change(policy: nn.Module, true: Path, model: Path) -> float:
    """Largest |∂π/∂θ(ŝ) − ∂π/∂θ(s)| / |ŝ − s| over some pairs of states."""
    drift = (model.states - true.states).norm(dim=2).flatten()
    rows = (drift > 1e-9 * drift.max()).nonzero().flatten()
    if not len(rows):
        return 0.0
    rows = rows[torch.linspace(0, len(rows) - 1, min(PAIRS, len(rows))).long()]
    jacobians = [_at(policy, path, rows) for path in (model, true)]
    change = torch.zeros(len(rows), dtype=drift.dtype)
    for action in torch.eye(jacobians[0].action_dim, dtype=drift.dtype):
        costates = action.expand(1, len(rows), -1)
        moved, still = (gram.path_gradients(part, costates) for part in jacobians)
        change += (moved - still).square().sum(dim=1)
    return float((change.sqrt() / drift[rows]).max())


def _at(policy: nn.Module, path: Path, rows: Tensor) -> PolicyJacobian:
    """∂π/∂θ at some of the states of a path."""
    s, e = path.states.flatten(0, 1)[rows], path.policy_noise.flatten(0, 1)[rows]
    return policy_jacobian(policy, s, e)


# Theorems ---------------------------------------------------------------------------------------

Made = tuple[Bound, dict[str, float]]


def _mpg(name: str, estimator: Estimator, paths: Paths, n: NDArray[np.int64]) -> Made:
    c = constants.mpg_constants(paths, estimator.tail.discount)
    text = "its explicit constants are a bound"
    if c.L_grad_f > 1:
        text += f"; its printed order does not follow (measured L_∇f = {c.L_grad_f:.3g} > 1)"
    applies = Applies(True, text)
    bound = _bound("MPG Thm 2", name, applies, n, lambda h: mpg_bias(h, c), first=0)
    return bound, _numbers(c)


def _maac(name: str, estimator: Estimator, paths: Paths, n: NDArray[np.int64]) -> Made:
    measured = constants.maac_constants(paths, estimator.tail.discount, estimator.actions)
    c, errors = measured.constants, (measured.epsilon_f, measured.epsilon_Q, measured.epsilon_r)
    rate, rises = c.gamma * c.K, c.critic_term_rises
    text = f"c2(H) {'rises' if rises else 'does not rise'} with H (measured γK = {rate:.3g})"
    bound = _bound(
        "MAAC Lemma A.1",
        name,
        Applies(True, text),
        n,
        lambda h: paths.policy * maac_error(h, c, *errors),
        first=0,
    )
    return bound, _numbers(c) | {
        "epsilon_f": errors[0], "epsilon_Q": errors[1], "epsilon_r": errors[2],
    }  # fmt: skip


def _rp(name: str, estimator: Estimator, paths: Paths, n: NDArray[np.int64]) -> Made:
    measured = constants.rp_constants(paths, estimator.tail.discount)
    c, errors = (
        measured.constants,
        (measured.epsilon_f, measured.epsilon_v, measured.C_f, measured.C_v),
    )
    text = f"C_f and C_v as they suffice on linear models; {_surrogate(measured)}"
    if c.growth > 1:
        text = f"measured |∂s′/∂s| = {c.growth:.3g} > 1 along the policy"
    applies = Applies(c.growth <= 1, text)
    bound = _bound("RP Prop 5.8", name, applies, n, lambda h: rp_bias(h, c, *errors), first=1)
    return bound, _numbers(c) | {"epsilon_f": errors[0], "epsilon_v": errors[1]}


# tr Cov g ≤ E|g|². With |∂s′/∂s| ≤ 1 along the model's paths and x = (s, a),
#
#   |∂s_i/∂θ| ≤ i L_f L_θ,   |∂a_i/∂θ| ≤ L_θ + L_π |∂s_i/∂θ|,   |∂x_i/∂θ| ≤ 3 i L̃_f L̃_π L_θ,  i ≥ 1
#   |g| ≤ L_θ (L_r (1 + 3 L̃_f L̃_π Σ_{0<i<h} i) + 3 L_Q γʰ h L̃_f L̃_π)
#
# and (a + b)² ≤ 2 a² + 2 b²: C_r = 2 L_θ² L_r² and C_q = 18 L_θ² L_Q² suffice in (5.1), whether
# the model is linear or not. A weighted start counts w times, as in what was measured.
def _rp_variance(name: str, estimator: Estimator, paths: Paths, n: NDArray[np.int64]) -> Made:
    """Of one gradient, N = 1: a batch divides the bound and the measured variance alike."""
    own, L_theta = paths.own, paths.policy * paths.weight
    largest = constants.largest
    c = RPConstants(
        gamma=estimator.tail.discount,
        L_f=largest(own.step, True),
        L_pi=largest(own.K, True),
        closed_loop=largest(own.M, True),
    )
    L_r, L_Q = largest(own.reward), largest(own.value)
    C_r, C_q = 2 * (L_theta * L_r) ** 2, 18 * (L_theta * L_Q) ** 2
    text = "N = 1, with C_r = 2 L_θ² L_r² and C_q = 18 L_θ² L_Q², which suffice"
    if c.growth > 1:
        text = f"measured |∂ŝ′/∂ŝ| = {c.growth:.3g} > 1 of the model along the policy"
    applies = Applies(c.growth <= 1, text)
    bound = _bound(VARIANCE, name, applies, n, lambda h: rp_variance(h, c, C_r, C_q), first=1)
    # (5.1) is smallest, 0, at h = 0, where it bounds nothing: no minimum is worth a mark.
    bound = replace(bound, best=-1, quantity="variance")
    return bound, _numbers(c) | {"L_theta": L_theta, "L_r": L_r, "L_Q": L_Q}


def _surrogate(prediction: constants.Prediction) -> str:
    """Prop 5.10's horizon, which minimises another function than the bound."""
    c = prediction.constants
    if not c.applies.holds:
        return f"Prop 5.10's h* is not used (L_f = {c.L_f:.3g}, L_π = {c.L_pi:.3g}, below 1 wanted)"
    best = rp_optimal_horizon(c.gamma, prediction.epsilon_f, prediction.epsilon_v)
    return f"Prop 5.10 puts the least of its surrogate at h* = {best:.2g}"


def _ddppo(name: str, estimator: Estimator, paths: Paths, n: NDArray[np.int64]) -> Made:
    measured = constants.ddppo_constants(paths, estimator.tail.discount)
    c, text = measured.constants, "for h → ∞ and no critic"
    if c.L_f >= 1:
        text = f"measured L_f = {c.L_f:.3g}, not below 1"
    elif measured.L_K > 1:
        text = f"measured |∂π/∂s| = {measured.L_K:.3g} > 1, which its proof takes to be at most 1"
    applies = Applies(c.L_f < 1 and measured.L_K <= 1, text)
    errors = measured.epsilon_f, measured.epsilon_f_grad, measured.epsilon_r_grad
    level = ddppo_bias(c, *errors) if applies.holds else np.nan
    bound = _bound("DDPPO Thm 1", name, applies, n, lambda h: np.full(np.shape(h), level), first=1)
    return bound, _numbers(c) | dict(zip(_THREE, errors, strict=True))


_THREE = ("epsilon_f", "epsilon_f_grad", "epsilon_r_grad")
Maker = Callable[[str, Estimator, Paths, NDArray[np.int64]], Made]
_COMMON: Mapping[Maker, str] = {_maac: "MAAC Lemma A.1"}
_EVERY: Mapping[Maker, str] = {
    _rp: "RP Prop 5.8",
    _ddppo: "DDPPO Thm 1",
    _rp_variance: VARIANCE,
}
_OWN: Mapping[str, Mapping[Maker, str]] = {"first": {_mpg: "MPG Thm 2", **_EVERY}, "all": _EVERY}


def _bound(
    theorem: str,
    estimator: str,
    applies: Applies,
    n: NDArray[np.int64],
    law: Callable[[NDArray[np.int64]], Floats],
    first: int,
) -> Bound:
    """The law at horizons n from `first` on, and its brute-force minimum."""
    values = np.full(len(n), np.nan)
    values[n >= first] = law(n[n >= first])
    finite = n[(n >= first) & np.isfinite(values)]
    best = -1
    if len(finite):
        best = int(shortest_minimiser(lambda h: values[h.astype(int)], finite)[0])
    return Bound(theorem, estimator, values, applies.holds, applies.sentence, best)


def _numbers(c: object) -> dict[str, float]:
    assert is_dataclass(c)
    values = {field.name: getattr(c, field.name) for field in fields(c)}
    return {name: float(value) for name, value in values.items() if value is not None}
