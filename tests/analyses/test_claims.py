"""Pages of studies say what their tables say, and advice is followed as it says.

The table of claims is consistent, and its page is that of the table; so is what the README and the
pages of reports/ say first. Advice is followed by updates of the stated length, and judged by the
right returns.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.advice import follow
from analyses.advice import verdict as advice
from analyses.advice.continued import verdict as told_of
from analyses.advice.run import share_of_best
from analyses.advice.worlds import WORLDS, Cell
from analyses.claims.__main__ import VERDICTS, contradiction, faults, page, read
from gradlab.data.trajectories import stream
from gradlab.networks.mlp import Policy, QCritic
from tests.linear_quadratic import lqr_gradient

REPORTS = Path(__file__).parents[2] / "reports"
CLAIMS = read(REPORTS / "claims.csv")
RATIO = replace(CLAIMS[0], number="1.2", low="1.1", high="1.3", asked="≤ 1", verdict="refuted")


def test_every_claim_has_a_verdict_that_its_numbers_bear_out(monkeypatch):
    monkeypatch.chdir(REPORTS.parent)
    assert list(faults(CLAIMS, REPORTS)) == []
    assert {claim.verdict for claim in CLAIMS} == set(VERDICTS)


def test_the_committed_page_is_that_of_the_table():
    assert (REPORTS / "claims/README.md").read_text() == page(CLAIMS)


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        ({}, True),
        ({"verdict": "holds"}, False),
        ({"verdict": "undecided"}, False),
        ({"low": "0.9", "verdict": "undecided"}, True),
        ({"low": "0.9"}, False),
        ({"asked": "≥ 1", "verdict": "holds"}, True),
        ({"asked": "≥ 1.2", "verdict": "direction shown, size not"}, False),
        ({"low": "1.25"}, False),
        ({"number": "0", "low": "", "high": "", "asked": "≤ 0", "verdict": "holds"}, True),
        ({"number": "1", "low": "", "high": "", "asked": "≤ 0", "verdict": "holds"}, False),
    ],
)
def test_a_verdict_against_its_interval_is_refused(changes, sound):
    assert (contradiction(replace(RATIO, **changes)) == "") is sound


def test_a_claim_without_page_or_commit_and_one_that_stands_twice_are_named(monkeypatch):
    monkeypatch.chdir(REPORTS.parent)
    lost = replace(RATIO, claim="X", page="nowhere", commit="0123456789")
    found = list(faults([lost, replace(lost, verdict="true")], REPORTS))
    assert "X stands 2 times" in found and "X: no page nowhere/README.md" in found
    assert any(line.startswith("X: verdict 'true'") for line in found)


def signed(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


def advised() -> Iterator[tuple[str, str]]:
    """What the cells of `advice` say, on its page and on the first one."""
    rows = [json.loads(line) for line in (REPORTS / "advice/cells.jsonl").open()]
    told = [row for row in rows if row["recommended"]]
    kept = [row for row in rows if not row["recommended"]]
    n, k = len(told), len(kept)
    first, ended = sum(advice.named(rows)), sum(advice.ends(rows))
    near, nearer = (sum(row["share"][0] >= least for row in told) for least in (0.95, 0.9))
    green, wrong = sum(row["light"] == "act" for row in told), len(advice.wrong_greens(rows))
    helped, count = sum(bool(row["helps"]) for row in kept), {2: "two"}[wrong]
    yield (
        "advice/README.md",
        f"in {first} of {n} cells the first update raised the return, in {ended}",
    )
    yield "advice/README.md", f"Of {green} green lights {count} were wrong"
    yield "advice/README.md", f"{near} of {n} recommendations were within 5% of the best choice in"
    yield "advice/README.md", f"hindsight, {nearer} within 10%"
    yield "advice/README.md", f"in {k - helped} of {k} cells nothing helped"


def continued() -> Iterator[tuple[str, str]]:
    """What the cells by today's rule say, there and on the first pages."""
    rows = [json.loads(line) for line in (REPORTS / "advice/continued.jsonl").open()]
    told = [row for row in rows if row["recommended"]]
    kept, green = len(rows) - len(told), sum(row["light"] == "act" for row in told)
    met = {what.split("  ")[1]: what.split("  ")[0] for what in told_of(rows).splitlines()}
    raised, right = met["recommended updates raise the return (95%)"], met["keep is right (70%)"]
    assert raised == f"{len(told)} of {len(told)}" and met["greens wrong (none)"] == f"0 of {green}"
    assert right == f"{kept - 1} of {kept}"
    for place in ("../README.md", "advice/README.md"):
        yield place, f"all {len(told)} recommendations raised the return"
    yield "advice/README.md", f"no green light of {green} was wrong"
    yield "advice/README.md", "nine of ten keeps were right"
    for name, what in (
        ("within 10% of the best", "within 10% of the best followed (75%)"),
        ("the promised interval holds", "promised interval holds the mean of 16 draws (85%)"),
    ):
        yield "advice/README.md", met[what]
        assert name in (REPORTS / "advice/README.md").read_text()
    yield "README.md", f"All {len(told)} recommendations on unseen worlds raised the return"


def measured() -> Iterator[tuple[str, str]]:
    """The measurement of path tracking."""
    table = pd.read_csv(REPORTS / "path-tracking/numbers.csv")
    table = table.set_index(["estimator", "quantity", "horizon"])
    gain = 100 * table.xs("gain", level="quantity")[["value", "ci_low", "ci_high"]]
    critic, every = gain.loc["data"], gain.loc["model_all"]
    assert (every.ci_high.loc[:5] < 0).all()
    least, best = (signed(x) for x in (every.value.loc[14:].min(), every.value.loc[14:].max()))
    yield (
        "README.md",
        f"14 to 25 steps through the prior with θ in all actions have {least} to {best}%",
    )
    yield "path-tracking/README.md", f"points backwards ({signed(critic.value[0])}%)"


@pytest.mark.parametrize(("page", "text"), [*advised(), *continued(), *measured()])
def test_a_page_says_first_what_was_measured(page: str, text: str) -> None:
    assert text in (REPORTS / page).read_text()


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
