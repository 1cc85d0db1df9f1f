"""`gradlab fit TASK`: a learned model of a task, or DDPPO's two, from recorded transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from gradlab.cli import arguments
from gradlab.cli.arguments import named_data
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.options import named
from gradlab.storage import records
from gradlab.storage.whole_files import Save, keep
from gradlab.user_code import is_user_function

if TYPE_CHECKING:
    from gradlab.data.trajectories import Trajectories
    from gradlab.fitting.fitted import Fit
    from gradlab.fitting.losses import Loss
    from gradlab.fitting.model_settings import ModelSettings
    from gradlab.networks.spectral import LayerNorm
    from gradlab.progress import Progress
    from gradlab.tasks import Task


@dataclass(frozen=True)
class FitCommand:
    """How well does a learned model explain a task's transitions?

    Fits a probabilistic ensemble, or DDPPO's two models, and tests it on held-out trajectories.

        gradlab fit Hopper-v5 --rows 20000
        gradlab fit path_tracking --data record.h5 --loss dd
    """

    task: arguments.TaskName
    settings: arguments.Settings = ()
    data: arguments.DataFile = None
    """Record. Default: a new one."""
    rows: int = 5000
    """Transitions without --data."""
    policy: arguments.File = None
    """Default: random actions."""
    export: Annotated[str | None, named("minari:ID|FOLDER")] = None
    """A Minari dataset, too."""
    loss: Annotated[str | None, named("NAME|FILE")] = None
    """A loss of `gradlab list losses`, or file.py:function. Default: nll."""
    weight: float = 1.0
    """Of dd and sobolev."""
    neighbours: int = 10
    """Of dd, per row."""
    directions: arguments.Whole = None
    """Per step. Default: all."""
    divided: bool = False
    """Errors over distances (dd)."""
    steps: int = 5
    """Of multistep losses."""
    two_model: bool = False
    """DDPPO's two: states by likelihood, Jacobians by --loss (default dd)."""
    jacobians: bool = False
    """Errors of Jacobians by epoch."""
    type: Annotated[str, arg(metavar="gaussian|deterministic|FILE")] = "gaussian"
    """Mean and variance, the mean alone, or your module, file.py:Net."""
    network: Literal["mbpo", "small", "rp-pgm"] = "mbpo"
    """4×200 SiLU units, 2×64, or ReLU units with normalised layers."""
    members: arguments.Whole = None
    """Default: the network's."""
    elites: arguments.Whole = None
    """Best members. Default: all."""
    hidden: arguments.Widths = ()
    """Default: the network's."""
    spectral: Annotated[
        Literal["all", "all_but_last", "hidden"] | None, named("all|all_but_last|hidden")
    ] = None
    """At norm 1. Default: the network's."""
    epochs: int = 200
    """Largest number of epochs."""
    seconds: arguments.Number = None
    """Default: no limit."""
    patience: int = 20
    """Epochs without improvement."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, named("MODEL.safetensors")] = None
    """Default: runs/TASK-model.safetensors."""
    overwrite: arguments.Overwrite = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Fit, and write MODEL.safetensors, its curves, and the data that was recorded."""
        with undisturbed():
            from gradlab.fitting import fitted  # imported here, where signals wait
            from gradlab.fitting.derivative_losses import named_loss
            from gradlab.networks import checkpoint

        task = arguments.named_task(self.task, self.settings)
        models = self._places(task)
        settings = self._settings()
        loss = named_loss(
            self.loss or ("dd" if self.two_model else "nll"), task.simulator,
            neighbours=self.neighbours, weight=self.weight, divided=self.divided,
            directions=self.directions, steps=self.steps,
        )  # fmt: skip
        data, source, told = self._data(task, models["prediction"])
        if self.export is not None:
            from gradlab.data import record_files

            record_files.write_minari(data, self.export)
        with bars() as progress:
            try:
                fits = self._fitted(task, data, settings, loss, models, progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"no model was written; its transitions are kept: --data {source}"
                ) from None
        about = {"task": task.name, "command": command, "data": source}
        parts: dict[Path, Save] = {}
        for role, fit in fits.items():
            best = len(fit.members) if self.elites is None else min(self.elites, len(fit.members))
            curves = partial(fitted.save, fit, about=about, overwrite=True)
            parts[models[role]] = partial(checkpoint.save, fit.elite_ensemble(best))
            parts[models[role].with_suffix(".h5")] = curves
        keep(parts)
        return self._document(task, data, source, told, models, fits)

    def _places(self, task: Task) -> Mapping[str, Path]:
        """The files of the models, by role, checked before the fit."""
        model = self.output or Path("runs") / f"{task.name}-model.safetensors"
        if model.suffix != ".safetensors":
            raise InputError(f"--output is {model}: name a file that ends in .safetensors")
        models = {"prediction": model}
        if self.two_model:
            models["gradient"] = model.with_suffix(".gradient.safetensors")
        places = [file for each in models.values() for file in (each, each.with_suffix(".h5"))]
        if self.data is None:
            places.append(_recorded(model))
        for place in places:
            records.check_output(place, self.overwrite)
        if self.export is not None:
            from gradlab.data import record_files

            record_files.check_minari_output(self.export)
        return models

    def _settings(self) -> ModelSettings:
        from gradlab.fitting.model_settings import PRESETS
        from gradlab.networks.gaussian_ensemble import OwnNetwork, named_network

        preset, network = PRESETS[self.network], named_network(self.type)
        if isinstance(network, OwnNetwork) and self.hidden:
            raise InputError(f"--hidden is for networks of gradlab's: --type is {self.type}")
        members = preset.members if self.members is None else self.members
        if self.elites is not None and not 1 <= self.elites <= members:
            raise InputError(f"--elites is {self.elites}, expected 1 to the {members} members")
        names = ("epochs", "seconds", "patience", "seed")
        return replace(
            preset, members=members, hidden=self.hidden or preset.hidden, network=network,
            spectral=self.spectral or preset.spectral, **{x: getattr(self, x) for x in names},
        )  # fmt: skip

    def _data(self, task: Task, model: Path) -> tuple[Trajectories, str, list[Document]]:
        """The record, its name and what the simulator says of it; recorded transitions are saved
        before the fit begins."""
        from gradlab.fitting.collection import collect, exploring

        if self.data is not None:
            data, told = named_data(self.data, task)
            return data, self.data, told
        given = arguments.networks(policy=self.policy)
        policy = exploring(task, given["policy"].double()) if given else None
        data = collect(task, self.rows, policy, seed=self.seed)
        file = data.save(_recorded(model), overwrite=True)
        return data, str(file), []

    def _fitted(
        self, task: Task, data: Trajectories, settings: ModelSettings, last: Loss,
        models: Mapping[str, Path], progress: Progress,
    ) -> dict[str, Fit]:  # fmt: skip
        from gradlab.data.trajectories import child
        from gradlab.fitting.fitted import fit_model
        from gradlab.fitting.losses import OneStepError

        losses = {role: OneStepError("nll") for role in models} | {list(models)[-1]: last}
        fits: dict[str, Fit] = {}
        simulator = task.simulator if self.jacobians else None
        for role, loss in losses.items():
            own = settings
            if self.two_model:  # of seeds of their own, as DDPPO's two
                own = replace(settings, seed=child(settings.seed, role) % 2**31)
            fits[role] = fit_model(data, own, loss, simulator=simulator, progress=progress)
        return fits

    def _document(
        self, task: Task, data: Trajectories, source: str, told: Sequence[Document],
        models: Mapping[str, Path], fits: Mapping[str, Fit],
    ) -> Document:  # fmt: skip
        found: list[Finding] = []
        for role, fit in fits.items():
            found += _of_fit(fit, task, f"{role} model" if self.two_model else "model")
        if self.data is None:
            who = "random actions" if self.policy is None else "the policy and exploration noise"
            found.append(Finding("recorded", "pass", who, n=len(data), at=source))
        own = f"{self.type}=" if is_user_function(self.type) else ""
        both = f"--model {own}{models['prediction']}"
        document: Document = {
            "findings": [*told, *(each.document for each in found)],
            "run": str(models["prediction"].with_suffix(".h5")),
            "model": str(models["prediction"]),
            "data": source,
        }
        if self.two_model:
            both += f" --gradient-model {own}{models['gradient']}"
            document["gradient_model"] = str(models["gradient"])
            document["gradient_run"] = str(models["gradient"].with_suffix(".h5"))
        return document | {"next": f"gradlab measure {self.task} {both}"}


def _recorded(model: Path) -> Path:
    return model.with_suffix(".data.h5")


def _of_fit(fit: Fit, task: Task, who: str) -> list[Finding]:
    """Result of the fit, the held-out error of each coordinate first; decided where it differs
    from that of the data's mean beyond its interval.

    Args:
        who: which of the models.
    """
    change = "change of " if fit.settings.residual else "next "
    names = [change + name for name in task.state_names] or [
        f"{change}s{k}" for k in range(task.simulator.state_dim)
    ]
    names += ["reward"] * fit.settings.reward
    shares, halves = fit.explained.mean(dim=0), 1.96 * fit.explained_error
    found = [
        Finding(
            "explained", "pass" if abs(share) > half else "undecided", f"{who}, {name}",
            share, share - half, share + half, n=fit.held_out_rows,
        )
        for name, share, half in zip(names, shares.tolist(), halves.tolist(), strict=True)
    ]  # fmt: skip
    first, last = min(fit.best_epoch), max(fit.best_epoch)
    epochs = str(last) if first == last else f"{first} to {last}"
    by = f"{len(fit.members)} members of the {who} by {fit.loss.name}"
    found.append(Finding("fitted", "pass", by, n=fit.training_rows, at=epochs))
    if last == len(fit.curves["seconds"]):
        more = "--epochs" if last == fit.settings.epochs else "--seconds"
        found.append(Finding("unfinished", "undecided", who, at=more))
    if fit.dropped:
        gone = ", ".join(f"{member} in epoch {epoch}" for member, epoch in fit.dropped.items())
        found.append(Finding("dropped", "fail", who, n=len(fit.dropped), at=gone))
    if fit.constant:
        found.append(Finding("constant", "fail", who, at=", ".join(fit.constant)))
    if fit.repeated:
        found.append(Finding("repeated", "pass", who, n=fit.repeated))
    if fit.settings.spectral is not None:
        found.append(norms_found(who, fit.norms))
    return found


def norms_found(who: str, norms: Sequence[LayerNorm]) -> Finding:
    """Norms of the layers in order; in a normalised network, free layers are marked."""
    mixed = any(layer.normalised for layer in norms)
    listed = ", ".join(
        f"layer {k} {max(layer.values):.3g}{' (free)' if mixed and not layer.normalised else ''}"
        for k, layer in enumerate(norms, start=1)
    )
    return Finding("spectral_norms", "pass", who, at=listed)
