"""How much do workers add to a run, and how much faster are two of them than one?

    python -m benchmarks.sweep [--runs 8] [--rounds 3] [--starts 256]

Rounds take turns, in one process at a time:

sweep     measurements of one small task, by one worker and by two
plain     the same measurements by one process and by two that know of no sweep, half of them each:
          what the machine's second processor gives to two programs

All times begin with the start of processes that import torch. Overhead is a run's time in the
sweep, from its row in the index to its end, less the time of the command itself in its worker;
first runs of a worker, which wait for its start, are left out.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, final

import tyro

from gradlab.tools.sweep.commands import COMMANDS
from gradlab.tools.sweep.lines import Silent
from gradlab.tools.sweep.runner import Runner
from gradlab.tools.sweep.running import Folder, Running
from gradlab.tools.sweep.table import planned
from gradlab.workers.local import LocalPool, environment

OWN = """
import torch
class Linear(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1, bias=False, dtype=torch.float64)
        torch.nn.init.constant_(self.weight, -0.3)
class Critic(torch.nn.Module):
    def forward(self, s, a):
        return -(2 * s[:, 0] ** 2 + 1.5 * a[:, 0] ** 2 + 0.8 * s[:, 0] * a[:, 0])
policy, critic = Linear, Critic
"""
PLAIN = """
import json, sys
from gradlab.cli.program import main
sys.exit(max(main(words) for words in json.loads(sys.argv[1])))
"""
SCALAR = {
    "A": [[0.9]], "B": [[0.5]], "Q": [[1]], "R": [[1]], "noise_covariance": [[0.01]],
    "start_mean": [0], "start_covariance": [[1]], "discount": 0.9,
}  # fmt: skip


@final
class Timed:
    """A runner that takes the time of the command itself."""

    def __init__(self, folder: str) -> None:
        self._runner = Runner(folder)

    def run(self, words: list[str], log: str) -> tuple[int, str, str]:
        begun = time.perf_counter()
        code, _, error = self._runner.run(words, log)
        return code, str(time.perf_counter() - begun), error


def table(folder: Path, runs: int, starts: int) -> dict[str, Any]:
    settings = {
        "task": "linear_quadratic", "policy": f"{folder}/own.py:policy",
        "critic": f"{folder}/own.py:critic", "horizon": 10, "starts": starts, "no_report": True,
        "set": SCALAR,
    }  # fmt: skip
    return {"command": "measure", "settings": settings, "grid": {"seed": list(range(runs))}}


def swept(folder: Path, pool: LocalPool, workers: int, rows: dict[str, Any]) -> list[float]:
    """Executes the runs; the overhead of each, after each worker's first."""
    command, place = COMMANDS["measure"], Path(tempfile.mkdtemp(dir=folder))
    with Folder(place, planned(rows, COMMANDS), ".h5", False, "") as kept:
        Running(
            kept, pool, workers, "benchmarks.sweep:Timed", (str(folder),),
            lambda row, again: [*row.words, *command.outputs(place / row.file)], Silent(),
        ).go()  # fmt: skip
        rows_of = kept.sweep.rows
    if any(row.state != "done" for row in rows_of):
        raise RuntimeError(f"a run failed: {rows_of}")
    later = rows_of[workers:]
    return [row.seconds - float(row.sentence) for row in later if row.seconds is not None]


def plain(folder: Path, processes: int, rows: dict[str, Any]) -> float:
    """Seconds of so many processes at once, each with its share of the measurements."""
    command, place = COMMANDS["measure"], Path(tempfile.mkdtemp(dir=folder))
    runs = planned(rows, COMMANDS)
    words = [[*run.words, *command.outputs(place / f"{run.name}.h5")] for run in runs]
    begun = time.perf_counter()
    started = [
        subprocess.Popen([sys.executable, "-c", PLAIN, json.dumps(words[k::processes])],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        for k in range(processes)
    ]  # fmt: skip
    if max(process.wait() for process in started):
        raise RuntimeError("a plain process failed")
    return time.perf_counter() - begun


def main(runs: int = 8, rounds: int = 3, starts: int = 256) -> None:
    """Print overhead and throughput.

    Args:
        runs: measurements of a sweep.
        rounds: turns of each.
        starts: of a measurement.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "own.py").write_text(OWN)
        rows, over, gains, machine = table(folder, runs, starts), [], [], []
        for _ in range(rounds):
            times = {}
            for workers in (1, 2):
                begun = time.perf_counter()
                with LocalPool() as pool:
                    over += swept(folder, pool, workers, rows)
                times[workers] = time.perf_counter() - begun
            gains.append(times[1] / times[2])
            machine.append(plain(folder, 1, rows) / plain(folder, 2, rows))
    print(f"overhead of a run: median {statistics.median(over):.3f} s, largest {max(over):.3f} s")
    print(f"two workers over one: {statistics.median(gains):.2f} ({gains})")
    print(f"two plain processes over one: {statistics.median(machine):.2f} ({machine})")


if __name__ == "__main__":
    tyro.cli(main)
