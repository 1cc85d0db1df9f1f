"""Hostile arguments are one line and exit code 2, before any work, whatever the command."""

import random
from collections import Counter
from functools import partial
from itertools import islice

import pytest
from torch import nn

import gradlab
from gradlab import fitting
from gradlab.errors import InputError
from tests.robustness import arguments

DRAWN = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hostile")
    arguments.prepared(made)
    return made


@pytest.mark.parametrize("name", sorted({one.words[0] for one in arguments.commands().values()}))
@pytest.mark.sampled(5)
def test_what_no_run_can_hold_is_refused_before_any_work(name, folder):
    wrong = []
    for words in arguments.grid():
        if words[0] == name:
            found = arguments.run(words, folder)
            if found.kind != "refused":
                wrong.append((tuple(each[:40] for each in words), found.kind, found.err[-300:]))
    assert wrong == []


def test_drawn_arguments_are_refused_or_taken(folder):
    found: Counter[str] = Counter()
    wrong = []
    for words in islice(arguments.draws(random.Random(0)), DRAWN):
        outcome = arguments.run(words, folder)
        found[outcome.kind] += 1
        if outcome.kind not in arguments.OUTCOMES:
            wrong.append((tuple(each[:60] for each in words), outcome.kind, outcome.code))
    assert wrong == []
    assert found["refused"] > DRAWN / 2


def test_no_output_takes_the_place_of_a_device(folder):
    """A file moved onto a device would replace it for everybody on the machine."""
    profile = gradlab.load(folder / "run.h5")
    for name in ("pipe.h5", "zero.h5"):
        with pytest.raises(InputError, match="device or pipe"):
            profile.save(folder / name, overwrite=True)
    assert (folder / "pipe.h5").is_fifo()


TASK = gradlab.tasks.double_integrator()
WRONG = [None, 3, "pendulum", {}, float("nan"), lambda: None]
OF_A_TASK = {
    "collect": lambda task: fitting.collect(task, 4),
    "fit_critic": lambda task: fitting.fit_critic(task, nn.Linear(2, 1)),
    "stabilising_policy": fitting.stabilising_policy,
    "trimmed": lambda task: gradlab.tasks.trimmed(task, 0.1),
    "with_learned_prior": lambda task: gradlab.tasks.with_learned_prior(task, None),
    "compare_remedies": lambda task: gradlab.compare_remedies(task, None, None, "x.h5"),
}
IN_STEPS = {
    "measure": partial(gradlab.measure, TASK, nn.Linear(2, 1), None),
    "train": partial(gradlab.train, "mpg-v2", TASK),
    "fit_critic": partial(fitting.fit_critic, TASK, nn.Linear(2, 1)),
    "fit_model": partial(fitting.fit_model, fitting.collect(TASK, 4)),
    "stabilising_policy": partial(fitting.stabilising_policy, TASK),
    "certify": partial(gradlab.certify, TASK.simulator),
    "compare_jacobians": partial(gradlab.compare_jacobians, TASK.simulator, TASK.prior, None, None),
}


@pytest.mark.parametrize("name", OF_A_TASK)
def test_what_is_no_task_is_refused(name):
    for wrong in WRONG:
        with pytest.raises(InputError, match=r"^task is .*, expected a gradlab\.Task$"):
            OF_A_TASK[name](wrong)


@pytest.mark.parametrize("name", IN_STEPS)
def test_a_progress_that_cannot_be_called_is_refused(name):
    with pytest.raises(InputError, match=r"^progress is 3, expected a function of stage, done"):
        IN_STEPS[name](progress=3)
