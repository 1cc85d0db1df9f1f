"""The coverage analysis runs, knows what it says it knows, and tells wrong intervals from right.

Advice is followed by updates of the stated length, and judged by the right returns.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import gradlab
from analyses.advice import follow, verdict
from analyses.advice.__main__ import main
from analyses.advice.run import share_of_best
from analyses.advice.worlds import WORLDS, Cell
from analyses.coverage import __main__ as coverage
from analyses.coverage import cells as coverage_cells
from analyses.coverage import gain_coverage
from analyses.coverage import page as coverage_page
from analyses.coverage import quadratic_gradients as lq
from analyses.coverage import starts as coverage_starts
from analyses.coverage.synthetic import TAILS
from gradlab.data.noise import stream
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import lqr_gradient

JUDGED = ("bias2", "variance", "mse")


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
    for name, G in lq.drawn(world, M, 25_000, np.random.default_rng(0)).items():
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


def test_the_trace_is_that_of_many_draws_from_tailed_starts_too():
    world = replace(lq.WORLDS[2], freedom=9.0)
    m = lq.action_gradients(world, (5,))["model 5"]
    G = lq.drawn(world, {"G": m}, 100_000, np.random.default_rng(2))["G"]
    assert np.var(G, axis=0).sum() == pytest.approx(lq.trace_of(world, m), rel=0.06)


@pytest.mark.slow
def test_a_small_run_leaves_its_table_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage_cells, "CELLS", [(1.0, 1.0)])
    monkeypatch.setattr(coverage_cells, "HORIZONS", np.arange(1.0, 7.0))
    monkeypatch.setattr(coverage_starts, "WORLDS", coverage_starts.WORLDS[:1])
    monkeypatch.setattr(coverage_starts, "CHECKED", 2)
    monkeypatch.setattr(coverage, "SMALL", 4)
    monkeypatch.setattr(coverage, "LAWS", {"Gaussian": np.inf, "t4.5": 4.5})
    monkeypatch.setattr(lq, "WORLDS", lq.WORLDS[:1])
    coverage.main(small=True, output=tmp_path)
    table = pd.read_csv(tmp_path / "coverage.csv")
    families = {"planted", "lq", "growth", "starts", "measured", "chosen", "seeds"}
    assert set(table["family"]) == families
    assert np.allclose(table["coverage"] + table["above"] + table["below"], 1)
    assert "Criterion" in (tmp_path / "README.md").read_text()
    for name in ("planted_cells", "lq_cells", "measured_cells"):
        monkeypatch.setattr(coverage, name, None)  # would fail if they were done again
    coverage.main(small=True, resume=True, output=tmp_path)
    assert len(pd.read_csv(tmp_path / "coverage.csv")) == len(table)


def test_the_criterion_can_fail():
    def row(quantity, family, coverage=0.95, flagged=0.0, **others):
        given = {"quantity": quantity, "family": family, "coverage": coverage, "flagged": flagged}
        plain = {"tails": "Gaussian", "n": 64, "cell": "a", "repetitions": 2000}
        return given | plain | {"block": family, "commit": "c"} | others

    rows = [
        row("bias2", "planted", cell="rho 1, truth 1"),
        row("bias2", "planted", 0.975, cell="rho 0, truth 1"),
        row("snr", "starts"),
        row("snr", "starts", 0.6, flagged=1.0, tails="t4.5"),
        row("snr", "starts", flagged=0.7, tails="t9"),
        row("mse of the chosen", "chosen"),
        row("headline gain", "measured", task="turning"),
        row("median of seeds", "seeds"),
    ]
    verdict, _ = coverage_page.verdict_and_text(pd.DataFrame(rows), "", [])
    assert verdict["holds"]
    wrong = {0: 0.99, 1: 0.94, 2: 0.88, 3: 0.6, 5: 0.9, 6: 0.9, 7: 0.9}
    for k, value in wrong.items():
        table = pd.DataFrame(rows)
        table.loc[k, ["coverage", "flagged"]] = value, 0.0
        verdict, _ = coverage_page.verdict_and_text(table, "", [])
        assert not verdict["holds"], k


def misses_allowed(floor, repetitions):
    """Least number of hits that a true coverage of `floor` gives in 999 of 1000 cases."""
    return stats.binom.ppf(0.001, repetitions, floor) / repetitions


@pytest.mark.slow
def test_intervals_cover_in_the_hardest_cells():
    """One skewed parameter, and heavy tails, at the smallest N."""
    cells = [
        *coverage_cells.lq_cells(64, lq.WORLDS[0], 150),
        next(coverage_cells.planted_cells(64, "t4.5", 150)),
    ]
    for cell in cells:
        judged = cell[cell["quantity"].isin(JUDGED)]
        assert (judged["coverage"] >= misses_allowed(0.90, 150)).all(), cell["cell"].iloc[0]


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("family", ["planted", "lq"])
def test_the_criterion_holds_on_fewer_repetitions(n, family):
    repetitions, light = 300, []
    kinds = TAILS if family == "planted" else lq.WORLDS
    cells = coverage_cells.planted_cells if family == "planted" else coverage_cells.lq_cells
    for kind in kinds:
        for cell in cells(n, kind, repetitions):
            judged = cell[cell["quantity"].isin(JUDGED)]
            assert (judged["coverage"] >= misses_allowed(0.90, repetitions)).all(), cell
            light += [] if kind in ("t4.5", "lognormal") else list(judged["coverage"])
    assert np.mean(light) >= 0.92


@pytest.mark.slow
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


@pytest.mark.slow
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


def linear_cell() -> Cell:
    world = replace(WORLDS["linear-stable"], judges=256, most=1024, steps=300)
    task = world.make(0)
    policy = Policy(3, 2, (), bias=False).double()
    with torch.no_grad():
        policy.network[0].weight.copy_(-0.1 * torch.ones(2, 3))
    return Cell(world, "linear-stable", "early", 0, task, policy, QCritic(3, 2, (8,)))


def test_returns_are_the_closed_forms() -> None:
    """E J = −tr P E[s₀ s₀ᵀ] − γ/(1 − γ) tr P E[w wᵀ], P of the closed loop."""
    cell = linear_cell()
    p = {k: np.array(v) for k, v in cell.task.parameters.items() if k in ("A", "B", "Q", "R")}
    W = cell.policy.network[0].weight.detach().numpy()
    loop, cost = p["A"] + p["B"] @ W, p["Q"] + W.T @ p["R"] @ W
    P = sum(0.95**t * (M := np.linalg.matrix_power(loop, t)).T @ cost @ M for t in range(400))
    want = -np.trace(P) * (1 + 0.95 / 0.05 * 0.01)
    found = follow.returns(cell, [cell.policy], 4096, 1)[0]
    assert abs(float(found.mean()) - want) < 4 * float(found.std()) / 64


def test_the_simulators_own_direction_is_the_closed_form_and_raises_the_return() -> None:
    cell = linear_cell()
    g = follow.directions(
        cell, cell.policy, cell.critic, "true_dynamics_all", (100,), 1024, 1
    )["true_dynamics_all", 100]  # fmt: skip
    moment = torch.eye(3, dtype=torch.float64)
    weight = cell.policy.network[0].weight.detach()
    true = lqr_gradient(cell.task.simulator, weight, moment, 0.95, "all")
    assert float(torch.cosine_similarity(g, true, dim=0)) > 0.98
    eta = follow.length_of(cell, g / g.norm())
    after = follow.stepped(cell, g, eta)
    state = cell.task.starts(4096, stream(5, "move"))
    before = cell.policy(state)
    moved = ((after(state) - before).square().mean() / before.square().mean()).sqrt().detach()
    assert float(moved) == pytest.approx(0.04, rel=0.1)
    assert follow.change(follow.differences(cell, [cell.policy, after], 2)[0]).low > 0


def test_starts_double_until_the_sign_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = linear_cell()
    seen = []

    def returns(cell: Cell, policies: list[object], n: int, seed: int) -> torch.Tensor:
        seen.append(n)
        noise = torch.randn(n, generator=torch.Generator().manual_seed(n + len(seen)))
        return torch.stack([torch.zeros(n), 0.01 * (len(policies) > 2) + noise])

    monkeypatch.setattr(follow, "returns", returns)
    found = follow.change(follow.differences(cell, [cell.policy] * 2, 0, most=1024)[0])
    assert found.starts == sum(seen) and found.starts in (256, 512, 1024)
    assert found.decided or found.starts == 1024


def test_the_share_of_the_best_is_of_the_best() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(512, generator=generator)
    gained = {("data", 0): 0.5 + 0.1 * common, ("model", 1): 1.0 + 0.1 * common}
    value, low, high = share_of_best(gained, ("data", 0))
    assert low < 0.5 < high and abs(value - 0.5) < 0.02
    assert share_of_best(gained, ("model", 1))[0] == pytest.approx(1)


def row(**changes: object) -> dict[str, object]:
    base = {
        "world": "w", "kind": "smooth", "light": "act", "recommended": ["data", 0], "updates": 5,
        "promised": [0.9, 0.8, 1.0], "happened": [0.9, 0.7, 1.1], "share": [0.97, 0.9, 1.0],
        "helps": ["data 0"], "after_1": [1.0, 0.5, 1.5, 512],
        "after_update": [0.1, 0.05, 0.15, 512], "after_k": [2.0, 1.0, 3.0, 512],
        "seconds": {"make": 1.0},
    }  # fmt: skip
    return base | changes


def test_each_criterion_counts_what_it_says(tmp_path: Path) -> None:
    keep = dict(recommended=None, light="none", updates=0)
    rows = [
        row(),
        row(after_1=[-1.0, -1.5, -0.5, 512], share=[-1.0, -2.0, 0.0]),  # a green light, and wrong
        row(after_1=[0.1, -0.1, 0.3, 512], after_k=[-1.0, -2.0, 0.0, 512], light="choose"),
        row(**keep, helps=[]),
        row(**keep),
    ]
    assert verdict.signs(rows) == [True, False, False]
    assert len(verdict.wrong_greens(rows)) == 1
    assert verdict.choices(rows) == [True, False, True, True, False]
    assert verdict.ends(rows) == [True, True, False]
    text = verdict.write_verdict(rows, tmp_path)
    assert "1 of 3" in text and "3 of 5" in text
    assert (tmp_path / "promised.png").exists()


def test_cells_that_are_there_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str, int]] = []

    def run_cell(name: str, stage: str, seed: int, folder: Path) -> dict[str, object]:
        ran.append((name, stage, seed))
        return row(world=name, stage=stage, seed=seed)

    monkeypatch.setattr("analyses.advice.__main__.run_cell", run_cell)
    for _ in range(2):
        main(only=("pendulum",), most=5, folder=tmp_path / "f", output=tmp_path / "o")
    assert len(ran) == len(set(ran)) == 9
