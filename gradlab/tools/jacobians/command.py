"""`gradlab jacobians TASK`: errors of a simulator's and a model's Jacobians, and their growth."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from gradlab import validation
from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.arguments import model_option, named_data
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.storage.whole_files import keep


@dataclass(frozen=True)
class JacobiansCommand:
    """Where are a model's Jacobians wrong, and how far may they be chained?

    Compares the model's Jacobians with the simulator's, and measures the growth of their products
    along a rollout. The simulator's are certified or, its own, compared with differences.

        gradlab jacobians inverted_pendulum
        gradlab jacobians Hopper-v5 --model model.safetensors --data model.data.h5
    """

    task: arguments.TaskName
    settings: arguments.Settings = ()
    model: Annotated[str | None, arg(metavar="FILE")] = None
    """Model to compare: a .safetensors file, or file.py:function that returns a System or is its
    step. Default: the task's own prior, where it has one."""
    gradient_model: arguments.GradientModelFile = None
    data: arguments.DataFile = None
    """The record that it was fitted to."""
    policy: arguments.PolicyFile = None
    horizon: Annotated[int | None, arg(metavar="H")] = None
    """Steps of the rollout. Default: the task's."""
    starts: int = 256
    """Number of start states."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, arg(metavar="RUN.h5")] = None
    """Default: runs/TASK-jacobians.h5."""
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Compare, and write RUN.h5, RUN.html and a policy that was fitted."""
        begun = time.monotonic()
        with undisturbed():
            from gradlab.data.trajectories import stream
            from gradlab.fitting.policies import stabilising_policy
            from gradlab.measurement.resolve import check_size
            from gradlab.networks import checkpoint
            from gradlab.runs.stages import timed
            from gradlab.tasks.environments import UPDATES, trained_networks
            from gradlab.tools.jacobians.compute import FEWEST, check_model, compare_jacobians

        task = arguments.named_task(self.task, self.settings)
        run = self.output or Path("runs") / f"{task.name}-jacobians.h5"
        trained = trained_networks(task).get("policy")
        file = self.policy or (None if trained is None else str(trained))
        made = () if file else ("policy",)
        missing = () if self.policy else ("policy",)
        taken = "" if made else f"SAC's policy after {UPDATES:,} updates"
        origin = arguments.whose(run, missing, taken)
        arguments.check_outputs(run, made, self.overwrite, page=not self.no_report)
        validation.whole("starts", self.starts, FEWEST)
        if self.horizon is not None:
            validation.whole("horizon", self.horizon, 1)
        check_size(task, task.horizon if self.horizon is None else self.horizon, self.starts)
        own = self.model is None and task.prior is not None
        name = "prior" if own else self.model
        model = model_option(task, name, self.gradient_model)
        record, told = (None, []) if self.data is None else named_data(self.data, task)
        check_model(task.simulator, model)
        given = arguments.networks(policy=file)
        # The command that tests the simulator's own derivatives.
        words = ["gradlab", "certify"]
        words += arguments.as_words(self.task, arguments.parameters(self.settings))
        certify = shlex.join([*words, *(["--policy", self.policy] if self.policy else [])])
        with bars() as progress:
            policy = given.get("policy") or stabilising_policy(
                task, seed=self.seed, progress=progress
            )
            comparison = compare_jacobians(
                task.simulator,
                model,
                task.starts(self.starts, stream(self.seed, "starts")),
                policy,
                None if record is None else (record.state, record.action),
                horizon=max(task.horizon, 1) if self.horizon is None else self.horizon,
                discount=task.discount,
                seed=self.seed,
                state_names=task.state_names,
                action_names=task.action_names,
                settings={
                    "task": task.name,
                    "task_parameters": dict(task.parameters),
                    "compared_with": self.gradient_model or name,
                    "command": command,
                    "certify": certify,
                }
                | ({"networks": origin} if origin else {}),
                progress=progress,
            )
        comparison = timed(comparison, begun, "wall_seconds")
        kept = {arguments.beside(run, kind): partial(checkpoint.save, policy) for kind in made}
        keep(kept | {run: partial(comparison.save, overwrite=self.overwrite)})
        document = of_run(run, page=not self.no_report, more=told)
        if origin:
            document["networks"] = f"Networks: {origin}."
        return document | {"table": comparison.table().to_dict("records")}
