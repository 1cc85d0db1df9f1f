"""The board: cells against closed forms, one by one, and what a kill or a bad file leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from analyses.lasting import __main__ as lasting
from analyses.lasting import ageing, contact, states_or_jacobians
from gradlab import Estimator, Tail, tasks
from gradlab.errors import InputError
from gradlab.networks.interface import flat_parameters
from gradlab.networks.mlp import Policy, QCritic
from gradlab.tools.board import compute
from gradlab.tools.board.page import page, screen
from gradlab.tools.board.result import Board, Cell, Group, ReturnChange, cells_of, load

TASK = """
import torch, gradlab
from gradlab.measurement.update import Update

STAGES = {"only": 0}
SEEDS, STARTS, UPDATES, UPDATE = (0,), 64, 4, Update("sgd", 0.05)


class Q(torch.nn.Module):
    def forward(self, s, a):
        return -2.0 * s[:, 0] ** 2 - a[:, 0] ** 2


def make(stage, seed):
    task = gradlab.tasks.linear_quadratic(
        [[0.9]], [[0.5]], [[1.0]], [[0.1]], noise_covariance=[[0.0]], start_mean=[1.0],
        start_covariance=[[0.0]], discount=0.9,
    )
    policy = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(policy.weight, -0.3)
    return task, policy, Q()
"""
ESTIMATORS = {
    "simulator": 'Estimator(task.simulator, task.simulator, "all", Tail(60, None, task.discount))',
    "data": 'Estimator(task.simulator, None, "first", Tail(0, critic, task.discount))',
    "none": '"no such model"',
    "wrong": "1 / 0",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "estimators").mkdir()
    (tmp_path / "tasks" / "line.py").write_text(TASK)
    for name, made in ESTIMATORS.items():
        text = f"from gradlab import Estimator, Tail\ndef make(task, critic):\n    return {made}\n"
        (tmp_path / "estimators" / f"{name}.py").write_text(text)
    return tmp_path


def value(k: float) -> tuple[float, float]:
    """J(k) of u = −k s from s₀ = 1 and its derivative, in closed form: M = (.9 − .5 k)²."""
    m, gamma = 0.9 - 0.5 * k, 0.9
    cost, rest = 1 + 0.1 * k * k, 1 - gamma * m * m
    return -cost / rest, -(0.2 * k * rest - cost * gamma * 2 * m * 0.5) / rest**2


def build(folder: Path, *names: str) -> dict[str, Cell]:
    compute.Builder(str(folder), str(Path.cwd())).build(Group("line", "only", 0), names)
    return {cell.estimator: cell for cell in cells_of(folder / "cells" / "line.jsonl")}


def test_updates_along_the_exact_gradient_change_the_return_as_the_closed_form(
    folder: Path,
) -> None:
    cell = build(folder, "simulator")["simulator"]
    k, before = 0.3, value(0.3)[0]
    for made in (1, 2):  # plain steps along dJ/dk
        k += 0.05 * value(k)[1]
        assert cell.after(made).value == pytest.approx(value(k)[0] - before, rel=1e-6)
    assert cell.rehearsed == cell.followed  # no critic to fit again


def test_a_cell_does_not_depend_on_what_is_computed_beside_it(folder: Path) -> None:
    alone = build(folder, "data")["data"]
    (folder / "cells" / "line.jsonl").unlink()
    beside = build(folder, "simulator", "data")["data"]
    assert alone.followed == beside.followed and alone.snr == beside.snr


def test_a_rehearsal_has_draws_and_starts_of_its_own(folder: Path) -> None:
    task = folder / "tasks" / "line.py"
    task.write_text(
        task.read_text().replace("start_covariance=[[0.0]]", "start_covariance=[[1.0]]")
    )
    compute.Builder(str(folder), str(Path.cwd())).build(Group("line", "only", 0), ("simulator",))
    (cell,) = load(folder).cells
    first, again = cell.after(1), cell.after(1, rehearsed=True)
    assert first.value != again.value
    assert first.low < again.value < first.high


def test_what_fails_is_an_empty_cell_with_its_reason(folder: Path) -> None:
    cells = build(folder, "none", "wrong")
    assert cells["none"].reason == "no such model" and not cells["none"].followed
    assert "ZeroDivisionError" in cells["wrong"].reason
    assert "ZeroDivisionError" in page(load(folder)).sections[0].body


def test_a_line_cut_short_is_computed_again_and_a_foreign_one_is_named(folder: Path) -> None:
    build(folder, "none", "wrong")
    file = folder / "cells" / "line.jsonl"
    file.write_text(file.read_text()[:-20])
    (left,) = compute.missing(folder).values()
    assert left == ("data", "simulator", "wrong")
    assert set(build(folder, "data")) == {"none", "data"}  # after the torn line
    held = file.read_text()
    build(folder, "data", "none")  # there by now
    assert file.read_text() == held
    file.write_text("{}\n" + file.read_text())
    with pytest.raises(InputError, match=r"line.jsonl:1 is no cell"):
        load(folder)


def test_only_chooses_by_name_and_refuses_an_unknown_one(folder: Path) -> None:
    ((group, names),) = compute.missing(folder, ["only", "estimator=data"]).items()
    assert group == Group("line", "only", 0) and names == ("data",)
    with pytest.raises(InputError, match="only is 'late'"):
        compute.missing(folder, ["late"])
    with pytest.raises(InputError, match="is no board"):
        load(folder / "tasks")


def test_shares_are_of_the_best_of_a_group_and_lost_branches_are_said(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "cells").mkdir()
    outcomes = {
        "good": [(1, 2.0, 1.0, 3.0), (5, 4.0, 3.0, 5.0)],
        "half": [(1, 1.0, 0.5, 1.5), (5, 6.0, 5.0, 7.0)],
        "lost": [(1, 0.5, 0.1, 0.9), (5, np.nan, np.nan, np.nan)],
        "harm": [(1, -1.0, -2.0, -0.5), (5, -3.0, -4.0, -2.0)],
    }
    lines = [
        json.dumps({**vars(Cell("t", "s", 0, name)), "followed": rows, "rehearsed": rows})
        for name, rows in outcomes.items()
    ]
    (tmp_path / "cells" / "t.jsonl").write_text("\n".join(lines) + "\n")
    with (tmp_path / "cells" / "t.jsonl").open("a") as file:  # by a second command
        file.write(lines[0] + "\n")
    table = load(tmp_path).table().set_index("estimator")
    assert table["seeds"].to_list() == [1, 1, 1, 1]
    assert table["gain"].to_dict() == {"good": 1.0, "half": 0.5, "lost": 0.25, "harm": -0.5}
    assert table["lasts"].to_dict() == {"good": 5.0, "half": 5.0, "lost": 1.0, "harm": 0.0}
    assert table.loc["good", "kept"] == pytest.approx(4 / 6)
    assert not np.isfinite(table.loc["lost", "kept"])
    alone = "Follow half: 100% of the best at the end, below the start in 0 of 1 stages."
    assert screen(load(tmp_path)).headline == alone
    (tmp_path / "estimators").mkdir()
    (tmp_path / "estimators" / "half.py").write_text("\nSIMULATOR = True\n")
    assert screen(load(tmp_path)).headline == (
        "Follow good: 67% of the best at the end, below the start in 0 of 1 stages. With the "
        "simulator's derivatives follow half: 100%."
    )
    body = page(load(tmp_path)).sections[0].body
    assert "lost" in body and "nan" not in body.lower().replace('data-v="nan"', "")


def test_an_estimator_that_often_harms_is_not_named_for_its_best_stages() -> None:
    rows = [("steady", (0.6, 0.5, 0.6)), ("wild", (1.0, 1.0, -30.0))]
    made = tuple(
        Cell("t", f"s{k}", 0, name, (ReturnChange(1, v, v, v), ReturnChange(5, v, v, v)))
        for name, values in rows
        for k, v in enumerate(values)
    )
    headline = screen(Board(Path(), made)).headline
    assert (
        headline == "Follow steady: 70% of the best at the end, below the start in 0 of 3 stages."
    )


def test_a_share_has_its_interval_over_tasks_and_an_estimator_its_usual_name() -> None:
    """Student's of the two tasks' means: .5 ± t(1) |.6 − .4| / 2, cut at 100%."""
    made = tuple(
        Cell(task, f"s{k}", 0, name, (ReturnChange(1, v, v, v), ReturnChange(5, v, v, v)))
        for task, share in (("t", 0.4), ("u", 0.6))
        for name, v in (("model_all_5", share), ("other", 1.0))
        for k in range(2)
    )
    board = Board(Path(), made, frozenset({"other"}), {"model_all_5": "model, BPTT at h = 5"})
    said = screen(board)
    assert said.headline.startswith("Best guess: model, BPTT at h = 5: 50% (CI -77% to 100%) of")
    assert said.sure.startswith("undecided") and "model_all_5" not in page(board).sections[0].body
    assert said.numbers[0].label.endswith("model, BPTT at h = 5, -77% to 100%")


def test_every_estimator_of_the_committed_board_is_called_as_elsewhere() -> None:
    board = load(Path("reports/board"))
    assert {each.estimator for each in board.cells} <= set(board.names)


def test_a_board_on_which_nothing_raises_the_return_has_a_page(folder: Path):
    (folder / "estimators" / "backwards.py").write_text(
        "def make(task, critic):\n    return lambda policy, states: policy(states).mean() * 0\n"
    )
    builder = compute.Builder(str(folder), str(Path.cwd()))
    builder.build(Group("line", "only", 0), ("backwards",))
    board = load(folder)
    assert screen(board).headline.startswith(
        "Keep the policy: no estimator raises the return in one group."
    )
    page(board)


def planted(name: str, first: float, last: float, low: float, rehearsed: float) -> Cell:
    """Changes after 1 and 25 updates, and after 5 that are rehearsed."""
    followed = ReturnChange(1, first, first, first), ReturnChange(25, last, low, last)
    return Cell("t", "early", 0, name, followed, (ReturnChange(5, *[rehearsed] * 3),), snr=first)


def cells(*of: Cell) -> dict[str, Cell]:
    return {cell.estimator: cell for cell in of}


def test_regret_is_the_share_of_the_best_that_a_predictor_leaves() -> None:
    group = cells(
        planted("greedy", 3.0, 1.0, 0.5, 0.1), planted("steady", 1.0, 4.0, 3.0, 0.2),
        planted("lost", 2.0, float("nan"), float("nan"), -1.0),
    )  # fmt: skip
    assert lasting.regret(group, 25, lasting.gain) == pytest.approx(0.75)
    assert lasting.regret(group, 25, lasting.rehearsal(5)) == 0.0
    assert lasting.regret(group, 25, lasting.fixed("lost")) == 2.0
    assert lasting.regret(group, 25, None) == pytest.approx((0.75 + 0.0 + 2.0) / 3)
    worse = {name: replace(cell, rehearsed=group["lost"].rehearsed) for name, cell in group.items()}
    assert lasting.regret(worse, 25, lasting.rehearsal(5)) == 1.0  # it holds
    unshown = cells(planted("greedy", 3.0, 1.0, -0.5, 0.1))
    assert np.isnan(lasting.regret(unshown, 25, lasting.gain))
    assert np.isnan(lasting.regret(group, 100, lasting.gain))  # nobody was followed so long


def test_the_rule_that_was_chosen_is_judged_on_other_tasks() -> None:
    ends = {25: (-0.6, -0.2), 100: (-0.3, 0.1)}
    worth = (("gain", 0.5, False), ("rehearsed 25", 0.1, True), ("rehearsed 5", 0.2, True))
    choose = pd.DataFrame(
        [(k, *each) for k in ends for each in worth],
        columns=["updates", "predictor", "regret", "tied"],
    )
    judged = pd.DataFrame(
        [
            (k, "rehearsed 5", 0.1, (low + high) / 2, low, high, 9)
            for k, (low, high) in ends.items()
        ],
        columns=[*choose.columns[:3], "less gain", "less low", "less high", "groups"],
    )
    first, second = lasting.verdict(choose, judged).splitlines()
    assert first.startswith("K = 25: rehearsed 5") and first.endswith("holds")
    assert second.endswith("undecided; about 36 groups would decide")


def test_predictors_that_the_groups_do_not_tell_apart_are_tied() -> None:
    found = {}
    for seed in range(30):  # the first's gain is larger, and each ends higher in half of the groups
        ends = (1.0, 0.5) if seed % 2 else (0.5, 1.0)
        good, other = planted("a", 3.0, ends[0], 0.1, 0.1), planted("b", 1.0, ends[1], 0.1, 0.2)
        found[Group("t", "early", seed)] = cells(good, other, planted("worse", 2.0, -1.0, -2, 0.0))
    table = lasting.compared(found, dict.fromkeys(lasting.LENGTHS, "worse")).set_index("predictor")
    rows = table[table["updates"] == 25]
    assert rows.loc["gain", "tied"] and rows.loc["rehearsed 5", "tied"]
    assert not rows.loc["fixed: worse", "tied"] and not rows.loc["chance", "tied"]
    mean, low, high = lasting.interval(np.array([1.0, 3.0]), ["one", "one"])
    assert mean == 2.0 and np.isnan([low, high]).all()
    assert lasting.rule(rows.reset_index(), 25) == "signal-to-noise"  # as gain, at a batch's cost


def test_the_simulators_gradient_brings_what_it_promises_where_nothing_touches(monkeypatch):
    monkeypatch.setattr(contact, "MOVE", 1e-4)
    torch.manual_seed(0)
    task, critic = tasks.pendulum(), QCritic(2, 1, (8,)).double()
    policy = Policy(2, 1, (8,), "tanh").double()
    starts = contact.visited(task, policy, "starts", 0)
    units = nn.functional.normalize(torch.randn(2, flat_parameters(policy).numel()).double())
    d = contact.brought(task, policy, critic, starts, units, 4, 0)
    promised = contact.estimators(task, critic, task.simulator)["simulator"]
    tail = replace(promised.tail, horizon=4)
    p = units @ replace(promised, tail=tail).gradients(policy, starts).T
    assert torch.allclose(p, d, rtol=1e-4, atol=1e-6)
    found = contact.numbers(p[0], 2 * d[0])  # a simulator that brings twice as much
    assert found["bias"] == pytest.approx(-found["promised"], rel=1e-2)


def test_bias_and_variance_of_planted_contacts_are_told_apart(tmp_path):
    def group(seed, bias):
        cells = [
            {"estimator": name, "horizon": 16, "along": along, "brought": 1.0, "bias": bias * size,
             "bias_se": 0.01, "sd": 8.0}
            for name, size in zip(contact.NAMES, (1.0, 0.1, 1.0, 2.0), strict=True)
            for along in contact.NAMES
        ]  # fmt: skip
        return {"task": "T", "stage": "late", "seed": seed, "starts": 256, "cells": cells}

    page = tmp_path / "page.md"
    for bias, word in ((10.0, "| bias: 0.98"), (0.05, "| variance: -1 [")):
        page.write_text("<!-- contact -->\n<!-- /contact -->\n")
        found = contact.summary(contact.errors([group(seed, bias) for seed in range(5)]))
        contact.written(found, 5, page)
        assert word in page.read_text()
    ratio = found.set_index("estimator")["log ratio"]
    of = [size**2 * 0.05**2 - 0.01**2 + 1 for size in (2, 1)]
    assert np.exp(ratio["mixed"]) == pytest.approx(of[0] / of[1])


def test_effects_of_states_and_of_jacobians_are_those_of_a_two_by_two():
    def planted(seed: int, changes: dict[tuple[str, str], float]) -> dict[str, Cell]:
        return {
            name: Cell("world_small", "early", seed, name, (ReturnChange(25, x, x - 1, x + 1),))
            for (s, j), x in changes.items() for name in [f"{s}_states_{j}_jacobians"]
        }  # fmt: skip

    sim, own = "simulator", "model"
    cells = planted(0, {(sim, sim): 4, (sim, own): 3, (own, sim): 1, (own, own): 0})
    found = states_or_jacobians.effects(cells, 25, rehearsed=False)
    assert list(found.values()) == [0.75, 0.25, 0.5, 0.0]
    lost = planted(1, {(sim, sim): 4, (sim, own): np.nan, (own, sim): 4, (own, own): np.nan})
    assert list(states_or_jacobians.effects(lost, 25, False).values()) == [0.0, 2.0, -2.0, 0.0]
    assert np.isnan(states_or_jacobians.effects({}, 25, False)["states"])
    table = states_or_jacobians.table({c[next(iter(c))].group: c for c in (cells, lost)})
    row = table[(table["updates"] == 25) & (table["how"] == "followed")].iloc[0]
    assert row["states less Jacobians"] == -0.75
    ends = row["states less Jacobians low"], row["states less Jacobians high"]
    assert ends == (-2.0, 0.5) and states_or_jacobians.answer(row) == "undecided"


def test_effects_over_a_training_are_those_of_its_four_gradients():
    rows = [
        {"seed": seed, "estimator": f"{s}_states_{j}_jacobians",
         "followed": [[50, x, x, x], [200, 4 * x, 4 * x, 4 * x]]}
        for seed in (0, 1)
        for (s, j), x in {("simulator", "simulator"): 1.0, ("simulator", "model"): 2.0,
                          ("model", "simulator"): 3.0, ("model", "model"): 4.0}.items()
    ]  # fmt: skip
    *_, first, second, third, last = states_or_jacobians.over_training(rows).splitlines()
    effects = "-0.50 [-0.50, -0.50] | -0.25 [-0.25, -0.25] | -0.25 [-0.25, -0.25] | +0.00"
    assert first.startswith(f"| 50 | {effects}") and last.startswith(f"| 200 | {effects}")
    assert first.removeprefix("| 50") == second.removeprefix("| 100") == third.removeprefix("| 150")
    assert last.endswith("| +16, +16 | +12, +12 | +8, +8 | +4, +4 |")


def test_growth_and_staleness_are_those_of_a_linear_world():
    task = tasks.linear_quadratic(
        [[1.2]], [[1.0]], [[0.0]], [[1e-9]], noise_covariance=[[0.0]], start_mean=[1.0],
        start_covariance=[[0.1]], discount=0.9,
    )  # fmt: skip
    policy = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(policy.weight)
    tail = Tail(16, lambda s, a: s[:, 0], task.discount)
    parts = ((1.0, Estimator(task.simulator, task.simulator, "first", tail)),)
    slope = ageing.growth(parts, task, policy, 0)
    assert slope == pytest.approx(8 * np.log2(1.2 * 0.9), rel=1e-6)  # |g_h| ∝ (1.2 · .9)ʰ
    assert ageing.growth(lambda policy, states: None, task, policy, 0) == 0.0
    # Means at 60° under noise four times as large: the batches' own products are left out.
    angle = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2]]).double()
    torch.manual_seed(0)
    noise = torch.randn(2, ageing.BATCHES, 2000).double()
    means = nn.functional.pad(angle, (0, 1998))[:, None] * 40
    one, other = means + noise
    assert float(one.square().sum(1).mean().sqrt()) > 55
    assert ageing.product(one, one) == pytest.approx(1600, rel=0.2)
    assert ageing.cosine(one, other) == pytest.approx(0.5, abs=0.05)
    nothing = noise[0] - noise[0].mean(0)
    assert ageing.cosine(nothing, other) == 0.0


def test_predictors_by_growth_and_staleness_take_what_they_name():
    group = cells(
        planted("steep", 3.0, 1.0, 0.5, 0.1), planted("turning", 2.0, 1.5, 1.0, 0.2),
        planted("steady", 1.0, 4.0, 3.0, 0.2),
    )  # fmt: skip
    ages = {
        "steep": {"growth": 2.0, "cosine": 0.1}, "turning": {"growth": 0.5, "cosine": 0.1},
        "steady": {"growth": 0.5, "cosine": 0.99},
    }  # fmt: skip
    assert ageing.by_growth(ages)(group) == "turning"
    assert ageing.by_staleness(ages, 25)(group) == "steady"
    assert ageing.by_staleness(ages, 1)(group) == "steep"  # as gain
    down = {name: replace(cell, followed=(ReturnChange(1, -1.0, -1.0, -1.0),))
            for name, cell in group.items()}  # fmt: skip
    assert ageing.by_growth(ages)(down) is None and ageing.by_staleness(ages, 25)(down) is None
