"""`gradlab fit TASK`: a learned model of a task, or DDPPO's two, from recorded transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document, named_data
from gradlab.cli.streams import bars, undisturbed
from gradlab.errors import InputError
from gradlab.storage import records
from gradlab.storage.whole_files import Save, keep
from gradlab.user_code import is_user_function
from gradlab.verdicts.recommendation import worded
from gradlab.wording import two

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

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Data": ("data", "rows", "policy", "export"),
        "Loss": (
            "loss", "weight", "neighbours", "directions", "divided", "steps", "two_model",
            "jacobians",
        ),
        "Model": ("type", "network", "members", "elites", "hidden", "spectral"),
        "Optimisation": ("epochs", "seconds", "patience", "seed"),
    }  # fmt: skip

    task: arguments.TaskName
    settings: arguments.Settings = ()
    data: arguments.DataFile = None
    """Recorded transitions: .h5, .npz, .csv (docs/records.md), or a Minari dataset by its ID or
    folder (the extra `minari`). Default: new ones, recorded with the policy or random actions."""
    rows: int = 5000
    """Transitions to record where there is no --data."""
    policy: Annotated[str | None, arg(metavar="FILE")] = None
    """Policy that records, with exploration noise: .safetensors file or file.py:function.
    Default: random actions."""
    export: Annotated[str | None, arg(metavar="minari:ID|FOLDER")] = None
    """Write the transitions as a Minari dataset, too."""
    loss: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """A loss of `gradlab list losses`, such as nll, mse, dd (DDPPO) or sobolev; or your own,
    file.py:function of mean, log variance and target, each [members, rows, outputs]. Default: nll,
    and dd for the gradient model of --two-model."""
    weight: float = 1.0
    """Weight of the derivatives' loss (dd, sobolev). For dd without noise in the task, take less,
    such as 0.1."""
    neighbours: int = 10
    """Nearest points per row (dd, multistep-dd)."""
    directions: int | None = None
    """Neighbours that one step uses, in turn (dd). Default: all; 1 is about five times faster than
    10."""
    divided: bool = False
    """Divide directional errors by the distance (dd)."""
    steps: int = 5
    """Steps of the model's own predictions (multistep, multistep-dd)."""
    two_model: bool = False
    """Two models (DDPPO): one by likelihood, which predicts states, and one by --loss, whose
    Jacobians are used along them."""
    jacobians: bool = False
    """Compare the members' Jacobians with the simulator's after every epoch (`gradlab figure
    fit-errors`)."""
    type: Annotated[str, arg(metavar="gaussian|deterministic|FILE")] = "gaussian"
    """Type of model: mean and variance of the next state, or the mean alone. Or your own torch
    module, file.py:Net: Net(inputs, outputs) maps standardised rows [N, inputs] to the mean [N,
    outputs], or to mean and log variance [N, 2 outputs]."""
    network: Literal["mbpo", "small", "rp-pgm"] = "mbpo"
    """4×200 SiLU units, 2×64, or RP-PGM's ReLU units with normalised layers."""
    members: int | None = None
    """Members of the ensemble. Default: the network's, 7, or 1 for rp-pgm."""
    elites: int | None = None
    """Members to keep, those with the lowest held-out loss (MBPO's code: 5 of 7). Default: all."""
    hidden: Annotated[tuple[int, ...], arg(metavar="WIDTH")] = ()
    """Widths of the hidden layers. Default: the network's."""
    spectral: Literal["all", "all_but_last", "hidden"] | None = None
    """Layers of the model that are held at spectral norm 1. Default: the network's."""
    epochs: int = 200
    """Largest number of epochs."""
    seconds: float | None = None
    """Longest time of each model's fit. Default: no limit."""
    patience: int = 20
    """Epochs without a lower held-out loss after which a member stops. MBPO's 5 would stop a first
    fit of few rows too soon."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, arg(metavar="MODEL.safetensors")] = None
    """Where the model is written. Default: runs/TASK-model.safetensors."""
    overwrite: arguments.Overwrite = False
    json: bool = False
    """Print one JSON document: verdict and paths."""

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
        return replace(
            preset,
            members=members,
            hidden=self.hidden or preset.hidden,
            network=network,
            spectral=self.spectral or preset.spectral,
            epochs=self.epochs,
            seconds=self.seconds,
            patience=self.patience,
            seed=self.seed,
        )

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
        self,
        task: Task,
        data: Trajectories,
        settings: ModelSettings,
        last: Loss,
        models: Mapping[str, Path],
        progress: Progress,
    ) -> dict[str, Fit]:
        from gradlab.data.noise import child
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
        self,
        task: Task,
        data: Trajectories,
        source: str,
        told: Sequence[Document],
        models: Mapping[str, Path],
        fits: Mapping[str, Fit],
    ) -> Document:
        sentences: list[tuple[bool, str]] = []
        for role, fit in fits.items():
            sentences += _fit_sentences(fit, task, role if self.two_model else None)
        if self.data is None:
            who = "random actions" if self.policy is None else "the policy and exploration noise"
            text = f"No --data: recorded {len(data)} transitions with {who}, kept in {source}."
            sentences.append((False, text))
        if self.export is not None:
            text = f"The transitions are also in the Minari dataset {self.export}."
            sentences.append((False, text))
        plain = fits["prediction"]
        if plain.loss.name in ("nll", "mse"):
            sentences += _nearness_sentences(data, plain, self.neighbours, self.divided, self.seed)
        own = f"{self.type}=" if is_user_function(self.type) else ""
        both = f"--model {own}{models['prediction']}"
        if self.two_model:
            both += f" --gradient-model {own}{models['gradient']}"
        sentences.append(
            (False, f"Compare its Jacobians: gradlab jacobians {self.task} {both} --data {source}.")
        )
        sentences.append((False, f"Measure with it: gradlab measure {self.task} {both}."))
        document: Document = {
            "findings": [*told, *(worded("fit", flag, text).document for flag, text in sentences)],
            "run": str(models["prediction"].with_suffix(".h5")),
            "model": str(models["prediction"]),
            "data": source,
        }
        if self.two_model:
            document["gradient_model"] = str(models["gradient"])
            document["gradient_run"] = str(models["gradient"].with_suffix(".h5"))
        return document


def _recorded(model: Path) -> Path:
    return model.with_suffix(".data.h5")


_Sentences = list[tuple[bool, str]]


def _fit_sentences(fit: Fit, task: Task, role: str | None = None) -> _Sentences:
    """Result of the fit, the held-out errors of each coordinate first.

    Args:
        role: of the model among several.
    """
    who = "" if role is None else f"{role.capitalize()} model: "
    sentences = [_explained(fit, task, who)]
    if fit.dropped:
        gone = ", ".join(f"{member} in epoch {epoch}" for member, epoch in fit.dropped.items())
        sentences.append((True, f"{who}Dropped, since they diverged: member {gone}."))
    if fit.constant:
        listed = ", ".join(fit.constant)
        sentences.append(
            (True, f"{who}Constant in these data, so the model knows no effect of it: {listed}.")
        )
    if fit.repeated:
        text = f"{fit.repeated} rows repeat an earlier (s, a); none is its own neighbour."
        sentences.append((True, who + text))
    if fit.settings.spectral is not None:
        text = f"Spectral norms, largest of the members: {listed_norms(fit.norms)}."
        sentences.append((True, who + text))
    return sentences


def _explained(fit: Fit, task: Task, who: str) -> tuple[bool, str]:
    """Decided where every output differs from the mean of the data beyond its interval."""
    change = "change of " if fit.settings.residual else "next "
    names = [change + name for name in task.state_names] or [
        f"{change}s{k}" for k in range(task.simulator.state_dim)
    ]
    names += ["reward"] * fit.settings.reward
    explained, error = fit.explained.mean(dim=0), 1.96 * fit.explained_error
    parts = [
        f"{name} {100 * value:.4g} ± {two(100 * half)}%"
        for name, value, half in zip(names, explained.tolist(), error.tolist(), strict=True)
    ]
    first, last = min(fit.best_epoch), max(fit.best_epoch)
    epochs = f"best after {last if first == last else f'{first} to {last}'} epochs"
    if last == len(fit.curves["seconds"]):
        more = "--epochs" if last == fit.settings.epochs else "--seconds"
        epochs += f", the last: more {more} may be better"
    return bool((explained.abs() > error).all()), (
        f"{who}{len(fit.members)} members on {fit.training_rows} rows by {fit.loss.name}, "
        f"{epochs}; held-out variance ({fit.held_out_rows} rows) explained: {', '.join(parts)}."
    )


def listed_norms(norms: Sequence[LayerNorm]) -> str:
    """Norms of the layers in order; in a normalised network, free layers are marked."""
    mixed = any(layer.normalised for layer in norms)
    return ", ".join(
        f"layer {k} {max(layer.values):.3g}{' (free)' if mixed and not layer.normalised else ''}"
        for k, layer in enumerate(norms, start=1)
    )


def _nearness_sentences(
    data: Trajectories, fit: Fit, neighbours: int, divided: bool, seed: int
) -> _Sentences:
    """Whether directional derivatives would have helped a model that was fitted without them."""
    from gradlab.fitting.directional_loss_check import by_group

    try:
        checks = by_group(data, fit, neighbours, divided, seed)
    except InputError:  # too few points for an answer
        return []
    sentences: _Sentences = []
    for group, check in checks.items():
        what = "the states' derivatives" if group == "state" else "the reward's derivatives"
        decided = check.verdict != "undecided"
        whether = check.verdict if decided else "are not shown to help or to harm"
        gain, low, high = map(two, check.gain)
        text = (
            f"Directional derivatives (--loss dd) {whether} with {what}: along {neighbours} "
            f"neighbours, {two(check.distance)} deviations away in the median, the model misses by "
            f"{two(check.model_error)} and differences of the data by {two(check.target_error)} "
            f"(squared, standardised; gain {gain}, 95% [{low}, {high}], {check.rows} held-out "
            f"rows). Whether the policy gradient gains: `gradlab remedies`."
        )
        sentences.append((decided, text))
    return sentences
