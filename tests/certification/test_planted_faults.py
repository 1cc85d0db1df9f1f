"""Forty mistakes that a certificate has to find, each first shown to be one by direct means."""

import pytest
import torch

from tests.certification.directly import by_linearize, largest_errors, outputs, visited
from tests.certification.faults.planted import FAULTS

EXACT = [fault for fault in FAULTS if fault.blocks and fault.kinds != ("single precision",)]
BEHAVIOUR = {fault.name: fault for fault in FAULTS if not fault.blocks}
THRESHOLD = 1e-3


def test_forty_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == 40


@pytest.mark.parametrize("fault", EXACT, ids=lambda fault: fault.name)
def test_fault_breaks_the_blocks_that_it_names_and_no_other(fault):
    task = fault.task()
    errors = largest_errors(task.simulator, *visited(task))
    assert {name for name, error in errors.items() if error > THRESHOLD} == set(fault.blocks)


def test_cancellation_breaks_the_reward_in_single_precision_alone():
    (fault,) = [fault for fault in FAULTS if fault.kinds == ("single precision",)]
    task = fault.task()
    double = visited(task)
    wide = by_linearize(task.simulator, *double)
    narrow = by_linearize(task.simulator, *(x.float() for x in double))
    errors = {name: float((narrow[name].double() - wide[name]).abs().max()) for name in wide}
    assert {name for name, error in errors.items() if error > 1e-2} == set(fault.blocks)
    exact = -2 * double[0][:, 0]
    torch.testing.assert_close(wide["r_s"][:, 0], exact, atol=1e-8, rtol=1e-8)


def _repeated(task, reseeded):
    """Whether the same call gives the same bits after another call."""
    inputs = visited(task)
    torch.manual_seed(0)
    first = outputs(task.simulator, *inputs)
    outputs(task.simulator, *(x.flip(0) for x in inputs))
    if reseeded:
        torch.manual_seed(0)
    return torch.equal(first, outputs(task.simulator, *inputs))


@pytest.mark.parametrize("name", ("stale buffer", "parameter buffer mutated"))
def test_stale_systems_depend_on_earlier_calls(name):
    assert not _repeated(BEHAVIOUR[name].task(), reseeded=True)


def test_hidden_randomness_depends_on_the_seed_alone():
    assert not _repeated(BEHAVIOUR["hidden randomness"].task(), reseeded=False)
    assert _repeated(BEHAVIOUR["hidden randomness"].task(), reseeded=True)


@pytest.mark.parametrize("name", ("batch mean leaks across rows", "batch-dependent scale"))
def test_mixed_rows_depend_on_their_batch(name):
    task = BEHAVIOUR[name].task()
    s, a, noise = visited(task)
    alone = outputs(task.simulator, s[:1], a[:1], noise[:1])
    assert (alone - outputs(task.simulator, s, a, noise)[:1]).abs().max() > THRESHOLD
    assert _repeated(task, reseeded=False)
