"""A writer of a run killed at any moment, half of them while it folds: what of it is there?

    kept     every acknowledged row is there, as it was written
    lost     an acknowledged row is missing or another
    refused  the run cannot be read
    left     files of a killed fold are still there when the next writer has closed

A kill counts once a row has been acknowledged. What a killed writer left is folded by the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from gradlab.errors import InputError
from gradlab.storage.journal import read

ALLOWED = frozenset({"kept"})
EACH = 20  # kills of one run, which grows with every one
SECONDS = 0.15  # longest time from the first row to the kill of a writer
FOLDING, ROWS = 0.05, 50  # and from the last of some rows to the kill of what folds them
# One process imports; its children write, each from the row that it is told, until they are killed.
NURSERY = """
import os, sys
import numpy as np
from gradlab.storage import journal
from gradlab.storage.journal_tables import Column, Table
journal.SYNC = 0.01
columns = {"loss": Column(("seed",)), "rate": Column()}
tables = {"updates": Table("iteration", columns, {"seed": (0, 1, 2)})}
for line in sys.stdin:
    first, last = map(int, line.split())
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with journal.Journal(sys.argv[1], tables, {"kind": "training"}) as writer:
            for k in range(first, last):
                loss = np.array([k, k + 0.25, -k])
                writer.append("updates", {"iteration": k, "loss": loss, "rate": 1 / (k + 1)})
                os.write(theirs, b"%d\\n" % k)
        os._exit(0)
    os.close(theirs)
    print(child, flush=True)
    with os.fdopen(ours, "rb") as told:
        for row in told:
            print(row.decode().strip(), flush=True)
    os.waitpid(child, 0)
    print("over", flush=True)
"""


def kill_outcomes(count: int, seed: int = 0) -> Counter[str]:
    """Outcomes of `count` kills of runs, each of which goes on with its run."""
    generator, found = np.random.default_rng(seed), Counter[str]()
    for done in range(0, count, EACH):
        found += _of_one_run(min(EACH, count - done), generator)
    return found


def _of_one_run(count: int, generator: np.random.Generator) -> Counter[str]:
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        command = [sys.executable, "-c", NURSERY, str(path)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as nursery:
            done = 0
            for number in range(count):
                done = _killed(nursery, done, generator, fold=number % 2 == 1)
                found[_outcome(path, done)] += 1
            _ordered(nursery, done, done + 10)
            nursery.stdin.close()
        found[_outcome(path, done + 10)] += 0
        rest = sorted(each.name for each in Path(folder).iterdir())
        found["left"] += len(rest) - 1
        assert read(path).groups["updates"]["iteration"].values.tolist() == list(range(done + 10))
    return +found


def _ordered(nursery: subprocess.Popen[str], first: int, last: int) -> None:
    """Writes rows first … last − 1 and closes."""
    nursery.stdin.write(f"{first} {last}\n")
    nursery.stdin.flush()
    while nursery.stdout.readline().strip() != "over":
        pass


def _killed(
    nursery: subprocess.Popen[str], done: int, generator: np.random.Generator, fold: bool
) -> int:
    """Lets a child write from row `done` on, kills it, and returns the rows there must be."""
    last = done + ROWS if fold else 10**9
    nursery.stdin.write(f"{done} {last}\n")
    nursery.stdin.flush()
    child = int(nursery.stdout.readline())
    wait, since = float(generator.uniform(0, FOLDING if fold else SECONDS)), None
    for line in nursery.stdout:
        if line.strip() == "over":
            break
        done = int(line) + 1
        since = since or time.monotonic()
        if done == last:
            time.sleep(wait)
        if done == last or (not fold and time.monotonic() - since >= wait):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    return done


def _outcome(path: Path, count: int) -> str:
    try:
        table = read(path).groups["updates"]
    except InputError:
        return "refused"
    k = np.arange(count)
    there = (
        table["iteration"].values[:count].tolist() == k.tolist()
        and np.array_equal(table["loss"].values[:count], np.stack([k, k + 0.25, -k], 1))
        and np.array_equal(table["rate"].values[:count], 1 / (k + 1))
    )
    return "kept" if there else "lost"
