"""First-order rows: pooled errors, the chosen horizon, processor seconds and times to a goal."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analyses.first_order import dmo, race
from analyses.first_order.clock import per_update, seconds_at
from analyses.first_order.errors import chosen, errors_of, table, usable
from analyses.first_order.runs import Arm, arms

STAGES, SEEDS, ROWS = 5, 5, 64
HORIZONS = np.array([1, 2, 4])


def run_of(bias2=(4.0, 1.0, 9.0), variance=(64.0, 64.0, 64.0)):
    """Truths of squared norm 25 that seeds scale, at an angle of cosine 0.8; one seed lost once."""
    scale = np.arange(1.0, SEEDS + 1)[:, None] * np.ones((STAGES, SEEDS, len(HORIZONS)))
    columns = {
        "bias2": np.array(bias2) * scale**2, "variance": np.array(variance) * scale**2,
        "gradient2": 25 * scale**2, "truth2": 25 * scale**2, "inner": 20 * scale**2,
        "bias2_jacobians": 0 * scale, "bias2_tail": np.array(bias2) * scale**2,
    }  # fmt: skip
    for values in columns.values():
        values[3, 1] = np.nan
    iteration = 10 * np.arange(1, STAGES + 1)
    gradients = {"iteration": iteration, "horizon": HORIZONS, **columns}
    return SimpleNamespace(gradients=gradients, config={"algorithm": {"batch": ROWS}})


def test_pooled_errors_are_those_of_the_given_gradients():
    errors = errors_of(run_of())
    for stage in range(STAGES + 1):
        # 64 rows are 16 paths of 4 steps.
        assert errors.estimate("error", stage, 4).value == pytest.approx((9 + 64 / 16) / 25)
        assert errors.estimate("noise", stage, 4).value == pytest.approx(4 / 25)
        assert errors.estimate("cosine", stage, 2).value == pytest.approx(0.8)
        assert errors.estimate("bias2_tail", stage, 1).value == pytest.approx(4 / 25)
    assert table(run_of())["lost"].tolist()[:3] == [1, 1, 1]


def test_the_chosen_horizon_has_the_least_error_of_its_paths():
    assert chosen(run_of()) == 2  # 5/25, 3/25, 13/25
    assert chosen(run_of(variance=(64.0, 640.0, 640.0))) == 1
    stages = usable(run_of())
    assert stages["least"].tolist() == [2] * STAGES
    assert set(stages["usable"]) == {"1 to 2"}  # 13 is more than twice 3
    assert not stages["undecided"].any()


def test_intervals_with_an_evaluation_count_as_the_median(tmp_path):
    path = tmp_path / "run.seconds.csv"
    # Evaluations before updates 0 and 4; a resumed run repeats update 4.
    path.write_text("update,seconds\n2,50\n4,9\n4,2\n6,70\n8,4\n")
    np.testing.assert_allclose(per_update(path, 4), [1, 2])
    np.testing.assert_allclose(seconds_at(path, np.array([0, 2, 4, 8]), 4), [0, 3, 5, 12])


def curves(row, seconds, reached=True):
    """Seeds that reach the pendulum's goal after so many seconds, or none."""
    late = -200.0 if reached else -900.0
    return pd.concat(
        pd.DataFrame({"world": "pendulum", "row": row, "seed": seed,
                      "seconds": [0.0, at / 2, at], "return": [-1200.0, -900.0, late]})
        for seed, at in enumerate(seconds)
    )  # fmt: skip


def test_times_to_a_goal_and_their_ratio():
    slow, fast = np.array([40.0, 44.0, 36.0, 40.0, 42.0]), np.array([10.0, 11.0, 9.0, 10.0, 10.5])
    every = race.times(pd.concat([curves("shac", fast), curves(race.THERE, slow)]))
    row = race.contrast("pendulum", "shac", every)
    assert row["value"] == pytest.approx(0.25) and 0.2 < row["low"] < 0.25 < row["high"] < 0.3
    never = race.times(pd.concat([curves("shac", fast, False), curves(race.THERE, slow)]))
    row = race.contrast("pendulum", "shac", never)
    assert row["high"] == np.inf and row["reached"] == 0


def test_arms_are_rows_of_the_table_and_windows_hold_whole_paths(tmp_path):
    for arm in arms(tmp_path):
        row = arm.algorithm()
        assert row.source.steps % (row.horizons[0] or 1) == 0
        assert arm.measured == (row.source.steps > 0 and arm != Arm(arm.row, "hopper"))
    assert len({arm.name for arm in arms(tmp_path)}) == len(arms(tmp_path))


def test_a_models_gradients_are_counted_by_what_their_cosines_show(monkeypatch, tmp_path):
    """Of four: one shown above 0.7, one below, one that spans it, one lost."""
    low = np.array([[0.8, -0.2], [0.1, np.nan]])[..., None]
    high = np.array([[1.0, 0.5], [0.9, np.nan]])[..., None]
    table = {"horizon": [16], "dynamics_cosine_low": low, "dynamics_cosine_high": high}
    monkeypatch.setattr(dmo, "finished", lambda arm, runs: arm.world == "hopper")
    monkeypatch.setattr(dmo, "load", lambda path: SimpleNamespace(gradients=table))
    (found,) = dmo.of_models(tmp_path).to_dict("records")
    assert found == {"world": "hopper", "horizon": 16, "above": 1, "below": 1, "neither": 2}
