"""DD-VS-MSE world by world: the answer of each, from planted trials."""

import numpy as np
import pandas as pd
import pytest

from analyses.harness.paired_trials import HORIZONS
from analyses.remedies import dd_vs_mse_worlds as worlds

MODELS = {0.0: (("mse", "equal steps"), ("mse", "equal time")), 10.0: (("dd, w = 10", "both"),)}


def planted(levels, first=worlds.FIRST, count=worlds.TRIALS, spread=0.05, sizes=(500,)):
    """Trials whose squared bias with the loss is that without times the world's level."""
    draws = np.random.default_rng(first)
    rows = []
    for (name, noise), level in zip(worlds.WORLDS, levels, strict=True):
        for size in sizes:
            for trial in range(first, first + count):
                luck = np.exp(draws.normal(scale=spread))
                for weight, models in MODELS.items():
                    size_of = level * luck if weight else 1.0
                    cell = {"world": name, "noise": noise, "rows": size, "trial": trial}
                    rows += [
                        cell | {"weight": weight, "arm": arm, "budget": budget, "jacobian": 1.0}
                        | {f"bias2_{h}": size_of for h in HORIZONS}
                        for arm, budget in models
                    ]  # fmt: skip
    return pd.DataFrame(rows)


def judged(levels, **how):
    return worlds.judge(planted(levels, **how), planted((1.0,) * 4, first=0, count=7))


@pytest.mark.parametrize(
    ("levels", "opening", "holds"),
    [
        ((0.5, 0.5, 0.5, 0.5), "DDPPO is right in every world", True),
        ((2.0, 1.0, 1.0, 0.9), "RP-PGM is right in every world", True),
        ((2.0, 1.0, 1.0, 0.5), "Neither is right in every world: at 500 rows", True),
        ((2.0, 1.0, 1.0, 0.8), "Not decided in every world", False),
    ],
)  # fmt: skip
def test_each_world_has_its_answer(levels, opening, holds):
    verdict = judged(levels)
    assert verdict.sentence.startswith(opening) and verdict.holds == holds


def test_a_world_that_is_open_names_the_trials_that_would_decide():
    assert "Trials more that would decide: pendulum, no noise " in judged(
        (0.7, 1.0, 1.0, 1.0), spread=0.5
    ).sentence  # fmt: skip


def test_earlier_trials_stand_beside_and_decide_nothing():
    found = judged((2.0, 2.0, 2.0, 2.0))
    both = found.table[found.table["trials_of"] == "ten and seven"]
    assert (both["n"] == 17).all() and (both[both["quantity"] == "bias2"]["value"] < 1.8).all()
    assert found.numbers["pendulum 0.0 500 w = 10, equal time"] == pytest.approx(2.0, rel=0.1)


def test_fewer_than_ten_trials_of_a_world_are_no_answer():
    short = judged((2.0,) * 4, count=9)
    assert not short.holds and short.sentence == "No world has 10 trials yet."


def test_the_larger_size_is_told_where_it_has_its_trials():
    short = judged((2.0,) * 4, sizes=(500, 5000)).sentence
    assert "At 5,000 rows" in short
