"""`gradlab train ALGORITHM TASK`: policies of several seeds, trained side by side."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.streams import Document, bars, standard_error, undisturbed
from gradlab.errors import InputError
from gradlab.options import Within, check, named
from gradlab.options import hints as hints_of
from gradlab.training.settings import Asynchronous, Planning, Settings

if TYPE_CHECKING:
    from gradlab.fitting.losses import Loss
    from gradlab.training.algorithm import Algorithm, LearnedModel

ALGORITHM = (
    "batch", "hidden", "policy_rate", "value_rate", "clip", "delay", "reuse", "updates",
    "exploration", "replay", "tau", "log_std", "fit_every", "rollouts", "target_steps",
    "temperature", "beta", "rollout_length",
)  # fmt: skip


_ROW = "(default: the algorithm's)"
_Whole = Annotated[int | None, named("INT", default=_ROW)]
_Number = Annotated[float | None, named("FLOAT", default=_ROW)]
_Widths = Annotated[tuple[int, ...], named("WIDTH", default=_ROW)]
_NO_OPTIONS = {"at_end", "ramp", "keep", "planning", "asynchronous", "given"}
_SETTINGS = tuple(each.name for each in fields(Settings) if each.name not in _NO_OPTIONS)


def _options(kind: type) -> Iterator[tuple[str, Any, Any]]:
    """Fields of a configuration as options that may be left out, with the words beneath them."""
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    words = {
        ast.unparse(one.target): " ".join(ast.literal_eval(other.value).split())
        for one, other in pairwise(node.body)
        if isinstance(one, ast.AnnAssign) and isinstance(other, ast.Expr)
    }
    hints = hints_of(kind)
    for each in fields(kind):
        if each.name in _NO_OPTIONS:
            continue
        text, hint = words[each.name], hints[each.name]
        if hint is bool:
            yield each.name, Annotated[bool, arg(help=text)], field(default=False)
            continue
        if " Default: " not in text:
            text += f" Default: {_word(each.default)}."
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        kinds = str(getattr(plain, "__name__", "int")).upper()
        if get_origin(hint) is Literal:
            kinds = "|".join(get_args(hint))
        yield each.name, Annotated[hint | None, named(kinds, text)], field(default=None)


def _word(value: Any) -> str:
    """A number or several as one would type them."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        one = len(value) == 2 and isinstance(value[0], float)
        return " to ".join(map(_word, value)) if one else " ".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# Options that are numbers of a learned model's loss, by their names there.
_OF_LOSS = {
    "loss_weight": "weight", "neighbours": "neighbours", "loss_steps": "steps",
    "directions": "directions", "as_printed": "as_printed",
}  # fmt: skip
_OF_MODEL = (
    "loss", *_OF_LOSS, "two_model", "members", "model_type", "model_hidden", "fit_every",
    "fit_steps",
)  # fmt: skip
_Configured: Any = make_dataclass(
    "_Configured", [*_options(Settings), *_options(Asynchronous)], frozen=True, kw_only=True
)


def _loss(name: str) -> Loss:
    from gradlab.fitting.derivative_losses import named_loss
    from gradlab.training.algorithm import LOSSES

    return LOSSES.get(name) or named_loss(name)


@dataclass(frozen=True)
class Train(_Configured):  # type: ignore[misc]
    """What return does an algorithm reach on a task, over several seeds?

    All seeds side by side. Ctrl-C saves the state: the same command with --resume goes on.

        gradlab train mpg-v2 path_tracking --seeds 5
        gradlab train td3 Hopper-v5 --iterations 50000
    """

    algorithm: Annotated[
        Positional[str], arg(metavar="ALGORITHM", help="A row of `gradlab list algorithms`.")
    ]
    task: arguments.TaskName
    settings: arguments.Settings = ()
    preset: Annotated[Literal["paper"] | None, named("paper")] = None
    """What the algorithm's paper prints, in every option that is left out."""
    horizons: Annotated[tuple[int, ...], named("H")] = ()
    """Horizons of the mixture."""
    beta: arguments.Number = None
    """Share of replayed states."""
    weights: Annotated[
        Literal["rule", "measured"] | tuple[float, ...], arg(metavar="rule|measured|W ...")
    ] = "rule"
    """Weights of the mixture: the algorithm's, measured, or a number each."""
    horizon: Literal["rule", "measured"] = "rule"
    """The rule's mixture of horizons, or the one measured to be best."""
    by: Literal["mse", "gain"] = "mse"
    """Criterion of measured weights: error, or gain at visited states."""
    batch: _Whole = None
    """Transitions of a batch."""
    hidden: _Widths = ()
    """Widths of both networks."""
    policy_rate: _Number = None
    """The policy's learning rate."""
    value_rate: _Number = None
    """Learning rate of the critic; 0 keeps --critic."""
    delay: _Whole = None
    """Critic updates per policy's."""
    reuse: _Whole = None
    """Updates on one batch."""
    updates: _Whole = None
    """Critic updates per transition."""
    exploration: _Number = None
    """Action noise, per limit."""
    log_std: Annotated[tuple[float, ...], named("LOW HIGH")] = ()
    """Bounds of a Gaussian policy's log deviation. Default: the algorithm's."""
    replay: _Whole = None
    """Transitions that replay holds."""
    tau: _Number = None
    """Rate of target networks."""
    target_steps: Annotated[_Whole, Within(1)] = None
    """Steps of the target."""
    clip: _Number = None
    """A gradient's largest norm."""
    model: Annotated[str | None, named("prior|learned|FILE")] = None
    """Task's model, one learned from replay, or yours. Default: the algorithm's."""
    loss: Annotated[str | None, named("NAME|FILE")] = None
    """As --loss of fit."""
    loss_weight: arguments.Number = None
    """Of dd. Default: 1."""
    neighbours: arguments.Whole = None
    """Of dd. Default: 10."""
    directions: Annotated[int | Literal["all"] | None, named("INT|all")] = None
    """Per step. Default: 1."""
    as_printed: bool = False
    """--loss dd without the predicted variance, as DDPPO's eq. 10."""
    loss_steps: arguments.Whole = None
    """Of multistep. Default: 5."""
    two_model: bool = False
    """States by likelihood, Jacobians of a second model by --loss (dd)."""
    spectral: Annotated[str | None, named("model,policy,critic")] = None
    """Networks whose layers are held at spectral norm 1."""
    members: _Whole = None
    """A learned model's members."""
    model_type: Annotated[str | None, named("gaussian|deterministic|FILE")] = None
    """As --type of fit."""
    model_hidden: _Widths = ()
    """A learned model's widths."""
    fit_every: _Whole = None
    """Iterations between two fits."""
    fit_steps: arguments.Whole = None
    """Adam's steps. Default: 1000."""
    rollout_length: Annotated[tuple[int, ...], named("K|FIRST LAST BEGIN END")] = ()
    """Model steps into a second replay, growing between two iterations."""
    rollouts: arguments.Whole = None
    """A seed's. Default: 5000."""
    temperature: Annotated[float | Literal["auto"] | None, named("ALPHA|auto")] = None
    """Of the entropy, in scaled rewards per nat. Default: the algorithm's."""
    plan_horizon: arguments.Whole = None
    """Model steps of a second evaluation that plans. Default: no plan."""
    ray: Annotated[str | None, named("ADDRESS|local")] = None
    """A cluster of Ray for the processes, by its HOST:PORT. Default: local."""
    policy: arguments.File = None
    """Policy to begin with."""
    critic: arguments.File = None
    """Critic to begin with."""
    output: Annotated[Path | None, named("RUN.h5")] = None
    """Default: runs/ALGORITHM-TASK.h5."""
    resume: arguments.Resume = False
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: arguments.Json = False

    def __post_init__(self) -> None:
        check(self)

    @staticmethod
    def again(run: Path) -> list[str]:
        """The words that go on from the saved state, where there is one."""
        from gradlab.training.checkpoints import resume_file

        return ["--resume"] if resume_file(run).is_file() else ["--overwrite"]

    def run(self, command: str) -> Document:
        """Train and write RUN.h5, its checkpoints and RUN.html."""
        with undisturbed():
            from gradlab.training.loop import train

        task = arguments.named_task(self.task, self.settings)
        if self.preset is not None:
            filled, lines = self.printed(task.name)
            standard_error(f"gradlab: paper: {', '.join(lines)}")
            return filled.run(command)
        if self.model not in (None, "prior", "learned"):
            task = arguments.with_model(task, self.model)
        row = self._row()
        run = self.output or Path("runs") / f"{row.name}-{task.name}.h5"
        # --resume and --overwrite decide about an earlier run: it is not refused here.
        arguments.check_outputs(run, (), overwrite=True, page=not self.no_report)
        given: dict[str, Any] = {name: getattr(self, name) for name in _SETTINGS}
        if self.plan_horizon is not None:
            given["planning"] = Planning(self.plan_horizon)
        given["asynchronous"] = self._asynchronous()
        changes = {name: value for name, value in given.items() if value is not None}
        networks = arguments.networks(policy=self.policy, critic=self.critic)
        if self.overwrite:
            from gradlab.training.checkpoints import folder

            removed = folder(run, 0).parent.resolve()
            for kind, file in (("policy", self.policy), ("critic", self.critic)):
                if file is not None and removed in Path(file).resolve().parents:
                    text = f"{kind} is {file}, which --overwrite removes with the run at {run}"
                    raise InputError(f"{text}: name another --output")
        weights = self.weights if isinstance(self.weights, str) else "rule"
        with bars() as progress:
            train(
                row, task, run, resume=self.resume, overwrite=self.overwrite, weights=weights,
                horizon=self.horizon, by=self.by, command=command, progress=progress, ray=self.ray,
                policy=networks.get("policy"), critic=networks.get("critic"), **changes,
            )  # fmt: skip
        return of_run(run, page=not self.no_report)

    def printed(self, task: str) -> tuple[Train, list[str]]:
        """With what the paper prints in every option that was left out, and these options."""
        from gradlab.training.algorithms import printed

        loss = None if self.loss is None else _loss(self.loss)
        left_out = {field.name: field.default for field in fields(self)}
        changes, lines = {}, []
        for each in printed(self.algorithm, task, self.horizons):
            if getattr(self, each.option) != left_out[each.option]:
                continue
            if loss and each.option in _OF_LOSS and not hasattr(loss, _OF_LOSS[each.option]):
                continue
            changes[each.option] = each.value
            value = "" if each.value is True else f" {_word(each.value)}"
            lines.append(f"--{each.option.replace('_', '-')}{value} ({each.source})")
        return replace(self, preset=None, **changes), lines

    def _asynchronous(self) -> Asynchronous | None:
        """The processes of the run, where it has several."""
        counts = {name: getattr(self, name) for name in ("learners", "actors", "queue")}
        counts = {name: count for name, count in counts.items() if count is not None}
        if counts.keys() - {"queue"}:
            return Asynchronous(**counts, deterministic=self.deterministic)
        for name in ("queue", "deterministic", "ray"):
            if self._given(name):
                raise InputError(
                    f"--{name} is for a run in several processes: add --learners or --actors, "
                    f"such as --learners 4 --actors 2"
                )
        return None

    def _row(self) -> Algorithm:
        """The algorithm with the changes of the command line."""
        from gradlab.training import algorithms as rows
        from gradlab.training.parts.duals import Automatic

        row = self._remedied(rows.find(self.algorithm))
        if not isinstance(self.weights, str):
            row = rows.with_weights(row, self.weights, self.horizons)
        elif self.horizons:
            row = rows.with_horizons(row, self.horizons)
        changes = {name: getattr(self, name) for name in ALGORITHM if self._given(name)}
        if self.temperature == "auto":
            changes["temperature"] = Automatic()
        return rows.with_changes(row, **changes)

    def _given(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False and value != ()

    def _remedied(self, row: Algorithm) -> Algorithm:
        """The algorithm with a learned model and spectral norms, where they are chosen."""
        held = [] if self.spectral is None else [name.strip() for name in self.spectral.split(",")]
        unknown = sorted(set(held) - {"model", "policy", "critic"})
        if unknown:
            raise InputError(f"--spectral names {unknown[0]!r}, expected model, policy or critic")
        default = None if row.model is None else "learned"
        learned = (self.model or default) == "learned"
        if not learned:
            given = [f"--{each.replace('_', '-')}" for each in _OF_MODEL if self._given(each)]
            for name in given + ["--spectral model"] * ("model" in held):
                raise InputError(f"{name} is for a learned model: add --model learned")
        return replace(
            row,
            model=self._learned(row.model, "model" in held) if learned else None,
            policy_spectral="all" if "policy" in held else row.policy_spectral,
            critic_spectral="all" if "critic" in held else row.critic_spectral,
        )

    def _learned(self, own: LearnedModel | None, spectral: bool) -> LearnedModel:
        """The row's own learned model, or the default one, with what was changed."""
        from gradlab.networks.gaussian_ensemble import named_network
        from gradlab.training.algorithm import LearnedModel

        default = LearnedModel() if own is None else own
        named = self.loss or ("dd" if self.two_model else None)
        loss, numbers = default.loss if named is None else _loss(named), {}
        for option, name in _OF_LOSS.items():
            if self._given(option):
                value = getattr(self, option)
                if not hasattr(loss, name):
                    other = "multistep" if name == "steps" else "dd"
                    raise InputError(
                        f"{option} is {value}, but the loss is {loss.name}: take {other}"
                    )
                numbers[name] = None if value == "all" else value
        return replace(
            default,
            loss=replace(loss, **numbers),  # type: ignore[type-var]
            two_models=self.two_model or default.two_models,
            spectral="all_but_last" if spectral else default.spectral,
            members=default.members if self.members is None else self.members,
            elites=default.elites if self.members in (None, default.members) else None,
            hidden=self.model_hidden or default.hidden,
            network=default.network if self.model_type is None else named_network(self.model_type),
            steps=default.steps if self.fit_steps is None else self.fit_steps,
        )
