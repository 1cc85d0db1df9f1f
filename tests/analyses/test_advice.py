"""Advice is followed by updates of the stated length, and judged by the right returns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.advice import follow, verdict
from analyses.advice.__main__ import main
from analyses.advice.run import share_of_best
from analyses.advice.worlds import WORLDS, Cell
from gradlab.data.noise import stream
from gradlab.networks.mlp import Policy, QCritic
from gradlab.truth.lqr import lqr_gradient


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
