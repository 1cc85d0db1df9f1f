"""Both orders of a gradient at every action by autograd, written out sample by sample."""

import copy

import numpy as np
import torch

from gradlab.networks.policies import log_normal


def squashed(policy, u):
    return u if policy.limit is None else policy.limit * torch.tanh(u)


def both_orders(system, policy, critic, begin, seed, horizon, gamma):
    """Signals at z = (μ, log σ) of every step and sample, and what they are made of.

    Returns:
        first [H + 1, N, 2 da]; returns to go [H + 1, N] with γᵗ; scores [H + 1, N, 2 da]; states.
    """
    policy = copy.deepcopy(policy).requires_grad_(False)
    s, leaves, rewards, scores, states = begin.states, [], [], [], []
    for t in range(horizon + 1):
        mean, log_std = policy.normal(s)
        leaf = torch.zeros(*mean.shape[:1], 2 * mean.shape[1]).double().requires_grad_()
        mean, log_std = mean + leaf[:, : mean.shape[1]], log_std + leaf[:, mean.shape[1] :]
        noise = begin.policy_noise(policy, seed, t)
        u = mean + log_std.exp() * noise
        fixed = (u.detach() - mean) / log_std.exp()
        density = log_normal(fixed, log_std).sum()
        scores.append(torch.autograd.grad(density, leaf, retain_graph=True)[0].detach())
        leaves.append(leaf)
        states.append(s.detach())
        a = squashed(policy, u)
        if t < horizon:
            out = system.step(s, a, begin.dynamics_noise(system, seed, t))
            rewards.append(gamma**t * out.reward)
            s = out.state
    tail = 0.0 * rewards[0] if critic is None else gamma**horizon * critic(s, a)
    returns = torch.stack([*rewards, tail])
    first = torch.autograd.grad(returns.sum(), leaves, allow_unused=True)
    first = [torch.zeros_like(x) if g is None else g for g, x in zip(first, leaves, strict=True)]
    to_go = returns.detach().flip(0).cumsum(dim=0).flip(0)
    return torch.stack(first), to_go, torch.stack(scores), torch.stack(states)


def baseline(states, to_go):
    """Least squares on (1, x, x²) of standardised states that stop at 3."""
    fits = []
    for s, target in zip(states.numpy(), to_go.numpy(), strict=True):
        scale = s.std(axis=0, ddof=1)
        scale = np.where(scale > 0, scale, 1.0)
        x = np.clip((s - s.mean(axis=0)) / scale, -3, 3)
        features = np.concatenate([np.ones_like(x[:, :1]), x, x**2], axis=1)
        weights = np.linalg.lstsq(features, target, rcond=None)[0]
        fits.append((s.mean(axis=0), scale, weights))
    return fits


def explained(fits, states):
    values = []
    for (centre, scale, weights), s in zip(fits, states.numpy(), strict=True):
        x = np.clip((s - centre) / scale, -3, 3)
        values.append(np.concatenate([np.ones_like(x[:, :1]), x, x**2], axis=1) @ weights)
    return torch.from_numpy(np.stack(values))


def pulled_back(policy, states, signals):
    """Σ_t (∂z_t/∂θ)ᵀ signal_t of every sample, [N, P]."""
    parameters, rows = list(policy.parameters()), []
    for i in range(signals.shape[1]):
        z = torch.cat(policy.normal(states[:, i]), dim=1)
        gradient = torch.autograd.grad(z, parameters, signals[:, i])
        rows.append(torch.cat([g.flatten() for g in gradient]))
    return torch.stack(rows)
