"""Numbers of the rows' gradients, pooled over seeds, where the gradients are given."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.model_based import by_horizon, whose_gradient
from analyses.model_based.runs import Arm
from gradlab.training.measured.row_errors import squares

STAGES, SEEDS, BATCH = 5, 4, 128


def run_of(generator, noise=0.0):
    """Gradients (3, 4) against a truth of (5, 0), seeds that differ by a factor, one lost once."""
    scale = np.arange(1.0, SEEDS + 1)[:, None] * np.ones((STAGES, SEEDS, 1))
    columns = {
        "gradient2": 25 * scale**2, "truth2": 25 * scale**2, "inner": 15 * scale**2,
        "bias2": 20 * scale**2, "variance": 20 * BATCH * scale**2,
        "bias2_states": 2 * scale**2, "bias2_jacobians": 3 * scale**2, "bias2_tail": 15 * scale**2,
    }  # fmt: skip
    columns["inner"] = columns["inner"] + noise * generator.standard_normal(scale.shape)
    for values in columns.values():
        values[2, 1] = np.nan
    gradients = {"iteration": 10 * np.arange(STAGES), "horizon": np.array([3]), **columns}
    return SimpleNamespace(gradients=gradients, config={"algorithm": {"batch": BATCH}})


def test_pooled_numbers_are_those_of_the_given_gradients():
    run = run_of(np.random.default_rng(0))
    table = pd.DataFrame(whose_gradient.rows_of(run, Arm("maac", "pendulum")))
    assert table["stage"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table["lost"].tolist() == [1, 0, 0, 1, 0, 0]
    for name, value in {"cosine": 0.6, "bias": 0.8, "noise": 0.5, "states": 0.1}.items():
        np.testing.assert_allclose(table[name], value, rtol=1e-12)
    np.testing.assert_allclose(table["jacobians"] + table["critic"], 0.9, rtol=1e-12)
    text = whose_gradient.sentence("maac", table)
    assert "cosine 0.60 [0.60, 0.60] over its training" in text and "uphill in 5 of 5" in text
    assert "the critic makes 75% [75%, 75%] of its squared bias" in text


def test_the_interval_over_stages_is_narrower_than_a_stages_and_holds_the_cosine():
    run = run_of(np.random.default_rng(1), noise=10.0)
    table = pd.DataFrame(whose_gradient.rows_of(run, Arm("maac", "pendulum")))
    width = table["cosine high"] - table["cosine low"]
    assert width[0] < width[1:].median()
    assert table["cosine low"][0] < 0.6 < table["cosine high"][0]
    assert table["cosine"][0] == pytest.approx(table["cosine"][1:].mean(), abs=0.1)


def test_a_part_of_a_bias_that_noise_leaves_below_zero_is_not_known():
    run = run_of(np.random.default_rng(0))
    run.gradients["bias2"] = -run.gradients["bias2"]
    table = pd.DataFrame(whose_gradient.rows_of(run, Arm("maac", "pendulum")))
    assert table[["states", "jacobians", "critic"]].isna().all(axis=None)
    assert "squared bias" not in whose_gradient.sentence("maac", table)


def test_a_cosine_that_is_not_known_is_not_drawn():
    run = run_of(np.random.default_rng(0))
    run.gradients["gradient2"][1] = -1.0
    table = pd.DataFrame(whose_gradient.rows_of(run, Arm("maac", "pendulum")))
    axes = whose_gradient.drawn(table).axes[0]
    drawn = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert np.isnan(drawn[1]) and np.isfinite([*drawn[:1], *drawn[2:]]).all()


def test_spectral_ratios_are_those_of_the_given_gradients():
    """Gradients (3, 4) and (0, 4) against (5, 0): variances of 8 and 2 in every cell."""
    rng, rows = np.random.default_rng(1), []
    for row, mean, variance in (("rp-dp", (3.0, 4.0), 8.0), ("rp-dp-sn", (0.0, 4.0), 2.0)):
        for stage, seed in np.ndindex(5, 3):
            G = mean + rng.standard_normal((500, 2)) * (variance / 2) ** 0.5
            T = (5.0, 0.0) + 5 * rng.standard_normal((500, 2))
            rows.append({
                "row": row, "stage": stage, "seed": seed, "h": 8, "variance": variance,
                **squares(torch.from_numpy(G), torch.from_numpy(T)),
            })  # fmt: skip
    _, _, line = by_horizon.listed(pd.DataFrame(rows)).splitlines()
    _, h, ratio, relative, bias, cosine, _ = (cell.strip() for cell in line.split("|"))
    assert (h, ratio) == ("8", "0.25 [0.25, 0.25]")
    pairs = [[float(x) for x in cell.split(", ")] for cell in (relative, bias)]
    np.testing.assert_allclose(pairs, [[8 / 25, 2 / 16], [20 / 25, 41 / 25]], rtol=0.1)
    assert float(cosine.split(",")[0]) == pytest.approx(0.6, abs=0.05)
