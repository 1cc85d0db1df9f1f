"""Training: collect, sample, update; evaluate and record on the way. One loop for every algorithm.

    path = gradlab.train("mpg-v2", gradlab.tasks.path_tracking(), seeds=5)

Everything random follows from (seed, name, iteration), so a run that was killed goes on from its
last saved state bit for bit, and what it repeats replaces equal rows. Ctrl-C ends it between two
iterations, where its state is saved.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from torch import nn

from gradlab import provenance
from gradlab.errors import InputError
from gradlab.networks.products import Products, fast_products, faster_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.storage.journal import Journal
from gradlab.storage.whole_files import real
from gradlab.tasks import Task
from gradlab.training import checkpoints, given_networks, memory, planning
from gradlab.training.algorithms import Algorithm, find, measured
from gradlab.training.asynchronous import choice
from gradlab.training.asynchronous.execution import execution, prepare
from gradlab.training.configuration import describe, scheduled, settings_of
from gradlab.training.given_networks import GivenNetworks
from gradlab.training.measured import gradient_errors
from gradlab.training.measured import weights as measured_weights
from gradlab.training.measured.steering import steered
from gradlab.training.parts.weights import Steer
from gradlab.training.probe import probe
from gradlab.training.recording import attributes, tables
from gradlab.training.run import go
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from gradlab.user_code.grad_mode import differentiating


@differentiating
def train(
    algorithm: str | Algorithm,
    task: Task,
    output: str | Path | None = None,
    settings: Settings | None = None,
    *,
    weights: str = "rule",
    horizon: str = "rule",
    by: str = "mse",
    steer: Steer | None = None,
    steer_every: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
    note: memory.Note = memory.nowhere,
    ray: str | None = None,
    policy: nn.Module | None = None,
    critic: nn.Module | None = None,
    **changes: object,
) -> Path:
    """Train `settings.seeds` policies side by side; returns the path of the run file.

    Args:
        algorithm: a name of `ALGORITHMS`, or a row of your own.
        output: run file; default "ALGORITHM-TASK.h5" in the current folder.
        settings: all settings; default: those of the papers for this task, with the algorithm's own
            number of updates for each transition where it has one.
        weights, horizon: "rule", the algorithm's, or "measured" (one of the two): what measurements
            against the simulator's own gradient have shown to be better than the rule.
        by: what is better: "mse", the smaller error of the gradient at replayed states, or "gain",
            the larger gain of return by a step along it, at visited states.
        steer: "rehearse": every so many iterations the updates of every horizon are made ahead,
            and the policy with the highest return is adopted, or the present one held; "accept":
            policies that are lower than the last one accepted are taken back; None: neither.
        steer_every: iterations between two decisions; None: 25 or 5 updates of the policy.
        resume: go on with the run at `output`; overwrite: replace it.
        note: is given a line about the memory that rollouts of the policy will take, and one where
            a process of an asynchronous run has died.
        ray: a cluster of Ray by its HOST:PORT, or "local", for the processes of an asynchronous run
            (`asynchronous=Asynchronous(learners=4, actors=2)`); None: processes of this machine.
        policy, critic: gradlab's networks that every seed begins with, such as those for which a
            horizon was measured; None: fresh ones.
        changes: single settings to change, such as seeds=5 or iterations=10_000.

    Raises:
        InputError: an unknown algorithm or setting, a model that is missing, a policy or critic
            that the row cannot train, rollouts beyond the machine's memory, or a run that cannot be
            resumed, with the difference.
        Diverged: every seed diverged; the last good networks of each are kept.
        KeyboardInterrupt: after Ctrl-C, once the present iteration is done and its state is saved.
    """
    progress = check_progress(progress)
    row = find(algorithm) if isinstance(algorithm, str) else algorithm
    chosen = settings_of(row, task, settings, changes)
    if policy is not None or critic is not None:
        chosen = replace(chosen, given=GivenNetworks(policy, critic))
    row = steered(measured(row, weights, horizon, by), steer, steer_every)
    row = _checked(row, task, chosen)
    if steer is not None and chosen.asynchronous is not None:
        raise InputError(f"steer is {steer!r}, which a run in several processes cannot: leave out")
    if ray is not None and chosen.asynchronous is None:
        raise InputError(f"ray is {ray!r}, but the run is in one process: add learners or actors")
    # What stands beside a run stands beside the file itself, whatever link it was named by.
    path = real(Path(output if output is not None else f"{row.name}-{task.name}.h5"))
    checkpoints.check_place(path, resume=resume, overwrite=overwrite)
    chosen = replace(chosen, products=_products_of(chosen, path, resume=resume))
    run = begin(row, task, chosen)
    memory.check(run, note)
    if chosen.given.critic is not None and row.critics > 1:
        note(f"the {row.critics} critics of a seed begin equal and stay equal")
    prepare(run)
    config = describe(row, task, chosen) | gradient_errors.described(row, chosen)
    if resume:
        checkpoints.load(path, run, config)
    else:
        checkpoints.clear(path)
    about = attributes(config, command, provenance.environment())
    about |= probe.attributes(run.learner)
    with Journal(path, tables(row, task, chosen), about) as journal, _products(chosen):
        if resume:
            progress("training", run.iteration, chosen.iterations)
        if not (resume and run.iteration == chosen.iterations):  # all is there, maybe not folded
            with execution(run, ray, note) as work:
                go(run, path, journal, config, progress, work)
    return path


def _checked(row: Algorithm, task: Task, settings: Settings) -> Algorithm:
    """The row as this run trains it.

    Raises:
        InputError: settings or task do not go with it.
    """
    given_networks.check(row, task, settings.given)
    measured_weights.check(row, task)
    gradient_errors.check(row, settings, task)
    planning.check(row, task.prior, settings.planning)
    choice.check(row, settings)
    weights = scheduled(row.weights, settings)
    return replace(row, weights=weights, batch=row.rows(settings.agents))


def _products_of(settings: Settings, path: Path, *, resume: bool) -> Products:
    """As the run began, where it goes on, and as settings say; else what is faster here."""
    if settings.products != "measured":
        return settings.products
    if resume:
        return checkpoints.products_saved(path)
    return faster_products(settings.device) if settings.precision == "float32" else "batched"


def _products(settings: Settings) -> AbstractContextManager[None]:
    """Faster float32 products where training is in float32."""
    if settings.precision != "float32":
        return nullcontext()
    return fast_products(settings.device, apart=settings.products == "separate")
