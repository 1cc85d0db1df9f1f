"""Seeds together are seeds apart, and a run that was stopped goes on bit for bit."""

import signal
import time
from functools import partial

import pytest
import safetensors
import safetensors.torch
import torch

from gradlab.errors import InputError
from gradlab.training import ALGORITHMS
from gradlab.training import run as run_module
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


def long_fit(patched):
    """The second fit is interrupted once it has changed its networks, and would take a minute."""
    fit, begun = Dynamics.fit, []

    def pressed(self, *arguments):
        report = fit(self, *arguments)
        begun.append(report)
        if len(begun) == 2:
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)
        return report

    patched.setattr(Dynamics, "fit", pressed)


def long_evaluation(patched):
    evaluated = run_module.evaluation_row

    def pressed(run):
        if run.iteration:
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)
        return evaluated(run)

    patched.setattr(run_module, "evaluation_row", pressed)


@pytest.mark.parametrize(("cut", "at"), [(long_fit, 20), (long_evaluation, 15)])
def test_work_that_outlasts_an_interrupts_grace_is_cut_and_begins_again_bit_for_bit(
    tmp_path, monkeypatch, whole, cut, at
):
    options = SHORT | {"seeds": 2, "checkpoint_every": 1000}
    begun = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "GRACE", 0.01)
        cut(patched)
        with pytest.raises(KeyboardInterrupt, match=f"after {at} iterations is saved"):
            train(row("ddppo"), task(), tmp_path / "cut.h5", **options)
    assert time.monotonic() - begun < 50
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
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
