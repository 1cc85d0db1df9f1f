"""What processes of this machine have beside what every worker has (`gradlab.workers.local`)."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gradlab.errors import InputError
from gradlab.workers import CallFailed, WorkerDied
from gradlab.workers.local import LocalPool

COUNTER = "tests.workers.held:Counter"
# A script without `if __name__ == "__main__"`, whose parent dies while its worker is busy.
SCRIPT = """
import os, signal, sys
from gradlab.workers.local import LocalPool
pool = LocalPool()
worker = pool.start("tests.workers.held:Counter")
print(worker.call("pid").result(), flush=True)
worker.call("sleep", 600.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_death_says_how_and_a_value_that_cannot_be_pickled_is_an_error():
    with LocalPool() as pool:
        worker = pool.start(COUNTER)
        with pytest.raises(CallFailed, match="cannot be pickled"):
            worker.call("unpicklable").result()
        with pytest.raises(InputError, match="cannot be pickled"):
            worker.call("add", lambda: None)
        # A session of its own: Ctrl-C in a terminal does not reach it.
        assert worker.call("session").result() == worker.pid != os.getsid(0)
        with pytest.raises(WorkerDied, match=rf"process {worker.pid}, was killed by SIGKILL"):
            worker.call("stop_oneself").result()
        worker = pool.start(COUNTER)
        with pytest.raises(WorkerDied, match="ended with code 3"):
            worker.call("end", 3).result()


def test_closing_ends_idle_and_busy_workers():
    with LocalPool() as pool:
        idle, busy = pool.start(COUNTER), pool.start(COUNTER)
        assert idle.call("add", 1).result() == 1
        call = busy.call("sleep", 600.0)
    for worker in (idle, busy):
        assert gone(worker.pid, 0.0)
    with pytest.raises(WorkerDied):
        call.result()


@pytest.mark.slow
def test_a_busy_worker_ends_after_its_parent_and_never_runs_the_parents_script():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (pid,) = done.stdout.split()
    assert gone(int(pid), 20.0)


def gone(pid, seconds):
    """Whether the process has ended, within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
