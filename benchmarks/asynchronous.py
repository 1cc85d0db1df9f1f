"""What do learners add to a training, and where would more of them stop adding?

    python -m benchmarks.asynchronous [--iterations 400] [--rounds 3] [--learners 1 2 4]

measured    updates per second, and lags of the policy's gradients, of a run in one process and with
            so many learners, which take turns; the first window, in which processes start, left out
costs       processor time of an update's parts: a learner's (unpickle, compute, pickle), the
            optimiser's (copy and pickle networks, unpickle, apply) and that of the pipe
predicted   updates per second and lag with L learners, each on a processor of its own, by mean
            value analysis of a closed network (Reiser and Lavenberg 1980): a learner computes for
            Z, then waits for the optimiser, which serves one gradient after another in S each,

                R(L) = S (1 + Q(L − 1)),   X(L) = L / (Z + R(L)),   Q(L) = X(L) R(L)

            X → 1/S, reached at about L* = (Z + S) / S. Every gradient waits while those of the
            other learners are applied: its lag is L − 1 gradients. A prediction: no machine here
            has that many processors.
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from gradlab.machine import processors
from gradlab.runs.training.results import asynchrony, lag_at_most, load
from gradlab.tasks import inverted_pendulum
from gradlab.training.algorithms import ALGORITHMS
from gradlab.training.asynchronous.execution import packed
from gradlab.training.asynchronous.processes import LearnerProcess
from gradlab.training.asynchronous.work import (
    ROLES,
    Job,
    Role,
    arrays,
    networks_of,
)
from gradlab.training.loop import settings_of, train
from gradlab.training.run import collect
from gradlab.training.settings import Asynchronous
from gradlab.training.state import Run, begin

ROW = ALGORITHMS["mpg-v2"]
PAPERS = 12  # learners


@dataclass(frozen=True)
class Costs:
    """Processor seconds of one update, the policy's share of `delay` updates included.

    Attributes:
        compute: of a learner; learner_pickle, optimiser_pickle: of its side of the messages.
        copy: of the networks; apply: Adam's step and the target networks; pipe: of one side.
        bytes: both ways.
    """

    compute: float
    learner_pickle: float
    optimiser_pickle: float
    copy: float
    apply: float
    pipe: float
    bytes: float

    @property
    def learner(self) -> float:
        """Z."""
        return self.compute + self.learner_pickle + self.pipe

    @property
    def optimiser(self) -> float:
        """S."""
        return self.optimiser_pickle + self.copy + self.apply + self.pipe

    @property
    def saturation(self) -> float:
        """L*: about so many learners keep the optimiser busy."""
        return (self.learner + self.optimiser) / self.optimiser


def predicted(costs: Costs, learners: int) -> float:
    """Updates per second, X(L)."""
    waiting = rate = 0.0
    for count in range(1, learners + 1):
        response = costs.optimiser * (1 + waiting)
        rate = count / (costs.learner + response)
        waiting = rate * response
    return rate


def measured_costs(turns: int) -> Costs:
    """Of `mpg-v2` on the inverted pendulum, medians over turns, at full rollouts."""
    task = inverted_pendulum(engine="analytic")
    run = begin(ROW, task, settings_of(ROW, task, None, {}))
    collect(run)
    process = LearnerProcess(packed(run))
    both = [costs_of(run, process, role, turns) for role in ROLES]
    names = Costs.__annotations__
    return Costs(**{name: both[0][name] + both[1][name] / ROW.delay for name in names})


def costs_of(run: Run, process: LearnerProcess, role: Role, turns: int) -> dict[str, float]:
    """As `Costs`, of one gradient."""
    learner = run.learner
    trained = learner.trained_critic if role == "critic" else learner.trained_policy
    assert trained is not None
    batch = arrays(run.drawn(learner.draws, 0).tensors)
    batch["cached_targets"] = np.zeros((1, ROW.batch), np.float32)
    asked = networks_of(learner), Job(role, 1, batch), np.full((1, 2), 0.5)
    given = process.gradient(*asked)
    there, back = (pickle.dumps(each, 5) for each in (asked, given))
    gradients = tuple(torch.from_numpy(each) for each in given.gradients)
    parts: dict[str, Callable[[], object]] = {
        "copy": lambda: networks_of(learner),
        "optimiser_pickle": lambda: (pickle.dumps(asked, 5), pickle.loads(back)),
        "learner_pickle": lambda: (pickle.loads(there), pickle.dumps(given, 5)),
        "compute": lambda: process.gradient(*asked),
        "apply": lambda: (trained.follow(gradients), learner.move_targets(0, True)),
        "pipe": lambda: through_pipe(len(there) + len(back)),
    }
    taken = {name: seconds(work, turns) for name, work in parts.items()}
    return taken | {"pipe": taken["pipe"] / 2, "bytes": float(len(there) + len(back))}


def through_pipe(size: int) -> None:
    """So many bytes between two threads, as between two processes."""
    one, other = Pipe()
    thread = threading.Thread(target=one.send_bytes, args=(bytes(size),))
    thread.start()
    other.recv_bytes()
    thread.join()


def seconds(work: Callable[[], object], turns: int) -> float:
    """Median processor time, which does not see who else uses the machine."""
    work()
    taken = []
    for _ in range(turns):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


@dataclass(frozen=True, eq=False)
class Pace:
    """Updates per second of a run, and how many of the policy's gradients had each lag."""

    rate: float
    lags: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.lags @ np.arange(len(self.lags)) / self.lags.sum())

    def at_most(self, share: float) -> int:
        """The lag that as large a share does not exceed."""
        return lag_at_most(self.lags, share)


def pace(folder: Path, learners: int, iterations: int) -> Pace:
    """Of a run with so many learners; 0: in one process."""
    choice = Asynchronous(learners=learners, actors=2, buffers=2) if learners else None
    path = train(
        ROW, inverted_pendulum(engine="analytic"), folder / f"{learners}.h5", overwrite=True,
        iterations=iterations, log_every=iterations // 8, evaluation_starts=2, keep=(),
        asynchronous=choice,
    )  # fmt: skip
    run = load(path)
    rows = run.updates
    rate = np.diff(rows["iteration"][[0, -1]])[0] / np.diff(rows["seconds"][[0, -1]])[0]
    found = asynchrony(run)
    return Pace(float(rate), np.ones(1) if found is None else found.policy)


def alone(folder: Path, iterations: int) -> float:
    """Updates per second of a run in a process that knows of no other."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    return pace(folder, 0, iterations).rate


def plain(folder: Path, processes: int, iterations: int) -> float:
    """Updates per second of so many runs in one process each, together."""
    folders = [folder / str(k) for k in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(alone, folders, [iterations] * processes))


def main(
    iterations: int = 400, rounds: int = 3, learners: tuple[int, ...] = (1, 2, 4), turns: int = 9
) -> None:
    """Print throughput, lags, costs and the prediction.

    Args:
        iterations: updates of each run; rounds: turns of each number of learners.
        turns: of each part of an update.
    """
    torch.set_num_threads(1)
    taken: dict[int, list[Pace]] = {count: [] for count in (0, *learners)}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for count, found in taken.items():
                found.append(pace(Path(name), count, iterations))
    one = [each.rate for each in taken[0]]
    print(f"{processors()} processors; in one process {statistics.median(one):.3g} updates/s")
    for count in learners:
        ratios = [ours.rate / rate for ours, rate in zip(taken[count], one, strict=True)]
        mean = statistics.median(each.mean for each in taken[count])
        most = statistics.median(each.at_most(0.95) for each in taken[count])
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"{count} learners: {statistics.median(ratios):.2f} of it ({each}), mean lag of the "
            f"policy's gradients {mean:.2f} of its steps, 95% at most {most:.0f}"
        )
    costs = measured_costs(turns)
    print(", ".join(f"{k} {1e3 * v:.2f} ms" for k, v in vars(costs).items() if k != "bytes"))
    print(f"{costs.bytes / 1e6:.2f} MB an update; Z {1e3 * costs.learner:.2f} ms, S "
          f"{1e3 * costs.optimiser:.2f} ms: saturates at about "
          f"{costs.saturation:.1f} learners")  # fmt: skip
    for count in sorted({*learners, PAPERS}):
        print(
            f"predicted, a processor each: {count} learners {predicted(costs, count):.3g} updates/s"
        )


if __name__ == "__main__":
    tyro.cli(main)
