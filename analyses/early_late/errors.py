"""Errors and best weights of J_n at every checkpoint, with intervals, from `samples`.

One long table: task, iteration, seed, law of the starts, estimator, horizon, quantity, value,
ci_low, ci_high. Quantities are those of `statistics.moments`, relative_bias2 (over |truth|²) and

    bias_ratio      |bias of J_n| / |bias of J_0|, paired; NaN where noise hides one of the two
    bias_gap        bias² of J_n − bias² of J_0, paired: its sign decides either way
    weight_mse, weight_direction      of J_H beside J_0 (`statistics.mixing`), batch 256
    weight_rule                       MPG eq. 10 at that iteration
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from analyses.early_late.samples import (
    BATCH,
    HORIZON,
    LENGTH,
    RAMPS,
    TASKS,
    Place,
    Samples,
    file,
    load,
    places,
    policy_at,
    products,
)
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.grams import ActionProducts, mixture_moments
from gradlab.statistics.intervals import Interval, interval
from gradlab.statistics.mixing import Weights, direction_weights, mse_weights
from gradlab.statistics.moments import Estimate, estimates
from gradlab.training.parts.context import MpgWeights

SHOWN = ("bias2", "variance", "mse", "relative_mse", "cosine")
Row = dict[str, object]


def table(
    checkpoints: Path,
    tasks: Sequence[str] = TASKS,
    seeds: int | None = None,
    laws: Sequence[str] = ("visited", "starts"),
    length: int = LENGTH,
) -> pd.DataFrame:
    """All places of these laws that have been measured, of the first `seeds` seeds."""
    found = [
        errors(load(file(place, length)), policy_at(place, checkpoints))
        for place, _ in places(length)
        if file(place, length).exists()
        and place.task in tasks
        and place.law in laws
        and (seeds is None or place.seed < seeds)
    ]
    return pd.concat(found, ignore_index=True)


def errors(samples: Samples, policy: nn.Module) -> pd.DataFrame:
    """The rows of one place; those against the cut truth have the law "…, cut"."""
    rows = [*_rows(samples, products(samples, policy)[0])]
    if samples.about["cut_steps"] != samples.about["steps"]:
        cut = replace(samples, truth=samples.cut)
        renamed = replace(samples.place, law=f"{samples.place.law}, cut")
        rows += _rows(replace(cut, place=renamed), products(cut, policy)[0])
    return pd.DataFrame(rows)


def _rows(samples: Samples, kernel: ActionProducts) -> Iterator[Row]:
    place, cells = samples.place, samples.cells
    about = dict(vars(place)) | {"starts": len(samples.states)}
    found = [_estimates(kernel, k, len(cells)) for k in range(len(cells))]
    first = found[0]
    truth2 = first["mse"].value / first["relative_mse"].value  # NaN where noise hides it
    for (name, n), each in zip(cells, found, strict=True):
        cell = about | {"estimator": name, "horizon": n}
        for quantity in SHOWN:
            yield cell | _row(quantity, each[quantity].value, interval(quantity, each[quantity]))
        relative = interval("bias2", each["bias2"])
        yield cell | _row("relative_bias2", each["bias2"].value, relative, 1 / truth2)
        if n > 0:
            bias2 = each["bias2"]
            data = first["bias2"]
            gap = difference(bias2, data)
            yield cell | _row("bias_gap", bias2.value - data.value, gap)
            ratio = log_ratio(bias2, data)
            ends = (np.nan,) * 3
            if ratio is not None:
                middle = np.log(bias2.value / data.value)
                ends = tuple(np.exp(0.5 * np.array([middle, ratio.low, ratio.high])))
            yield cell | dict(
                zip(("quantity", "value", "ci_low", "ci_high"), ("bias_ratio", *ends), strict=True)
            )
    yield from _weights(about, kernel, len(cells), place)


def _estimates(kernel: ActionProducts, k: int, truth: int) -> dict[str, Estimate]:
    return dict(estimates(mixture_moments(kernel.grams([k, truth]), np.ones(1)), BATCH))


def _weights(about: Row, kernel: ActionProducts, truth: int, place: Place) -> Iterator[Row]:
    """Of J_H beside J_0."""
    pair = kernel.grams([0, HORIZON, truth])
    cell = about | {"estimator": "model", "horizon": HORIZON}
    yield cell | _share("weight_mse", mse_weights(pair, BATCH))
    yield cell | _share("weight_direction", direction_weights(pair, BATCH))
    rule = rule_weight(place.task, place.iteration)
    yield cell | {"quantity": "weight_rule", "value": rule, "ci_low": rule, "ci_high": rule}


def rule_weight(task: str, iteration: int) -> float:
    """w_H of MPG eq. 10 at that iteration of that task's ramp."""
    return float(MpgWeights(ramp=RAMPS[task])(iteration, (0, HORIZON))[1])


def _share(quantity: str, found: Weights) -> Row:
    ends = (found.share[1], found.low[1], found.high[1])
    return dict(zip(("quantity", "value", "ci_low", "ci_high"), (quantity, *ends), strict=True))


def _row(quantity: str, value: float, ends: Interval, factor: float = 1.0) -> Row:
    return {
        "quantity": quantity,
        "value": value * factor,
        "ci_low": ends.low * factor,
        "ci_high": ends.high * factor,
    }
