"""Temperatures that hold the entropy of a policy."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from gradlab.storage.journal import read
from gradlab.training.algorithms import with_temperature
from gradlab.training.loop import train
from gradlab.training.parts.temperature import Automatic, Temperature
from tests.training.small_runs import SMALL, numbers, row, same_tables, stopped, task

RATE = 0.01


def column(path, table, name):
    return read(path).groups[table][name].values


def temperature_of(choice, limit=None):
    return Temperature(choice, 2, 2, limit, torch.float64, torch.device("cpu"))


def test_alpha_rises_where_there_is_too_little_entropy_and_falls_where_there_is_too_much():
    tuned = temperature_of(Automatic(entropy=-2.0, first=0.5, rate=RATE))
    log_prob = torch.tensor([[2.5, 2.7], [1.0, 1.8]], dtype=torch.float64)  # entropy -2.6, -1.4
    tuned.step(log_prob)
    # Adam's first step has the size of its rate, whatever the gradient's.
    expected = 0.5 * torch.tensor([[math.exp(RATE)], [math.exp(-RATE)]], dtype=torch.float64)
    torch.testing.assert_close(tuned.value, expected, rtol=1e-7, atol=0)


@pytest.fixture
def whole(small_run):
    small = with_temperature(row("sac"), Automatic(rate=0.05))
    return small, small_run(small, **SMALL, seeds=2)


def test_a_run_records_what_alpha_each_seed_has_and_a_stopped_one_goes_on(tmp_path, whole):
    small, path = whole
    alpha = column(path, "updates", "temperature")
    assert alpha.shape == (SMALL["iterations"] // SMALL["log_every"], 2)
    assert (alpha > 0).all() and len(set(alpha[:, 0])) == len(alpha)
    again = stopped(partial(train, small, task(), tmp_path / "b.h5"), 50, **SMALL, seeds=2)
    same_tables(again, path)
    assert torch.equal(numbers(again), numbers(path))


@pytest.mark.slow
def test_a_policy_is_held_at_the_entropy_that_is_wanted(tmp_path):
    wide = {}
    for entropy in (-3.0, 0.0):
        small = replace(
            with_temperature(row("sac"), Automatic(entropy=entropy, rate=0.05)),
            policy_rate=(1e-2, 1e-2),
        )
        options = SMALL | {"iterations": 300, "evaluate_every": 300, "checkpoint_every": 300}
        path = train(small, task(), tmp_path / f"{entropy}.h5", **options)
        wide[entropy] = column(path, "updates", "temperature")[-1, 0]
    assert wide[0.0] > 2 * wide[-3.0]
