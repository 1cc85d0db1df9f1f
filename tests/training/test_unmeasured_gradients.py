"""Measurements of the gradient that a row follows: of every row, where the simulator allows it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import gradlab
from gradlab.runs.training.results import load
from gradlab.storage.journal import read
from gradlab.tasks import double_integrator
from gradlab.training.algorithms import ALGORITHMS, find
from gradlab.training.loop import train
from gradlab.training.measured import gradient_errors
from gradlab.training.parts.sources import Newest
from gradlab.training.settings import Settings
from gradlab.verdicts.training.sentences import verdict
from tests.training.small_runs import SMALL, numbers, row, same_tables, stopped, task

MIXTURES = {"mpg-v1", "mpg-v2", "mpg-general"}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_has_a_table_of_its_gradient_where_it_is_asked_for(name):
    algorithm, settings = find(name), Settings(gradient_every=5)
    gradient_errors.check(algorithm, settings, double_integrator())
    assert gradient_errors.measured(algorithm, settings)
    table = gradient_errors.table(algorithm, (0,))
    assert tuple(table.scales["horizon"]) == gradient_errors.horizons(algorithm)
    assert ("bias2_tail" in table.columns) == (name not in MIXTURES)
    assert ("gradient_law" in gradient_errors.described(algorithm, settings)) == (
        name not in MIXTURES
    )


MEASURED = SMALL | {"iterations": 40, "gradient_every": 20, "gradient_starts": 8}


def endless():
    """The world of the small runs, in which no episode ends before its last step."""
    world = task()
    simulator = gradlab.systems.from_function(
        lambda s, a, xi: (0.5 * s + 0.1 * a[:, :1] + 0.1 * xi, -(s**2).sum(1)),
        state_dim=3, action_dim=2, noise_dim=3,
    )  # fmt: skip
    return replace(world, simulator=simulator, prior=simulator)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maac", "svg-inf"])
def test_measuring_changes_no_bit_and_a_stopped_run_measures_the_same(tmp_path, name):
    algorithm, world = row(name), endless()
    if algorithm.source.steps:
        algorithm = replace(algorithm, source=Newest(4))
    whole = train(algorithm, world, tmp_path / "a.h5", **MEASURED)
    plain = train(algorithm, world, tmp_path / "b.h5", **MEASURED | {"gradient_every": 0})
    cut = stopped(partial(train, algorithm, world, tmp_path / "c.h5"), 30, **MEASURED)
    assert torch.equal(numbers(whole), numbers(plain))
    same_tables(whole, plain)
    first, second = (read(path).groups["gradients"] for path in (whole, cut))
    assert first["iteration"].values.tolist() == [20, 40]
    for column in (name for name in first if name != "seconds"):
        np.testing.assert_array_equal(first[column].values, second[column].values, column)
    for text, [status] in zip(first["truth_reason"].values, first["truth"].values, strict=True):
        assert (str(text) == "") == (status >= 2)  # cut, or converged
    assert np.isfinite(first["bias2"].values).all() and (first["seconds"].values > 0).all()
    [sentence] = [each for each in verdict(load(whole)) if each.about == "gradient"]
    told = {each.about for each in verdict(load(whole))}
    assert {"gradient", "gradient cost"} <= told
    law = "states of its batches" if name == "maac" else "newest paths"
    assert law in sentence.text and "starts of the task" not in sentence.text


def test_the_reason_of_a_missing_truth_is_in_the_record_and_in_the_verdict(tmp_path):
    # In this world most episodes end within a few steps: too few paths are whole.
    options = MEASURED | {"iterations": 20, "evaluate_every": 20, "checkpoint_every": 20}
    path = train(row("svg-inf"), task(), tmp_path / "run.h5", **options)
    [reason] = read(path).groups["gradients"]["truth_reason"].values
    assert "within one episode, 4 are needed" in reason
    assert any(str(reason) in each.text for each in verdict(load(path)))
