"""The table: every algorithm is one row (`algorithm.Algorithm`), and one loop runs them all.

A row says in what an algorithm differs and stands in a file of its family (`training.rows`); its
parts are frozen values with one method each (`training.parts`). `docs/architecture.md` lists them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import isfinite
from typing import Any, get_args

from gradlab import validation
from gradlab.errors import InputError
from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithm import MIXTURE, Algorithm, Policy
from gradlab.training.measured.switching import By
from gradlab.training.parts.context import FixedWeights, MeasuredWeights
from gradlab.training.parts.policy_losses import FromStarts, MixtureLoss, Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import NStep, OneStep, Soft, Steve
from gradlab.training.parts.temperature import Automatic
from gradlab.training.rows import model_based, mpg, pathwise

__all__ = [
    "ALGORITHMS",
    "MIXTURE",
    "Algorithm",
    "MixtureLoss",
    "NStep",
    "OneStep",
    "Policy",
    "Soft",
    "Term",
]

ALGORITHMS: Mapping[str, Algorithm] = {
    row.name: row for family in (mpg, model_based, pathwise) for row in family.ROWS
}


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


def with_starts(algorithm: Algorithm, beta: float) -> Algorithm:
    """The row with rollouts of the policy from μ = βν + (1 − β)ζ (`FromStarts`).

    Args:
        beta: share of the states that come from replay, ν; the others are the task's starts, ζ.
    """
    validation.number("beta", beta, least=0, most=1)
    if not isinstance(algorithm.loss, MixtureLoss | FromStarts):
        raise InputError(
            f"beta is {beta!r}, but {algorithm.name} follows replayed transitions: leave it out"
        )
    return replace(algorithm, loss=FromStarts(1 - beta, algorithm.loss.samples))


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


def with_changes(algorithm: Algorithm, **changes: Any) -> Algorithm:
    """The row with other numbers.

    Args:
        changes: numbers of `Algorithm`; one rate holds from the first to the last update.
    """
    for name, value in changes.items():
        if reason := unused(algorithm).get(name):
            raise InputError(f"{name} is {value!r}, but {algorithm.name} has none: {reason}")
    for name in changes.keys() & {"policy_rate", "value_rate"}:
        if not isinstance(changes[name], tuple):
            validation.number(name, changes[name], least=0)
            changes[name] = (changes[name], changes[name])
    return replace(algorithm, **changes)


def with_rollouts(
    algorithm: Algorithm, lengths: Sequence[int] = (), count: int | None = None
) -> Algorithm:
    """The row with other rollouts that fill its second replay.

    Args:
        lengths: k, or first, last and the two iterations between which it grows; (): as they are.
        count: of each filling; None: as they are.

    Raises:
        InputError: a row without them, or numbers of which neither is one.
    """
    branching = algorithm.source.branching
    if branching is None:
        several = [row.name for row in ALGORITHMS.values() if row.source.branching is not None]
        raise InputError(
            f"rollouts fill no second replay of {algorithm.name}: take one of {', '.join(several)}"
        )
    if len(lengths) not in (0, 1, 4):
        wanted = "k, or its first and last value and the iterations between which it grows"
        raise validation.expected("rollout_length", tuple(lengths), wanted)
    if len(lengths) == 1:
        branching = replace(branching, first=lengths[0], last=lengths[0])
    elif lengths:
        branching = replace(
            branching, **dict(zip(("first", "last", "begin", "end"), lengths, strict=True))
        )
    if count is not None:
        branching = replace(branching, rollouts=count)
    return replace(algorithm, source=replace(algorithm.source, branching=branching))  # type: ignore[type-var]


def with_fits(algorithm: Algorithm, every: int) -> Algorithm:
    """The row with models fitted, and rolled out into its second replay, every so many iterations
    (MBPO's algorithm 2, DDPPO's algorithm 1: after each fit)."""
    if algorithm.model is not None:
        algorithm = replace(algorithm, model=replace(algorithm.model, every=every))
    branching = algorithm.source.branching
    if branching is None:
        return algorithm
    source = replace(algorithm.source, branching=replace(branching, every=every))  # type: ignore[type-var]
    return replace(algorithm, source=source)


def with_target_steps(algorithm: Algorithm, steps: int) -> Algorithm:
    """The row with another number n of steps in its critic's target."""
    if not isinstance(algorithm.target, NStep):
        several = [row.name for row in ALGORITHMS.values() if isinstance(row.target, NStep)]
        raise InputError(
            f"target_steps is {steps!r}, but {algorithm.name} has a target of another kind "
            f"({algorithm.target.name}): take one of {', '.join(several)}"
        )
    validation.whole("target_steps", steps, 1)
    return replace(algorithm, target=replace(algorithm.target, steps=steps))


def with_temperature(algorithm: Algorithm, temperature: float | Automatic) -> Algorithm:
    """The row with another temperature α of its entropy, in scaled rewards per nat."""
    if "temperature" not in {field.name for field in fields(algorithm.target)}:  # type: ignore[arg-type]
        soft = [row.name for row in ALGORITHMS.values() if row.target.temperature]
        given = "automatic" if isinstance(temperature, Automatic) else temperature
        raise InputError(
            f"temperature is {given}, but the return of {algorithm.name} has no entropy in "
            f"it: take one of {', '.join(soft)}"
        )
    target = replace(algorithm.target, temperature=temperature)  # type: ignore[type-var]
    return replace(algorithm, target=target)


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


def published(algorithm: Algorithm, task: str) -> Algorithm:
    """The row with the settings of MPG's published code, where they differ from its paper:
    ten times smaller learning rates, gradients clipped at 3, batches reused by v1 alone, λ held at
    1.5, n-step DPG without exploration, and the pendulum's n-step tails clipped to [−0.5, 0].

    Its targets ignore terminal states, which is `termination="ignore"`, the papers' tasks' default.
    Left out are two slips of its asynchronous program: a target policy that begins elsewhere than
    the policy, and gradients applied again while the queue is empty.
    """
    changed = replace(
        algorithm,
        policy_rate=(3e-5, 3e-6),
        value_rate=(8e-5, 8e-6),
        clip=3.0,
        reuse=10 if algorithm.name == "mpg-v1" else 1,
    )
    if isinstance(algorithm.weights, MpgWeights):
        changed = replace(changed, weights=replace(algorithm.weights, published=True))
    if isinstance(algorithm.target, NStep) and task == "inverted_pendulum":
        changed = replace(changed, target=replace(algorithm.target, tail=(-0.5, 0.0)))
    if algorithm.name == "n-step-dpg":
        changed = replace(changed, exploration=0.0)
    return changed
