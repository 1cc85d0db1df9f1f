"""Twenty published policy-gradient losses, each with its source, as `conform` takes them.

python -m tests.losses.published        the table of docs/audit.md
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import gradlab

GAMMA = 0.9
Loss = Callable[[Tensor, Tensor], Tensor]


def _centred(reward: Tensor) -> Tensor:
    return reward - reward.mean()


def _others(reward: Tensor) -> Tensor:
    return reward - (reward.sum() - reward) / (len(reward) - 1)


def _ratio(log_prob: Tensor) -> Tensor:
    return (log_prob - log_prob.detach()).exp()


def _clipped(advantage: Tensor, log_prob: Tensor) -> Tensor:
    ratio = _ratio(log_prob)
    return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()


def _pair(log_prob: Tensor, reward: Tensor) -> Tensor:
    return 0.1 * (log_prob[reward.argmax()] - log_prob[reward.argmin()])


def _k3(log_prob: Tensor, prior: Tensor) -> Tensor:
    return (prior - log_prob).exp() - 1 - (prior - log_prob)


def _to_go(reward: Tensor, weight: float) -> Tensor:
    """Returns from each step; `weight`: of the second step's score."""
    return torch.stack([reward[:, 0] + GAMMA * reward[:, 1], weight * reward[:, 1]], 1)


# Loss, its source, the world, the loss, and what the enumeration says of it.
LOSSES: tuple[tuple[str, str, str, Loss, str], ...] = (
    ("REINFORCE", "Williams 1992", "bandit", lambda p, r: -(p * r).mean(), "exact"),
    ("RLOO", "Kool 2019; Ahmadian 2402.14740", "bandit",
     lambda p, r: -(p * _others(r)).mean(), "exact"),
    ("REINFORCE, mean of the group", "Shao 2402.03300 without σ", "bandit",
     lambda p, r: -(p * _centred(r)).mean(), "exact"),
    ("Dr. GRPO", "Liu 2503.20783", "bandit",
     lambda p, r: -(_ratio(p) * _centred(r)).sum() / len(r), "exact"),
    ("PPO, at its data", "Schulman 1707.06347", "bandit",
     lambda p, r: _clipped(_centred(r), p), "exact"),
    ("CISPO, at its data", "MiniMax 2506.13585", "bandit",
     lambda p, r: -(_ratio(p).detach().clamp(max=1.2) * _centred(r) * p).mean(), "exact"),
    ("GRPO", "Shao 2402.03300", "bandit",
     lambda p, r: _clipped(_centred(r) / (r.std() + 1e-4), p), "designed"),
    ("best of G", "Dong 2304.06767 (RAFT)", "bandit",
     lambda p, r: -p[r.argmax()], "designed"),
    ("DPO on a pair", "Rafailov 2305.18290", "bandit",
     lambda p, r: -F.logsigmoid(_pair(p, r)), "designed"),
    ("IPO on a pair", "Azar 2310.12036", "bandit",
     lambda p, r: (10 * _pair(p, r) - 5).square(), "biased"),
    ("AWR", "Peng 1910.00177", "bandit",
     lambda p, r: -(p * _centred(r).exp().clamp(max=20)).mean(), "biased"),
    ("SIL", "Oh 1806.05635", "bandit",
     lambda p, r: -(p * _centred(r).clamp(min=0)).mean(), "biased"),
    ("V-MPO's weights", "Song 1909.12238", "bandit",
     lambda p, r: -(torch.softmax(r, 0) * p).sum(), "biased"),
    ("k1 in the reward", "Ziegler 1909.08593", "penalty",
     lambda p, q: (p * (p - q).detach()).mean(), "exact"),
    ("k1 in the loss", "Schulman, kl-approx, differentiated", "penalty",
     lambda p, q: (p - q).mean(), "zero"),
    ("k2 in the loss", "Schulman, kl-approx", "penalty",
     lambda p, q: (p - q).square().mean() / 2, "exact"),
    ("k3 in the loss", "Shao 2402.03300", "penalty", lambda p, q: _k3(p, q).mean(), "designed"),
    ("k3 times the ratio", "DeepSeek-V3.2 2512.02556", "penalty",
     lambda p, q: (_ratio(p) * _k3(p, q)).mean(), "exact"),
    ("policy gradient theorem", "Sutton 2000", "tree",
     lambda p, r: -(p * _to_go(r, GAMMA)).sum(1).mean(), "exact"),
    ("reward to go, as most code", "Thomas 2014; Nota 1906.07073", "tree",
     lambda p, r: -(p * _to_go(r, 1.0)).sum(1).mean(), "designed"),
)  # fmt: skip


def main() -> None:
    print("| loss | source | against | |\n|---|---|---|---|")
    for name, source, world, loss, _ in LOSSES:
        first = gradlab.conform(loss, world).findings[0]
        print(f"| {name} | {source} | {world} | {first.sentence.removesuffix('.')} |")


if __name__ == "__main__":
    main()
