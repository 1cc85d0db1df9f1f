"""A comparison of two measurements of one policy on one task: differences, ratios, intervals.

    difference  B − A          ratio  B / A, by its logarithm

On the same starts and noise both are paired by group, and what the runs have in common leaves the
error; otherwise the errors of both add. Biases are compared under one truth only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, nan
from typing import Any

import numpy as np
import pandas as pd

from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import difference, log_ratio, on_joint_groups
from gradlab.statistics.moments import WITHOUT_TRUTH, Estimate
from gradlab.statistics.quantities import TABLE

_PRIOR = "prior"  # parameters of a task that begin so describe its model, not the task
_PER_BATCH = tuple(each.name for each in TABLE if each.per_batch)
_RATIOS = ("mse", "relative_mse", "bias2", "variance", "variance_critics", "mean_norm", "snr")
_NUMBERS = (
    "first", "second", "difference", "se", "ci_low", "ci_high", "ratio", "ratio_low", "ratio_high",
)  # fmt: skip
_ASKED = (
    "model", "critic_hash", "critics", "starts", "seed", "horizon", "batch", "jacobian_noise",
)  # fmt: skip
_SETTINGS = {"discount": None, "termination": "ignore", "truth": "matched", "entropy": 0.0}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two profiles of one policy on one task, under one truth.

    Attributes:
        names: of the two.
        unpaired: why they are not paired; empty where they are.
        changed: settings in which they differ, with both values.
        estimators, horizons, quantities: what both have; skipped: what is left out, and why.
    """

    first: Profile
    second: Profile
    names: tuple[str, str]
    unpaired: str
    changed: Mapping[str, tuple[Any, Any]]
    estimators: tuple[str, ...]
    horizons: tuple[int, ...]
    quantities: tuple[str, ...]
    skipped: str

    @property
    def samples(self) -> int:
        """The smaller number of starts, which decides."""
        return min(int(each.config["starts"]) for each in (self.first, self.second))

    def estimates(self, estimator: str, quantity: str, horizon: int) -> tuple[Estimate, Estimate]:
        """Both values, on common groups."""
        first, second = (
            each.estimate(estimator, quantity, horizon) for each in (self.first, self.second)
        )
        return on_joint_groups(first, second) if self.unpaired else (first, second)

    def measured(self, estimator: str, quantity: str) -> list[int]:
        """Horizons at which both have the quantity."""
        pair = (self.first, self.second)
        return [h for h in self.horizons if all(_n(p, estimator, quantity, h) for p in pair)]

    def table(self) -> pd.DataFrame:
        """One row per estimator, horizon and quantity: first, second, their difference with se,
        ci_low and ci_high, ratio with ratio_low and ratio_high, n and method.

        Ratios are NaN where a value is not known to be above 0.
        """
        method = "jackknife of both samples" if self.unpaired else "paired jackknife"
        rows: list[dict[str, object]] = []
        for name in self.estimators:
            for quantity in self.quantities:
                for h in self.measured(name, quantity):
                    cell = {"estimator": name, "horizon": h, "quantity": quantity}
                    numbers = _numbers(*self.estimates(name, quantity, h), quantity in _RATIOS)
                    n = min(_n(p, name, quantity, h) for p in (self.first, self.second))
                    rows.append({**cell, **numbers, "n": n, "method": method})
        return pd.DataFrame(rows)


def compared(first: Profile, second: Profile, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Two profiles side by side.

    Raises:
        InputError: they are of different tasks, policies or truths, or share no estimator.
    """
    horizons = tuple(h for h in first.horizons if h in second.horizons)
    estimators = tuple(name for name in first.estimators if name in second.estimators)
    cut = "cut" in (first.truth.get("status"), second.truth.get("status"))
    one, other = (
        _shared(each, estimators, cut and _judged(first, second)) for each in (first, second)
    )
    for what in one | other:
        if one.get(what) != other.get(what):
            raise InputError(
                f"{what} is {_short(one.get(what))} in {names[0]} and {_short(other.get(what))} in "
                f"{names[1]}: share task, policy and truth"
            )
    if not estimators or not horizons:
        raise InputError(
            f"{names[0]} has {', '.join(first.estimators)} and {names[1]} "
            f"{', '.join(second.estimators)}: they share no estimator"
        )
    quantities, skipped = _quantities(first, second)
    return Comparison(
        first, second, names, _unpaired(first, second), _changed(first, second), estimators,
        horizons, quantities, skipped,
    )  # fmt: skip


def _shared(profile: Profile, estimators: Sequence[str], cut: bool) -> dict[str, object]:
    """What both must have, by its name in a message."""
    config, parameters = profile.config, sorted(_parameters(profile.config).items())
    found: dict[str, object] = {"task": config.get("task")}
    found |= {f"the task's {k}": v for k, v in parameters if not str(k).startswith(_PRIOR)}
    found |= {"policy": config.get("policy_hash")}
    found |= {key: config.get(key, default) for key, default in _SETTINGS.items()}
    actions = config.get("actions", {})
    found |= {f"the actions that carry θ in {x}": actions[x] for x in estimators if x in actions}
    return found | ({"the step T at which the truth is cut": profile.truth.get("horizon")} if cut
                    else {})  # fmt: skip


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = config.get("task_parameters", {})
    return parameters if isinstance(parameters, Mapping) else {}


def _judged(first: Profile, second: Profile) -> bool:
    """Both have a truth."""
    return all(bool(each.truth.get("admissible", True)) for each in (first, second))


def _quantities(first: Profile, second: Profile) -> tuple[tuple[str, ...], str]:
    """Those that mean the same in both, and why others are left out."""
    both = [each for each in first.quantities if each in second.quantities]
    if not _judged(first, second):
        kept = tuple(each for each in both if each in WITHOUT_TRUTH)
        return kept, "errors and directions, without a truth"
    if first.batch != second.batch:
        kept = tuple(each for each in both if each not in _PER_BATCH)
        return kept, f"errors of a batch, N′ = {first.batch} and {second.batch}"
    return tuple(both), ""


def _unpaired(first: Profile, second: Profile) -> str:
    """Why starts and noise are not the same, or nothing."""
    one, other = first.config, second.config
    if "starts_hash" not in one or "starts_hash" not in other:
        return "of unknown starts"
    if one["starts_hash"] != other["starts_hash"]:
        return "of different starts"
    if one.get("seed") != other.get("seed"):
        return "of different seeds"
    if first.left_out.shape[3] != second.left_out.shape[3]:
        return "of different groups"
    return ""


def _changed(first: Profile, second: Profile) -> dict[str, tuple[Any, Any]]:
    """Settings with two values; of the task only its model's can differ. What is a dictionary is
    compared entry by entry."""
    one, other = first.config, second.config
    pairs = {each: (one.get(each), other.get(each)) for each in _ASKED}
    ours, theirs = _parameters(one), _parameters(other)
    models = sorted(each for each in set(ours) | set(theirs) if each.startswith(_PRIOR))
    pairs |= {each: (ours.get(each), theirs.get(each)) for each in models}
    apart: dict[str, tuple[Any, Any]] = {}
    for key, (a, b) in pairs.items():
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
            apart |= {f"{key} of {name}": (a.get(name), b.get(name)) for name in names}
        else:
            apart[key] = (a, b)
    return apart


def _numbers(first: Estimate, second: Estimate, with_ratio: bool) -> dict[str, float]:
    gap, change = difference(second, first), second.value - first.value
    ratio = log_ratio(second, first) if with_ratio else None
    ends = (nan, nan, nan)
    if ratio is not None and np.isfinite([ratio.low, ratio.high]).all():
        low, high = (exp(min(each, 700.0)) for each in (ratio.low, ratio.high))
        ends = second.value / first.value, low, high
    numbers = (first.value, second.value, change, gap.se, gap.low, gap.high, *ends)
    return dict(zip(_NUMBERS, numbers, strict=True))


def _n(profile: Profile, estimator: str, quantity: str, horizon: int) -> int:
    cell = (
        profile.estimators.index(estimator),
        profile.quantities.index(quantity),
        profile.horizons.index(horizon),
    )
    return int(profile.count[cell])
