"""Stochastic policies, reparameterised: an action is a function of state and standard normal noise.

    Gaussian        a = μ(s) + σ(s) ε,                  ε ~ N(0, I)
    tanh-Gaussian   a = limit · tanh(u),  u = μ(s) + σ(s) ε

    log π(a|s) = Σ_j [ −ε_j²/2 − log σ_j − log(2π)/2 − log ∂a_j/∂u_j ]

with log(1 − tanh²u) = 2 (log 2 − u − softplus(−2u)), which neither overflows nor cancels.

Beside `forward(state, noise)` and `noise_dim`, a stochastic policy has
    log_prob(state, action) → [N]           in nats per action unit
    infer_noise(state, action) → [N, da]    the ε of a recorded action (RP-PGM eq. 4.5)
    with_log_prob(state, noise) → action [N, da], log π(action|state) [N], from one forward pass
    mean_action(state) → [N, da]            the action at ε = 0, for evaluation
    normal(state) → μ, log σ                of u, [N, da] each
    slope(u) → [N, da]                      ∂a/∂u

Entropy as one more action: ã = (a, log π_θ(a|s)) at fixed noise.

    a = π_θ(s, ε),   log π_θ(a|s) = log N(ε; 0, I) − log |∂a/∂ε|

Once ε is drawn, both are functions of θ and s, so K̃ = ∂ã/∂s and J̃ = ∂ã/∂θ hold everything that an
entropy bonus adds, and any gradient of Σ γᵗ (r_t − α log π_t) is a plain one in ã (SAC; MAAC,
section 3; DDPPO, eq. 11). The system that takes ã is `systems.system.Entropic`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard, final, runtime_checkable

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim
from gradlab.networks.mlp import architecture, judge, mlp

_LOG_2PI = math.log(2 * math.pi)
_Scalars = float | tuple[float, ...]  # one number for all actions, or one per action


@runtime_checkable
class _HasDensity(Protocol):
    """Methods that a score needs of a policy, beside `forward(state, noise)`."""

    noise_dim: int

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor: ...

    def infer_noise(self, state: Tensor, action: Tensor) -> Tensor: ...


class NormalPolicy(nn.Module):
    """What the two lines of a kind, `normal` and maybe `ends`, make of a policy."""

    noise_dim: int

    def normal(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ of the action before the tanh, [N, da] each."""
        raise NotImplementedError

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Half width and middle (None: 0) of squashed actions; None: nothing bounds them."""
        return None

    def _std(self, log_std: Tensor) -> Tensor:
        return log_std.exp()

    def _noise(self, offset: Tensor, log_std: Tensor) -> Tensor:
        """ε at u = μ + offset."""
        return offset * (-log_std).exp()

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        return self.bounded(self._drawn(state, noise)[0])

    def with_log_prob(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        latent, _, log_std = self._drawn(state, noise)
        return self.bounded(latent), self._density(noise, log_std, latent)

    def log_prob(self, state: Tensor, action: Tensor) -> Tensor:
        """[N]; actions that the policy cannot give raise InputError."""
        mean, log_std = self.normal(state)
        latent = self._latent(action, mean)
        return self._density(self._noise(latent - mean, log_std), log_std, latent)

    def log_prob_of_draw(self, state: Tensor, noise: Tensor) -> Tensor:
        """log π [N] of the action drawn at `noise`, that action held fixed when differentiated.

        Exact where `log_prob` of a squashed action that rounds to its limit is lost.
        """
        latent, mean, log_std = self._drawn(state, noise)
        latent = latent.detach()
        return self._density(self._noise(latent - mean, log_std), log_std, latent)

    def infer_noise(self, state: Tensor, action: Tensor) -> Tensor:
        """[N, da], the noise at which `forward` gives `action`.

        Raises:
            InputError: a squashed policy never gives the action, since it is at or over the limit.
        """
        mean, log_std = self.normal(state)
        return self._noise(self._latent(action, mean) - mean, log_std)

    def mean_action(self, state: Tensor) -> Tensor:
        """[N, da], the action at zero noise: the mean, or the median where squashed."""
        return self.bounded(self.normal(state)[0])

    def slope(self, latent: Tensor) -> Tensor:
        """∂a/∂u [N, da]."""
        return self._log_slope(latent).exp()

    def bounded(self, latent: Tensor) -> Tensor:
        """The action [N, da] of what the Gaussian draws."""
        ends = self.ends(latent)
        if ends is None:
            return latent
        action = ends[0] * torch.tanh(latent)
        return action if ends[1] is None else action + ends[1]

    def _drawn(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, μ and log σ, [N, da] each."""
        mean, log_std = self.normal(state)
        _check_width("noise", noise, mean)
        return mean + self._std(log_std) * noise, mean, log_std

    def _density(self, noise: Tensor, log_std: Tensor, latent: Tensor) -> Tensor:
        return (log_normal(noise, log_std) - self._log_slope(latent)).sum(dim=-1)

    def _latent(self, action: Tensor, mean: Tensor) -> Tensor:
        _check_width("action", action, mean)
        ends = self.ends(action)
        if ends is None:
            return action
        ratio = (action if ends[1] is None else action - ends[1]) / ends[0]
        outside = (~(ratio.abs() < 1)).nonzero()
        if len(outside):
            row, column = outside[0].tolist()
            raise InputError(
                f"action has {len(outside)} entries at or over the limit of a squashed policy "
                f"(first: row {row}, action {column}): record the unclipped action"
            )
        return torch.atanh(ratio)

    def _log_slope(self, latent: Tensor) -> Tensor:
        """log ∂a/∂u [N, da]."""
        ends = self.ends(latent)
        return torch.zeros_like(latent) if ends is None else log_tanh_slope(latent, ends[0])


@final
class GaussianPolicy(NormalPolicy):
    """One network s → [μ, raw], with log σ = low + (high − low) · sigmoid(raw), then maybe tanh.

    Args:
        scale: [ds], multiplies the state first.
        squash: bound the actions by limit · tanh.
        limit: largest |action|, one number or one per action; 1 if not given.
        log_std_bounds: low and high of log σ, in log action units (before the tanh).
    """

    architecture: dict[str, Any]

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        scale: Sequence[float] | None = None,
        squash: bool = False,
        limit: float | Sequence[float] | None = None,
        log_std_bounds: Sequence[float] = (-5.0, 2.0),
    ) -> None:
        super().__init__()
        if limit is not None and not squash:
            raise InputError("limit is given but squash is False: only a squashed policy has one")
        bound = 1.0 if limit is None else limit
        self.limit = _positive("limit", bound, action_dim) if squash else None
        bounds = tuple(float(x) for x in log_std_bounds)
        if len(bounds) != 2 or not -math.inf < bounds[0] < bounds[1] < math.inf:
            raise InputError(
                f"log_std_bounds is {log_std_bounds}, expected two numbers, low < high"
            )
        self.log_std_bounds = bounds[0], bounds[1]
        self.noise_dim = action_dim
        self.network = mlp([state_dim, *hidden, 2 * action_dim], activation, scale)
        self.architecture = architecture(
            "gaussian_policy", hidden, activation, scale, state_dim=state_dim,
            action_dim=action_dim, squash=squash, log_std_bounds=list(self.log_std_bounds),
            limit=list(self.limit) if isinstance(self.limit, tuple) else self.limit,
        )  # fmt: skip

    def normal(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return split_normal(self.network(state), self.log_std_bounds)

    def ends(self, like: Tensor) -> tuple[Tensor, None] | None:
        return None if self.limit is None else (_row(self.limit, like), None)


@final
class Gaussian(NormalPolicy):
    """a = π(s) + std · ε around a deterministic policy π; std is fixed and no parameter.

    Args:
        policy: any module, state [N, ds] → [N, da].
        std: action units, one number or one per action.
    """

    def __init__(self, policy: nn.Module, std: float | Sequence[float]) -> None:
        super().__init__()
        if noise_dim(policy):
            raise InputError("policy is stochastic already: Gaussian wraps a deterministic one")
        if isinstance(std, int | float):  # `normal` checks the width against the actions
            linear = [module for module in policy.modules() if isinstance(module, nn.Linear)]
            if not linear:
                raise InputError(
                    "std is one number for a policy of unknown width: give one per action"
                )
            width = linear[-1].out_features
        else:
            width = len(std)
        self.std = _positive("std", std, width)
        self.noise_dim = width
        self.policy = policy

    def normal(self, state: Tensor) -> tuple[Tensor, Tensor]:
        mean: Tensor = self.policy(state)
        if mean.ndim != 2 or mean.shape[1] != self.noise_dim:
            got, want = tuple(mean.shape), f"[{len(state)}, {self.noise_dim}]"
            raise InputError(f"policy returns shape {got}, expected {want}: give std per action")
        return mean, _row(self.std, mean).log().expand_as(mean)

    def _std(self, log_std: Tensor) -> Tensor:
        return _row(self.std, log_std)

    def _noise(self, offset: Tensor, log_std: Tensor) -> Tensor:
        return offset / self._std(log_std)


def is_stochastic(policy: nn.Module) -> TypeGuard[_HasDensity]:
    """Whether the policy has noise and a density: `noise_dim` > 0, `log_prob` and `infer_noise`?"""
    return noise_dim(policy) > 0 and isinstance(policy, _HasDensity)


def check_stochastic(policy: nn.Module) -> None:
    """Raises InputError: the policy is deterministic, or has noise but no density."""
    if noise_dim(policy) == 0:
        raise InputError(
            "a score needs a density, and the policy is deterministic: give "
            "gradlab.networks.policies.Gaussian(policy, std), or leave the score out"
        )
    if not is_stochastic(policy):
        raise InputError(
            f"{type(policy).__name__} has noise but no density: write log_prob(state, action) -> "
            f"[N] and infer_noise(state, action) -> [N, noise_dim]"
        )


def split_normal(output: Tensor, bounds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """μ and log σ, each [..., da], of a network's output [..., 2 da]."""
    mean, raw = output.chunk(2, dim=-1)
    low, high = bounds
    return mean, low + (high - low) * torch.sigmoid(raw)


def log_tanh_slope(latent: Tensor, limit: Tensor) -> Tensor:
    """log ∂a/∂u of a = limit · tanh u, entry by entry."""
    return limit.log() + 2 * (math.log(2) - latent - nn.functional.softplus(-2 * latent))


def log_normal(noise: Tensor, log_std: Tensor) -> Tensor:
    """log N(mean + std · noise; mean, std²), entry by entry."""
    return -0.5 * noise**2 - log_std - 0.5 * _LOG_2PI


def _row(value: _Scalars, like: Tensor) -> Tensor:
    # Kept as Python floats, so that a network made in float32 and turned to double has them exact.
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def _check_width(name: str, value: Tensor, mean: Tensor) -> None:
    if value.shape != mean.shape:
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected {list(mean.shape)}")


def _positive(name: str, value: float | Sequence[float], width: int) -> _Scalars:
    single = isinstance(value, int | float)
    entries = tuple(map(float, [value] if isinstance(value, int | float) else value))
    if len(entries) != (1 if single else width):
        raise InputError(f"{name} has {len(entries)} entries, expected {width}")
    if not entries or not all(0 < x < math.inf for x in entries):
        raise InputError(f"{name} is {value}, expected positive numbers")
    return entries[0] if single else entries


@final
class WithLogProb(nn.Module):
    """state [N, ds], noise [N, noise_dim] → ã [N, da + 1]; the parameters are the policy's own.

    A policy without `with_log_prob` has its `log_prob` called instead, which runs the
    network twice and so leaves the fast path of per-sample gradients.

    Raises:
        InputError: the policy is deterministic or has no density.
    """

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        check_stochastic(policy)
        self.policy = policy
        self.noise_dim = noise_dim(policy)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        policy: Any = self.policy
        if hasattr(policy, "with_log_prob"):
            action, log_prob = policy.with_log_prob(state, noise)
        else:
            action = policy(state, noise)
            log_prob = policy.log_prob(state, action)
        return torch.cat([action, log_prob[:, None]], dim=1)


@final
class SoftCritic(nn.Module):
    """Q(s, a) − α log π as a critic of (s, ã): the tail of a soft return. V critics need none."""

    def __init__(self, critic: nn.Module, alpha: float) -> None:
        super().__init__()
        self.critic, self.alpha = critic, temperature(alpha)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return judge(self.critic, "Q", state, action[:, :-1]) - self.alpha * action[:, -1]


def temperature(alpha: float) -> float:
    """Raises InputError: α is no finite number from 0."""
    return validation.number("alpha", alpha, least=0)
