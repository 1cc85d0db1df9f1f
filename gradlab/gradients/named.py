"""The estimators of the papers, by name.

Each is one value made of four choices; what two names have in common, their values show:

    states × jacobians × actions × tail      sim, mdl: a System;  rec: recorded trajectories

A `Mixture` is a weighted sum of them on the same starts and noise streams,

    ∇J = Σ_k w_k ∇J_k          (MPG eq. 8 with {0, H}; App. C-A with any set of horizons holding 0)

Start laws (ν, ζ, mixtures; several samples per start) are arguments of the evaluation, not of the
estimator: `gradients.start_laws`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Tail
from gradlab.networks.policies import check_stochastic
from gradlab.systems.system import Recorded, System
from gradlab.user_code import differentiating


@dataclass(frozen=True)
class Mixture:
    """Pairs (weight, estimator); weights are used as they are, not normalised."""

    parts: tuple[tuple[float, Estimator], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("parts is empty: a mixture needs at least one (weight, estimator)")
        for weight, _ in self.parts:
            if not math.isfinite(weight):
                raise InputError(f"a weight is {weight}, expected a finite number")

    @differentiating
    def gradients(
        self, policy: nn.Module, starts: Tensor | Path, seed: int = 0, termination: str = "ignore"
    ) -> Tensor:
        """Per-sample ascent gradients, [N, P]."""
        counted = self._counted()
        parts = [w * e.gradients(policy, starts, seed, termination) for w, e in counted]
        return torch.stack(parts).sum(dim=0)

    @differentiating
    def mean_gradient(
        self, policy: nn.Module, starts: Tensor | Path, seed: int = 0, termination: str = "ignore"
    ) -> Tensor:
        """Mean ascent gradient over the starts, [P]."""
        counted = self._counted()
        parts = [w * e.mean_gradient(policy, starts, seed, termination) for w, e in counted]
        return torch.stack(parts).sum(dim=0)

    def _counted(self) -> tuple[tuple[float, Estimator], ...]:
        """Parts of weight 0 are not even rolled out; one of them gives the zeros where all are."""
        return tuple(part for part in self.parts if part[0]) or self.parts[:1]


def data_driven(simulator: System, critic: nn.Module, discount: float) -> Estimator:
    """J_0, the deterministic policy gradient (MPG eq. 4): Q_a at the start, no dynamics."""
    return Estimator(simulator, None, "first", Tail(0, critic, discount))


def svg0(simulator: System, critic: nn.Module, discount: float) -> Estimator:
    """SVG(0) (Heess et al. 2015): J_0 of a reparameterised stochastic policy."""
    return data_driven(simulator, critic, discount)


def rp0(simulator: System, critic: nn.Module, discount: float) -> Estimator:
    """RP(0) (RP-PGM section 3.1), the same value as SVG(0)."""
    return data_driven(simulator, critic, discount)


def sac(simulator: System, critic: nn.Module, discount: float, temperature: float) -> Estimator:
    """The soft actor gradient ∇_θ (Q − α log π) at replayed states, reparameterised (SAC)."""
    return replace(data_driven(simulator, critic, discount), entropy=temperature)


def unified(model: System, critic: nn.Module, discount: float, horizon: int) -> Estimator:
    """J_n, MPG's unified policy gradient (eq. 6): θ in the first action only."""
    return Estimator(model, model, "first", Tail(horizon, critic, discount))


def model_driven(
    model: System, critic: nn.Module | None, discount: float, horizon: int
) -> Estimator:
    """The full model gradient (MPG eq. 5), θ in every action, that of the tail included.

    MPG's Theorem 1 as printed leaves the tail's θ out: replace the tail's terminal_action by
    "detached" for it.
    """
    return Estimator(model, model, "all", Tail(horizon, critic, discount))


def mpg(
    simulator: System,
    model: System,
    critic: nn.Module,
    discount: float,
    horizon: int,
    data_weight: float,
) -> Mixture:
    """w_0 J_0 + (1 − w_0) J_H (MPG eq. 8).

    Raises:
        InputError: the horizon is below 1.
    """
    if horizon < 1:
        raise InputError(f"horizon is {horizon}: J_0 is mixed with a horizon of at least 1")
    weights = {0: data_weight, horizon: 1.0 - data_weight}
    return general_mpg(simulator, model, critic, discount, weights)


def general_mpg(
    simulator: System,
    model: System,
    critic: nn.Module,
    discount: float,
    weights: Mapping[int, float],
) -> Mixture:
    """Σ_i w_i J_i over a set of horizons that holds 0 (MPG App. C-A).

    Raises:
        InputError: 0 is not among the horizons.
    """
    if 0 not in weights:
        raise InputError(f"weights name the horizons {sorted(weights)}: 0 must be among them")
    data = data_driven(simulator, critic, discount)
    parts = [
        (weight, data if n == 0 else unified(model, critic, discount, n))
        for n, weight in weights.items()
    ]
    return Mixture(tuple(parts))


def bptt(model: System, discount: float, horizon: int) -> Estimator:
    """Backpropagation through time, or shooting: all actions, no tail (MAAC A.1; RP-PGM h = ∞)."""
    return Estimator(model, model, "all", Tail(horizon, None, discount))


def true_dynamics(simulator: System, critic: nn.Module, discount: float, horizon: int) -> Estimator:
    """MAAC's control arm (Fig. 2): simulator states and Jacobians with the learned tail."""
    return model_driven(simulator, critic, discount, horizon)


def svg1(model: System, value: nn.Module, discount: float) -> Estimator:
    """SVG(1) (Heess et al. 2015, alg. 2): recorded transitions, one model Jacobian, V critic.

    Evaluate it on `importance_weighted` segments of the replay.
    """
    tail = Tail(1, value, discount, value="V")
    return Estimator(_recorded(model), model, "first", tail)


def svg_infinity(model: System, discount: float, horizon: int) -> Estimator:
    """SVG(∞): recorded on-policy trajectories differentiated through the model, no tail."""
    return Estimator(_recorded(model), model, "all", Tail(horizon, None, discount))


def rp_dp(model: System, critic: nn.Module, discount: float, horizon: int) -> Estimator:
    """RP-DP (RP-PGM eq. 4.2): derivatives along the model's own predictions."""
    return model_driven(model, critic, discount, horizon)


def rp_dr(model: System, critic: nn.Module, discount: float, horizon: int) -> Estimator:
    """RP-DR (RP-PGM eq. 4.3–4.5): model derivatives along recorded transitions, noise inferred."""
    return Estimator(_recorded(model), model, "all", Tail(horizon, critic, discount))


def maac(
    model: System, critic: nn.Module, discount: float, horizon: int, temperature: float
) -> Estimator:
    """MAAC (eq. 3): pathwise through the model with an entropy bonus.

    The bonus is −α log π of every action on the way, discounted as rewards are, and of the tail's,
    as in DDPPO's eq. 11; eq. 3 of MAAC writes one βH(π). Several samples per start:
    `start_laws.repeated(starts, samples)`.
    """
    return replace(model_driven(model, critic, discount, horizon), entropy=temperature)


def ddppo(
    prediction: System,
    gradient: System,
    critic: nn.Module,
    discount: float,
    horizon: int,
    temperature: float,
) -> Estimator:
    """DDPPO (eq. 11, alg. 1): one model predicts the states, another gives the Jacobians."""
    tail = Tail(horizon, critic, discount)
    return Estimator(prediction, gradient, "all", tail, entropy=temperature)


def likelihood_ratio(
    system: System, critic: nn.Module | None, discount: float, horizon: int
) -> Estimator:
    """The score-function gradient (RP-PGM eq. 2.5) with rewards to go and a critic's tail."""
    return Estimator(system, None, "score", Tail(horizon, critic, discount))


def ivw_h(system: System, critic: nn.Module | None, discount: float, horizon: int) -> Estimator:
    """IVW-H (arXiv 2604.18161): both orders at every action, weighted by inverse variance."""
    return Estimator(system, system, "ivw", Tail(horizon, critic, discount))


def ddcg(system: System, critic: nn.Module | None, discount: float, horizon: int) -> Estimator:
    """DDCG (arXiv 2604.18161): IVW-H where the return is smooth in an action, else the score."""
    return Estimator(system, system, "ddcg", Tail(horizon, critic, discount))


def total_propagation(
    system: System, critic: nn.Module | None, discount: float, horizon: int
) -> Estimator:
    """Total propagation (Parmas et al. 2018, PIPPS): both orders mixed on the way backwards."""
    return Estimator(system, system, "total", Tail(horizon, critic, discount))


def importance_weighted(
    path: Path, policy: nn.Module, behaviour_log_prob: Tensor, largest: float | None = None
) -> Path:
    """A recorded path whose starts weigh π_θ(a_0|s_0) / μ(a_0|s_0) (SVG(1), alg. 2).

    Args:
        behaviour_log_prob: log μ(a_0|s_0) when the actions were taken, [N].
        largest: ratios are cut there, which bounds the variance and biases.

    Raises:
        InputError: for a wrong shape, a deterministic policy or an infinite ratio.
    """
    check_stochastic(policy)
    n = path.states.shape[1]
    if behaviour_log_prob.shape != (n,):
        got = tuple(behaviour_log_prob.shape)
        raise InputError(f"behaviour_log_prob has shape {got}, expected [{n}]")
    density: Tensor = policy.log_prob(path.states[0], path.actions[0]).detach()  # type: ignore[operator]
    ratio = (density - behaviour_log_prob).exp()
    if largest is not None:
        ratio = ratio.clamp(max=largest)
    if not torch.isfinite(ratio).all():
        raise InputError("behaviour_log_prob gives infinite ratios: bound them by largest=")
    return replace(path, weight=path.weight * ratio)


def _recorded(model: System) -> Recorded:
    return Recorded(model.state_dim, model.action_dim)
