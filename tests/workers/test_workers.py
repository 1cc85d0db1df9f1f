"""Workers of every kind: state, order, errors, interruption, death (`gradlab.workers`)."""

import time

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.workers import CallFailed, WorkerDied

COUNTER = "tests.workers.held:Counter"
REPLY = 60.0  # seconds within which anything ends on a busy machine


@pytest.fixture(scope="module")
def worker(pool):
    """One for all tests that leave it as it was."""
    return pool.start(COUNTER, 0)


@pytest.fixture
def mortal(pool):
    worker = pool.start(COUNTER, 0)
    yield worker
    worker.kill()


def test_an_object_keeps_its_state_and_serves_calls_in_order(pool, worker):
    before = worker.call("add", 0).result()
    calls = [worker.call("add", k) for k in (1, 10, 100, -111)]
    assert [call.result() - before for call in calls] == [1, 11, 111, 0]


def test_arrays_larger_than_any_pipe_come_back_whole(pool, worker):
    array = np.random.default_rng(0).standard_normal(400_000)
    first, second = (worker.call("doubled", array) for _ in range(2))
    assert np.array_equal(second.result(), 2 * array)
    assert np.array_equal(first.result(), 2 * array)


def test_an_error_of_a_method_is_the_calls_and_the_worker_lives_on(worker):
    with pytest.raises(CallFailed, match=r"ZeroDivisionError.*held\.py, line \d+") as caught:
        worker.call("divide", 0).result()
    assert caught.value.kind == "ZeroDivisionError"
    with pytest.raises(CallFailed, match="AttributeError"):
        worker.call("nothing").result()
    assert worker.alive
    assert worker.call("divide", 1).result() == worker.call("add", 0).result()


def test_an_object_that_cannot_be_made_fails_its_first_call(pool):
    broken, refusing = pool.start(COUNTER, -1), pool.start("tests.workers.held:Refusing")
    with pytest.raises(CallFailed, match="start is -1"):
        broken.call("add", 1).result()
    with pytest.raises(InputError, match="size is 0"):
        refusing.call("add", 1).result()
    for made in (broken, refusing):
        made.kill()


def test_wait_returns_what_has_ended_and_no_more(pool, worker, mortal):
    worker.call("add", 0).result()
    long, short = mortal.call("sleep", 600.0), worker.call("add", 0)
    assert pool.wait([long, short], REPLY) == [short]
    assert pool.wait([long], 0.05) == []
    assert pool.wait([], None) == []


def test_an_interruption_reaches_the_method_alone_once(pool, mortal, tmp_path):
    mortal.call("add", 0).result()
    mortal.interrupt()  # between two calls: nothing happens
    time.sleep(0.2)
    call = mortal.call("sleep", 600.0, str(tmp_path / "started"))
    until(tmp_path / "started")
    mortal.interrupt()
    assert pool.wait([call], REPLY) == [call]
    assert call.result() == "interrupted"
    assert mortal.call("add", 3).result() == 3


def test_a_worker_that_is_killed_ends_its_calls(pool, mortal):
    pending = [mortal.call("sleep", 600.0), mortal.call("add", 1)]
    assert mortal.alive
    mortal.kill()
    assert not mortal.alive
    for call in (*pending, mortal.call("add", 1)):
        with pytest.raises(WorkerDied):
            call.result()


@pytest.mark.parametrize("how", [("stop_oneself",), ("end", 3)])
def test_a_worker_that_dies_is_noticed(pool, mortal, how):
    call = mortal.call(*how)
    assert pool.wait([call], REPLY) == [call]
    with pytest.raises(WorkerDied):
        call.result()
    assert not mortal.alive


@pytest.mark.parametrize("name", ["Counter", "tests.workers.held", "no such:thing", "a.b:c d"])
def test_a_name_that_is_none_is_refused(pool, name):
    with pytest.raises(InputError, match=r"package\.module:Class"):
        pool.start(name)


def until(path):
    """Wait for a file."""
    deadline = time.monotonic() + REPLY
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()
