"""`gradlab measure TASK`: bias, variance and direction of policy gradients over the horizon."""

from __future__ import annotations

import glob
import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.arguments import Document, named
from gradlab.cli.fit import norms_found
from gradlab.cli.streams import bars, undisturbed
from gradlab.errors import InputError
from gradlab.storage.whole_files import keep

if TYPE_CHECKING:
    from torch import nn

    from gradlab.runs.profile import Profile
    from gradlab.tasks import Task


_NOTHING = "no estimator was measured yet: nothing was written"
_KEPT = "the truth is lost; kept for the same command: {}"
_HANDED = (
    "starts", "batch", "seed", "attribute", "judges", "trim_starts", "also", "surface",
)  # of `gradlab.measure`, as they are  # fmt: skip


def _partial(run: Path) -> Path:
    """Where an interrupted run is written: never in the place of a complete one."""
    return run.with_name(f"{run.stem}.partial{run.suffix}")


@dataclass(frozen=True)
class Measure:
    """Which policy gradient helps, up to which horizon, and how sure is that?

    Ctrl-C leaves the complete stages in RUN.partial.h5; the same command reuses fitted networks.

        gradlab measure path_tracking --starts 128
        gradlab measure mine.py:make_task --policy policy.safetensors --horizon 25
    """

    WITHOUT: ClassVar = {
        "--resume": "measurements are not resumed, run it again with --overwrite; `gradlab train` "
        "and `gradlab sweep` resume"
    }

    task: arguments.TaskName
    settings: arguments.Settings = ()
    model: arguments.ModelFile = None
    gradient_model: arguments.GradientModelFile = None
    policy: arguments.PolicyFile = None
    critic: arguments.CriticFile = None
    spectral: Annotated[tuple[Literal["policy", "critic"], ...], named("policy|critic")] = ()
    """Networks fitted here whose layers are held at spectral norm 1."""
    horizon: Annotated[int | None, named("H")] = None
    """Largest horizon, in steps. Default: the task's."""
    starts: int = 512
    """Number of starts, from which states are visited."""
    batch: int = 256
    """N′, the samples that one update of your algorithm averages."""
    termination: Annotated[Literal["ignore", "mask"] | None, named("ignore|mask")] = None
    """Terminal states: run on, or stop. Default: mask with a task's own networks."""
    law: Literal["visited", "start"] = "visited"
    """Judge gradients at states that the policy visits, or at the starts."""
    truth: Annotated[Literal["objective", "matched"] | None, named("objective|matched")] = None
    """The return's gradient, or each estimator's target. Default: objective where visited."""
    attribute: bool = False
    """Find the causes of the error, too: takes several times as long."""
    surface: Annotated[tuple[int, ...], named("H")] = ()
    """Keep a slice of the value estimate at these horizons."""
    also: Annotated[tuple[str, ...], named("NAME")] = ()
    """Further estimators of the simulator: see `gradlab list estimators`."""
    trim_starts: float = 0.0
    """Share of the starts, the farthest from their mean, left out."""
    judges: arguments.Whole = None
    """Fresh starts for steps and rehearsals. Default: --starts, and 256 for rehearsals."""
    lr: arguments.Number = None
    """Your policy's learning rate. Default: actions move by 4%; 3e-4 in rehearsals."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Your policy's optimiser."""
    refit: int = 25
    """Updates between two fits of the critic, the most rehearsed."""
    no_rehearsal: bool = False
    """Skip the rehearsal: for how many updates the best gradients hold."""
    seed: arguments.Seed = 0
    output: arguments.Output = None
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Measure, and write RUN.h5, RUN.html and the networks that were fitted."""
        begun = time.monotonic()
        with undisturbed():
            from gradlab.fitting.critics import fitted_networks
            from gradlab.measurement import arguments as checks
            from gradlab.measurement.measure import check_surface, measure
            from gradlab.measurement.problem import check_size
            from gradlab.measurement.realised_gains import check_judges
            from gradlab.measurement.update import Update
            from gradlab.networks import checkpoint, spectral
            from gradlab.runs.stages import Interrupted, timed

        task = arguments.named_task(self.task, self.settings)
        run = self.output or Path("runs") / f"{task.name}.h5"
        horizon = task.horizon if self.horizon is None else self.horizon
        files, termination, trained = self._networks(task)
        checks.check_arguments(horizon, self.starts, self.batch, termination)
        check_judges(self.judges)
        checks.check_also(self.also, None)
        check_surface(self.surface)
        update = Update(self.optimizer, self.lr, self.refit)
        law, truth = checks.resolved(self.starts, self.law, self.truth)
        check_size(task, horizon, self.starts)
        check_size(task, horizon, self.judges or 0)
        checks.narrowed(task, self.trim_starts, self.starts)
        made = tuple(kind for kind, file in files.items() if file is None)
        for kind in set(self.spectral) - set(made):
            raise InputError(f"--spectral {kind}, but the {kind} is given: normalise that")
        arguments.check_outputs(run, made, self.overwrite, page=not self.no_report)
        given = arguments.networks(**files)
        checks.check_densities(self.also, given.get("policy"))
        judged = arguments.with_model(task, self.model, self.gradient_model)
        checks.check_networks(judged, given.get("policy"), given.get("critic"))
        kept = self._places(run, task, given, termination)
        settings: dict[str, Any] = {name: getattr(self, name) for name in _HANDED}
        settings |= {"truth": truth, "law": law, "termination": termination}
        settings["update"] = update
        with bars() as progress:
            try:
                networks = fitted_networks(
                    task, given, kept, termination=termination, spectral=self.spectral,
                    seed=self.seed, progress=progress,
                )  # fmt: skip
                profile = measure(
                    judged, networks["policy"], networks["critic"], horizon=horizon,
                    rehearse=not self.no_rehearsal, progress=progress, command=command, **settings,
                )  # fmt: skip
            except Interrupted as stop:
                profile, run = stop.profile, _partial(run)
            except KeyboardInterrupt:
                there = " and ".join(f"the fitted {k}" for k, x in kept.items() if x.is_file())
                raise KeyboardInterrupt(_KEPT.format(there) if there else _NOTHING) from None
        profile = timed(profile, begun, "wall_seconds")
        stopped = "interrupted" in profile.config
        missing = [kind for kind in files if getattr(self, kind) is None]
        source = files | {name: getattr(self, name) for name in ("task", "model", "gradient_model")}
        parameters = {"parameters": arguments.parameters(self.settings)}
        about: dict[str, object] = {"source": source | parameters, "kinds": _kinds(networks)}
        if origin := arguments.whose(run, missing, trained):
            about["networks"] = origin
        profile = replace(profile, config={**profile.config, **about})
        keep(
            {arguments.beside(run, k): partial(checkpoint.save, networks[k]) for k in sorted(made)}
            | {run: partial(profile.save, overwrite=self.overwrite or stopped)}
        )
        own = glob.escape(_partial(run).stem)
        for file in () if stopped else run.parent.glob(f"{own}.*.*.safetensors"):
            file.unlink()
        norms = {kind: spectral.norms(networks[kind]) for kind in self.spectral}
        more = [norms_found(f"fitted {kind}", each).document for kind, each in norms.items()]
        document = of_run(run, page=not self.no_report, more=more, found=profile)
        if origin:
            document["networks"] = f"Networks: {origin}."
        if profile.attribution is not None:
            document |= _causes(profile)
        if stopped:
            document["interrupted"] = profile.config["interrupted"]
        return document | {"table": profile.table().to_dict("records")}

    def _networks(self, task: Task) -> tuple[dict[str, str | None], Literal["ignore", "mask"], str]:
        """Files of policy and critic, None where one is fitted; the termination; and the networks
        that come with the task in words, "" where they are not taken."""
        from gradlab.tasks.environments import TRAINED, UPDATES, trained_networks

        files = {"policy": self.policy, "critic": self.critic}
        trained = {} if self.spectral or self.policy else trained_networks(task)
        missing = [kind for kind, file in files.items() if file is None]
        files |= {kind: str(trained[kind]) for kind in missing if kind in trained}
        termination = self.termination or ("mask" if trained else "ignore")
        if not trained or not missing:
            return files, termination, ""
        origin = f"SAC's after {UPDATES:,} updates, return {TRAINED[task.name]:,}"
        return files, termination, f"{origin}, measured without its entropy bonus"

    def _places(
        self, run: Path, task: Task, given: Mapping[str, nn.Module], termination: str
    ) -> dict[str, Path]:
        """Where fitted networks are kept until the run is complete: a name for all that they depend
        on, so that another task, policy or setting finds none."""
        from gradlab import provenance
        from gradlab.measurement.assembly import behaviour

        named = [Path(each.rpartition(":")[0] or each) for each in (self.task, self.policy or "")]
        about = (
            provenance.commit(), self.seed, self.spectral, termination, task.discount, task.horizon,
            task.exploration, task.observation_scale, task.action_limit, task.reference_state,
            sorted(task.parameters.items()), behaviour(task),
            [file.read_bytes() for file in named if file.is_file()],
            [provenance.network_hash(each) for each in given.values()],
        )  # fmt: skip
        key = hashlib.sha256(repr(about).encode()).hexdigest()[:12]
        kinds = [kind for kind in ("policy", "critic") if kind not in given]
        return {kind: arguments.beside(_partial(run), f"{kind}.{key}") for kind in kinds}


def _causes(profile: Profile) -> Document:
    """What the attribution says, as a recommendation of its own, and its table."""
    from gradlab.runs.attribution import attribute
    from gradlab.verdicts.attribution import screen, sentences

    attribution = attribute(profile)
    told = screen(profile, attribution, sentences(attribution, profile))
    return {"causes": told.document, "ledger": attribution.table().to_dict("records")}


def _kinds(networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Which of gradlab's networks these are, by kind; others are left out."""
    from gradlab.networks import checkpoint

    found = {}
    for kind, network in networks.items():
        with suppress(InputError):
            found[kind] = str(checkpoint.architecture_of(network)["kind"])
    return found
