"""A real run, killed again and again, ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gradlab.storage.journal import read
from tests.training.small_runs import same_tables

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
from gradlab.training.algorithm import LOSSES, LearnedModel
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
