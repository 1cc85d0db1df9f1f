"""`gradlab logs DATA`: a policy gradient measured on recorded trajectories, without a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.arguments import model_option, named_data, named_model
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.errors import InputError
from gradlab.storage.whole_files import keep


@dataclass(frozen=True)
class Logs:
    """Up to which horizon do recorded trajectories support a model's policy gradient?

    Measures without a simulator, on trajectories that the policy itself recorded: scores are the
    reference, and their precision is measured first.

        gradlab logs data.h5 --policy policy.safetensors --discount 0.98
        gradlab logs data.h5 --policy policy.safetensors --model prior --task pendulum
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Recorded on-policy trajectories (docs/files.md): .h5, .npz, .csv, minari:ID or a folder.
    Not those that the model was fitted to."""
    policy: Annotated[str, arg(metavar="FILE")]
    """The policy that recorded them: .safetensors file or file.py:function (the file is
    executed)."""
    model: Annotated[str | None, arg(metavar="FILE|prior")] = None
    """The model whose gradient is measured: a .safetensors file of `gradlab fit`, file.py:function
    that returns a System, or "prior" of the --task. Default: the score alone."""
    critic: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FILE")] = ()
    """Critics of the tail."""
    noise_std: Annotated[tuple[float, ...] | None, arg(metavar="STD [STD ...]")] = None
    """Standard deviation of the noise on a deterministic policy's actions: one number for all of
    them, or one for each."""
    task: Annotated[str | None, arg(metavar="TASK")] = None
    """A task of `gradlab list tasks`, for its discount, horizon, names and prior; its simulator is
    compared with some rows of the data."""
    settings: arguments.Settings = ()
    discount: float | None = None
    """Default: the task's."""
    horizon: Annotated[int | None, arg(metavar="H")] = None
    """Default: the task's, or 25."""
    reach: Annotated[int | None, arg(metavar="T")] = None
    """Steps of the whole return."""
    every: Annotated[int | None, arg(metavar="STEPS")] = None
    """Steps between windows. Default: one window."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, arg(metavar="RUN.h5")] = None
    """Default: runs/DATA-logs.h5."""
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Measure, and write RUN.h5 and RUN.html."""
        with undisturbed():
            from gradlab.networks.checkpoint import load
            from gradlab.tools.logs.compute import HORIZON, measure_logs

        # minari:mujoco/hopper/mine-v0 → mine-v0
        stem = Path(self.data.partition(":")[2] or self.data).stem
        run = self.output or Path("runs") / f"{stem}-logs.h5"
        arguments.check_outputs(run, (), self.overwrite, page=not self.no_report)
        task = None if self.task is None else arguments.named_task(self.task, self.settings)
        discount, horizon = self.discount, self.horizon
        if discount is None:
            if task is None:
                raise InputError("--discount is missing: give it, or --task to take its own")
            discount = task.discount
        if horizon is None:
            horizon = HORIZON if task is None else max(task.horizon, 1)
        policy, critics = load(self.policy), [load(file) for file in self.critic]
        if self.model == "prior" and task is None:
            raise InputError("--model prior needs a --task whose prior it is")
        if task is not None:
            model = model_option(task, self.model)
        else:
            model = None if self.model is None else named_model(self.model, None)
        data, told = named_data(self.data, task)
        with bars() as progress:
            result = measure_logs(
                data,
                policy,
                model,
                critics or None,
                discount=discount,
                horizon=horizon,
                reach=self.reach,
                every=self.every,
                noise_std=self.noise_std,
                seed=self.seed,
                settings={
                    "task": None if task is None else task.name,
                    "data": self.data,
                    "model_file": self.model,
                    "command": command,
                },
                progress=progress,
            )
        keep({run: partial(result.save, overwrite=self.overwrite)})
        document = of_run(run, page=not self.no_report, more=told)
        return document | {"table": result.table().to_dict("records")}
