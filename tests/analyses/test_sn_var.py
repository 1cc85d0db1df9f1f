"""SN-VAR: arms that differ in one thing, and a verdict that could have been another."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.remedies import sn_var
from analyses.remedies.spectral_arms import (
    ARMS,
    HORIZONS,
    by_raw_weights,
    initial_policy,
    plain,
    tasks,
)
from gradlab.networks import spectral


def test_both_policies_start_from_the_same_weights_but_for_their_norms():
    task = tasks()["pendulum"][0]
    free, held = (initial_policy(task, 3, normalised) for normalised in (False, True))
    for layer, other in zip(
        (each for each in free.modules() if isinstance(each, torch.nn.Linear)),
        (each for each in held.modules() if hasattr(each, "in_features")),
        strict=True,
    ):
        ratio = layer.weight / other.weight
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)
    assert all(norm.values[0] == pytest.approx(1, abs=1e-5) for norm in spectral.norms(held))


def test_gradients_by_raw_weights_are_those_of_automatic_differentiation():
    policy = initial_policy(tasks()["cart-pole"][0], 0, normalised=True).double().eval()
    draw = torch.Generator().manual_seed(0)
    state = torch.randn(3, 4, generator=draw).double()
    noise = torch.randn(3, 1, generator=draw).double()

    def each_sample(network):
        rows = [
            torch.autograd.grad(network(state, noise)[k].sum(), list(network.parameters()))
            for k in range(3)
        ]
        names = [name for name, _ in network.named_parameters()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    baked = plain(policy)
    ours = torch.stack(
        [torch.cat([g.flatten() for g in row.values()]) for row in each_sample(baked)]
    )
    found = by_raw_weights(policy)(ours)
    raw = each_sample(policy)
    begin = 0
    for name, value in baked.named_parameters():
        part = found[:, begin : begin + value.numel()]
        begin += value.numel()
        theirs = name.replace(".weight", ".parametrizations.weight.original")
        expected = torch.stack([row[theirs if theirs in row else name].flatten() for row in raw])
        torch.testing.assert_close(part, expected, rtol=1e-8, atol=1e-12)


def planted(ratio, slope_both, tasks_=("pendulum", "cart-pole")):
    """Variances that grow as e^{0.4 h}, divided by `ratio` at h = 15 where both are normalised."""
    noise = np.random.default_rng(0)
    rows = []
    for task in tasks_:
        for stage in sn_var.STAGES:
            for arm in ARMS:
                for seed in range(5):
                    for h in HORIZONS:
                        slope = slope_both if arm == "both" else 0.4
                        size = np.exp(6 + slope * (h - 15) + 0.05 * noise.standard_normal())
                        variance = size / (ratio if arm == "both" else 1)
                        rows.append(
                            {"task": task, "stage": stage, "arm": arm, "seed": seed, "h": h,
                             "variance": variance, "variance_raw": 2 * variance, "simulator": 1.0,
                             "relative_variance": 1.0 + 0.01 * noise.standard_normal(),
                             "distance": 0.5, "jacobian_error": 0.1, "explained": 0.9,
                             "last_norm": 2.0, "product_of_norms": 9.0,
                             "return": -1.0, "saturated": 0.0, "N": 256}
                        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("ratio", "slope", "holds"),
    [(20, 0.15, True), (9, 0.195, False), (11, 0.195, True), (40, 0.25, False)],
)
def test_only_a_tenth_of_the_variance_and_half_the_slope_meet_sn_var(ratio, slope, holds):
    verdict = sn_var.judge(planted(ratio, slope))
    assert verdict.holds == holds
    assert verdict.numbers["pendulum_improved_ratio_both"] == pytest.approx(ratio, rel=0.1)
    assert verdict.numbers["cart-pole_improved_slope_both"] == pytest.approx(slope, abs=0.01)


def test_sn_var_needs_every_h_from_five_on():
    table = planted(20, 0.15)
    at = (table["arm"] == "both") & (table["h"] == 5)
    assert not sn_var.judge(table.assign(variance=table["variance"].mask(at, 1e9))).holds
