"""Whole runs with measured weights: resumption, seeds together and apart, what is written."""

from functools import partial

import numpy as np
import pytest
import torch

from gradlab.runs.training.measured_weights import SWITCHED
from gradlab.storage.journal import read
from gradlab.training.loop import train
from tests.training.measured_worlds import FOLLOWED, SMALL, misled, row, task, wild, wrong
from tests.training.small_runs import numbers, stopped


@pytest.mark.parametrize("by", ["mse", pytest.param("gain", marks=pytest.mark.slow)])
@pytest.mark.parametrize("follow", FOLLOWED)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, follow, by):
    options = SMALL | {"seeds": 2, "measure_starts": 32, "checkpoint_every": 12, "by": by}
    options, chosen = options | {follow: "measured"}, misled()

    whole = train(chosen, task(wild), tmp_path / "whole.h5", **options)
    cut = stopped(partial(train, chosen, task(wild), tmp_path / "cut.h5"), 30, **options)
    for seed in range(2):
        assert torch.equal(numbers(whole, seed), numbers(cut, seed))
    for table in ("updates", "evaluations", "weights"):
        same_rows(read(whole).groups[table], read(cut).groups[table])
    # Something is in force that the rule does not say, and the state at 24 has to remember it.
    assert (read(whole).groups["weights"]["outcome"].values[0] == SWITCHED).any()


def test_a_state_saved_at_a_measurement_tells_the_same_row_again(tmp_path):
    # Checkpoints at 20, where there is a measurement, too: it is made twice, and must not see its
    # own outcome as what was in force before.
    options = SMALL | {"checkpoint_every": 20, "measure_starts": 32, "weights": "measured"}

    whole = train(misled(), task(wild), tmp_path / "whole.h5", **options)
    cut = stopped(partial(train, misled(), task(wild), tmp_path / "cut.h5"), 30, **options)
    same_rows(read(whole).groups["weights"], read(cut).groups["weights"])
    assert torch.equal(numbers(whole, 0), numbers(cut, 0))
    assert read(whole).groups["weights"]["outcome"].values[0, 0] == SWITCHED


def same_rows(ours, theirs):
    for name in (name for name in ours if "seconds" not in name and name != "share"):
        np.testing.assert_array_equal(ours[name].values, theirs[name].values, name)


@pytest.mark.slow
@pytest.mark.parametrize("follow", FOLLOWED)
def test_seeds_measured_together_are_seeds_measured_apart(tmp_path, follow):
    chosen, options = row(horizons=(0, 2, 5)), SMALL | {follow: "measured"}
    together = train(chosen, task(wrong), tmp_path / "all.h5", **options, seeds=2)
    rows = read(together).groups["weights"]
    followed = rows["in_force"].values
    assert not np.array_equal(followed[:, 0], followed[:, 1])  # seeds have weights of their own
    for seed in range(2):
        apart = train(chosen, task(wrong), tmp_path / f"{seed}.h5", **options, first_seed=seed)
        assert torch.equal(numbers(together, seed), numbers(apart, seed))
        alone = read(apart).groups["weights"]
        for name in ("measured", "in_force", "mse", "gain", "outcome"):
            np.testing.assert_array_equal(
                alone[name].values[:, 0], rows[name].values[:, seed], name
            )


def test_what_is_written_adds_up(tmp_path):
    path = train(row(), task(wrong), tmp_path / "run.h5", **SMALL, seeds=2, weights="measured")
    rows = {name: array.values for name, array in read(path).groups["weights"].items()}
    assert rows["iteration"].tolist() == [20, 40]
    np.testing.assert_allclose(rows["measured"].sum(axis=2), 1)
    np.testing.assert_allclose(rows["in_force"].sum(axis=2), 1)
    switched = rows["outcome"] == SWITCHED
    assert switched.any() and ((rows["gain_least"] > 0) == switched).all()
    np.testing.assert_array_equal(rows["in_force"][switched], rows["measured"][switched])
    assert (rows["mse_rule_low"] <= rows["mse_rule"]).all()
    assert (rows["mse_rule"] <= rows["mse_rule_high"]).all()
    assert (rows["seconds"] > 0).all() and ((rows["share"] > 0) & (rows["share"] < 1)).all()
    assert rows["checked"].tolist() == [1, 0] and (rows["starts"] == 16).all()
    # What was in force before is judged on starts that did not choose it.
    first = rows["mse_in_force"][0] / rows["mse_rule"][0]
    np.testing.assert_allclose(first, 1)
