"""The campaign in small; in full with `-m slow`, or by `python -m tests.robustness.campaign`.

No flipped bit in any file of gradlab's ends a process, raises a traceback or passes unseen. Hostile
arguments are one line and exit code 2, before any work, whatever the command.
"""

import random
from collections import Counter
from functools import partial
from itertools import islice

import pytest
from torch import nn

import gradlab
from gradlab import fitting
from gradlab.errors import InputError
from tests.robustness import adversity, arguments, calls, flips, kills
from tests.robustness.campaign import KINDS, run


@pytest.mark.slow
def test_hostile_arguments_of_public_functions_are_taken_or_refused():
    told: list[str] = []
    found = calls.call_outcomes(150, told=told)
    assert set(found) <= calls.ALLOWED, told


def test_kills_of_a_writer_and_of_its_folds_lose_nothing():
    found = kills.kill_outcomes(6)
    assert found == {"kept": 6}


@pytest.mark.parametrize("name", ["a disk that fills", "a disk full at saving", "a read-only disk"])
def test_a_disk_that_cannot_be_written_costs_nothing_that_was_there(name):
    work, _ = adversity.ADVERSITIES[name]
    assert set(work(1, 0)) <= adversity.ALLOWED


def test_a_clock_set_back_and_torn_journals_lose_nothing():
    assert adversity.clocks_set_back(20) == {"kept": 20}
    assert adversity.torn_journals(3) == {"kept": 3}


def test_outcomes_are_written_as_they_are_found_and_not_tried_again(tmp_path, capsys):
    table = tmp_path / "outcomes.csv"
    for _ in range(2):
        assert run(["a clock set back"], 0.1, 0, table) == 0
    assert table.read_text().splitlines()[1].startswith("a clock set back,10,10 kept,0,")
    assert capsys.readouterr().out == "a clock set back: 10 kept\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_whole_campaign_meets_nothing_that_is_not_allowed(name, tmp_path):
    assert run([name], 1.0, 1, tmp_path / "outcomes.csv") == 0


@pytest.mark.parametrize("kind", flips.KINDS)
def test_a_flipped_bit_is_refused_or_noticed(kind):
    found = flips.flip_outcomes(kind, 40)
    assert found.total() == 40
    assert set(found) <= flips.ALLOWED, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", flips.FORGED)
def test_a_forged_file_ends_a_child_process_at_worst(kind):
    found = flips.flip_outcomes(kind, 300)
    assert set(found) <= {*flips.ALLOWED, "silent"}, found


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
