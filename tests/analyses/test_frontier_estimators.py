"""FRONTIER on its wall, run small, and a verdict that can fail on each of its parts."""

import pandas as pd
import pytest

from analyses.first_order import frontier_estimators as frontier
from analyses.harness import contrast_parts
from analyses.harness.criteria import Frozen, outcome


def test_the_wall_has_the_bias_that_no_pathwise_gradient_sees():
    verdict = frontier.measure(small=True)
    assert not verdict.holds
    assert "shows the jump's bias" in verdict.sentence
    value = verdict.table.set_index(["estimator", "quantity", "horizon"]).value
    for h in (2, 4):
        assert value["all", "bias2", h] > 4 * value["ddcg", "bias2", h]


def planted(**missed):
    met = {"bias2 less variance / N′": -1.0, "MSE over that of ivw": 1.0,
           "MSE over that of all": 0.5}  # fmt: skip
    against = {"bias2 less variance / N′": 1.0, "MSE over that of ivw": 0.5,
               "MSE over that of all": 2.0}  # fmt: skip
    rows = []
    for world in (frontier.WALL, "Hopper-v5"):
        for quantity, (name, *_) in contrast_parts.FRONTIER.items():
            wrong = missed.get(quantity.split()[-1], world == frontier.WALL)
            value = (against if wrong else met)[quantity]
            rows.append([world, 4, name, quantity, value, value - 0.01, value + 0.01])
    columns = ["world", "horizon", "estimator", "quantity", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("part", ["N′", "ivw", "all"])
def test_every_part_can_refute(part):
    assert frontier.judge(planted()).holds
    table = planted()
    own = (table.world != frontier.WALL) & table.quantity.str.endswith(part)
    wall = table[(table.world == frontier.WALL) & table.quantity.str.endswith(part)]
    columns = ["value", "low", "high"]
    table.loc[own, columns] = wall[columns].to_numpy()
    refuted = frontier.judge(table)
    assert not refuted.holds
    assert "1 missed" in refuted.sentence
    table.loc[own, columns] = [1.0, -9.0, 9.0]
    assert "1 undecided" in frontier.judge(table).sentence


def test_without_the_premise_nothing_holds():
    table = planted()
    wall = table.world == frontier.WALL
    columns = ["value", "low", "high"]
    table.loc[wall, columns] = table.loc[~wall, columns].to_numpy()
    assert "no power" in frontier.judge(table).sentence
    assert not frontier.judge(table).holds


def test_a_frozen_table_has_an_outcome_only_with_its_premise(tmp_path):
    def outcome_of(table):
        table.to_csv(tmp_path / "frontier.csv", index=False)
        return outcome(contrast_parts.frontier(Frozen(tmp_path / "frontier")))

    table = planted()
    wall = table.world == frontier.WALL
    assert outcome_of(table) == "holds"
    assert outcome_of(planted(ivw=True)) == "refuted"
    columns = ["value", "low", "high"]
    table.loc[wall, columns] = table.loc[~wall, columns].to_numpy()
    assert outcome_of(table) == "not tried"
