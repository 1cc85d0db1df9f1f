"""`gradlab train ALGORITHM TASK`: policies of several seeds, trained side by side."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.arguments import Document
from gradlab.cli.streams import bars, standard_error, undisturbed
from gradlab.errors import InputError
from gradlab.training.settings import Asynchronous, Planning, Settings, for_task

if TYPE_CHECKING:
    from gradlab.fitting.losses import Loss
    from gradlab.training.algorithm import Algorithm, LearnedModel

ALGORITHM = (
    "batch", "hidden", "policy_rate", "value_rate", "clip", "delay", "reuse", "updates",
    "exploration", "replay", "tau", "log_std",
)  # fmt: skip


_SETTINGS = (
    "seeds", "first_seed", "iterations", "agents", "interval", "warmup", "episode", "reward_scale",
    "termination", "device", "precision", "evaluate_every", "evaluation_starts",
    "log_every", "checkpoint_every", "gradient_every", "gradient_starts", "gradient_truth",
    "gradient_horizons", "measure_every", "measure_starts",
)  # fmt: skip


def _options(kind: type, names: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """Fields of a configuration as options that may be left out, with the words beneath them."""
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    words = {
        ast.unparse(one.target): " ".join(ast.literal_eval(other.value).split())
        for one, other in pairwise(node.body)
        if isinstance(one, ast.AnnAssign) and isinstance(other, ast.Expr)
    }
    hints = get_type_hints(kind, localns={"GivenNetworks": object})
    for each in fields(kind):
        if each.name not in names:
            continue
        text, hint, flag = words[each.name], hints[each.name], hints[each.name] is bool
        if " Default: " not in text and not flag:
            text += f" Default: {_word(each.default)}."
        explained: Any = Annotated[bool if flag else hint | None, arg(help=text)]
        yield each.name, explained, field(default=False if flag else None)


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
_PROCESSES = ("learners", "actors", "buffers", "queue", "deterministic")
_Configured: Any = make_dataclass(
    "_Configured",
    [*_options(Settings, _SETTINGS), *_options(Asynchronous, _PROCESSES)],
    frozen=True,
    kw_only=True,
)


def _loss(name: str) -> Loss:
    from gradlab.fitting.derivative_losses import named_loss
    from gradlab.training.algorithm import LOSSES

    return LOSSES.get(name) or named_loss(name)


@dataclass(frozen=True)
class Train(_Configured):  # type: ignore[misc]
    """What return does an algorithm reach on a task, over several seeds?

    Trains the policies of all seeds side by side. The run can be read while it is written (`gradlab
    report`). Ctrl-C or SIGTERM saves its state, a kill costs at most the iterations since the last
    saved one: the same command with --resume goes on. `gradlab train td3 --help` has the defaults
    of td3.

        gradlab train mpg-v2 path_tracking --seeds 5
        gradlab train td3 Hopper-v5 --iterations 50000
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Policy gradient": (
            "horizons", "weights", "horizon", "by", "beta", "measure_every",
            "measure_starts", "temperature", "published",
        ),
        "Networks and updates": (
            "batch", "hidden", "policy_rate", "value_rate", "clip", "delay", "reuse", "updates",
            "exploration", "log_std", "replay", "tau", "target_steps", "spectral", "policy",
            "critic",
        ),
        "Learned model": (
            "model", "loss", "loss_weight", "neighbours", "directions", "as_printed", "loss_steps",
            "two_model", "members", "model_type", "model_hidden", "fit_every", "fit_steps",
            "rollout_length", "rollouts",
        ),
        "Environments and evaluation": (
            "iterations", "reward_scale", "termination", "warmup", "episode", "agents", "interval",
            "evaluate_every", "evaluation_starts", "plan_horizon", "log_every", "checkpoint_every",
        ),
        "Measured while it trains": (
            "gradient_every", "gradient_starts", "gradient_truth", "gradient_horizons",
        ),
        "Device and processes": (
            "device", "precision", "learners", "actors", "buffers", "queue",
            "deterministic", "ray",
        ),
    }  # fmt: skip

    algorithm: Annotated[
        Positional[str], arg(metavar="ALGORITHM", help="A row of `gradlab list algorithms`.")
    ]
    task: arguments.TaskName
    settings: arguments.Settings = ()
    preset: Literal["paper"] | None = None
    """Values that the algorithm's paper prints for the task, for every option that is left out (MPG
    table VI, DDPPO table 1, layers of RP-PGM); what differs from the defaults is printed first."""
    horizons: Annotated[tuple[int, ...], arg(metavar="H")] = ()
    """Horizons of the policy gradient's mixture, 0 among them unless --weights has a number for
    each; of maac the critic's, too. Default: the algorithm's."""
    beta: float | None = None
    """Share of replayed states among those from which the policy's gradient is taken; the others
    are the task's starts (RP-PGM). Default: the algorithm's, mostly 1."""
    weights: Annotated[
        Literal["rule", "measured"] | tuple[float, ...], arg(metavar="rule|measured|W ...")
    ] = "rule"
    """Weights of the mixture: the algorithm's rule, measured ones where they are shown to be
    better (see --by), or a number for each horizon, as `gradlab choose --explain` prints
    them for data and model."""
    horizon: Literal["rule", "measured"] = "rule"
    """The rule's mixture of horizons, or the one that is measured to be best (see --by)."""
    by: Literal["mse", "gain"] = "mse"
    """Criterion of measured weights or horizon: the error of the gradient at replayed states, or
    the gain in return of a step along it at visited states."""
    batch: int | None = None
    """Transitions of a batch. Default: the algorithm's, mostly 256."""
    hidden: Annotated[tuple[int, ...], arg(metavar="WIDTH")] = ()
    """Widths of the hidden layers of policy and critic. Default: the algorithm's, mostly 256
    256."""
    policy_rate: float | None = None
    """Adam's learning rate of the policy, from the first to the last update; a good policy that
    is given wants a small one. Default: the algorithm's, mostly 3e-4, falling to a hundredth."""
    value_rate: float | None = None
    """Adam's learning rate of the critic; 0: it stays as --critic gives it. Default: the
    algorithm's, mostly 8e-4, falling to a hundredth."""
    delay: int | None = None
    """Updates of the critic for one of policy and target networks. Default: the algorithm's, mostly
    1."""
    reuse: int | None = None
    """Consecutive updates on one batch and its targets. Default: the algorithm's, mostly 1."""
    updates: int | None = None
    """Updates of the critic for every transition that a seed collects. Default: the algorithm's, or
    what --agents and --interval imply."""
    exploration: float | None = None
    """Standard deviation of the noise on collected actions, in units of their limit. Default: the
    algorithm's, mostly 0.1."""
    log_std: Annotated[tuple[float, ...], arg(metavar="LOW HIGH")] = ()
    """Bounds of the logarithm of a Gaussian policy's standard deviation. Default: the algorithm's,
    mostly -5 2."""
    replay: int | None = None
    """Transitions that replay holds. Default: the algorithm's, mostly 500000."""
    tau: float | None = None
    """Share by which target networks follow at every update of the policy. Default: the
    algorithm's, mostly 0.005."""
    target_steps: int | None = None
    """Steps n of an n-step target of the critic. Default: the algorithm's, mostly 25."""
    clip: float | None = None
    """Largest norm of a gradient, for policy and critic. Default: the algorithm's, mostly none."""
    model: Annotated[str | None, arg(metavar="prior|learned|FILE")] = None
    """The task's model, one learned from replay during training, or one of yours, as --model of
    `gradlab measure`. Default: the algorithm's, mostly prior."""
    loss: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """Loss of a learned model, as --loss of `gradlab fit`. Default: nll, and dd for the second of
    two models."""
    loss_weight: float | None = None
    """Weight w of the directional derivatives in --loss dd. Default: 1."""
    neighbours: int | None = None
    """Nearest points n of each transition in --loss dd. Default: 10."""
    directions: int | Literal["all"] | None = None
    """Neighbours that one step uses, in turn. Default: 1, which costs a fraction of all."""
    as_printed: bool = False
    """Squares of --loss dd without the predicted variance, as DDPPO's eq. 10 has them."""
    loss_steps: int | None = None
    """Steps k that --loss multistep predicts. Default: 5."""
    two_model: bool = False
    """States from a model fitted by likelihood, Jacobians from a second one fitted by --loss."""
    spectral: str | None = None
    """Networks whose layers are held at spectral norm 1, such as "model,policy": all but the last
    of the model, all of the policy, all of the critic (RP-PGM)."""
    members: int | None = None
    """Members of a learned model, per seed; rollouts use all. Default: the algorithm's, mostly
    5."""
    model_type: Annotated[str | None, arg(metavar="gaussian|deterministic|FILE")] = None
    """Type of a learned model, as --type of `gradlab fit`. Default: the algorithm's, mostly
    gaussian."""
    model_hidden: Annotated[tuple[int, ...], arg(metavar="WIDTH")] = ()
    """Widths of a learned model's hidden layers, such as 200 200 200 200 (MBPO). Default: the
    algorithm's, mostly 64 64."""
    fit_every: int | None = None
    """Iterations between two fits of a learned model, and between two fillings of a second replay
    by its rollouts. Default: the algorithm's, 250 or 2500."""
    fit_steps: int | None = None
    """Steps of Adam in a fit. Default: 1000."""
    rollout_length: Annotated[tuple[int, ...], arg(metavar="K|FIRST LAST BEGIN END")] = ()
    """Model steps k of rollouts that fill a second replay: one number, or the first and last one
    and the iterations between which it grows (MBPO, DDPPO). Default: the algorithm's, mostly 1."""
    rollouts: int | None = None
    """Rollouts of each seed when that replay is filled. Default: 5000."""
    temperature: Annotated[float | Literal["auto"] | None, arg(metavar="ALPHA")] = None
    """Temperature of the entropy, in scaled rewards per nat, or "auto": it holds the policy's
    entropy at -1 nat per action, in units of its limit (SAC). Default: the algorithm's, 0.03."""
    published: bool = False
    """Use the settings of MPG's published code where they differ from its paper."""
    plan_horizon: int | None = None
    """Model steps over which a second evaluation plans its actions, by the cross-entropy method
    from the policy's own paths (MAAC's MPC). Default: no plan."""
    ray: Annotated[str | None, arg(metavar="ADDRESS|local")] = None
    """A cluster of Ray for the processes, by its HOST:PORT. Default: local, one that is started on
    this machine."""
    policy: Annotated[str | None, arg(metavar="FILE")] = None
    """Policy that every seed begins with, such as the one for which a horizon was measured:
    gradlab's own, a .safetensors file or file.py:function. Default: fresh ones."""
    critic: Annotated[str | None, arg(metavar="FILE")] = None
    """Critic of that policy; a twin critic begins as it, moved by a tenth. Default: fresh ones."""
    output: Annotated[
        Path | None,
        arg(
            metavar="RUN.h5",
            help="File of the run. Default: runs/ALGORITHM-TASK.h5.",
        ),
    ] = None
    resume: arguments.Resume = False
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: returns and paths."""

    @staticmethod
    def defaults(algorithm: str) -> dict[str, str]:
        """What the options of a row's own are in it, as words for `--help`; {} for no row."""
        from gradlab.training.algorithms import ALGORITHMS, unused

        row = ALGORITHMS.get(algorithm)
        if row is None:
            return {}
        words = {name: _word(getattr(row, name)) for name in ALGORITHM}
        words["horizons"] = _word(row.horizons)
        alpha = row.target.temperature
        words["temperature"] = _word(alpha) if isinstance(alpha, float) else "auto"
        words["target_steps"] = _word(getattr(row.target, "steps", None))
        if row.model is not None:
            learned = row.model
            words |= {"model": "learned", "loss": learned.loss.name}
            words |= {"members": _word(learned.members), "model_hidden": _word(learned.hidden)}
            words |= {"fit_every": _word(learned.every), "fit_steps": _word(learned.steps)}
            words |= {
                name: _word(getattr(learned.loss, number))
                for name, number in _OF_LOSS.items()
                if hasattr(learned.loss, number) and name != "as_printed"
            }
        if branching := row.source.branching:
            words |= {"rollout_length": _word(branching.first), "rollouts": str(branching.rollouts)}
        said = {name: f"Default of {row.name}: {word}." for name, word in words.items()}
        return said | {name: f"Not for {row.name}: {why}." for name, why in unused(row).items()}

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
            for line in lines or ["no default differs from what it prints"]:
                standard_error(f"gradlab: paper: {line}")
            return filled.run(command)
        if self.model not in (None, "prior", "learned"):
            task = arguments.with_model(task, self.model)
        row = self._row(task.name)
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
            from gradlab.training.checkpoints import folder, good_folder

            removed = {folder(run, 0).parent.resolve(), good_folder(run).resolve()}
            for kind, file in (("policy", self.policy), ("critic", self.critic)):
                if file is not None and removed & set(Path(file).resolve().parents):
                    raise InputError(
                        f"{kind} is {file}, which --overwrite removes with the run at {run}: name "
                        f"another --output"
                    )
        with bars() as progress:
            train(
                row,
                task,
                run,
                resume=self.resume,
                overwrite=self.overwrite,
                weights=self.weights if isinstance(self.weights, str) else "rule",
                horizon=self.horizon,
                by=self.by,
                command=command,
                progress=progress,
                ray=self.ray,
                policy=networks.get("policy"),
                critic=networks.get("critic"),
                **changes,
            )
        return of_run(run, page=not self.no_report)

    def printed(self, task: str) -> tuple[Train, list[str]]:
        """With what the paper prints in every option that was left out; a line for each that
        differs from its default."""
        from gradlab.training.algorithms import printed

        loss = None if self.loss is None else _loss(self.loss)
        usual = {**vars(for_task(task)), **self.defaults(self.algorithm)}
        left_out = {field.name: field.default for field in fields(self)}
        changes, lines = {}, []
        for each in printed(self.algorithm, task, self.horizons):
            if getattr(self, each.option) != left_out[each.option]:
                continue
            if loss and each.option in _OF_LOSS and not hasattr(loss, _OF_LOSS[each.option]):
                continue
            changes[each.option] = each.value
            word, here = _word(each.value), str(usual.get(each.option, "none"))
            here = here.partition(": ")[2].rstrip(".") or here
            if word != here:
                option = each.option.replace("_", "-")
                said = f"--{option}" if word == "True" else f"--{option} {word}"
                lines.append(f"{said} (default {here}; {each.source})")
        return replace(self, preset=None, **changes), lines

    def _asynchronous(self) -> Asynchronous | None:
        """The processes of the run, where it has several."""
        names = ("learners", "actors", "buffers")
        counts = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if counts:
            queue = {} if self.queue is None else {"queue": self.queue}
            return Asynchronous(**counts, **queue, deterministic=self.deterministic)
        for name in ("queue", "deterministic", "ray"):
            if getattr(self, name) not in (None, False):
                raise InputError(
                    f"--{name} is for a run in several processes: add --learners, --actors or "
                    f"--buffers, such as --learners 4 --actors 2"
                )
        return None

    def _row(self, task: str) -> Algorithm:
        """The algorithm with the changes of the command line."""
        from gradlab.training.algorithms import (
            find,
            published,
            with_changes,
            with_fits,
            with_horizons,
            with_rollouts,
            with_starts,
            with_target_steps,
            with_temperature,
            with_weights,
        )
        from gradlab.training.parts.duals import Automatic

        row = self._remedied(find(self.algorithm))
        if self.published:
            row = published(row, task)
        if not isinstance(self.weights, str):
            row = with_weights(row, self.weights, self.horizons)
        elif self.horizons:
            row = with_horizons(row, self.horizons)
        if self.beta is not None:
            row = with_starts(row, self.beta)
        if self.temperature is not None:
            alpha = Automatic() if self.temperature == "auto" else self.temperature
            row = with_temperature(row, alpha)
        if self.fit_every is not None:
            row = with_fits(row, self.fit_every)
        if self.rollout_length or self.rollouts is not None:
            row = with_rollouts(row, self.rollout_length, self.rollouts)
        if self.target_steps is not None:
            row = with_target_steps(row, self.target_steps)
        given = {name: getattr(self, name) for name in ALGORITHM}
        return with_changes(row, **{k: x for k, x in given.items() if x is not None and x != ()})

    def _remedied(self, row: Algorithm) -> Algorithm:
        """The algorithm with a learned model and spectral norms, where they are chosen."""
        held = [] if self.spectral is None else [name.strip() for name in self.spectral.split(",")]
        unknown = sorted(set(held) - {"model", "policy", "critic"})
        if unknown:
            raise InputError(f"--spectral names {unknown[0]!r}, expected model, policy or critic")
        default = None if row.model is None else "learned"
        learned = (self.model or default) == "learned"
        if not learned:
            given = {
                "--loss": self.loss, "--loss-weight": self.loss_weight,
                "--neighbours": self.neighbours, "--loss-steps": self.loss_steps,
                "--directions": self.directions, "--as-printed": self.as_printed or None,
                "--two-model": self.two_model or None,
                "--members": self.members, "--model-type": self.model_type,
                "--model-hidden": self.model_hidden or None,
                "--fit-every": self.fit_every,
                "--fit-steps": self.fit_steps, "--spectral model": "model" in held or None,
            }  # fmt: skip
            for name, value in given.items():
                if value is not None:
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
        loss = default.loss if named is None else _loss(named)
        numbers = {
            "weight": ("loss_weight", self.loss_weight, "dd"),
            "neighbours": ("neighbours", self.neighbours, "dd"),
            "steps": ("loss_steps", self.loss_steps, "multistep"),
            "directions": ("directions", self.directions, "dd"),
            "as_printed": ("as_printed", self.as_printed or None, "dd"),
        }
        given = {name: each for name, each in numbers.items() if each[1] is not None}
        if self.directions == "all":
            given["directions"] = ("directions", None, "dd")
        for name, (option, value, kind) in given.items():
            if not hasattr(loss, name):
                raise InputError(f"{option} is {value}, but the loss is {loss.name}: take {kind}")
        return replace(
            default,
            loss=replace(loss, **{name: value for name, (_, value, _) in given.items()}),  # type: ignore[type-var]
            two_models=self.two_model or default.two_models,
            spectral="all_but_last" if spectral else default.spectral,
            members=default.members if self.members is None else self.members,
            elites=default.elites if self.members in (None, default.members) else None,
            hidden=self.model_hidden or default.hidden,
            network=default.network if self.model_type is None else named_network(self.model_type),
            steps=default.steps if self.fit_steps is None else self.fit_steps,
        )
