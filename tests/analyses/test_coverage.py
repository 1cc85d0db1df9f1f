"""The coverage analysis runs, knows what it says it knows, and tells wrong intervals from right."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import gradlab
from analyses import coverage, gain_coverage
from analyses import quadratic_gradients as lq
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import lqr_gradient


def system(world, A, B):
    d, da = world.B.shape
    eyes = (torch.eye(k, dtype=torch.float64) for k in (d, da))
    noise = world.noise * torch.eye(d, dtype=torch.float64)
    return LinearQuadratic(torch.tensor(A), torch.tensor(B), *eyes, noise)


@pytest.mark.parametrize("world", [lq.WORLDS[0], lq.WORLDS[2]], ids=lambda w: w.name)
def test_the_true_mean_is_the_closed_form(world):
    d = len(world.A)
    second = world.spread * np.eye(d) + world.mean**2 * np.ones((d, d))
    exact = lqr_gradient(
        system(world, world.A, world.B), torch.tensor(-world.K), torch.tensor(second),
        world.discount, "first",
    )  # fmt: skip
    found = lq.mean_of(world, lq.action_gradients(world)["truth"])
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4)


@pytest.mark.parametrize("world", lq.WORLDS, ids=lambda w: w.name)
def test_means_and_traces_are_those_of_many_draws(world):
    M = lq.action_gradients(world)
    for name, G in lq.drawn(world, M, 100_000, np.random.default_rng(0)).items():
        trace, mean = lq.trace_of(world, M[name]), lq.mean_of(world, M[name])
        assert np.linalg.norm(G.mean(0) - mean) < 4 * (trace / len(G)) ** 0.5, name
        assert np.var(G, axis=0).sum() == pytest.approx(trace, rel=0.06), name


def test_without_noise_a_gradient_is_that_of_gradlab():
    world = lq.WORLDS[3]
    d, da = world.B.shape
    policy = torch.nn.Linear(d, da, bias=False).double()
    torch.nn.init.zeros_(policy.weight).data -= torch.tensor(world.K)
    starts = torch.randn(6, d, generator=torch.Generator().manual_seed(0)).double()

    class Quadratic(torch.nn.Module):
        def forward(self, s, u):
            cross = 0.8 * s.sum(dim=1) * u.sum(dim=1)
            return -2 * s.square().sum(dim=1) - 1.5 * u.square().sum(dim=1) - cross

    prior = system(lq.World(**(vars(world) | {"noise": 0.0})), world.prior_A, world.prior_B)
    tail = gradlab.Tail(5, Quadratic(), world.discount)
    found = gradlab.Estimator(prior, prior, "first", tail).gradients(policy, starts)
    M = lq.action_gradients(world)["model 5"][:, :d]
    want = np.einsum("na,nd->nad", starts.numpy() @ M.T, starts.numpy()).reshape(6, -1)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-10)


def test_a_small_run_leaves_its_table_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "CELLS", [(1.0, 1.0)])
    monkeypatch.setattr(coverage, "HORIZONS", np.arange(1.0, 7.0))
    monkeypatch.setattr(lq, "WORLDS", lq.WORLDS[:1])
    coverage.main(small=True, output=tmp_path)
    table = pd.read_csv(tmp_path / "coverage.csv")
    assert set(table["family"]) == {"planted", "lq", "growth"}
    assert "Criterion" in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(coverage, "covered", None)  # would fail if it were done again
    coverage.main(small=True, resume=True, output=tmp_path)
    assert len(pd.read_csv(tmp_path / "coverage.csv")) == len(table)


def test_the_criterion_can_fail():
    rows = [
        {"quantity": q, "tails": t, "coverage": c, "family": "planted", "flagged": f}
        for q in coverage.JUDGED
        for t, c, f in (("gaussian", 0.95, 0.0), ("t4.5", 0.9, 0.9), ("lognormal", 0.9, 1.0))
    ] + [
        {"quantity": q, "tails": "lq1", "coverage": 0.93, "family": "lq", "flagged": 0.2}
        for q in coverage.JUDGED
    ]
    table = pd.DataFrame(rows)
    assert coverage.verdict(table)["holds"]
    assert not coverage.verdict(table.assign(flagged=0.0))["holds"]  # heavy and not flagged
    table.loc[0, "coverage"] = 0.85
    assert not coverage.verdict(table)["holds"]


def misses_allowed(floor, repetitions):
    """Least number of hits that a true coverage of `floor` gives in 999 of 1000 cases."""
    return stats.binom.ppf(0.001, repetitions, floor) / repetitions


def test_intervals_cover_in_the_hardest_cells():
    """One skewed parameter, and heavy tails, at the smallest N."""
    cells = [
        *coverage.lq_cells(64, lq.WORLDS[0], 150),
        next(coverage.planted_cells(64, "t4.5", 150)),
    ]
    for cell in cells:
        judged = cell[cell["quantity"].isin(coverage.JUDGED)]
        assert (judged["coverage"] >= misses_allowed(0.90, 150)).all(), cell["cell"].iloc[0]


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("family", ["planted", "lq"])
def test_the_criterion_holds_on_fewer_repetitions(n, family):
    repetitions, light = 300, []
    kinds = coverage.TAILS if family == "planted" else lq.WORLDS
    cells = coverage.planted_cells if family == "planted" else coverage.lq_cells
    for kind in kinds:
        heavy = kind in ("t4.5", "lognormal")
        for cell in cells(n, kind, repetitions):
            judged = cell[cell["quantity"].isin(coverage.JUDGED)]
            floor = misses_allowed(0.86 if heavy else 0.90, repetitions)
            assert (judged["coverage"] >= floor).all(), cell["cell"].iloc[0]
            assert not heavy or (judged["flagged"] >= coverage.FLAGGED).all()
            light += [] if heavy else list(judged["coverage"])
    assert np.mean(light) >= 0.92


def test_known_gains_are_those_of_many_starts():
    """Of every default estimator, at visited states, with a wrong prior and another's critic."""
    task = gain_coverage.turning()
    policy, critic = gain_coverage.networks(task)
    known = gain_coverage.known_gains(task, policy.weight.detach(), critic)
    profile = gradlab.measure(task, policy, critic, horizon=4, starts=3000)
    for (name, h), gain in known.items():
        found = profile.estimate(name, "gain", h)
        error = profile.interval(name, "gain", h).se
        assert abs(min(found.value, 1.0) - gain) < 4 * error + 1e-3, (name, h)
    assert len(known) == 13
    assert min(known.values()) < 0.7


def test_the_coverage_of_gains_is_measured_and_frozen(tmp_path):
    gain_coverage.main(small=True, output=tmp_path)
    table = pd.read_csv(tmp_path / "gain.csv")
    assert set(table["family"]) == {"direct", "measured"}
    assert (table["coverage"] + table["too_good"] + table["too_bad"]).to_numpy() == pytest.approx(1)
    assert "without the errors of lengths" in (tmp_path / "gain.md").read_text()


def test_intervals_that_miss_do_not_pass_as_gains():
    row = {"family": "direct", "n": 64, "repetitions": 400, "too_bad": 0.0}
    good = pd.DataFrame([row | {"coverage": 0.95, "too_good": 0.05}] * 4)
    assert gain_coverage.verdict(good)["holds"]
    for coverage_of, too_good in ((0.89, 0.02), (0.94, 0.06)):
        bad = good.copy()
        bad.loc[0, ["coverage", "too_good"]] = coverage_of, 0.05
        bad["too_good"] = too_good
        assert not gain_coverage.verdict(bad)["holds"]
