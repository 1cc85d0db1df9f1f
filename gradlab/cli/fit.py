"""`gradlab fit TASK`: a learned model of a task, from recorded transitions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from gradlab import records
from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.errors import InputError
from gradlab.progress import bars

if TYPE_CHECKING:
    from gradlab.data.trajectories import Trajectories
    from gradlab.fitting.fitted import Fit as Fitted
    from gradlab.fitting.losses import Loss
    from gradlab.fitting.model_settings import ModelSettings
    from gradlab.tasks import Task


@dataclass(frozen=True)
class Fit:
    """Fit a probabilistic ensemble to a task's transitions.

    Ctrl-C and kills cost at most a few seconds: the same command with --resume goes on.
    """

    task: arguments.TaskName
    settings: arguments.Settings = ()
    data: Annotated[Path | None, arg(metavar="FILE.h5")] = None
    """Recorded transitions. Default: record some, with the policy or random actions."""
    rows: int = 5000
    """Transitions to record where there is no --data."""
    policy: Annotated[str | None, arg(metavar="FILE")] = None
    """Policy that records, with exploration noise: .safetensors file or file.py:function. Default:
    random actions."""
    loss: Literal["nll", "mse", "dd", "multistep", "sobolev"] = "nll"
    """Likelihood; squared error; directional derivatives to the nearest points, beside the
    likelihood (DDPPO); squared error over several steps (RP-PGM); Jacobians of the simulator."""
    weight: float = 1.0
    """Of the derivatives' loss (dd, sobolev)."""
    neighbours: int = 10
    """Nearest points per row (dd)."""
    divided: bool = False
    """Divide directional errors by the distance (dd)."""
    steps: int = 5
    """Steps of the model's own predictions (multistep)."""
    network: Literal["mbpo", "small", "rp-pgm"] = "mbpo"
    """4×200 SiLU units, 2×64, or RP-PGM's ReLU units with normalised layers."""
    members: int | None = None
    """Default: the network's, 7, or 1 for rp-pgm."""
    hidden: Annotated[tuple[int, ...], arg(metavar="WIDTH")] = ()
    """Widths of the hidden layers. Default: the network's."""
    spectral: Literal["all", "all_but_last", "hidden"] | None = None
    """Layers of the model that are held at spectral norm 1. Default: the network's."""
    epochs: int = 200
    """At most."""
    seconds: float | None = None
    """At most, where given."""
    patience: int = 5
    """Epochs without a lower held-out loss after which a member stops."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, arg(metavar="MODEL.safetensors")] = None
    """Where the model is written. Default: runs/TASK-model.safetensors."""
    resume: bool = False
    """Go on with a fit that was stopped or killed; repeat its other arguments."""
    overwrite: arguments.Overwrite = False
    json: bool = False
    """Print one JSON document: verdict and paths."""

    def run(self, command: str) -> Document:
        """Fit, and write MODEL.safetensors, its curves, and the data that was recorded."""
        with arguments.undisturbed():
            from gradlab.fitting import fit_record
            from gradlab.fitting.models import fit_model
            from gradlab.networks import checkpoint

        task = arguments.named_task(self.task, self.settings)
        model = self._place(task)
        settings, loss = self._settings(), self._loss(task)
        data, file = self._data(task, model)
        saved = model.with_suffix(".resume.safetensors")
        if not self.resume:
            saved.unlink(missing_ok=True)
        with bars() as progress:
            try:
                fit = fit_model(
                    data, settings, loss, saved=saved, resume=self.resume, progress=progress
                )
            except KeyboardInterrupt:
                kept = "go on with --resume" if saved.is_file() else "nothing was fitted yet"
                raise KeyboardInterrupt(kept) from None
        about = {"task": task.name, "command": command, "data": str(file)}
        checkpoint.save(fit.ensemble, model)
        curves = model.with_suffix(".h5")
        fit_record.save(fit, curves, about, overwrite=True)
        saved.unlink(missing_ok=True)
        told = [*self._told(file), *sentences(fit, task), *self._nearness(data, fit)]
        told.append(f"Judge it: gradlab jacobians {self.task} --model {model} --data {file}.")
        verdict = [{"text": text, "decided": False} for text in told]
        return {"verdict": verdict, "run": str(curves), "model": str(model), "data": str(file)}

    def _place(self, task: Task) -> Path:
        model = self.output or Path("runs") / f"{task.name}-model.safetensors"
        if model.suffix != ".safetensors":
            raise InputError(f"--output is {model}: name a file that ends in .safetensors")
        again = self.overwrite or self.resume
        places = [model, model.with_suffix(".h5")]
        if self.data is None:
            places.append(_recorded(model))
        for place in places:
            records.check_output(place, again)
        return model

    def _settings(self) -> ModelSettings:
        from gradlab.fitting.model_settings import PRESETS

        preset = PRESETS[self.network]
        return replace(
            preset,
            members=preset.members if self.members is None else self.members,
            hidden=self.hidden or preset.hidden,
            spectral=self.spectral or preset.spectral,
            epochs=self.epochs,
            seconds=self.seconds,
            patience=self.patience,
            seed=self.seed,
        )

    def _loss(self, task: Task) -> Loss:
        from gradlab.fitting.derivative_losses import DirectionalDerivative, Sobolev
        from gradlab.fitting.losses import MultiStep, OneStep

        if self.loss == "dd":
            return DirectionalDerivative(self.neighbours, self.weight, self.divided)
        if self.loss == "multistep":
            return MultiStep(self.steps)
        if self.loss == "sobolev":
            return Sobolev(task.simulator, self.weight)
        return OneStep(self.loss)

    def _data(self, task: Task, model: Path) -> tuple[Trajectories, Path]:
        """The record and its file; recorded transitions are saved before the fit begins."""
        from gradlab.data import trajectories, transitions
        from gradlab.fitting.collection import collect, exploring

        file = self.data or _recorded(model)
        if self.data is None and not (self.resume and file.is_file()):
            given = arguments.networks(policy=self.policy)
            policy = exploring(task, given["policy"].double()) if given else None
            data = collect(task, self.rows, policy, seed=self.seed)
            data.save(file, overwrite=True)
            return data, file
        data = trajectories.load(file)
        transitions.check_widths(data, task.simulator.state_dim, task.simulator.action_dim)
        return data, file

    def _nearness(self, data: Trajectories, fit: Fitted) -> list[str]:
        """Would directional derivatives have helped a model that was fitted without them?"""
        from gradlab.fitting.nearness import nearness

        if self.loss not in ("nll", "mse"):
            return []
        try:
            found = nearness(data, fit, self.neighbours, self.divided, self.seed)
        except InputError:  # too few points for an answer
            return []
        return [
            f"Directional derivatives (--loss dd) {found.verdict} here: towards {self.neighbours} "
            f"neighbours (median distance {found.distance:.2g} deviations) differences of the "
            f"data miss the derivative by {found.target_error:.2g}, the model by "
            f"{found.model_error:.2g} (squared, standardised)."
        ]

    def _told(self, file: Path) -> list[str]:
        if self.data is not None:
            return []
        who = "random actions" if self.policy is None else "the policy and exploration noise"
        return [f"No --data: recorded {self.rows} transitions with {who}, kept in {file}."]


def sentences(fit: Fitted, task: Task) -> list[str]:
    """What came of the fit, the held-out errors of each coordinate first."""
    change = "change of " if fit.settings.residual else "next "
    names = [change + name for name in task.state_names] or [
        f"{change}s{k}" for k in range(task.simulator.state_dim)
    ]
    names += ["reward"] * fit.settings.reward
    explained = fit.explained.mean(dim=0)
    parts = [f"{name} {100 * value:.4g}%" for name, value in zip(names, explained, strict=True)]
    epochs = f"best after {min(fit.best_epoch)} to {max(fit.best_epoch)} epochs"
    told = [
        f"{len(fit.members)} members on {fit.training_rows} rows, {epochs}; held-out variance "
        f"({fit.held_out_rows} rows) explained: {', '.join(parts)}."
    ]
    if fit.dropped:
        who = ", ".join(f"{member} in epoch {epoch}" for member, epoch in fit.dropped.items())
        told.append(f"Dropped, since they left the finite numbers: member {who}.")
    if fit.constant:
        told.append(f"Constant in these data, so nothing is known of it: {_listed(fit.constant)}.")
    if fit.repeated:
        told.append(f"{fit.repeated} rows repeat an earlier (s, a); none is its own neighbour.")
    if fit.settings.spectral is not None:
        told.append(f"Spectral norms, largest of the members: {_norms(fit)}.")
    return told


def _norms(fit: Fitted) -> str:
    return ", ".join(
        f"layer {k} {max(layer.values):.3g}{'' if layer.normalised else ' (free)'}"
        for k, layer in enumerate(fit.norms, start=1)
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _recorded(model: Path) -> Path:
    return model.with_suffix(".data.h5")
