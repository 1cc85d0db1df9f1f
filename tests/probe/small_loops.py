"""A small policy, a loop over it, and rows of "vitals", for the tests of what a probe is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import gradlab


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def probed(
    policy: nn.Module, optimizer: torch.optim.Optimizer | None, rows: list[dict[str, Any]]
) -> gradlab.Probe:
    return gradlab.Probe(policy, optimizer, log=rows.append, overhead_budget=1.0, clock=lambda: 0.0)


def looped(policy: Any, optimizer: Any, probe: gradlab.Probe, count: int = 100) -> None:
    kind = next(policy.parameters()).dtype
    for step in range(count):
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 2).to(kind)).sum().backward()
        optimizer.step()


def vitals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "vitals/grad_norm" in row]
