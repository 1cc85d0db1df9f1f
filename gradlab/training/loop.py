"""Training: collect, sample, update; evaluate and record on the way. One loop for every algorithm.

    path = gradlab.train("mpg-v2", gradlab.tasks.path_tracking(), seeds=5)

Everything random follows from (seed, name, iteration): a run that was killed goes on bit for bit.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradlab import machine, provenance
from gradlab.errors import InputError
from gradlab.networks.gaussian_ensemble import network_name
from gradlab.networks.layers import fast_products
from gradlab.progress import Progress, check_progress, silent
from gradlab.statistics.mixing import MpgWeights
from gradlab.storage.journal import Journal
from gradlab.storage.whole_files import real
from gradlab.tasks import Task
from gradlab.training import checkpoints, recording
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find, measured
from gradlab.training.asynchronous.execution import execution, prepare
from gradlab.training.first_networks import FRESH, GivenNetworks, check_given
from gradlab.training.measured import gradient_errors
from gradlab.training.measured import weights as measured_weights
from gradlab.training.parts.context import MeasuredWeights, Rule, Weights
from gradlab.training.recording import attributes, tables
from gradlab.training.run import go
from gradlab.training.settings import Settings, for_task
from gradlab.training.state import Run, begin
from gradlab.user_code import differentiating


def check_memory(run: Run) -> None:
    """Refuse rollouts of the policy whose states, actions and hidden units alone, which autograd
    keeps of every row and step, are more than the machine's memory."""
    row, learner, simulator = run.algorithm, run.learner, run.task.simulator
    horizon, seeds, present = max(row.horizons), len(learner.seeds), machine.memory()
    if learner.device.type == "cuda":
        present = float(torch.cuda.get_device_properties(learner.device).total_memory)
    steps = row.batch * (1 if row.loss.paths else horizon)
    numbers = simulator.state_dim + simulator.action_dim + sum(row.hidden)
    size = torch.empty((), dtype=learner.dtype).element_size()
    needed = seeds * steps * numbers * size
    if horizon and needed > present:
        raise InputError(
            f"{seeds} seeds × {steps:,} steps of a batch × {numbers:,} numbers of a step take at "
            f"least {needed / 1e9:,.0f} GB, but the machine has {present / 1e9:,.0f} GB: lower the "
            f"horizon, the batch or the number of seeds"
        )


_PARTS = (  # of which the fields alone do not tell which they are
    "weights", "target", "loss", "critic_loss", "target_policy", "target_critic", "source", "fit",
    "adaptive",
)  # fmt: skip


def describe(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, object]:
    """All that decides what a run computes, as JSON."""
    config: dict[str, Any] = {
        "algorithm": asdict(algorithm),
        "task": task.name,
        "task_parameters": dict(task.parameters),
        "state_names": list(task.state_names),
        "discount": task.discount,
        "settings": asdict(replace(settings, given=None)),
    }
    del config["algorithm"]["paper"]  # of no number
    for name in _PARTS:
        config["algorithm"][f"{name}_rule"] = type(getattr(algorithm, name)).__name__
    del config["settings"]["given"]
    if settings.given is not None:
        config["given_networks"] = settings.given.digests()
    if algorithm.model is not None:
        config["algorithm"]["model"]["network"] = network_name(algorithm.model.network)
        config["model_losses"] = {role: loss.name for role, loss in algorithm.model.roles.items()}
    named = json.dumps(config, default=lambda own: own.__qualname__)  # a function of one's own
    plain: dict[str, object] = json.loads(named)
    return plain


def settings_of(
    algorithm: Algorithm, task: Task, settings: Settings | None, changes: Mapping[str, object]
) -> Settings:
    """All settings of a run: those given, else the algorithm's, else those of the task's papers."""
    unknown = set(changes) - set(Settings.__dataclass_fields__)
    if unknown:
        name = sorted(unknown)[0]
        near = difflib.get_close_matches(name, Settings.__dataclass_fields__, n=3, cutoff=0.4)
        raise InputError(f"setting {name!r} is not known: {' or '.join(near) or 'see Settings'}")
    if settings is not None:
        return replace(settings, **changes)  # type: ignore[arg-type]
    chosen = for_task(task.name, **changes)
    if algorithm.updates is None or "interval" in changes:
        return chosen
    return replace(chosen, interval=algorithm.updates * chosen.agents)


def scheduled(weights: Weights, settings: Settings) -> Weights:
    """The rule with the ramp of the task."""
    if isinstance(weights, MeasuredWeights):
        return replace(weights, rule=_scheduled(weights.rule, settings))
    return _scheduled(weights, settings)


def _scheduled(weights: Rule, settings: Settings) -> Rule:
    return replace(weights, ramp=settings.ramp) if isinstance(weights, MpgWeights) else weights


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
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
    ray: str | None = None,
    policy: nn.Module | None = None,
    critic: nn.Module | None = None,
    **changes: object,
) -> Path:
    """Train `settings.seeds` policies side by side, and return the path of the run file.

    Args:
        algorithm: a name of `ALGORITHMS`, or a row of your own.
        output: run file; default "ALGORITHM-TASK.h5" in the current folder.
        settings: all settings; default: those of the papers for this task, and the algorithm's own
            number of updates for each transition where it has one.
        weights, horizon: "rule", the algorithm's, or (one of the two) "measured": what is shown to
            be better than the rule, by the simulator's own gradient.
        by: criterion of "measured": "mse", the smaller error of the gradient at replayed states, or
            "gain", the larger gain of return by a step along it, at visited states.
        resume: go on with the run at `output`; overwrite: replace it.
        ray: a cluster of Ray by its HOST:PORT for the processes of an asynchronous run
            (`asynchronous=Asynchronous(learners=4, actors=2)`); None: one of this machine.
        policy, critic: gradlab's networks that every seed begins with, such as those for which a
            horizon was measured; None: fresh ones. Of twin critics the first is the given one, the
            second that with noise of a tenth of each layer's size.
        changes: single settings to change, such as seeds=5 or iterations=10_000.

    Raises:
        InputError: an unknown algorithm or setting, a missing model, a policy or critic that the
            row cannot train, rollouts beyond the machine's memory, or a run that cannot be resumed,
            with the difference.
        Diverged: every seed diverged; the last saved state is kept.
        KeyboardInterrupt: after Ctrl-C, once the present iteration is done and its state is saved,
            or 1 s later: it began from a saved state, and begins again with resume=True.
    """
    progress = check_progress(progress)
    row = find(algorithm) if isinstance(algorithm, str) else algorithm
    chosen = settings_of(row, task, settings, changes)
    if policy is not None or critic is not None:
        chosen = replace(chosen, given=GivenNetworks(policy, critic))
    row = _checked(measured(row, weights, horizon, by), task, chosen)
    if ray is not None and chosen.asynchronous is None:
        raise InputError(f"ray is {ray!r}, but the run is in one process: add learners or actors")
    # What stands beside a run stands beside the file itself, whatever link it was named by.
    path = real(Path(output if output is not None else f"{row.name}-{task.name}.h5"))
    checkpoints.check_place(path, resume=resume, overwrite=overwrite)
    run = begin(row, task, chosen)
    check_memory(run)
    prepare(run)
    config = describe(row, task, chosen)
    if chosen.gradient_every:
        config["gradient_law"] = gradient_errors.law(row)
    with execution(run, ray) as work:  # a cluster that cannot be used replaces no file
        if resume:
            checkpoints.load(path, run, config)
        else:
            checkpoints.clear(path)
        about = attributes(config, command, provenance.environment())
        fast = chosen.precision == "float32"
        products = fast_products(chosen.device) if fast else nullcontext()
        with Journal(path, tables(row, task, chosen), about) as journal, products:
            if not (resume and run.iteration == chosen.iterations):  # all is there, maybe unfolded
                try:
                    go(run, path, journal, config, progress, work)
                except KeyboardInterrupt as stop:
                    if run.kept is None:
                        raise
                    raise KeyboardInterrupt(
                        f"the state after {run.kept} iterations is saved: the same again with "
                        f"resume=True goes on from there. {path} can be read as it is"
                    ) from stop
    return path


def _checked(row: Algorithm, task: Task, settings: Settings) -> Algorithm:
    """The row as this run trains it."""
    check_given(row, task, settings.given or FRESH)
    measured_weights.check(row, task)
    gradient_errors.check(row, settings, task)
    recording.check(row, task.prior, settings.planning)
    _check_processes(row, settings)
    weights = scheduled(row.weights, settings)
    return replace(row, weights=weights, batch=row.rows(settings.agents))


def _check_processes(algorithm: Algorithm, settings: Settings) -> None:
    """Refuse processes for a row whose updates need what only one process has."""
    choice = settings.asynchronous
    if choice is None:
        return
    reason = _alone(algorithm)
    if reason:
        raise InputError(
            f"{algorithm.name} cannot be trained asynchronously: {reason}; take a row on replay "
            f"without a learned model (mpg-v1, mpg-v2, mpg-general, td3, sac, ddpg, n-step-dpg, "
            f"n-step-adp, bptt), or leave learners and actors out"
        )


def _alone(row: Algorithm) -> str:
    """Why a row's gradients cannot be computed elsewhere; "" where they can."""
    if row.source.steps:
        return "its batches are the newest steps of its own policy"
    if row.model is not None or row.source.branching is not None:
        return "it learns a model between its updates"
    if row.critics == 0 and row.delay > 1:
        return "it has no critic, but updates without its policy (delay)"
    return ""
