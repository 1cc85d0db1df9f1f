"""The table: every algorithm is one row (`algorithm.Algorithm`), and one loop runs them all.

A row says in what an algorithm differs and stands with its family in `training.rows`; its
parts are frozen values with one method each (`training.parts`). `docs/architecture.md` lists them.

The settings that papers print for a task stand below, as options of `gradlab train`. What a paper
leaves open stays gradlab's. Gymnasium's tasks of version 5 stand for the papers' version 2.
Iterations are updates of the critic: environment steps · updates for each of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from math import isfinite
from typing import Any, NamedTuple, get_args

from gradlab import validation
from gradlab.errors import InputError
from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithm import Algorithm
from gradlab.training.measured.switching import By
from gradlab.training.parts.context import FixedWeights, MeasuredWeights
from gradlab.training.parts.policy_losses import FromStarts, MixtureLoss, Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import NStep, Steve
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


# Where a number stands that is none of a row itself; one of several may be missing.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "target_steps": ("target.steps",),
    "temperature": ("target.temperature",),
    "fit_every": ("model.every", "source.branching.every"),  # MBPO algorithm 2, DDPPO algorithm 1
    "rollouts": ("source.branching.rollouts",),
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


def with_rollouts(algorithm: Algorithm, lengths: Sequence[int]) -> Algorithm:
    """The row with other rollouts that fill its second replay.

    Args:
        lengths: k, or first, last and the two iterations between which it grows.

    Raises:
        InputError: a row without them, or numbers of which neither is one.
    """
    branching = algorithm.source.branching
    if branching is None:
        return with_changes(algorithm, rollouts=tuple(lengths))  # which it has not
    if len(lengths) not in (1, 4):
        wanted = "k, or its first and last value and the iterations between which it grows"
        raise validation.expected("rollout_length", tuple(lengths), wanted)
    names = ("first", "last", "begin", "end")
    given = lengths if len(lengths) == 4 else [*lengths, *lengths]
    branching = replace(branching, **dict(zip(names, given, strict=False)))
    return _replaced(algorithm, "source.branching", branching)  # type: ignore[no-any-return]


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


@dataclass(frozen=True)
class Printed:
    """One setting: the option's name in Python, its value, and where it is printed."""

    option: str
    value: Any
    source: str


class _Environment(NamedTuple):
    """A column of DDPPO's table 1, with the warm-up and k of its section B.2.2; and what it takes
    of MBPO, by that one's code: the updates for a step, and k."""

    epochs: int
    H: int
    n: int
    w: float
    warmup: int = 5000
    last_k: int = 1  # reached in epoch 155, from 1 in epoch 25
    mbpo_updates: int = 20
    mbpo_k: tuple[int, ...] = (1,)  # from, to, first and last epoch


_ENVIRONMENTS: Mapping[str, _Environment] = {
    "InvertedPendulum-v5": _Environment(15, 3, 10, 10.0, warmup=200, mbpo_updates=10),
    "Hopper-v5": _Environment(100, 2, 25, 50.0, last_k=15, mbpo_k=(1, 15, 20, 150)),
    # Cells of n are merged in the text: 25 for Walker2D and HalfCheetah, 5 for the last two.
    "Walker2d-v5": _Environment(100, 3, 25, 0.1),
    "HalfCheetah-v5": _Environment(100, 3, 25, 1.0, mbpo_updates=40),
    "Ant-v5": _Environment(150, 3, 5, 0.1, mbpo_k=(1, 25, 20, 100)),
    "Humanoid-v5": _Environment(150, 3, 5, 0.1, last_k=25, mbpo_k=(1, 25, 20, 300)),
}
_STEPS, _UPDATES, _FITTED = 1000, 10, 250  # of an epoch; G1 = G2; environment steps between fits
_MBPO = "jannerm/mbpo, whose numbers DDPPO takes"
_DDPPO = ("ddppo", "ddppo-one-model", "ddppo-no-gradient-loss", "ddppo-double-parameters")
_NO_GRADIENT_LOSS = _DDPPO[2:]
_MAAC = (
    "maac", "maac-h0", "maac-no-steve", "maac-one-sample", "maac-five-batch", "maac-real-data",
    "maac-no-entropy",
)  # fmt: skip
_MPG = ("mpg-v1", "mpg-v2", "n-step-dpg", "n-step-adp", "td3", "sac")
_RP = ("rp-dp", "rp-dp-sn", "rp-dr", "rp-dr-sn")


def _table_1(algorithm: str, task: str, horizons: Sequence[int]) -> Iterator[Printed]:
    """DDPPO and, as it prints them, MAAC and MBPO; those two's updates by their own code."""
    here, table, text = _ENVIRONMENTS[task], "DDPPO table 1", "DDPPO B.2.2"
    baseline, updates = algorithm not in _DDPPO, _UPDATES
    k: tuple[int, ...] = (1, here.last_k, 25, 155) if here.last_k > 1 else (1,)
    made = f"{table}, G" if not baseline else "MAAC's code: 10,000 after 1,000 steps"
    if algorithm == "mbpo":
        updates, k, made = here.mbpo_updates, here.mbpo_k, _MBPO
    yield Printed("iterations", here.epochs * _STEPS * updates, f"{table}, epochs; {made}")
    yield Printed("updates", updates, made)
    yield Printed("agents", 1, f"{table}, one environment")
    yield Printed("warmup", here.warmup, text)
    yield Printed("fit_every", _FITTED * updates, f"{text}, 250 steps")
    if algorithm == "ddppo-double-parameters":
        yield Printed("model_hidden", (283,) * 4, "DDPPO 5.3: twice the parameters of 4 × 200")
    else:
        yield Printed("model_hidden", (200,) * 4, f"{text}: MBPO's network")
    yield Printed("members", 7, f"{table}, ensemble size")
    if algorithm not in ("mbpo", "maac-h0"):
        where = "DDPPO B.2.3" if baseline else f"{table}, H"
        yield Printed("horizons", (here.H,), where)
    if not baseline or algorithm == "mbpo":
        k = (*k[:2], *(epoch * _STEPS * updates for epoch in k[2:]))
        yield Printed("rollout_length", k, _MBPO if baseline else f"{text}, k")
    if baseline:
        return
    yield Printed("batch", 256, text)
    yield Printed("temperature", "auto", "DDPPO eq. 13")
    if algorithm not in _NO_GRADIENT_LOSS:
        yield Printed("neighbours", here.n, f"{table}, n")
        yield Printed("directions", "all", "DDPPO eq. 9")
        yield Printed("loss_weight", here.w, f"{table}, w")
        yield Printed("as_printed", True, "DDPPO eq. 10")


def _table_vi(algorithm: str, task: str, horizons: Sequence[int]) -> Iterator[Printed]:
    table, text = "MPG table VI", "MPG section V"
    shared = {
        "hidden": (256, 256), "replay": 500_000, "batch": 256, "tau": 0.005, "actors": 2,
        "buffers": 2, "learners": 12,
    }  # fmt: skip
    own: dict[str, Any] = {"sac": {"temperature": 0.03}, "td3": {"delay": 2, "exploration": 0.1}}
    several = {"reuse": 10, "target_steps": 25}
    own |= {"n-step-dpg": several, "n-step-adp": several | {"horizons": (25,)}}
    own |= {"mpg-v1": several | {"delay": 2, "horizons": (0, 25)}}
    own |= {"mpg-v2": {"reuse": 10, "delay": 2, "horizons": (0, 25)}}
    for name, value in (shared | own[algorithm]).items():
        yield Printed(name, value, table)
    runs = {"iterations": 100_000, "seeds": 5, "evaluate_every": 3000, "evaluation_starts": 5}
    for name, value in runs.items():
        yield Printed(name, value, text)
    yield Printed("episode", {"path_tracking": 200, "inverted_pendulum": 100}[task], text)


def _layers(algorithm: str, task: str, horizons: Sequence[int]) -> Iterator[Printed]:
    """RP-PGM prints numbers of layers, no widths: these are gradlab's. Its model predicts as many
    steps as are unrolled."""
    row = ALGORITHMS[algorithm]
    yield Printed("hidden", row.hidden, "RP-PGM B.1, 4 layers")
    assert row.model is not None
    yield Printed("model_hidden", row.model.hidden, "RP-PGM B.1, 5 layers")
    if longest := max(horizons or row.horizons):
        yield Printed("loss_steps", longest, "RP-PGM figure 6, h-step models")


_PAPERS = (
    (_MPG, ("path_tracking", "inverted_pendulum"), _table_vi),
    ((*_DDPPO, *_MAAC, "mbpo"), tuple(_ENVIRONMENTS), _table_1),
    (_RP, ("Hopper-v5", "Walker2d-v5"), _layers),
)


def known(algorithm: str, task: str) -> bool:
    """Whether a paper prints settings of the algorithm for the task."""
    return any(algorithm in rows and task in tasks for rows, tasks, _ in _PAPERS)


def printed(algorithm: str, task: str, horizons: Sequence[int] = ()) -> tuple[Printed, ...]:
    """What the algorithm's paper prints for the task.

    Args:
        horizons: those of the policy's gradient, where they are not the row's own.

    Raises:
        InputError: no paper has it; names what there is.
    """
    for rows, tasks, settings in _PAPERS:
        if algorithm in rows:
            if task in tasks:
                return tuple(settings(algorithm, task, horizons))
            raise InputError(
                f"preset is 'paper', but no paper has {algorithm} on {task}: it has "
                f"{', '.join(tasks)}"
            )
    known = ", ".join(name for rows, *_ in _PAPERS for name in rows)
    raise InputError(f"preset is 'paper', which {algorithm} has not: presets are of {known}")
