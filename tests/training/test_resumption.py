"""Seeds together are seeds apart, and a run that was stopped goes on bit for bit.

A real run, killed again and again, ends as if nothing had happened.
"""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from gradlab.errors import InputError
from gradlab.storage.journal import read
from gradlab.training import ALGORITHMS
from gradlab.training.dynamics import Dynamics
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, numbers, row, same_tables, stopped, task

# Models learn and branches fill at 0 and 20, the state is saved at 15: within a reuse of a batch,
# a delay and a window.
SHORT = SMALL | {"iterations": 24, "evaluate_every": 15, "log_every": 5, "checkpoint_every": 15}
# One of each kind of target, gradient and source of batches.
ROWS = [
    "mpg-v1", "mpg-v2", "n-step-adp", "td3", "sac", "maac", "svg", "mbpo", "bptt", "svg-inf",
    "rp-dp-sn", "rp-dr", "ddppo", "steve", "mage", "ahac",
    "sapo", "abpt", "agpo", "dmo",
]  # fmt: skip


@pytest.fixture
def whole(small_run):
    """The uninterrupted run of two seeds of what is named."""
    return lambda name: small_run(row(name), **SHORT, seeds=2)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.sampled(7)
def test_seeds_trained_together_are_seeds_trained_apart(tmp_path, whole, name):
    together, seed = whole(name), ROWS.index(name) % 2
    apart = train(row(name), task(), tmp_path / "apart.h5", **SHORT, first_seed=seed)
    torch.testing.assert_close(numbers(together, seed), numbers(apart, seed), rtol=1e-8, atol=1e-10)
    assert not torch.equal(numbers(together, 0), numbers(together, 1))


@pytest.mark.slow
def test_no_two_rows_end_with_equal_policies(whole):
    ends = {name: numbers(whole(name)) for name in ALGORITHMS}
    names = list(ends)
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            size = min(len(ends[first]), len(ends[second]))
            assert not torch.equal(ends[first][:size], ends[second][:size]), (first, second)


# In float32 what is saved differs in its type alone: three rows have every kind of it.
SINGLE = ["mpg-v2", "sac", "mbpo"]


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "float64") for name in ROWS if name != "n-step-adp"),
        *((name, "float32") for name in SINGLE),
        *(
            pytest.param(name, "float32", marks=pytest.mark.slow)
            for name in ROWS
            if name not in ("n-step-adp", *SINGLE)
        ),
    ],
)
@pytest.mark.sampled(8)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, whole, name, precision):
    options = SHORT | {"precision": precision, "seeds": 2}
    if precision == "float64":
        uncut = whole(name)
    else:
        uncut = train(row(name), task(), tmp_path / "uncut.h5", **options)
    # The last state is saved at 15: five iterations are repeated, their rows replaced.
    cut = stopped(partial(train, row(name), task(), tmp_path / "cut.h5"), 20, **options)
    for seed in range(2):
        assert torch.equal(numbers(uncut, seed), numbers(cut, seed))
    same_tables(uncut, cut)


def test_resuming_with_other_settings_shows_the_difference(finished):
    with pytest.raises(InputError, match=r"settings.agents was 4, now 5"):
        train(row("td3"), task(), finished, **(SMALL | {"agents": 5}), resume=True)


# In a reuse of batches, a delay and an open window.
@pytest.mark.parametrize(("name", "at"), [("mpg-v1", 14), ("sac", 22)])
def test_ctrl_c_saves_the_state_and_no_row_shows_where_it_came(
    tmp_path, monkeypatch, whole, name, at
):
    options = SHORT | {"seeds": 2, "checkpoint_every": 1000}
    update = Learner.update

    def pressed(self, iteration, batch):
        if iteration == at:
            signal.raise_signal(signal.SIGINT)
        return update(self, iteration, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "update", pressed)
        with pytest.raises(KeyboardInterrupt, match=f"after {at + 1} iterations is saved"):
            train(row(name), task(), tmp_path / "cut.h5", **options)
    assert not (tmp_path / "cut.h5.journal").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    cut = train(row(name), task(), tmp_path / "cut.h5", **options, resume=True)
    assert torch.equal(numbers(whole(name), 1), numbers(cut, 1))
    same_tables(whole(name), cut)


def test_a_second_interrupt_stops_at_once_and_the_saved_state_goes_on_bit_for_bit(
    tmp_path, monkeypatch, whole
):
    fit, begun = Dynamics.fit, []

    def pressed(self, *arguments):  # the second fit has changed its networks, and takes a minute
        report = fit(self, *arguments)
        begun.append(report)
        if len(begun) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)
        return report

    options = SHORT | {"seeds": 2, "checkpoint_every": 15}
    with monkeypatch.context() as patched:
        patched.setattr(Dynamics, "fit", pressed)
        with pytest.raises(KeyboardInterrupt, match="after 15 iterations is saved"):
            train(row("ddppo"), task(), tmp_path / "cut.h5", **options)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(row("ddppo"), task(), tmp_path / "cut.h5", **options, resume=True)
    assert torch.equal(numbers(whole("ddppo"), 1), numbers(tmp_path / "cut.h5", 1))
    same_tables(whole("ddppo"), tmp_path / "cut.h5")


def spoil_metadata(state, about):
    return state, {"gradlab.training": "[" * 100_000}


def drop_a_tensor(state, about):
    state.pop("learner/policy.0")
    return state, about


def far_iteration(state, about):
    return state | {"run/iteration": torch.tensor(10**9)}, about


def other_shapes(state, about):
    return {name: torch.zeros(3, 1, 4, 1, 5) for name in state}, about


def small_batch(state, about):
    return state | {"batch/state": torch.zeros(1, 2, 3)}, about


@pytest.mark.parametrize(
    "change", [spoil_metadata, drop_a_tensor, far_iteration, other_shapes, small_batch]
)
def test_a_foreign_state_is_refused(finished, change):
    place = finished.with_name("run.resume.safetensors")
    with safetensors.safe_open(place, "pt") as file:
        about = file.metadata()
    state, about = change(safetensors.torch.load_file(place), about)
    safetensors.torch.save_file(state, place, about)
    with pytest.raises(InputError, match="damaged or foreign"):
        train(row("td3"), task(), finished, **SMALL, resume=True)
    place.write_bytes(place.read_bytes()[:-7])
    with pytest.raises(InputError, match="damaged or foreign"):
        train(row("td3"), task(), finished, **SMALL, resume=True)


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
