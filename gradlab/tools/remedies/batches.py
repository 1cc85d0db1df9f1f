"""What more samples would do, beside the remedies: the baseline with a batch of k N′.

    MSE_k = bias² + tr Cov / (k N′)        exact, from what was measured at N′

A larger batch leaves the bias, divides the variance by k, and costs k times the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from gradlab.statistics.intervals import pseudo_values
from gradlab.statistics.moments import Array, Estimate, combine
from gradlab.tools.remedies.result import Remedies
from gradlab.tools.remedies.tables import PAIRED, compared
from gradlab.tools.remedies.values import BASELINE, Key, over_trials

_FACTORS = (2, 4)


def larger_batches(run: Remedies) -> pd.DataFrame:
    """Rows as those of `Remedies.table`, with "batch × k" for an arm and no budget.

    Of mse, least_mse, bias2, variance (of a batch's mean) and step_cost, here the samples.
    """
    return pd.DataFrame(list(_rows(run)), columns=list(PAIRED))


def _rows(run: Remedies) -> Iterator[tuple[object, ...]]:
    errors, variances = (_over_horizons(run, name) for name in ("mse", "variance"))
    shared = [
        h
        for h in errors
        if h in variances and (len(errors[h].left_out) == len(variances[h].left_out))
    ]
    for k in _FACTORS if shared else ():
        name, less = f"batch × {k}", (1 - 1 / k) / int(run.config["batch"])
        larger = {h: combine(_minus(less), errors[h], variances[h]) for h in shared}
        n = len(larger[shared[0]].left_out)
        for h in shared:
            numbers = compared(errors[h], larger[h], ratios=True, trials=run.trials > 1)
            yield (name, "", "mse", "", float(h), "all", *numbers, n, "exact in N′")
            for quantity, ratio in (("bias2", 1.0), ("variance", 1 / k)):
                yield _exact(name, quantity, float(h), ratio)
        both = _least(run, {h: errors[h] for h in shared}), _least(run, larger)
        numbers = compared(*both, ratios=True, trials=run.trials > 1)
        yield (name, "", "least_mse", "", np.nan, "all", *numbers, n, "exact in N′")
        yield _exact(name, "step_cost", np.nan, float(k))


def _minus(share: float) -> Callable[[Array, Array], Array]:
    return lambda error, variance: error - share * variance


def _over_horizons(run: Remedies, quantity: str) -> dict[int, Estimate]:
    keys = [key for key in run.cells.keys(BASELINE) if key.quantity == quantity]
    errors = {key.at: run.cells.estimates((BASELINE,), Key(quantity, at=key.at)) for key in keys}
    return {h: each[0] for h, each in errors.items() if each is not None}


def _least(run: Remedies, errors: Mapping[int, Estimate]) -> Estimate:
    """The smallest error of each trial, over the trials (of a single one: over its starts)."""
    if run.trials == 1:
        left_out = np.min([each.left_out for each in errors.values()], axis=0)
        return Estimate(min(each.value for each in errors.values()), left_out)
    return over_trials(np.min([pseudo_values(each) for each in errors.values()], axis=0))


def _exact(name: str, quantity: str, at: float, ratio: float) -> tuple[object, ...]:
    """A ratio that no sample is needed for; `first` is the unit."""
    change = ratio - 1.0
    return (
        name, "", quantity, "", at, "all", 1.0, ratio, change, change, change, ratio, ratio, ratio,
        0, "exact",
    )  # fmt: skip
