"""The table: every algorithm is one row (`algorithm.Algorithm`), and one loop runs them all.

A row says in what an algorithm differs and stands with its family in `training.rows`; its
parts are frozen values with one method each (`training.parts`). `docs/architecture.md` lists them.

The settings that papers print for a task stand in `presets.toml`, as options of `gradlab train`.
What a paper leaves open stays gradlab's. Gymnasium's tasks of version 5 stand for the papers'
version 2.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from gradlab import validation
from gradlab.errors import InputError
from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithm import Algorithm
from gradlab.training.measured.switching import By
from gradlab.training.parts.context import FixedWeights, MeasuredWeights, Newest
from gradlab.training.parts.critics import NStep, Steve
from gradlab.training.parts.policy_losses import Term
from gradlab.training.rows import ROWS

ALGORITHMS: Mapping[str, Algorithm] = {row.name: row for row in ROWS}


_OTHERS = (
    "a2c", "a3c", "dqn", "dreamer", "dreamerv3", "grpo", "pets", "ppg", "ppo", "redq", "reinforce",
    "tdmpc2", "tqc", "trpo",
)  # fmt: skip


def find(name: str) -> Algorithm:
    """The row called `name`."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if name.lower() in _OTHERS:
        raise InputError(
            f"algorithm is {name!r}, which gradlab does not train: watch it in your own loop with "
            "gradlab.Probe, or train sac, td3 or shac"
        )
    near = difflib.get_close_matches(name, ALGORITHMS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(ALGORITHMS)}"
    raise InputError(f"algorithm is {name!r}, which is not known: {hint}")


def with_horizons(algorithm: Algorithm, horizons: Sequence[int]) -> Algorithm:
    """The row with other horizons in its mixture, of the kind of its longest term; without a
    learned model where none is rolled out any more. On-policy windows become whole paths. A target
    by STEVE of the same horizon follows (MAAC's H is that of both).
    """
    if any(n < 0 for n in horizons):
        raise InputError(f"horizons are {tuple(horizons)}, expected integers from 0")
    if 0 not in horizons and isinstance(algorithm.weights, MpgWeights):
        raise InputError(f"horizons are {tuple(horizons)}: the rule of MPG needs 0 among them")
    if isinstance(algorithm.weights, FixedWeights) and len(horizons) != len(algorithm.terms):
        raise InputError(
            f"horizons are {tuple(horizons)}, but {algorithm.name} follows one gradient: mixtures "
            f"are mpg-v1, mpg-v2 and mpg-general"
        )
    source = algorithm.source
    if algorithm.loss.paths and isinstance(source, Newest) and max(horizons) > 0:
        source = Newest(max(horizons) * max(1, source.steps // max(horizons)))
    needed = max(horizons) > 0 or algorithm.critic_needs_model
    model, target = algorithm.model if needed else None, algorithm.target
    if isinstance(target, Steve) and target.horizon == max(algorithm.horizons) and max(horizons):
        target = replace(target, horizon=max(horizons))
    return replace(
        algorithm, terms=_terms(algorithm, horizons), source=source, model=model, target=target
    )


def _terms(algorithm: Algorithm, horizons: Sequence[int]) -> tuple[Term, ...]:
    """Of the kind of the row's longest."""
    kind = max(algorithm.terms, key=lambda term: term.horizon).actions
    return tuple(Term(n, kind if n else "first") for n in horizons)


def with_weights(
    algorithm: Algorithm, weights: Sequence[float], horizons: Sequence[int] = ()
) -> Algorithm:
    """The mixture with the same weights throughout, such as those that `gradlab.choose` names.

    Args:
        weights: one for each horizon, in their order; (1,) follows one horizon alone, of any row.
        horizons: of the mixture; (): the row's own.
    """
    if not isinstance(algorithm.weights, MpgWeights):
        if tuple(weights) == (1.0,) and len(horizons) < 2:
            return with_horizons(algorithm, horizons) if horizons else algorithm
        raise InputError(
            f"weights are {tuple(weights)}, but {algorithm.name} follows one gradient: leave them "
            f"out and give one horizon; mixtures are mpg-v1, mpg-v2 and mpg-general"
        )
    horizons = tuple(horizons) or algorithm.horizons
    if len(weights) != len(horizons):
        raise InputError(
            f"weights are {tuple(weights)}, expected one for each of the horizons {horizons}"
        )
    if not all(map(isfinite, weights)) or not any(weights):
        raise InputError(f"weights are {tuple(weights)}, expected finite numbers, not all zero")
    fixed = FixedWeights(tuple(map(float, weights)))
    mixture = replace(algorithm, terms=_terms(algorithm, horizons), weights=fixed)
    return with_horizons(mixture, horizons)


def unused(algorithm: Algorithm) -> dict[str, str]:
    """Numbers of a row that it does not use, with the reason."""
    on_policy, copies = bool(algorithm.source.steps), algorithm.target_policy
    reasons = {
        "batch": on_policy and "its batches are all steps of its agents",
        "reuse": on_policy and "its batches are used once",
        "exploration": algorithm.policy == "gaussian" and "its policy explores by itself",
        "log_std": algorithm.policy != "gaussian" and "its policy is deterministic",
        "value_rate": not algorithm.critics and "it has no critic",
        "tau": copies and algorithm.target_critic and "its targets are copies",
        "target_steps": not isinstance(algorithm.target, NStep) and "its target has no steps",
        "temperature": not algorithm.target.temperature and "its return has no entropy",
    }
    return {name: reason for name, reason in reasons.items() if isinstance(reason, str)}


# Where a number stands that is none of a row itself; one of several may be missing.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "target_steps": ("target.steps",),
    "temperature": ("target.temperature",),
    "fit_every": ("model.every", "source.branching.every"),  # MBPO algorithm 2, DDPPO algorithm 1
    "rollouts": ("source.branching.rollouts",),
    "rollout_length": ("source.branching.lengths",),
    "beta": ("loss.beta",),
}


def with_changes(algorithm: Algorithm, **changes: Any) -> Algorithm:
    """The row with other numbers.

    Args:
        changes: numbers of `Algorithm` and of its parts (`_PLACES`); one rate holds from the first
            to the last update.
    """
    for name in changes.keys() & {"policy_rate", "value_rate"}:
        if not isinstance(changes[name], tuple):
            validation.number(name, changes[name], least=0)
            changes[name] = (changes[name], changes[name])
    for name, value in changes.items():
        places = [each for each in _PLACES.get(name, (name,)) if _has(algorithm, each)]
        reason = unused(algorithm).get(name)
        if not places or (reason and name not in _PLACES):
            others = [x.name for x in ALGORITHMS.values()
                      if any(_has(x, each) for each in _PLACES.get(name, ()))]  # fmt: skip
            more = filter(None, (reason, f"take one of {', '.join(others)}" if others else None))
            got = validation.shown(value)
            raise InputError(f"{name} is {got}, but {algorithm.name} has none: {'; '.join(more)}")
        for place in places:
            algorithm = _replaced(algorithm, place, value)
    return algorithm


def _has(part: object, place: str) -> bool:
    """Whether the field "name.name…" is there."""
    name, _, rest = place.partition(".")
    there = is_dataclass(part) and name in {each.name for each in fields(part)}
    return there and (not rest or _has(getattr(part, name), rest))


def _replaced(part: Any, place: str, value: Any) -> Any:
    name, _, rest = place.partition(".")
    new = _replaced(getattr(part, name), rest, value) if rest else value
    return replace(part, **{name: new})


def measured(
    algorithm: Algorithm, weights: str = "rule", horizon: str = "rule", by: str = "mse"
) -> Algorithm:
    """The row with weights, or the horizon, that measurements have shown to be better.

    Args:
        weights, horizon: "rule", the row's own, or "measured"; one of the two.
        by: "mse" or "gain", what is better (`MeasuredWeights`).
    """
    validation.word("by", by, get_args(By))
    for name, value in (("weights", weights), ("horizon", horizon)):
        validation.word(name, value, ("rule", "measured"))
    if weights == horizon == "measured":
        raise InputError(
            "weights and horizon are both 'measured': measured weights mix all horizons, a "
            "measured horizon is followed alone: choose one"
        )
    if weights == horizon == "rule" or isinstance(algorithm.weights, MeasuredWeights):
        return algorithm
    follow = "weights" if weights == "measured" else "horizon"
    return replace(algorithm, weights=MeasuredWeights(follow, algorithm.weights, by))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Printed:
    """One setting: the option's name in Python, its value, and where it is printed."""

    option: str
    value: Any
    source: str


@cache
def _papers() -> tuple[Mapping[str, Any], ...]:
    """The papers of `presets.toml`."""
    text = (Path(__file__).parent / "presets.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["paper"])


def known(algorithm: str, task: str) -> bool:
    """Whether a paper prints settings of the algorithm for the task."""
    return any(algorithm in of["algorithms"] and task in of["tasks"] for of in _papers())


def printed(algorithm: str, task: str, horizons: Sequence[int] = ()) -> tuple[Printed, ...]:
    """What the algorithm's paper prints for the task.

    Args:
        horizons: those of the policy's gradient, where they are not the row's own.

    Raises:
        InputError: no paper has it; names what there is.
    """
    paper = next((of for of in _papers() if algorithm in of["algorithms"]), None)
    if paper is None:
        names = ", ".join(name for of in _papers() for name in of["algorithms"])
        raise InputError(f"preset is 'paper', which {algorithm} has not: presets are of {names}")
    if task not in paper["tasks"]:
        raise InputError(
            f"preset is 'paper', but no paper has {algorithm} on {task}: it has "
            f"{', '.join(paper['tasks'])}"
        )
    unrolled = max(horizons or ALGORITHMS[algorithm].horizons)
    found = []
    for part in paper["parts"]:
        options = part["options"] if algorithm in part.get("algorithms", (algorithm,)) else {}
        for option, given in options.items():
            value = given[task] if isinstance(given, dict) else given
            value = unrolled if option == "loss_steps" else value
            value = tuple(value) if isinstance(value, list) else value
            found.append(Printed(option, value, part["source"]))
    return tuple(each for each in found if each.value != 0)
