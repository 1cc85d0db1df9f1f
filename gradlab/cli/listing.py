"""`gradlab list`: what has a name here."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from gradlab.cli.arguments import Document
from gradlab.errors import InputError, imported

KINDS = ("tasks", "estimators", "algorithms", "losses", "remedies")
_ESTIMATORS = {
    "data": "the critic alone: no derivative of any dynamics",
    "model": "states and Jacobians of the task's prior model",
    "mixed": "the simulator's states, the prior model's Jacobians",
    "true_dynamics": "states and Jacobians of the simulator",
    "model_all": "model with θ in every action, not in the first alone (law visited only)",
    "mixed_all": "mixed with θ in every action",
    "true_dynamics_all": "true_dynamics with θ in every action",
}

BESIDE = {
    "score": "likelihood ratio: no derivative of the simulator",
    "ivw": "both orders by inverse variance at each step (IVW-H)",
    "ddcg": "ivw where the return is smooth in the action, else the score (DDCG)",
    "total": "both orders mixed on the way backwards (total propagation)",
    "replayed": "the model's BPTT from visited states, what MBPO- and SVG-like loops follow",
    "cut_transition": "no gradient from a state into the next one",
    "decay": "seven decays from 0 to 0.99, and the full gradient (1)",
    "decay_0.9": "that gradient times 0.9 at every step (any number from 0 to below 1)",
    "stop_5": "that gradient with the state detached after every 5 steps (any number from 1)",
}


@dataclass(frozen=True)
class List:
    """Which tasks, estimators, algorithms, losses and remedies have a name here?

    A star marks defaults.

        gradlab list
        gradlab list algorithms --json
    """

    what: Positional[Literal["all", "tasks", "estimators", "algorithms", "losses", "remedies"]] = (
        "all"
    )
    """Which list."""
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Names with a line each, and those that are taken by default."""
        document: Document = {}
        taken: dict[str, list[str]] = {}
        if self.what in ("all", "tasks"):
            from gradlab.tasks import TASKS

            document["tasks"] = {name: _first_line(make.__doc__) for name, make in TASKS.items()}
        if self.what in ("all", "estimators"):
            from gradlab.gradients import named

            document["estimators"] = _ESTIMATORS
            taken["estimators"] = list(_ESTIMATORS)
            document["measure --also"] = BESIDE
            makers = inspect.getmembers(named, inspect.isfunction)
            document["named estimators"] = {
                name: _first_line(maker.__doc__)
                for name, maker in makers
                if maker.__module__ == named.__name__ and not name.startswith("_")
                if inspect.signature(maker).return_annotation in ("Estimator", "Mixture")
            }
        if self.what in ("all", "algorithms"):
            from gradlab.training import ALGORITHMS

            document["algorithms"] = {name: row.described for name, row in ALGORITHMS.items()}
        if self.what in ("all", "losses"):
            from gradlab.fitting.derivative_losses import LOSSES, Sobolev

            losses = {**{name: type(loss) for name, loss in LOSSES.items()}, Sobolev.name: Sobolev}
            document["losses"] = {name: _first_line(each.__doc__) for name, each in losses.items()}
            taken["losses"] = ["nll"]
        if self.what in ("all", "remedies"):
            with suppress(InputError):  # a tool that is not there
                document["remedies"] = dict(imported("gradlab.tools.remedies.result:ABOUT"))
                taken["remedies"] = list(imported("gradlab.tools.remedies.result:DEFAULT"))
        lists = {kind: x for kind, x in document.items() if isinstance(x, dict) and kind in KINDS}
        counts = [f"{len(names)} {kind}" for kind, names in lists.items()]
        headline = ", ".join(counts) + ("; * marks defaults." if taken else ".")
        return {"headline": headline, "by default": taken} | document


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
