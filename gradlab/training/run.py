"""One iteration of a run after another, by an `Execution`: this process, or several.

collect → fit the model and roll it out, where that is due → update; evaluate and record on the way.
A state is saved before what its iteration decides. Ctrl-C waits until an iteration is whole, and
saves it; pressed again, it stops at once, and a run that is resumed begins from the last state that
was saved.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, final

import numpy as np

from gradlab.data.replay import Batch
from gradlab.errors import Failure
from gradlab.progress import Progress
from gradlab.storage.journal import Journal
from gradlab.training import checkpoints
from gradlab.training.collection import Ended
from gradlab.training.first_networks import unknown_ends
from gradlab.training.learner import UpdateRecord
from gradlab.training.measured import gradient_errors
from gradlab.training.measured import weights as measured_weights
from gradlab.training.parts.context import Floats, MeasuredWeights
from gradlab.training.recording import divergence, evaluation_row, excess, model_row
from gradlab.training.state import Run

_SHOWN = 1.0  # seconds between two looks at long iterations
_EXCESS = 10  # times the largest discounted sum of rewards: a mean value that has diverged


class Diverged(Failure):
    """Every seed has left the finite numbers; the message names the quantity that went first."""


def report(run: Run, path: Path, journal: Journal, value: Floats) -> None:
    """Events of the window that ended; `value`: mean critic values in it, [E]."""
    # Each seed that leaves the finite numbers; training gives up when none is left.
    fresh = [member for member in run.window.divergences if not run.lost[member]]
    for member in fresh:
        journal.append("events", divergence(run, member))
        run.lost[member] = True
    if run.lost.all():
        seeds = "the seed" if len(run.lost) == 1 else "every seed"
        first = divergence(run, fresh[0])["message"]
        raise Diverged(
            f"{seeds} diverged by iteration {run.iteration}: {first}; the state after {run.kept} "
            f"iterations is kept in {checkpoints.resume_file(path)}"
        )
    # Each seed whose values no rewards can sum to: Adam's steps keep what diverges finite for
    # long, so that the critic is wrong well before anything overflows.
    scale = run.settings.reward_scale / (1 - run.task.discount)
    bound = scale * run.replay.largest_reward().double().cpu().numpy()
    limit = _EXCESS * np.maximum(bound, 1.0)  # fresh networks give about 1 before any reward
    for member in np.flatnonzero((np.abs(value) > limit) & ~run.excessive).tolist():
        journal.append("events", excess(run, member, value[member], bound[member]))
        run.excessive[member] = True


@contextmanager
def _between_iterations() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed; pressed again, it interrupts whatever is at work."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


class Execution(Protocol):
    """Where the work of a run is done."""

    def step(self, run: Run) -> Ended:
        """One step of the environments into replay."""
        ...

    def update(self, run: Run) -> UpdateRecord:
        """The next update of the networks."""
        ...

    def record(self, run: Run, journal: Journal) -> None:
        """Store rows of its own where a window of updates has ended."""
        ...

    def settle(self) -> None:
        """Bring the run into a state that can be saved."""
        ...


@final
class _Here:
    """All of it is done in this process when it is due."""

    def step(self, run: Run) -> Ended:
        return run.environments.step(run.learner.explore, run.replay)

    def update(self, run: Run) -> UpdateRecord:
        return run.learner.update(run.iteration, next_batch(run))

    def record(self, run: Run, journal: Journal) -> None:
        """Nothing beside the updates."""

    def settle(self) -> None:
        """Nothing is under way between two iterations."""


HERE = _Here()


def go(
    run: Run,
    path: Path,
    journal: Journal,
    config: dict[str, object],
    progress: Progress,
    work: Execution = HERE,
) -> None:
    """From the present iteration to the last."""
    run.begun = time.monotonic() - run.seconds
    shown = time.monotonic()
    progress("training", run.iteration, run.settings.iterations)
    with _between_iterations() as interrupted:
        while True:
            if _visit(run, path, journal, config, work):
                return
            if interrupted():
                work.settle()
                checkpoints.save(path, run, config)
                raise KeyboardInterrupt
            collect(run, work)
            _fit(run, journal, progress)
            _branch(run, journal)
            update = work.update(run)
            run.window.add(update)
            run.iteration += 1
            now = time.monotonic()
            if run.iteration % run.settings.log_every == 0 or run.done:
                row = run.window.row(run.iteration, time.monotonic() - run.begun)
                journal.append("updates", row)
                work.record(run, journal)
                report(run, path, journal, row["value"])
            if run.iteration % run.settings.log_every == 0 or run.done or now - shown > _SHOWN:
                progress("training", run.iteration, run.settings.iterations)
                shown = now


def collect(run: Run, work: Execution = HERE) -> None:
    """Fill replay up to the warm-up, then one step of the environments every `interval`, or for
    every update as many as its batch is made of."""
    wanted = max(run.settings.warmup, run.algorithm.batch)
    due = run.algorithm.source.steps or int(run.iteration % run.settings.interval == 0)
    while due > 0 or run.replay.added < wanted:
        run.window.ended(work.step(run))
        due -= 1


def next_batch(run: Run) -> Batch:
    """The batch of the present iteration; `reuse` iterations share one."""
    first = run.iteration - run.iteration % run.algorithm.reuse
    if run.batch is None or run.iteration == first:
        run.batch = run.drawn(run.learner.draws, first)
    return run.batch


def _visit(
    run: Run,
    path: Path,
    journal: Journal,
    config: dict[str, object],
    work: Execution,
) -> bool:
    """Evaluate, keep networks, measure and save the state where due; whether training is over."""
    k, settings = run.iteration, run.settings
    run.seconds = time.monotonic() - run.begun
    if k % settings.evaluate_every == 0 or run.done:
        journal.append("evaluations", evaluation_row(run))
    if k in {round(share * settings.iterations) for share in settings.keep}:
        checkpoints.keep(path, run, k)
    learned, every = run.dynamics is None or run.dynamics.fitted, settings.gradient_every
    if every and learned and run.replay.added and (k % every == 0 or run.done):
        begun = time.monotonic()
        journal.append("gradients", gradient_errors.row(run))
        run.begun += time.monotonic() - begun
    weighed = isinstance(run.algorithm.weights, MeasuredWeights)
    if weighed and learned and k and k % settings.measure_every == 0:
        journal.append("weights", measured_weights.row(run))
    if k % settings.checkpoint_every == 0 or run.done:
        work.settle()
        checkpoints.save(path, run, config)
    return run.done


def _fit(run: Run, journal: Journal, progress: Progress) -> None:
    """The models, where they are due; `progress` sees them from their second second on, once a
    second."""
    if run.dynamics is None or run.iteration % run.dynamics.choice.every:
        return
    shown, begun = time.monotonic(), False

    def told(stage: str, done: int, total: int) -> None:
        nonlocal shown, begun
        if time.monotonic() - shown > _SHOWN or (begun and done == total):
            progress(f"training ({stage})", done, total)
            shown, begun = time.monotonic(), True

    masked = run.learner.objective.masked
    if masked and run.task.alive is None and run.replay.terminations() > 0:
        raise unknown_ends(run.task)
    journal.append("model", model_row(run.iteration, run.dynamics.fit(run.replay, told)))
    run.learner.model = run.dynamics.rollout()


def _branch(run: Run, journal: Journal) -> None:
    """The second replay, where it is due."""
    if run.branches is None or run.iteration % run.branches.choice.every:
        return
    learner = run.learner
    assert learner.model is not None
    journal.append(
        "rollouts",
        run.branches.fill(run.replay, learner.model, learner.explore, learner.limit, run.iteration),
    )
