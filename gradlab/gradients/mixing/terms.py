"""λ and J of gradients whose orders are mixed at every action.

    ivw     λ_t = w ∂R/∂z_t + (1 − w) R ∂ log π/∂z_t,  w = v₀/(v₀ + v₁) for each step and entry of z
            (IVW-H: Onoda et al. 2026, arXiv 2604.18161, appendix E, eq. 16–18)
    ddcg    the same where the return is smooth in the action's noise, w = 0 where it is not
            (DDCG, the same paper, eq. 14 and 15, action by action: `smoothness`)
    total   w for each step by the trace of the variance in θ, and what is mixed at an action goes
            on backwards through what the policy observed (total propagation: Parmas et al. 2018,
            PIPPS, algorithm 2):

        ∂R/∂a = r_a + γ Bᵀ p_{t+1},  λ_t = w ∂R/∂z_t + (1 − w) R ∂ log π/∂z_t
        p_t = r_s + γ Aᵀ p_{t+1} + (∂z/∂s)ᵀ λ_t

R is the return to go with its tail, less a baseline of the state where it weighs a score. The nodes
are the actions, whose density the policy has; PIPPS has the states of Gaussian models beside them,
which a system in general is not. The way from state to state (A) is of first order in all three.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.courses import Asked, Carried, Choices, Shared, isolated
from gradlab.gradients.mixing.nodes import Nodes, nodes
from gradlab.gradients.mixing.smoothness import smooth
from gradlab.gradients.mixing.weights import Fit, fitted, mixed, share_of_first

Shares = Callable[[int, list[int], Tensor, Tensor], Tensor]  # t, horizons, both orders → w


def composite(estimator: Choices, requested: Asked, shared: Shared | None) -> Carried:
    """Orders mixed where they arrive, "ivw" and "ddcg"."""
    rule = _tested if estimator.actions == "ddcg" else _inverse_variance
    here, fit = nodes(estimator, requested, shared), fitted(estimator, requested, rule)
    zeroth = here.draws.zeroth(here.advantage(fit.baseline))
    return _carried(here, mixed(fit.shares, here.first, zeroth), requested)


def total(estimator: Choices, requested: Asked, shared: Shared | None) -> Carried:
    """Orders mixed at every node on the way backwards."""
    here, fit = nodes(estimator, requested, shared), fitted(estimator, requested, _propagated)
    signals = _swept(here, here.advantage(fit.baseline), _given(fit))
    return _carried(here, signals, requested)


def _carried(here: Nodes, signals: Tensor, requested: Asked) -> Carried:
    weighted = signals * requested.starts.weight[:, None]
    return isolated(Carried(weighted, here.jacobian, here.horizons), here.counted)


def _inverse_variance(here: Nodes, advantage: Tensor, pilot: Asked) -> Tensor:
    weight = pilot.starts.weight[:, None]
    v1, v0 = ((weight * x).var(dim=2) for x in (here.first, here.draws.zeroth(advantage)))
    return share_of_first(v0, v1)[:, :, None]


def _tested(here: Nodes, advantage: Tensor, pilot: Asked) -> Tensor:
    passed = smooth(here, pilot)[:, :, None, None]
    return torch.where(passed, _inverse_variance(here, advantage, pilot), 0.0)


def _propagated(here: Nodes, advantage: Tensor, pilot: Asked) -> Tensor:
    """Shares [K, H + 1, 1, 1] by which the sweep weighs, found on the way."""
    shares = advantage.new_ones(*advantage.shape[:2], 1, 1)
    n, weight = advantage.shape[2], pilot.starts.weight[:, None]

    def share(t: int, inside: list[int], first: Tensor, zeroth: Tensor) -> Tensor:
        jacobian = here.jacobian.rows(slice(t * n, (t + 1) * n))
        v1, v0 = (_trace(gram.squared_norms(jacobian, x), gram.mean_gradients(jacobian, x))
                  for x in (weight * first, weight * zeroth))  # fmt: skip
        shares[inside, t] = share_of_first(v0, v1)[:, None, None]
        return shares[inside, t]

    _swept(here, advantage, share)
    return shares


def _trace(squares: Tensor, mean: Tensor) -> Tensor:
    """Trace of the covariance [K] from squared norms [K, N] and means [K, P]."""
    n = squares.shape[1]
    return (squares.mean(dim=1) - mean.square().sum(dim=1)).clamp_min(0.0) * n / (n - 1)


def _given(fit: Fit) -> Shares:
    def share(t: int, inside: list[int], first: Tensor, zeroth: Tensor) -> Tensor:
        return fit.shares[inside, t]

    return share


def _swept(here: Nodes, advantage: Tensor, shares: Shares) -> Tensor:
    """γᵗ λ_t of every horizon by one sweep backwards, [K, H + 1, N, 2 da]."""
    linear, tail, horizons = here.linear, here.estimator.tail, here.horizons
    K, steps, n = advantage.shape
    signals = advantage.new_zeros(K, steps, n, here.K.shape[2])
    p = advantage.new_zeros(K, n, linear.path.states.shape[2])
    for t in reversed(range(steps)):
        at = [k for k, horizon in enumerate(horizons) if horizon >= t]
        if not at:
            continue
        ends = torch.tensor([horizons[k] == t for k in at])[:, None, None]
        action, state = here.tail.q_a[t], here.tail.q_s[t]
        if t < linear.path.horizon:
            ahead = tail.discount * p[at]
            through = linear.r_a[t] + torch.einsum("nsa,kns->kna", linear.B[t], ahead)
            beside = linear.r_s[t] + torch.einsum("nij,kni->knj", linear.A[t], ahead)
            action, state = torch.where(ends, action, through), torch.where(ends, state, beside)
        first = here.draws[t].first(action.expand(len(at), n, -1))
        zeroth = here.draws[t].zeroth(advantage[at, t] / tail.discount**t)
        frozen = ends if tail.terminal_action == "detached" else torch.zeros_like(ends)
        share = shares(t, at, torch.where(frozen, 0.0, first), zeroth)
        signal = torch.where(frozen, first, mixed(share, first, zeroth))
        signals[at, t] = tail.discount**t * torch.where(frozen, 0.0, signal)
        p[at] = state + torch.einsum("nzs,knz->kns", here.K[t], signal)
    return signals
