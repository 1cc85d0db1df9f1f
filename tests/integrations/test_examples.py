"""The example scripts run on their real tasks, and CleanRL's loop computes the same bits."""

import csv
from contextlib import nullcontext

import pytest

import gradlab
from gradlab.probe import measured, task_question
from gradlab.storage import journal
from tests.integrations.bits import (
    Integrator,
    example,
    integrator_task,
    often,
    same,
    streams,
    trained,
)

RARELY = 10**6  # one measurement, which takes seconds on a real task


class Nothing:
    """In the probe's place."""

    spent, alarms = 0.0, ()

    def __init__(self, *_, **__):
        pass

    def __call__(self, step):
        return nullcontext()

    def close(self):
        pass


def cleanrl(log, updates):
    script, world = example("cleanrl_td3"), Integrator()
    args = script.Args(
        steps=updates + 25, log=log and str(log), width=8, batch_size=16, buffer_size=2000,
        learning_starts=20, policy_frequency=1, gamma=0.5,
    )  # fmt: skip
    left = script.train(args, world, integrator_task())
    return {
        "networks": trained(*left["networks"]),
        "optimizers": [each.state_dict() for each in left["optimizers"]],
        "buffer": left["buffer"],
        "environment": [world.state, world.np_random.bit_generator.state],
        "streams": streams(),
    }


@pytest.mark.parametrize("updates", [240, pytest.param(1000, marks=pytest.mark.slow)])
def test_cleanrls_loop_computes_the_same_bits_with_its_two_lines(updates, tmp_path, monkeypatch):
    log, Probe = tmp_path / "run.h5", gradlab.Probe
    with monkeypatch.context() as patched:
        patched.setattr(gradlab, "Probe", Nothing)
        without = cleanrl(None, updates)
    given = often(monkeypatch, updates // 4)

    def always(*parts, overhead_budget, **more):
        return Probe(*parts, **more, **given)

    monkeypatch.setattr(gradlab, "Probe", always)
    assert same(without, cleanrl(log, updates))
    groups = journal.read(log).groups
    assert groups["vitals"]["update"].values[-1] >= updates
    assert len(groups["successive"]["update"].values) >= updates // 100
    assert len(groups["measured"]["update"].values) >= 4


@pytest.fixture
def once(monkeypatch):
    """The sampled tier of every probe looks once at the task, at fewer starts and horizons."""
    often(monkeypatch, RARELY)
    monkeypatch.setattr(measured, "STARTS", 16)
    monkeypatch.setattr(task_question, "LONGEST", 3)


def check_written(log):
    groups = journal.read(log).groups
    assert groups["measured"]["lyapunov"].values.shape == (1,)
    assert (groups["measured"]["variance"].values[0, 3] > 0).all()  # true dynamics
    assert len(groups["vitals"]["grad_norm"].values)


@pytest.mark.slow
def test_cleanrls_lines_run_on_the_inverted_pendulum(tmp_path, once):
    script = example("cleanrl_td3")
    script.main(script.Args(steps=160, log=str(tmp_path / "a.h5"), learning_starts=20))
    check_written(tmp_path / "a.h5")


def test_rows_go_anywhere(tmp_path, capsys):
    example("anywhere").main(tmp_path, steps=250)
    vitals = journal.read(tmp_path / "run.h5").groups["vitals"]
    with open(tmp_path / "norms.csv") as file:
        rows = [(int(step), float(norm)) for step, norm in csv.reader(file)]
    assert rows == list(zip(vitals["step"].values, vitals["grad_norm"].values, strict=True))
    assert list((tmp_path / "tensorboard").iterdir())
    assert "the probe took" in capsys.readouterr().out
