"""FLOOR, run small: gradients by gradlab's closed form, biases as named, other laws rejected."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.bounds import floor
from analyses.bounds.tailed_gradients import Dynamics
from analyses.bounds.wrong_quadratics import DISCOUNT, make_world
from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts
from gradlab.truth.lqr import lqr_gradient


@pytest.fixture(scope="module")
def small():
    return floor.measure(small=True)


def test_gradients_of_many_policies_are_gradlabs_closed_form():
    system = make_world().system
    W = torch.tensor([[[0.25, 0.3]], [[-0.2, -0.5]]], dtype=torch.float64)
    moment = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    both = Dynamics(system.A.expand(2, 2, 2), system.B.expand(2, 2, 1))
    found = floor.gradient(system, both, W, moment)
    for weight, each in zip(W, found, strict=True):
        expected = lqr_gradient(system, weight, moment, DISCOUNT, "all")
        torch.testing.assert_close(each.flatten(), expected)


def test_every_run_is_wrong_by_its_level():
    system = make_world().system
    runs = floor.make_runs(system, 3)
    size = torch.where(
        torch.tensor((runs.table["kind"] == floor.KINDS[2]).to_numpy()),
        torch.cat([runs.model.A - system.A, runs.model.B - system.B], 2).flatten(1).norm(dim=1),
        runs.push.flatten(1).norm(dim=1) + runs.against,
    )
    np.testing.assert_allclose(size, runs.table["level"], atol=1e-12)


def test_the_floor_is_about_the_bias_squared(small):
    for kind in floor.KINDS[:2]:
        assert small.numbers[f"floor_over_bias2_max_{kind}"] < 3
    assert small.numbers["transient_worst"] <= -0.4


def planted(law):
    """Runs whose |∇J|² is a law of (T, ε_M)."""
    times = np.unique(np.geomspace(1, 20_000, 60).astype(int))
    return pd.DataFrame(
        [
            {"kind": kind, "level": level, "seed": k, "t": t, "bias": level}
            | {"square": law(t, level)}
            for kind in floor.KINDS
            for level in ((0.0, *floor.LEVELS) if kind == floor.KINDS[0] else floor.LEVELS)
            for k in range(2)
            for t in times
        ]
    )


@pytest.mark.parametrize(
    ("law", "holds"),
    [
        (lambda t, e: 10 * t**-1.2 + e**2, True),
        (lambda t, e: 10 * t**-1.2 + 0.5 * e**1.5, False),
        (lambda t, e: 0.01 * t**-0.3 + e**2, False),
    ],
    ids=["as claimed", "another floor", "a slow transient"],
)
def test_another_floor_or_a_slow_transient_is_rejected(law, holds):
    verdict = floor.judge(planted(law))
    assert verdict.holds == holds


def test_the_verdict_is_saved(small, tmp_path):
    verdicts.save(small, tmp_path, "python -m analyses.bounds.floor")
    made = read_verdicts(tmp_path)["floor"]
    assert np.isfinite(list(made["numbers"].values())).all()
