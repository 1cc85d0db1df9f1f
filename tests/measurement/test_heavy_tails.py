"""A measurement tells where a few starts carry much; files without the index still load."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

import gradlab
from gradlab.runs.decision_rules import heavy_horizons

ONE = torch.eye(1, dtype=torch.float64)


class Quadratic(nn.Module):
    def forward(self, s, u):
        return -2 * s[:, 0] ** 2 - u[:, 0] ** 2 - 0.5 * s[:, 0] * u[:, 0]


def measured(power):
    """Starts whose size is a Gaussian to a power, 2 × which is that of the gradient."""
    task = gradlab.tasks.linear_quadratic(
        A=0.9 * ONE, B=0.5 * ONE, Q=ONE, R=ONE, noise_covariance=0.01 * ONE,
        start_mean=torch.zeros(1, dtype=torch.float64), start_covariance=ONE, discount=0.9,
    )  # fmt: skip
    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -0.3)
    z = np.random.default_rng(0).normal(size=(256, 1))
    starts = torch.tensor(np.sign(z) * abs(z) ** power)
    return gradlab.measure(task, policy, Quadratic(), horizon=2, starts=starts)


def test_heavy_starts_are_named_at_every_horizon_and_tame_ones_are_not():
    assert heavy_horizons(measured(1.5), "model") == [0, 1, 2]
    assert heavy_horizons(measured(0.3), "model") == []


def test_a_file_of_before_the_index_loads_and_flags_nothing(tmp_path):
    profile = measured(1.5)
    keep = [q for q, name in enumerate(profile.quantities) if name != "tail_index"]
    older = replace(
        profile,
        quantities=tuple(profile.quantities[q] for q in keep),
        columns={name: each[:, keep] for name, each in profile.columns.items()},
        count=profile.count[:, keep],
        method=profile.method[:, keep],
        left_out=profile.left_out[:, keep],
    )
    again = gradlab.load(older.save(tmp_path / "old.h5"))
    assert "tail_index" not in again.quantities
    assert heavy_horizons(again, "model") == []
