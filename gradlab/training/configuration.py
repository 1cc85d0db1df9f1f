"""Algorithm and settings of a run as they were given, and as JSON."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from gradlab.errors import InputError
from gradlab.statistics.rules import MpgJournalWeights, MpgWeights
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.given_networks import FRESH
from gradlab.training.parts.weights import MeasuredWeights, Rule, Steered, Weights
from gradlab.training.settings import Settings, for_task

# What rows had not from the beginning is left out where it is as it was: earlier runs go on.
YOUNGER = (
    "loss", "critic_loss", "target_policy", "target_critic", "source", "updates", "fit", "adaptive",
)  # fmt: skip


def describe(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, object]:
    """All that decides what a run computes, as JSON."""
    config: dict[str, Any] = {
        "algorithm": asdict(algorithm)
        | {
            "weights_rule": type(algorithm.weights).__name__,
            "target_rule": type(algorithm.target).__name__,
        },
        "task": task.name,
        "task_parameters": dict(task.parameters),
        "state_names": list(task.state_names),
        "discount": task.discount,
        "settings": asdict(replace(settings, given=FRESH)),
    }
    del config["algorithm"]["paper"]  # of no number
    for name in YOUNGER:
        value = getattr(algorithm, name)
        if value == Algorithm.__dataclass_fields__[name].default:
            del config["algorithm"][name]
        elif not isinstance(value, int):
            config["algorithm"][f"{name}_rule"] = type(value).__name__
    del config["settings"]["given"]
    if begun := settings.given.digests():
        config["given_networks"] = begun
    for name in ("planning", "asynchronous"):
        if getattr(settings, name) is None:
            del config["settings"][name]
    if settings.products == "batched":
        del config["settings"]["products"]
    if algorithm.model is not None:
        config["model_losses"] = {role: loss.name for role, loss in algorithm.model.roles.items()}
    plain: dict[str, object] = json.loads(json.dumps(config))
    return plain


def settings_of(
    algorithm: Algorithm, task: Task, settings: Settings | None, changes: Mapping[str, object]
) -> Settings:
    """All settings of a run: those given, else the algorithm's, else those of the task's papers."""
    unknown = set(changes) - set(Settings.__dataclass_fields__)
    if unknown:
        name = sorted(unknown)[0]
        near = difflib.get_close_matches(name, Settings.__dataclass_fields__, n=3, cutoff=0.4)
        raise InputError(f"setting {name!r} is not known: {' or '.join(near) or 'see Settings'}")
    if settings is not None:
        return replace(settings, **changes)  # type: ignore[arg-type]
    chosen = for_task(task.name, **changes)
    if algorithm.updates is None or "interval" in changes:
        return chosen
    return replace(chosen, interval=algorithm.updates * chosen.agents)


def scheduled(weights: Weights, settings: Settings) -> Weights:
    """The rule with the ramp of the task (MPG) or the length of the run (MPG-J)."""
    if isinstance(weights, MeasuredWeights | Steered):
        return replace(weights, rule=_scheduled(weights.rule, settings))
    return _scheduled(weights, settings)


def _scheduled(weights: Rule, settings: Settings) -> Rule:
    if isinstance(weights, MpgWeights):
        return replace(weights, ramp=settings.ramp)
    if isinstance(weights, MpgJournalWeights):
        return replace(weights, iterations=settings.iterations)
    return weights
