"""Sweeps and asynchronous training on a cluster of Ray (`gradlab.machine`); see `make ray`."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gradlab
from gradlab import machine
from gradlab.errors import InputError
from gradlab.tools.sweep import running
from gradlab.tools.sweep import table as index
from gradlab.training.loop import train
from gradlab.training.settings import Asynchronous
from tests.training.small_runs import SMALL, numbers, row, same_tables, task

LEAST = 79 << 20  # bytes below which Ray starts no object store
SMALLEST = {"num_cpus": 1, "object_store_memory": LEAST, "include_dashboard": False}
ROOT = str(Path(__file__).parents[1])


def processes(mark):
    """Numbers of the living processes with these words in their command line or environment."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in words and state != "Z":
            found.add(int(place.name))
    return found


def wait_for(what, seconds=120.0):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def two_nodes():
    """The address of two nodes on this machine, with a processor each."""
    pytest.importorskip("ray")
    machine.imported()
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))
        nodes = Cluster(initialize_head=True, head_node_args=SMALLEST)
        nodes.add_node(**SMALLEST)
        yield nodes.address
        nodes.shutdown()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", 'expected "local" or HOST:PORT'),
        ("127.0.0.1:99999", 'expected "local" or HOST:PORT'),
        ("127.0.0.1:1", r"nothing answers at ray=127\.0\.0\.1:1 within"),
    ],
)
def test_an_address_where_nothing_answers_is_refused(monkeypatch, address, message):
    monkeypatch.setattr(machine, "imported", lambda: SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(InputError, match=message), machine.cluster(address):
        pass


@pytest.mark.ray
def test_eight_runs_on_two_nodes_end_though_a_worker_is_killed(two_nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHILD", "tests.sweeps.held")
    monkeypatch.chdir(tmp_path)
    table = {
        "command": "measure",
        "settings": {"task": "pendulum", "critic": "slow"},
        "grid": {"seed": list(range(8))},
    }
    killed = []

    def kill():
        """The worker of Ray, whose child must end with it."""
        started = wait_for(lambda: [p for p in Path("out").glob("*.tried") if p.read_text()])
        child = int(started[0].read_text())
        status = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        killed.extend([int(status[1]), child])
        os.kill(killed[0], signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{child}").exists(), 5.0)

    thread = threading.Thread(target=kill)
    thread.start()
    runs = gradlab.sweep(table, "out", ray=two_nodes)
    thread.join()
    assert len(killed) == 2
    assert sorted(each.state for each in runs.rows) == ["done"] * 7 + ["failed"]
    runs = gradlab.sweep(table, "out", ray=two_nodes, resume=True)
    assert [each.state for each in runs.rows] == ["done"] * 8
    assert all((tmp_path / "out" / each.file).exists() for each in runs.rows)


@pytest.mark.ray
def test_control_c_ends_the_runs_of_a_cluster_within_seconds(two_nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHILD", "tests.sweeps.held")
    monkeypatch.chdir(tmp_path)
    pressed = []

    def press():
        wait_for(lambda: Path("out/measure.tried").exists())
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        gradlab.sweep(
            {"command": "measure", "settings": {"task": "pendulum", "critic": "sleeps"}}, "out",
            ray=two_nodes,
        )  # fmt: skip
    assert time.monotonic() - pressed[0] < 15
    assert index.load("out").rows[0].state == "interrupted"
    assert not Path(f"/proc/{Path('out/measure.tried').read_text()}").exists()


ONE = Asynchronous(queue=0, deterministic=True)
LOGGED = SMALL | {"log_every": 5, "evaluate_every": 10}


@pytest.mark.ray
def test_a_killed_learner_changes_no_bit_of_an_asynchronous_run(two_nodes, tmp_path):
    killed = set()

    def kill(stage, done, total):
        if done >= 15 * (1 + len(killed)) and len(killed) < 2:
            living = processes("ray::LearnerProcess") - killed
            if living:
                killed.add(min(living))
                os.kill(min(living), signal.SIGKILL)

    path = train(
        row("mpg-v2"), task(), tmp_path / "run.h5", asynchronous=ONE, ray=two_nodes,
        progress=kill, **LOGGED,
    )  # fmt: skip
    assert len(killed) == 2
    here = train(row("mpg-v2"), task(), tmp_path / "here.h5", **LOGGED)
    assert torch.equal(numbers(here), numbers(path))
    same_tables(here, path)


HEAD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from gradlab.training.loop import train
from tests.test_cluster import LOGGED, ONE
from tests.training.small_runs import row, task

path = Path(sys.argv[1])
train(
    row("mpg-v2"), task(), path, asynchronous=ONE, ray=sys.argv[2],
    progress=lambda stage, done, total: path.with_suffix(".done").write_text(str(done)), **LOGGED,
)
"""


@pytest.mark.ray
def test_a_killed_head_goes_on_bit_for_bit_and_leaves_no_process(two_nodes, tmp_path):
    path = tmp_path / "run.h5"
    done = path.with_suffix(".done")
    head = subprocess.Popen([sys.executable, "-c", HEAD, str(path), two_nodes], cwd=ROOT)
    wait_for(lambda: done.exists() and int(done.read_text() or 0) >= 30)
    assert processes("ray::LearnerProcess")
    head.kill()
    head.wait()
    wait_for(lambda: not processes("ray::LearnerProcess"))
    path = train(
        row("mpg-v2"), task(), path, asynchronous=ONE, ray=two_nodes, resume=True, **LOGGED
    )
    here = train(row("mpg-v2"), task(), tmp_path / "here.h5", **LOGGED)
    assert torch.equal(numbers(here), numbers(path))
    same_tables(here, path)
