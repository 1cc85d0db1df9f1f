"""Processes of a run are killed by SIGKILL while they work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "kills", "iterations"), [(ONE, 2, 60), (MANY, 50, 1500)])
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


HEAD = """
import os, sys
from pathlib import Path
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, row, task

path = Path(sys.argv[1])
train(
    row("mpg-v2"), task(), path, asynchronous=Asynchronous(queue=0, deterministic=True),
    resume=path.with_suffix(".resume.safetensors").exists(),
    progress=lambda stage, done, total: path.with_suffix(".done").write_text(str(done)),
    **SMALL | {"log_every": 5, "evaluate_every": 10},
)
"""


def living(mark):
    """Processes that inherited the mark."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [place.parent.name] if mark.encode() in place.read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_the_head_is_interrupted_then_killed_and_goes_on_bit_for_bit(tmp_path):
    path, mark = tmp_path / "run.h5", f"GRADLAB_TEST={tmp_path}"
    done = path.with_suffix(".done")
    for sent, until, codes in (
        (signal.SIGINT, 20, {1, 130, -signal.SIGINT}),
        (signal.SIGKILL, 40, {-9}),
    ):
        head = subprocess.Popen(
            [sys.executable, "-c", HEAD, str(path)], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"GRADLAB_TEST": str(tmp_path)},
        )  # fmt: skip
        while head.poll() is None and not (done.exists() and int(done.read_text() or 0) >= until):
            time.sleep(0.02)
        head.send_signal(sent)
        _, errors = head.communicate(timeout=60)
        assert head.returncode in codes, errors
        for _ in range(500):
            if not living(mark):
                break
            time.sleep(0.02)
        assert not living(mark), "workers outlive their head"
    path = train(row("mpg-v2"), task(), path, asynchronous=ONE, resume=True, **SMALL | LOGGED)
    here = train(row("mpg-v2"), task(), tmp_path / "here.h5", **SMALL | LOGGED)
    assert torch.equal(numbers(here), numbers(path))
    same_tables(here, path)
