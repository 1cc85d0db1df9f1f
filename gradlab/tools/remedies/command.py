"""`gradlab remedies TASK`: gain and price of remedies, from paired models with and without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.arguments import named_data
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.errors import InputError
from gradlab.findings import Finding

if TYPE_CHECKING:
    from gradlab.fitting.model_settings import ModelSettings

# Of the feedback that is optimal for the prior: at 1 its gradient is close to 0, with any model.
_SHARE = 0.5


@dataclass(frozen=True)
class RemediesCommand:
    """Which remedy of a learned model improves its policy gradient, and at what price?

    Each trial fits the baseline and every remedy to the same transitions, at equal steps and at
    equal time, and measures all models on the same starts and noise. Ctrl-C and kills cost at most
    the trial in progress: the same command with --resume goes on.

        gradlab remedies path_tracking
        gradlab remedies Hopper-v5 --data record.h5 --remedies spectral dd --trials 3
    """

    task: arguments.TaskName
    settings: arguments.Settings = ()
    data: arguments.DataFile = None
    """Recorded transitions (docs/files.md). Default: each trial records its own."""
    rows: int | None = None
    """Transitions that a trial records. Default: 5000."""
    remedies: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Of `gradlab list remedies`, or losses of your own, file.py:function (the file is executed).
    Default: spectral dd multistep two-model."""
    policy: Annotated[str | None, arg(metavar="FILE")] = None
    """Policy: .safetensors file or file.py:function. Default: one fitted to half of the
    stabilising feedback."""
    critic: arguments.CriticFile = None
    trials: int = 5
    """Trials, over which intervals are: one has none."""
    type: Annotated[str, arg(metavar="gaussian|deterministic|FILE")] = "gaussian"
    """As --type of `gradlab fit`."""
    network: Literal["small", "mbpo", "rp-pgm"] = "small"
    """2×64 SiLU units, 4×200, or RP-PGM's ReLU units."""
    members: int = 1
    """Members of a model."""
    hidden: Annotated[tuple[int, ...], arg(metavar="WIDTH")] = ()
    """Hidden layers. Default: the network's."""
    epochs: int = 100
    """Epochs of the baseline at equal steps."""
    horizon: Annotated[int | None, arg(metavar="H")] = None
    """Largest horizon. Default: the task's."""
    starts: int = 256
    """Starts per trial."""
    batch: int = 256
    """N′, the samples of your update; MSE = bias² + variance / N′."""
    seed: arguments.Seed = 0
    output: Annotated[Path | None, arg(metavar="RUN.h5")] = None
    """Default: runs/TASK-remedies.h5."""
    resume: arguments.Resume = False
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: arguments.Json = False

    @staticmethod
    def again(run: Path) -> list[str]:
        """The words that go on where trials are done."""
        return ["--resume"] if run.is_file() else ["--overwrite"]

    def run(self, command: str) -> Document:
        """Test, and write RUN.h5, RUN.html and the networks that were fitted."""
        with undisturbed():
            from gradlab.fitting.critics import fitted_networks
            from gradlab.measurement.config import MeasureConfig
            from gradlab.measurement.resolve import check
            from gradlab.tools.remedies.compute import ROWS, compare_remedies
            from gradlab.tools.remedies.fits import fits_of
            from gradlab.tools.remedies.result import DEFAULT

        task = arguments.named_task(self.task, self.settings)
        run = self.output or Path("runs") / f"{task.name}-remedies.h5"
        made = tuple(kind for kind in ("policy", "critic") if getattr(self, kind) is None)
        again = self.overwrite or self.resume
        arguments.check_outputs(run, made, again, page=not self.no_report)
        named = [each for word in self.remedies for each in word.split(",") if each]
        arms, settings = tuple(named) or DEFAULT, self._model()
        for arm in arms:
            fits_of(arm)
        if self.data is not None and self.rows is not None:
            raise InputError(f"--rows is {self.rows} beside --data: drop one")
        data, more = (None, []) if self.data is None else named_data(self.data, task)
        given = arguments.networks(policy=self.policy, critic=self.critic)
        config = MeasureConfig(
            horizon=self.horizon, starts=self.starts, batch=self.batch, seed=self.seed
        )
        critics = [given["critic"]] if "critic" in given else []
        check(config.resolved(task), task, given.get("policy"), critics)
        with bars() as progress:
            try:
                networks = fitted_networks(
                    task, given, {kind: arguments.beside(run, kind) for kind in made},
                    kept=self.resume, share=_SHARE, seed=self.seed, progress=progress,
                )  # fmt: skip
                result = compare_remedies(
                    task, networks["policy"], networks["critic"], run, arms, data=data,
                    rows=ROWS if self.rows is None else self.rows, settings=settings,
                    trials=self.trials, horizon=self.horizon, starts=self.starts, batch=self.batch,
                    seed=self.seed, command=command, resume=self.resume, overwrite=self.overwrite,
                    progress=progress,
                )  # fmt: skip
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_kept(run)) from None
        if self.policy is None:
            more.append(Finding("remedy_policy", "skipped", value=_SHARE).document)
        document = of_run(run, page=not self.no_report, more=more)
        return document | {"table": result.table().to_dict("records")}

    def _model(self) -> ModelSettings:
        """The baseline: the network's widths and activation, without what is a remedy."""
        from gradlab.fitting.model_settings import PRESETS
        from gradlab.networks.gaussian_ensemble import named_network
        from gradlab.tools.remedies.compute import SETTINGS

        preset = PRESETS[self.network]
        return replace(
            SETTINGS, members=self.members, hidden=self.hidden or preset.hidden,
            activation=preset.activation, network=named_network(self.type), epochs=self.epochs,
        )  # fmt: skip


def _kept(run: Path) -> str:
    """State of an interrupted run, and how to resume it."""
    from gradlab.tools.remedies.result import load

    done = load(run).trials if run.is_file() else 0
    return f"finished trials: {done}; go on with --resume"
