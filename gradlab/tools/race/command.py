"""`gradlab race TASK`: which gradient leads farthest in K updates, and for how long.

`gradlab step BEFORE AFTER --env ID`: did the last updates raise the return?
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.streams import Document, bars, undisturbed


@dataclass(frozen=True)
class RaceCommand:
    """Which gradient leads farthest in K updates, and how long does it?

    Every candidate makes K updates from the same policy, with its critic fitted again on the way.
    Returns from the same starts are compared, and candidates that cannot be best are dropped.
    Ctrl-C leaves a readable RUN.h5, and --resume goes on.

        gradlab race path_tracking --updates 200 --lr 1e-3
        gradlab race mine.py:make_task --policy p.safetensors --updates 100
    """

    task: arguments.TaskName
    settings: arguments.Settings = ()
    model: arguments.ModelFile = None
    policy: arguments.PolicyFile = None
    critic: arguments.CriticFile = None
    candidates: Annotated[tuple[str, ...], arg(metavar="NAME:STEPS")] = ()
    """Gradients, such as data or model_all:25. Default: data, and model_all at 1, 5 and the
    horizon."""
    updates: Annotated[int, arg(metavar="K")] = 200
    """Updates of every candidate."""
    lr: float | None = None
    """Learning rate. Default: 3e-4, or less where a step moves actions by over 4%."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser."""
    refit: int = 25
    """Updates between fits of the critic."""
    freeze_critic: bool = False
    """Never fit the critic again."""
    batch: int = 256
    """States of an update."""
    starts: int = 64
    """Starts of the returns."""
    horizon: Annotated[int | None, arg(metavar="H")] = None
    """Longest default horizon. Default: the task's."""
    termination: Literal["ignore", "mask"] = "ignore"
    """Roll-outs and returns stop at terminal states with "mask"."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, arg(metavar="RUN.h5")] = None
    """Default: runs/TASK-race.h5."""
    resume: arguments.Resume = False
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Race, and write RUN.h5, RUN.html and the networks that were fitted."""
        with undisturbed():
            from gradlab.fitting.critics import fitted_networks
            from gradlab.measurement.update import Update
            from gradlab.networks.mlp import as_critic
            from gradlab.tools.race.branches import candidates_of
            from gradlab.tools.race.compute import Stopped, check_sizes, race

        task = arguments.named_task(self.task, self.settings)
        run = self.output or Path("runs") / f"{task.name}-race.h5"
        check_sizes(self.updates, self.batch, self.starts, self.seed)
        update = Update(self.optimizer, self.lr, self.refit)
        made = tuple(kind for kind in ("policy", "critic") if getattr(self, kind) is None)
        replaced = self.overwrite or self.resume
        arguments.check_outputs(run, made, replaced, page=not self.no_report)
        given = arguments.networks(policy=self.policy, critic=self.critic)
        raced = arguments.with_model(task, self.model)
        stand_in = as_critic(lambda state, action: state[:, 0])  # none is fitted yet
        candidates_of(raced, stand_in, stand_in, self.candidates or None, self.horizon)
        with bars() as progress:
            networks = fitted_networks(
                task, given, {kind: arguments.beside(run, kind) for kind in made},
                kept=self.resume, termination=self.termination, seed=self.seed, progress=progress,
            )  # fmt: skip
            try:
                race(
                    raced, networks["policy"], networks["critic"], self.candidates or None,
                    self.updates, update=update,
                    batch=self.batch, starts=self.starts, horizon=self.horizon,
                    termination=self.termination, refit_critic=not self.freeze_critic,
                    seed=self.seed, output=run, resume=self.resume, overwrite=self.overwrite,
                    progress=progress, command=command,
                )  # fmt: skip
                stopped = ""
            except Stopped as stop:
                stopped = str(stop)
        document = of_run(run, page=not self.no_report)
        if stopped:
            document["interrupted"] = stopped
        from gradlab.tools.race.result import load

        found = load(run)
        if "best policy" in found.notes:
            document["policy"] = found.notes["best policy"]
        return document | {"table": found.table().to_dict("records")}


@dataclass(frozen=True)
class StepCommand:
    """Did the last updates raise the return?

    Plays whole episodes of both policies, and of the opposite step, from the same resets, until the
    signs are known. Needs only an environment's reset and step. One step that lowers the return is
    no fault.

        gradlab step before.safetensors after.safetensors --env Hopper-v5
        gradlab step mine.py:before mine.py:after --env mine.py:env --html step.html
    """

    before: Positional[
        Annotated[
            str,
            arg(
                metavar="BEFORE",
                help="Policy before: .safetensors or file.py:function (the file is executed).",
            ),
        ]
    ]
    after: Positional[Annotated[str, arg(metavar="AFTER", help="Policy after them.")]]
    env: Annotated[str, arg(metavar="ENV")]
    """An id of Gymnasium, or file.py:function that makes an environment."""
    starts: int = 4
    """Resets, doubled until the signs are known."""
    at_most: int = 64
    """Resets at most."""
    updates: Annotated[int | None, arg(metavar="K")] = None
    """Updates between the two."""
    seed: arguments.Seed = 0
    html: Annotated[Path | None, arg(metavar="FILE.html")] = None
    """Page. Default: none."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """The recommendation, and the table of returns."""
        with undisturbed():
            from gradlab.networks.checkpoint import load
            from gradlab.provenance import environment
            from gradlab.reporting.output import named, write
            from gradlab.tools.race.page import step_page
            from gradlab.tools.race.step import step

        target = None if self.html is None else named(self.html)
        policies = [load(name) for name in (self.before, self.after)]
        with bars() as progress:
            found = step(
                policies[0], policies[1], self.env, starts=self.starts, at_most=self.at_most,
                updates=self.updates, seed=self.seed, progress=progress,
            )  # fmt: skip
        table = found.table().to_dict("records")
        document = found.recommendation.document | {"paired": found.paired, "table": table}
        if target is not None:
            asked = ("before", "after", "env", "starts", "at_most", "updates", "seed")
            config = {name: getattr(self, name) for name in asked} | {"command": command}
            document["report"] = str(write(target, step_page(found, config, environment())))
        return document
