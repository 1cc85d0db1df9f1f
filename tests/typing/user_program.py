"""What a user writes, for type checkers alone: it is checked, never run.

mypy --strict and pyright see the types of an installed gradlab because of `py.typed`;
`assert_type` fails where one of them is lost and becomes Any.
"""

from pathlib import Path
from typing import assert_type

import pandas as pd
import torch
from torch import Tensor, nn

import gradlab


def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    following = 0.9 * state + 0.5 * action
    return following, -(following**2).sum(dim=-1)


def starts(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, 1, generator=generator, dtype=torch.float64)


def critic(state: Tensor, action: Tensor) -> Tensor:
    return -(state**2).sum(dim=-1) - (action**2).sum(dim=-1)


def measured(run: Path) -> pd.DataFrame:
    simulator = gradlab.systems.from_function(step, state_dim=1, action_dim=1)
    task = gradlab.Task("mine", simulator, simulator, starts, discount=0.9, horizon=3)
    policy = nn.Linear(1, 1, dtype=torch.float64)
    profile = gradlab.measure(task, policy, critic, horizon=3, starts=64, batch=32, seed=0)
    assert_type(profile, gradlab.Profile)
    page = gradlab.report(profile.save(run))
    assert_type(page, Path)
    return profile.table()


class Critic(nn.Module):
    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return critic(state, action)


def alone(policy: nn.Module) -> Tensor:
    simulator = gradlab.systems.from_function(step, state_dim=1, action_dim=1)
    tail = gradlab.Tail(2, Critic(), 0.9)
    estimator = gradlab.Estimator(simulator, simulator, "first", tail)
    return estimator.gradients(policy, starts(8, None))


assert_type(gradlab.load("run.h5"), gradlab.Run)
assert_type(gradlab.Profile.load("run.h5"), gradlab.Profile)
assert_type(gradlab.__version__, str)
