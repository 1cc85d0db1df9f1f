"""A small policy, a loop over it, and rows of "vitals", for the tests of what a probe is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import gradlab


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def probed(policy: nn.Module, optimizer: Any = None, rows: Any = None, **given: Any) -> Any:
    """A probe whose rows go to a list."""
    return gradlab.Probe(policy, optimizer, log=None if rows is None else rows.append, **given)


def looped(policy: Any, optimizer: Any, probe: Any, count: int = 100, loss: Any = None) -> None:
    """Updates whose loss is a function of the step, else the sum of actions in random states."""
    kind = next(policy.parameters()).dtype
    for step in range(count):
        optimizer.zero_grad()
        with probe(step):
            (loss(step) if loss else policy(torch.randn(8, 2).to(kind)).sum()).backward()
        optimizer.step()


def told(rows: list[dict[str, Any]], title: str = "") -> list[dict[str, Any]]:
    """Failures in the order in which they were told, of one title or of all."""
    failures = [row for row in rows if "findings/title" in row]
    return [row for row in failures if title in ("", row["findings/title"])]


def vitals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "vitals/grad_norm" in row]


EYE = torch.eye(2, dtype=torch.float64)


def linear_task(dim: int = 2, **changed: Any) -> gradlab.Task:
    """s' = A s + B a + noise, r = −|s|² − |a|²."""
    eye = torch.eye(dim, dtype=torch.float64)
    zero = torch.zeros(dim, dtype=torch.float64)
    given = {"A": 0.9 * eye, "B": eye[:, :1], "start_mean": zero, "discount": 0.8} | changed
    of_actions = torch.eye(given["B"].shape[1], dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        Q=eye, R=of_actions, noise_covariance=0.01 * eye, start_covariance=eye, **given
    )
