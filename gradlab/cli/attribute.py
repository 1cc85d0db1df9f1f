"""`gradlab attribute RUN.h5`: causes of a gradient's bias, sources of its variance."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.measure import Measure
from gradlab.cli.models import model_option
from gradlab.cli.terminal.answer import of_screen
from gradlab.cli.terminal.progress_bars import bars
from gradlab.cli.terminal.streams import undisturbed
from gradlab.errors import InputError
from gradlab.storage.records import check_output
from gradlab.storage.whole_files import keep

if TYPE_CHECKING:
    from gradlab.runs.profile import Profile

_AGAIN = (
    "The run holds no substitutions: they were computed again from its task, policy and critic "
    "(--keep stores them; `gradlab measure --attribute` computes them at once)."
)


@dataclass(frozen=True)
class Attribute:
    """What causes the bias of a run's gradients, and what their variance?

    Reads the substitutions of `gradlab measure --attribute`; without them they are computed again.

        gradlab attribute runs/inverted_pendulum.h5
        gradlab attribute runs/inverted_pendulum.h5 --keep --explain
    """

    file: Annotated[Positional[Path], arg(metavar="RUN.h5")]
    """The run, RUN.h5. Without `gradlab measure --attribute` its substitutions are computed
    again."""
    keep: bool = False
    """Store substitutions that were computed again in RUN.h5: the next attribution takes
    seconds."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: sentences and the attribution's table."""

    def run(self, command: str) -> Document:
        """Read or compute the substitutions and attribute the error to them."""
        from gradlab.runs.attribution import attribute
        from gradlab.runs.profile import load
        from gradlab.verdicts.attribution.first_screen import screen, sentences
        from gradlab.verdicts.screen import Sentence

        profile = load(self.file)
        again = profile.attribution is None
        if again:
            if self.keep:
                check_output(self.file, overwrite=True)
            profile = _again(profile, self.file)
            if self.keep:
                keep({self.file: partial(profile.save, overwrite=True)})
        attribution = attribute(profile)
        verdict = sentences(attribution, profile)
        if again:
            verdict = [*verdict, Sentence("source", True, _AGAIN)]
        return of_screen(screen(profile, attribution, verdict)) | {
            "ledger": attribution.table().to_dict("records"),
            "made_again": again,
            "run": str(self.file),
        }


def _again(profile: Profile, run: Path) -> Profile:
    """The profile with substitutions, computed from the task, policy and critic of its command."""
    with undisturbed():
        from gradlab.measurement.attribution.attribution import attributed_again

    words = shlex.split(str(profile.config.get("command", "")))
    if words[:2] != ["gradlab", "measure"]:
        raise InputError(
            f"{run} holds no substitutions and was not made by `gradlab measure`, whose command "
            f"names task, policy and critic: measure again with attribute=True"
        )
    made = tyro.cli(Measure, args=words[2:], config=(FlagCreatePairsOff,))
    files = {
        kind: getattr(made, kind) or str(arguments.beside(run, kind))
        for kind in ("policy", "critic")
    }
    task = arguments.named_task(made.task, made.settings)
    model = model_option(task, made.model, made.gradient_model)
    task = task if model is None else replace(task, prior=model)
    networks = arguments.networks(**files)
    with bars() as progress:
        return attributed_again(
            profile, task, networks["policy"], networks["critic"], progress=progress
        )
