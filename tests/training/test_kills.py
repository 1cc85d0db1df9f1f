"""A real run, killed again and again, ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab.storage.journal import read
from gradlab.training.asynchronous import execution
from gradlab.training.loop import train
from gradlab.training.settings import Asynchronous
from gradlab.workers.local import LocalPool
from tests.training.small_runs import SMALL, numbers, row, same_tables, task

# One process imports everything; its children train, and are killed.
NURSERY = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
import gradlab
from gradlab.storage import journal
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.loop import train
from gradlab.training.models.model_choice import LOSSES, LearnedModel
journal.SYNC = 0.01
eye = torch.eye(2, dtype=torch.float64)
task = gradlab.tasks.linear_quadratic(
    A=0.9 * eye, B=0.5 * eye, Q=eye, R=eye, noise_covariance=0.01 * eye,
    start_mean=torch.zeros(2).double(), start_covariance=eye, discount=0.9,
)
plain = replace(find("mpg-v2"), hidden=(8, 8), batch=16)
model = LearnedModel(
    LOSSES["dd"], two_models=True, spectral="all_but_last", members=2, hidden=(8,), every=25,
    first_steps=10, steps=5, batch=16,
)
learned = replace(with_horizons(plain, (0, 3)), model=model, policy_spectral="all")
rows = {"prior": plain, "learned": learned}
for line in sys.stdin:
    name, iterations, path = line.split(maxsplit=2)
    path = Path(path.strip())
    child = os.fork()
    if child == 0:
        told = os.open(path.with_suffix(".told"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        train(
            rows[name], task, path, iterations=int(iterations), agents=4, interval=2, warmup=96,
            episode=20, evaluate_every=50, evaluation_starts=4, log_every=2, checkpoint_every=10,
            keep=(1.0,), gradient_every=50, gradient_starts=8,
            resume=path.with_name(path.stem + ".resume.safetensors").exists(), overwrite=True,
            progress=lambda stage, done, total: os.write(told, b"%d\\n" % done),
        )
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""


LEARNED = {"prior": (), "learned": ("seed0-prediction", "seed0-gradient")}


@pytest.fixture(scope="module")
def nursery():
    """The process that imports everything, for every run of this file."""
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def trained(nursery, path, kills, model, iterations, seed=0):
    """Kill the run `kills` times, then let it finish; returns its record."""
    generator, told = np.random.default_rng(seed), path.with_suffix(".told")
    assert nursery.stdin is not None and nursery.stdout is not None
    for k in range(kills + 1):
        nursery.stdin.write(f"{model} {iterations} {path}\n")
        nursery.stdin.flush()
        child = int(nursery.stdout.readline())
        if k < kills:
            time.sleep(float(generator.uniform(0.05, 0.45)))
            os.kill(child, signal.SIGKILL)
        status = int(nursery.stdout.readline())
        assert status in (0, signal.SIGKILL)
        acknowledged = told.read_text().split() if told.exists() else []
        if acknowledged:
            there = read(path).groups["updates"]["iteration"].values
            rows = {int(k) for k in acknowledged if int(k) and int(k) % 2 == 0}  # of log_every=2
            assert rows <= set(there.tolist())
    return read(path)


def compare(nursery, tmp_path, kills, model="prior", iterations=100):
    trained(nursery, tmp_path / "whole.h5", 0, model, iterations)
    killed = trained(nursery, tmp_path / "killed.h5", kills, model, iterations)
    logged = killed.groups["updates"]["iteration"].values.tolist()
    assert logged == list(range(2, iterations + 1, 2))
    tables = ("updates", "evaluations", "gradients", "model")[: 4 if model == "learned" else 3]
    same_tables(tmp_path / "whole.h5", tmp_path / "killed.h5", tables)
    end = f"{iterations:06d}"
    for name in ("seed0-policy", "seed0-critic", *LEARNED[model]):
        first, second = (
            (tmp_path / f"{run}-checkpoints" / end / f"{name}.safetensors").read_bytes()
            for run in ("whole", "killed")
        )
        assert first == second


@pytest.mark.slow
def test_five_kills_change_no_bit(nursery, tmp_path):
    compare(nursery, tmp_path, kills=5)


@pytest.mark.slow
def test_two_kills_change_no_bit_of_a_run_that_learns_its_models(nursery, tmp_path):
    compare(nursery, tmp_path, kills=2, model="learned")


# Processes of a run are killed by SIGKILL while they work.


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
    rows = tables["updates"]["iteration"].values.tolist()
    assert rows == list(range(5, iterations + 1, 5))
    assert set(rows) <= set(acknowledged)  # progress is told between rows, too
    assert tables["evaluations"]["iteration"].values.tolist() == list(range(0, iterations + 1, 10))
    assert tables["asynchrony"]["replaced"].values[-1] >= kills // 2  # the idle are not missed
    if choice == ONE:
        here = train(row("mpg-v2"), task(), tmp_path / "here.h5", **options)
        assert torch.equal(numbers(here), numbers(path))
        same_tables(here, path)


HEAD = """
import os, sys
from pathlib import Path
from gradlab.training.settings import Asynchronous
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
