"""Paths cut at stiff steps, and ratios of errors that are looked at several at a time."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from analyses.first_order import stiffness
from analyses.first_order.stiffness import ratio_of, total
from gradlab.statistics.moments import Estimate

DISCOUNT = 0.9


def test_a_cut_step_hands_on_the_critics_gradient_instead_of_the_later_adjoint():
    """Against autograd of the return that stops at the cut with γ V′, plus the rest after it."""
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(3, 2, n, generator=generator, dtype=torch.float64) for n in (2, 1))
    r = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    value = nn.Linear(2, 1).double()

    def beyond(state):
        return DISCOUNT * value(state)[0]

    slopes = torch.cat([torch.cat([A, B], dim=2), r[:, None]], dim=1)[None]
    slope = (DISCOUNT * value.weight[0]).detach().expand(1, 3, 2)
    where = torch.tensor([[False, True, False]])
    J = stiffness.cut(slopes, slope, where)[0]

    adjoint, ours = slope[0, 2], []
    for t in reversed(range(3)):
        joint = torch.cat([adjoint, torch.ones(1, dtype=torch.float64)])
        pulled = joint @ J[t]
        ours.append(pulled[2:])
        adjoint = DISCOUNT * pulled[:2]
    actions = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    states = [torch.zeros(2, dtype=torch.float64)]
    total_return, weight = 0.0, 1.0
    for t in range(3):
        joint = torch.cat([states[-1], actions[t]])
        total_return = total_return + weight * (r[t] @ joint)
        states.append(torch.cat([A[t], B[t]], dim=1) @ joint)
        if t == 1:  # the critic's from here, and what follows begins at a state that is held
            total_return = total_return + weight * beyond(states[-1])
            states[-1] = states[-1].detach()
        weight *= DISCOUNT
    total_return = total_return + weight / DISCOUNT * beyond(states[-1])
    (wanted,) = torch.autograd.grad(total_return, actions)
    powers = DISCOUNT ** torch.arange(3, dtype=torch.float64)
    torch.testing.assert_close(powers * torch.stack(ours[::-1])[:, 0], wanted[:, 0])


def test_ratios_of_sums_cover_the_known_ratio_wider_with_more_looks():
    rng = np.random.default_rng(0)

    def mean_of(x):
        return Estimate(float(x.mean()), (x.sum() - x) / (len(x) - 1))

    samples = [rng.gamma(4.0, size=(2, 200)) for _ in range(3)]
    first = total([mean_of(2 * one) for one, _ in samples])
    second = total([mean_of(other) for _, other in samples])
    assert first.value == pytest.approx(sum(2 * one.mean() for one, _ in samples))
    single, several = (ratio_of(first, second, looks) for looks in (1, 9))
    assert single["low"] < 2 < single["high"]
    # Independent samples of coefficient of variation 1/2: se of the logarithm √(2 · ¼ / 600).
    assert np.log(single["high"] / single["value"]) == pytest.approx(1.96 * 0.0289, rel=0.2)
    assert np.log(several["high"] / several["value"]) == pytest.approx(2.77 * 0.0289, rel=0.2)


def test_the_threshold_whose_interval_ends_lowest_decides():
    tables = [
        pd.DataFrame({
            "label": [f"{world} {C}" for C in stiffness.THRESHOLDS[:-1]], "world": world,
            "C": stiffness.THRESHOLDS[:-1], "cut": 0.1, "stiffness": 13.0, "median": 13.0,
            "least": np.nan, "most": np.nan, "value": [2.0, 1.0, 0.8, 0.7, 0.9, 1.0],
            "low": 0.1, "high": [3.0, 1.5, 0.95, high, 1.2, np.nan],
        })
        for world, high in zip(stiffness.WORLDS, (0.9, 1.1, 0.8), strict=True)
    ]  # fmt: skip
    verdict = stiffness.judged(tables)
    assert verdict.holds
    decided = verdict.table[verdict.table["most"] == 1.0]
    assert decided["high"].tolist() == [0.9, 0.95, 0.8]
