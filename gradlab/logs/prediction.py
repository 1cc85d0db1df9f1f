"""The model's own path beside the recorded one, under the recorded actions.

    ŝ_0 = s_0,  ŝ_{k+1} = f(ŝ_k, a_k)        E_k² = E |s_k − ŝ_k|² / E |s_k − s_0|²

in standard deviations of each coordinate: 1 is the error of predicting no change. The model
follows its mean transition; process noise that it lacks is part of the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gradlab.data.path import Path
from gradlab.statistics.error_growth import ErrorGrowth, error_growth
from gradlab.statistics.growth import FEWEST
from gradlab.statistics.over_groups import Estimates, group_sums, root_ratio
from gradlab.systems.ended import step_running
from gradlab.systems.system import System


@dataclass(frozen=True)
class Prediction:
    """E_k for k = 1 … T, and the law of the growth of |s_k − ŝ_k| where one could be fitted.

    Attributes:
        lost: the first step at which a prediction left the finite numbers; None: none did.
    """

    error: Estimates
    growth: ErrorGrowth | None
    lost: int | None


def prediction(path: Path, model: System) -> Prediction:
    """The model along windows; those that ended count up to their last living step.

    Args:
        path: of windows, NaN where no action was taken.
    """
    spread = path.states[path.alive].std(dim=0)
    scale = torch.where(spread > 0, spread, 1.0)
    here, wrong = path.states[0], []
    for t in range(path.horizon):
        with torch.no_grad():
            here = step_running(model, here, path.actions[t].nan_to_num(0.0)).state
        wrong.append(((here - path.states[t + 1]) / scale).square().sum(dim=1))
    moved = ((path.states[1:] - path.states[0]) / scale).square().sum(dim=2)
    # The step into a terminal state was recorded too.
    counted = path.alive[:-1]
    error = torch.where(counted, torch.stack(wrong), 0.0)
    finite = torch.isfinite(error).all(dim=1)
    lost = None if finite.all() else int((~finite).nonzero()[0]) + 1
    last = path.horizon if lost is None else lost - 1
    group = path.group.numpy()
    X, Z = (
        group_sums(torch.where(counted, part, 0.0)[:last].T.numpy(), group)
        for part in (error, moved)
    )
    errors = root_ratio(X, Z, counted[:last].sum(dim=1).numpy())
    return Prediction(errors, _growth(error[:last].numpy(), counted[:last].numpy(), group), lost)


def _growth(error: np.ndarray, counted: np.ndarray, group: np.ndarray) -> ErrorGrowth | None:
    """Of the first window of each trajectory that lives to the end."""
    _, first = np.unique(group, return_index=True)
    kept = first[counted[:, first].all(axis=0)] if len(error) else first[:0]
    if len(kept) < 2 or len(error) < FEWEST:
        return None
    return error_growth(np.sqrt(error[:, kept]).T)
