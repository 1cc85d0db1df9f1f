"""Training: collect, sample, update; evaluate and record on the way. One loop for every algorithm.

    path = gradlab.train("mpg-v2", gradlab.tasks.path_tracking(), seeds=5)

Everything random follows from (seed, name, iteration), so a run that was killed goes on from its
last saved state bit for bit, and what it repeats replaces equal rows. Ctrl-C ends it between two
iterations, where its state is saved.
"""

from __future__ import annotations

import difflib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from gradlab import provenance
from gradlab.data.replay import Batch, Replay
from gradlab.errors import Failure, InputError
from gradlab.hooks import Progress, silent
from gradlab.journal import Journal
from gradlab.statistics.rules import MpgJournalWeights, MpgWeights
from gradlab.tasks import Task
from gradlab.training import checkpoints
from gradlab.training.algorithms import Algorithm, find
from gradlab.training.collection import Environments, Evaluation, evaluate
from gradlab.training.learner import Learner
from gradlab.training.recording import (
    Window,
    attributes,
    divergence,
    evaluation_row,
    excess,
    tables,
)
from gradlab.training.settings import Settings, for_task
from gradlab.training.weights import Floats, Weights

EXCESS = 10  # times the largest discounted sum of rewards: a mean value that has diverged
ACCURATE = 1e-6  # relative error of a product that training accepts


class Diverged(Failure):
    """Every seed has left the finite numbers; says which quantity went first and where."""


def train(
    algorithm: str | Algorithm,
    task: Task,
    output: str | Path | None = None,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
    **changes: object,
) -> Path:
    """Train `settings.seeds` policies side by side; returns the path of the run file.

    Args:
        algorithm: a name of `ALGORITHMS`, or a row of your own.
        output: run file; default "ALGORITHM-TASK.h5" in the current folder.
        settings: all settings; default: those of the papers for this task.
        resume: go on with the run at `output`; overwrite: replace it.
        changes: single settings to change, such as seeds=5 or iterations=10_000.

    Raises:
        InputError: an unknown algorithm or setting, a model that is missing, or a run that cannot
            be resumed, with the difference.
        Diverged: every seed diverged; the last good networks of each are kept.
        KeyboardInterrupt: after Ctrl-C, once the present iteration is done and its state is saved.
    """
    row = find(algorithm) if isinstance(algorithm, str) else algorithm
    chosen = _settings(task, settings, changes)
    row = replace(row, weights=_scheduled(row.weights, chosen))
    path = Path(output) if output is not None else Path(f"{row.name}-{task.name}.h5")
    checkpoints.check_place(path, resume=resume, overwrite=overwrite)
    run = Run(row, task, chosen)
    config = describe(row, task, chosen)
    if resume:
        checkpoints.load(path, run, config)
    else:
        checkpoints.clear(path)
    about = attributes(config, command, provenance.environment())
    with Journal(path, tables(row, task, chosen), about) as journal, _precision(chosen):
        if resume:
            progress("training", run.iteration, chosen.iterations)
        if not (resume and run.iteration == chosen.iterations):  # all is there, maybe not folded
            run.go(path, journal, config, progress)
    return path


class Run:
    """The state of one training run."""

    def __init__(self, algorithm: Algorithm, task: Task, settings: Settings) -> None:
        self.algorithm, self.task, self.settings = algorithm, task, settings
        self.learner = Learner(algorithm, task, settings)
        self.environments = Environments(
            task, self.learner.seeds, settings.agents, settings.episode, self.learner.draws
        )
        self.replay = Replay(
            settings.seeds, algorithm.replay, task.simulator.state_dim, task.simulator.action_dim,
            self.learner.dtype, self.learner.device,
        )  # fmt: skip
        self.window = Window(algorithm)
        self.batch: Batch | None = None
        self.lost = np.zeros(settings.seeds, dtype=bool)
        self.excessive = np.zeros(settings.seeds, dtype=bool)
        self.good = 0, self.learner.policy.copied(), self.learner.critic.copied()
        self.iteration = 0
        self.seconds = 0.0

    def go(
        self, path: Path, journal: Journal, config: dict[str, object], progress: Progress
    ) -> None:
        """From the present iteration to the last."""
        begun = time.monotonic() - self.seconds
        self._note_good()
        with _between_iterations() as interrupted:
            while not self._visit(path, journal, config, begun):
                if interrupted():
                    self._leave(path, config)
                self._collect()
                self.window.add(self.learner.update(self.iteration, self._batch(self.iteration)))
                self.iteration += 1
                if self.iteration % self.settings.log_every == 0 or self._done:
                    self._record(path, journal, begun)
                    progress("training", self.iteration, self.settings.iterations)

    def _visit(self, path: Path, journal: Journal, config: dict[str, object], begun: float) -> bool:
        """What is due before an iteration: evaluation, networks to keep, the saved state; done?"""
        k, settings = self.iteration, self.settings
        self.seconds = time.monotonic() - begun
        if k % settings.evaluate_every == 0 or self._done:
            journal.append("evaluations", evaluation_row(self, self._evaluation()))
        if k in self._kept():
            checkpoints.keep(path, self, k)
        if k % settings.checkpoint_every == 0 or self._done:
            checkpoints.save(path, self, config)
        return self._done

    def _record(self, path: Path, journal: Journal, begun: float) -> None:
        """The row of a full window, and what it says of divergence."""
        row = self.window.row(self.iteration, time.monotonic() - begun)
        journal.append("updates", row)
        self._report_divergence(path, journal)
        self._report_excess(row["value"], journal)
        self._note_good()

    def _leave(self, path: Path, config: dict[str, object]) -> NoReturn:
        checkpoints.save(path, self, config)
        raise KeyboardInterrupt(
            f"the state after {self.iteration} iterations is saved: the same command with --resume "
            f"goes on from there"
        )

    def state(self) -> dict[str, Tensor]:
        parts = {
            "learner": self.learner.state(),
            "environments": self.environments.saved(),
            "replay": self.replay.state(),
            "run": {
                "iteration": torch.tensor(self.iteration),
                "seconds": torch.tensor(self.seconds, dtype=torch.float64),
                "lost": torch.from_numpy(self.lost),
                "excessive": torch.from_numpy(self.excessive),
            },
            "window": self.window.state(),
            "batch": {} if self.batch is None else dict(vars(self.batch)),
        }
        return {
            f"{part}/{name}": value
            for part, found in parts.items()
            for name, value in found.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            InputError, KeyError, RuntimeError, ValueError: the state is not one of this run.
        """

        def part(name: str) -> dict[str, Tensor]:
            start = f"{name}/"
            return {k[len(start) :]: v for k, v in state.items() if k.startswith(start)}

        iteration, lost = int(state["run/iteration"]), state["run/lost"].numpy()
        if not 0 <= iteration <= self.settings.iterations or lost.shape != self.lost.shape:
            raise InputError(f"saved iteration is {iteration} for {len(lost)} seeds")
        self.learner.load(part("learner"))
        self.environments.load(part("environments"))
        self.replay.load(part("replay"))
        self.window.load(part("window"))
        self.iteration, self.lost = iteration, lost.copy()
        self.excessive = state["run/excessive"].numpy().copy()
        self.seconds = float(state["run/seconds"])
        batch = {k: v.to(self.replay.rows) for k, v in part("batch").items()}
        size = self.settings.seeds, self.algorithm.batch
        if any(v.shape[:2] != size for v in batch.values()):
            raise InputError(f"saved batch is not {size[0]} × {size[1]}")
        self.batch = Batch(**batch) if batch else None

    @property
    def _done(self) -> bool:
        return self.iteration == self.settings.iterations

    @property
    def sound(self) -> bool:
        """Has a seed that was not given up finite networks?"""
        finite = self.learner.finite()
        return bool((finite & ~self.lost).any())

    def _kept(self) -> set[int]:
        return {round(share * self.settings.iterations) for share in self.settings.keep}

    def _collect(self) -> None:
        """Fill replay up to the warm-up, then one step of the environments every `interval`."""
        wanted = max(self.settings.warmup, self.algorithm.batch)
        due = self.iteration % self.settings.interval == 0
        while due or self.replay.added < wanted:
            self.window.ended(self.environments.step(self._explore, self.replay))
            due = False

    def _explore(self, state: Tensor, noise: Tensor) -> Tensor:
        learner = self.learner
        if self.algorithm.policy == "gaussian":
            return learner.act(learner.policy, state, noise)
        size = self.algorithm.exploration
        return learner.policy(state) + size * noise * (
            1.0 if learner.limit is None else learner.limit
        )

    def _batch(self, iteration: int) -> Batch:
        """The batch of this iteration; `reuse` iterations share one."""
        first = iteration - iteration % self.algorithm.reuse
        if self.batch is None or iteration == first:
            uniform = self.learner.draws.uniform("batch", first, (self.algorithm.batch,))
            self.batch = self.replay.sample(uniform)
        return self.batch

    def _evaluation(self) -> Evaluation:
        learner, settings = self.learner, self.settings
        policy = learner.policy.frozen()
        return evaluate(
            self.task, lambda state: learner.act(policy, state), settings.seeds,
            settings.evaluation_starts, settings.episode, settings.at_end,
            lambda state: state.to(learner.device, learner.dtype),
        )  # fmt: skip

    def _report_divergence(self, path: Path, journal: Journal) -> None:
        """Note each seed that leaves the finite numbers; give up when none is left."""
        fresh = [member for member in self.window.told if not self.lost[member]]
        for member in fresh:
            kept = checkpoints.keep_good(path, self, member)
            told = f"; its networks after {self.good[0]} iterations are kept in {kept}"
            journal.append("events", divergence(self, member, told))
            self.lost[member] = True
        if self.lost.all():
            seeds = "the seed" if len(self.lost) == 1 else "every seed"
            first = divergence(self, fresh[0], "")["message"]
            raise Diverged(
                f"{seeds} diverged by iteration {self.iteration}: {first}; the last good networks "
                f"are in {checkpoints.good_folder(path)}"
            )

    def _report_excess(self, value: Floats, journal: Journal) -> None:
        """Note each seed whose values no rewards can sum to: Adam's steps keep what diverges finite
        for long, so that the critic is wrong well before anything overflows."""
        scale = self.settings.reward_scale / (1 - self.task.discount)
        bound = scale * self.replay.largest_reward().double().cpu().numpy()
        limit = EXCESS * np.maximum(bound, 1.0)  # fresh networks say about 1 before any reward
        for member in np.flatnonzero((np.abs(value) > limit) & ~self.excessive):
            found, most = value[member], bound[member]
            journal.append("events", excess(self, int(member), found, most))
            self.excessive[member] = True

    def _note_good(self) -> None:
        """Remember networks that are finite: a saved state may be too old or too late."""
        learner = self.learner
        if bool((learner.finite() | self.lost).all()):
            self.good = self.iteration, learner.policy.copied(), learner.critic.copied()


def describe(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, object]:
    """All that decides what a run computes, as JSON."""
    config = {
        "algorithm": asdict(algorithm)
        | {
            "weights_rule": type(algorithm.weights).__name__,
            "target_rule": type(algorithm.target).__name__,
        },
        "task": task.name,
        "task_parameters": dict(task.parameters),
        "state_names": list(task.state_names),
        "discount": task.discount,
        "settings": asdict(settings),
    }
    plain: dict[str, object] = json.loads(json.dumps(config))
    return plain


def _settings(task: Task, settings: Settings | None, changes: Mapping[str, object]) -> Settings:
    unknown = set(changes) - set(Settings.__dataclass_fields__)
    if unknown:
        name = sorted(unknown)[0]
        near = difflib.get_close_matches(name, Settings.__dataclass_fields__, n=3, cutoff=0.4)
        raise InputError(f"setting {name!r} is not known: {' or '.join(near) or 'see Settings'}")
    return for_task(task.name, **changes) if settings is None else replace(settings, **changes)  # type: ignore[arg-type]


def _scheduled(weights: Weights, settings: Settings) -> Weights:
    """The rule with the ramp of the task (MPG) or the length of the run (MPG-J)."""
    if isinstance(weights, MpgWeights):
        return replace(weights, ramp=settings.ramp)
    if isinstance(weights, MpgJournalWeights):
        return replace(weights, iterations=settings.iterations)
    return weights


@contextmanager
def _between_iterations() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed; pressed again it interrupts at once."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _precision(settings: Settings) -> Iterator[None]:
    """Faster float32 products where this processor keeps them accurate; set back afterwards."""
    before = torch.get_float32_matmul_precision()
    if settings.precision == "float32":
        torch.set_float32_matmul_precision("medium")
        if product_error(settings.device) > ACCURATE:
            torch.set_float32_matmul_precision(before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_error(device: str) -> float:
    """Relative error of a float32 product on this machine at the present precision setting."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    product = (a.float().to(device) @ b.float().to(device)).double().cpu()
    return float((product - a @ b).norm() / (a @ b).norm())
