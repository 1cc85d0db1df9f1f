"""A contracting linear-quadratic world, wrong models and critics of it, bounds on their gradients.

Errors of [A B] (|ΔA| + |ΔB|, spectral norms) and of the critic's matrix C (relative, Frobenius)
have one random direction per seed and a grid of levels: quantities are [seeds, 5, 5] and more.
The bounds take their constants along the paths of both systems: MAAC's as corrected in
`harness.bounds`, RP's (5.3) with C_f = 6 L_r + 3 L_Q, C_v = 2, enough on linear models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analyses.bounds.tailed_gradients import Dynamics, Setting, exact_critic
from analyses.harness.bounds import MAACConstants, maac_error, rp_bias
from gradlab.data.noise import stream
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import costs_to_go, lqr_gradient

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
MODEL_ERROR = 0.05  # at level 1
CRITIC_ERROR = 0.5  # at level 1
DISCOUNT = 0.95


@dataclass(frozen=True, eq=False)
class World:
    """Starts ±e_i (|s| ≤ 1, so that |∂π/∂θ| ≤ 1), policy W, exact C, ∇J."""

    system: LinearQuadratic
    setting: Setting
    starts: Tensor
    critic: Tensor
    truth: Tensor

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(self.system.A, self.system.B)


def make_world(noise: float = 0.0, discount: float = DISCOUNT) -> World:
    A = torch.tensor([[0.8, 0.15], [-0.1, 0.7]], dtype=torch.float64)
    B = torch.tensor([[0.1], [0.4]], dtype=torch.float64)
    Q, R = torch.eye(2, dtype=torch.float64), 0.5 * torch.eye(1, dtype=torch.float64)
    system = LinearQuadratic(A, B, Q, R, noise * Q)
    weight = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    starts = torch.cat([Q, -Q])
    moment = starts.T @ starts / len(starts)
    P = costs_to_go(system, weight, discount)[-1]
    setting = Setting(weight, Q, R, moment, system.noise_covariance, discount)
    truth = lqr_gradient(system, weight, moment, discount, "all")
    return World(system, setting, starts, exact_critic(system, P, discount), truth)


@dataclass(frozen=True, eq=False)
class Wrong:
    """Models and critics of every seed and grid point, [seeds, 5, 5, …]; their levels [5, 5]."""

    model: Dynamics
    critic: Tensor
    model_level: Tensor
    critic_level: Tensor


def wrong(world: World, seeds: int) -> Wrong:
    """Errors of [A B] and of C in one random direction per seed, at all levels of both."""
    draw = stream(0, "bias-dec directions")
    ds = world.system.state_dim
    off = torch.randn(seeds, ds, ds + 1, generator=draw, dtype=torch.float64)
    norm = sum(torch.linalg.matrix_norm(x, 2) for x in (off[..., :ds], off[..., ds:]))
    off = off / torch.as_tensor(norm)[:, None, None]
    twist = torch.randn(seeds, ds + 1, ds + 1, generator=draw, dtype=torch.float64)
    twist = twist + twist.mT
    twist = twist / twist.flatten(1).norm(dim=1)[:, None, None] * world.critic.norm()
    level = torch.tensor(LEVELS, dtype=torch.float64)
    f, v = torch.meshgrid(MODEL_ERROR * level, CRITIC_ERROR * level, indexing="ij")
    moved = off[:, None, None] * f[..., None, None]
    model = Dynamics(world.system.A + moved[..., :ds], world.system.B + moved[..., ds:])
    return Wrong(model, world.critic + twist[:, None, None] * v[..., None, None], f, v)


def bounds(world: World, errors: Wrong, h: int, states: str) -> tuple[Tensor, Tensor]:
    """MAAC's corrected Lemma A.1 and RP's (5.3) with constants measured along the paths."""
    true = world.dynamics
    x, size = followed(world, true, true, h)
    x_, size_ = followed(world, true if states == "common" else errors.model, errors.model, h)
    W, ds = world.setting.weight, world.system.state_dim
    cost = torch.block_diag(world.setting.Q, world.setting.R)
    step, step_ = (torch.cat([each.A, each.B], dim=-1) for each in (true, errors.model))
    slope = torch.maximum(_largest(2 * x @ cost), _largest(2 * x_ @ cost))
    tail, tail_ = 2 * x[..., -1, :, :] @ world.critic, 2 * x_[..., -1, :, :] @ errors.critic
    off = tail_ - tail
    L_Q = torch.maximum(
        _largest(2 * x @ world.critic), _largest(2 * x_ @ errors.critic[..., None, :, :])
    )
    values = {
        "L_f": torch.maximum(_spectral(step), _spectral(step_)),
        "L_r": slope,
        "L_Q": L_Q,
        "K": torch.maximum(size, size_).clamp(min=1.0),
        "f": _spectral(step_ - step),
        "Q": off.norm(dim=-1).amax(dim=-1),
        "f_sum": _spectral(true.A - errors.model.A) + _spectral(true.B - errors.model.B),
        "Q_sum": (off[..., :ds].norm(dim=-1) + off[..., ds:].norm(dim=-1)).amax(dim=-1),
        "closed": torch.maximum(
            _spectral(true.closed_loop(W)), _spectral(errors.model.closed_loop(W))
        ),
    }
    L_pi = float(_spectral(W))
    shape = errors.critic.shape[:-2]
    table = {name: value.expand(shape).flatten().tolist() for name, value in values.items()}
    maac, rp = [], []
    for c in (dict(zip(table, each, strict=True)) for each in zip(*table.values(), strict=True)):
        lemma = MAACConstants(DISCOUNT, c["L_f"], L_pi, c["L_r"], c["L_Q"], c["K"])
        maac.append(float(maac_error(h, lemma, c["f"], c["Q"])))
        assert max(c["L_f"], L_pi) < 1 and c["closed"] <= 1  # else it is no bound
        C_f = 6 * c["L_r"] + 3 * c["L_Q"]
        rp.append(float(rp_bias(h, DISCOUNT, c["L_f"], L_pi, c["f_sum"], c["Q_sum"], C_f, 2.0)))
    return torch.tensor(maac).reshape(shape), torch.tensor(rp).reshape(shape)


def followed(world: World, states: Dynamics, jacobians: Dynamics, h: int) -> tuple[Tensor, Tensor]:
    """x_t = (s_t, a_t), [..., h + 1, starts, ds + 1], and K: the largest |dx_t/dθ|^{1/t}."""
    W, ds = world.setting.weight, world.system.state_dim
    F, F_hat, B = states.closed_loop(W), jacobians.closed_loop(W), jacobians.B
    shape = F_hat.shape[:-2]
    s = world.starts.expand(*shape, -1, -1)
    D = torch.zeros(*shape, len(world.starts), ds, ds, dtype=torch.float64)
    path, rates = [], []
    for t in range(h + 1):
        path.append(torch.cat([s, s @ W.mT], dim=-1))
        in_action = s[..., None, :] + W @ D
        if t:
            whole = torch.cat([D, in_action], dim=-2)
            rates.append(torch.linalg.matrix_norm(whole, 2).amax(dim=-1) ** (1 / t))
        D = F_hat[..., None, :, :] @ D + B[..., None, :, :] * s[..., None, :]
        s = s @ F.mT
    return torch.stack(path, dim=-3), torch.stack(rates).amax(dim=0)


def _spectral(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix, 2)


def _largest(gradients: Tensor) -> Tensor:
    return gradients.norm(dim=-1).amax(dim=(-2, -1))
