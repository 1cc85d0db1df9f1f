import math

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.harness.verdicts import save
from analyses.identities import dp_vs_dr
from analyses.lemmas import mixture
from gradlab.data.noise import stream

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def exact():
    return pd.DataFrame(list(mixture.quadratic(2)))


def test_exact_model_and_critic_are_unbiased_from_the_visitation_at_horizon_0(exact):
    rows = exact[exact["world"] == "linear-quadratic, exact (control)"]
    bias = rows.set_index(["h", "beta"])["bias"]
    assert bias[0, 1.0] < 1e-12
    assert bias[100, 0.0] < dp_vs_dr.DISCOUNT**100
    assert bias[0, 0.0] > 1.0
    assert bias[100, 1.0] > 0.5


def test_in_between_a_mixture_is_best(exact):
    rows = exact.query("world == 'linear-quadratic, exact (control)' and h == 10")
    assert 0 < rows.loc[rows["bias"].idxmin(), "beta"] < 1


def test_the_visitation_s_moment_is_that_of_simulated_states():
    world = dp_vs_dr.make_world()
    n, gamma = 20_000, dp_vs_dr.DISCOUNT
    draw = torch.randn(n, 4, generator=stream(0, "test"), dtype=torch.float64)
    s = world.start_mean + draw @ world.start_covariance.sqrt()
    total = torch.zeros(4, 4).double()
    for t in range(200):
        total += (1 - gamma) * gamma**t * (s.T @ s) / n
        noise = world.system.sample_noise(n, stream(0, "test noise", t))
        with torch.no_grad():
            s = world.system.step(s, world.policy(s), noise).state
    torch.testing.assert_close(mixture.visitation_moment(world), total, rtol=0.05, atol=0.02)


def test_squares_and_angles_leave_out_what_they_say():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 3, generator=draw, dtype=torch.float64)
    whole, fewer = mixture.square(x), mixture.square(x[1:])
    pairs = sum(x[i] @ x[j] for i in range(6) for j in range(6) if i != j) / 30
    assert whole.value == pytest.approx(float(pairs))
    assert whole.left_out[0] == pytest.approx(fewer.value)
    assert mixture.angle(x, y).left_out[0] == pytest.approx(mixture.angle(x[1:], y[1:]).value)
    assert mixture.angle(x, x).value == pytest.approx(0.0, abs=1e-6)


def test_the_scale_is_the_one_of_both_limits():
    assert mixture.matched_scale(0.9, 0) == pytest.approx(10)
    assert mixture.matched_scale(0.9, 1000) == pytest.approx(1)


def test_the_criterion_asks_for_both_ends_in_every_judged_world(exact):
    found = mixture.from_models(exact)
    rows = found["measure"].eq("bias") & found["h"].isin(mixture.WANTED)
    wanted = found["beta"] == found["h"].map(mixture.WANTED)
    ideal = found.assign(gap_low=np.where(rows & ~wanted, 1.0, found["gap_low"]))
    assert mixture.judge(ideal).holds
    spoiled = ideal["world"].eq("linear-quadratic, both 1% wrong") & ideal["h"].eq(100)
    assert not mixture.judge(ideal.assign(gap_low=ideal["gap_low"].mask(spoiled, -1.0))).holds


@pytest.mark.slow
def test_the_whole_analysis_runs_small(tmp_path):
    verdict = mixture.measure(small=True)
    assert all(math.isfinite(value) for value in verdict.numbers.values())
    save(verdict, tmp_path, "python -m analyses.lemmas.mixture")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv"}
