"""Processes of a run are killed by SIGKILL while they work."""

import os
import random
import signal

import pytest
import torch

from gradlab.storage.journal import read
from gradlab.training.asynchronous import execution
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.loop import train
from gradlab.workers.local import LocalPool
from tests.training.small_runs import SMALL, numbers, row, same_tables, task

ONE = Asynchronous(queue=0, deterministic=True)
MANY = Asynchronous(learners=2, actors=2, buffers=2)
LOGGED = {"log_every": 5, "evaluate_every": 10}


@pytest.mark.parametrize(
    ("choice", "kills", "iterations"),
    [(ONE, 2, 60), pytest.param(MANY, 50, 1500, marks=pytest.mark.slow)],
)
def test_killed_processes_are_replaced_and_no_row_is_lost(
    tmp_path, monkeypatch, choice, kills, iterations
):
    pool, generator, killed, acknowledged = LocalPool(), random.Random(0), [], []
    monkeypatch.setattr(execution, "pool_of", lambda *_: pool)

    def kill(stage, done, total):
        acknowledged.append(done)
        if len(killed) < kills:
            living = [w.pid for w in pool._workers if w.alive and w.pid not in killed]
            killed.append(generator.choice(living))
            os.kill(killed[-1], signal.SIGKILL)

    options = SMALL | LOGGED | {"iterations": iterations}
    path = train(
        row("mpg-v2"), task(), tmp_path / "run.h5", asynchronous=choice, progress=kill, **options
    )
    assert len(killed) == kills
    tables = read(path).groups
    assert tables["updates"]["iteration"].values.tolist() == acknowledged
    assert acknowledged == list(range(5, iterations + 1, 5))
    assert tables["evaluations"]["iteration"].values.tolist() == list(range(0, iterations + 1, 10))
    assert tables["asynchrony"]["replaced"].values[-1] >= kills // 2  # the idle are not missed
    if choice == ONE:
        here = train(row("mpg-v2"), task(), tmp_path / "here.h5", **options)
        assert torch.equal(numbers(here), numbers(path))
        same_tables(here, path)
