"""`gradlab measure TASK`: bias, variance and direction of policy gradients over the horizon."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.fit import norms_found
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.errors import InputError
from gradlab.measurement.config import MeasureConfig, Termination
from gradlab.options import named
from gradlab.storage.whole_files import keep

if TYPE_CHECKING:
    from torch import nn

    from gradlab.runs.profile import Profile
    from gradlab.tasks import Task


_NOTHING = "no estimator was measured yet: nothing was written"
_KEPT = "the truth is lost; go on with what was fitted: {}"


def _partial(run: Path) -> Path:
    """Where an interrupted run is written: never in the place of a complete one."""
    return run.with_name(f"{run.stem}.partial{run.suffix}")


@dataclass(frozen=True, kw_only=True)
class Measure(MeasureConfig):
    """Which policy gradient helps, up to which horizon, and how sure is that?

    Ctrl-C leaves the complete stages in RUN.partial.h5.

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
            from gradlab.measurement.measure import conduct
            from gradlab.measurement.resolve import check
            from gradlab.networks import checkpoint, spectral
            from gradlab.runs.stages import Interrupted, timed

        task = arguments.named_task(self.task, self.settings)
        run = self.output or Path("runs") / f"{task.name}.h5"
        files, termination, trained = self._networks(task)
        options = {each.name: getattr(self, each.name) for each in fields(MeasureConfig)}
        config = MeasureConfig(**options | {"termination": termination})
        made = tuple(kind for kind, file in files.items() if file is None)
        for kind in set(self.spectral) - set(made):
            raise InputError(f"--spectral {kind}, but the {kind} is given: normalise that")
        arguments.check_outputs(run, made, self.overwrite, page=not self.no_report)
        given = arguments.networks(**files)
        judged = arguments.with_model(task, self.model, self.gradient_model)
        critics = [given["critic"]] if "critic" in given else []
        check(config.resolved(task), judged, given.get("policy"), critics)
        kept = {kind: arguments.beside(_partial(run), kind) for kind in made}
        with bars() as progress:
            try:
                networks = fitted_networks(
                    task, given, kept, kept=False, termination=termination,
                    spectral=self.spectral, seed=self.seed, progress=progress,
                )  # fmt: skip
                profile = conduct(
                    config, judged, networks["policy"], networks["critic"], progress=progress,
                    command=command,
                )  # fmt: skip
            except Interrupted as stop:
                profile, run = stop.profile, _partial(run)
            except KeyboardInterrupt:
                there = " ".join(f"--{k} {x}" for k, x in kept.items() if x.is_file())
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
        for file in () if stopped else kept.values():
            file.unlink(missing_ok=True)
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

    def _networks(self, task: Task) -> tuple[dict[str, str | None], Termination, str]:
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
