"""Section of a training's page: lags of the gradients of runs in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from gradlab.reporting.numbers import texts
from gradlab.reporting.page import Section
from gradlab.runs.training.asynchrony import Asynchrony, asynchrony
from gradlab.runs.training.results import Training

_ABOUT = (
    "The lag of a gradient: steps of its network between the parameters at which it was computed "
    "and those that it changed. Shares of all gradients of the run."
)


def staleness(runs: Mapping[str, Training]) -> list[Section]:
    """Nothing where every run was in one process."""
    both = {name: asynchrony(run) for name, run in runs.items()}
    made = {name: each for name, each in both.items() if each is not None}
    if not made:
        return []
    body = f"<p>{_ABOUT}</p>" + "".join(_of(name, each) for name, each in made.items())
    return [Section("How old gradients were", body=body)]


def _of(name: str, run: Asynchrony) -> str:
    """Lags, then what each process did."""
    last = max(np.flatnonzero(run.critic + run.policy), default=0)
    shares = [x / max(x.sum(), 1) for x in (run.policy, run.critic)]
    more = len(run.policy) - 1
    lags = [
        [f"{lag}{' or more' if lag == more else ''}", *(f"{100 * x[lag]:.1f}%" for x in shares)]
        for lag in range(last + 1)
    ]
    work = [
        *([f"learner {k}", f"{n:.0f} gradients", f"{100 * run.busy[k]:.0f}% of the time"]
          for k, n in enumerate(run.gradients)),
        *([f"actor {k}", f"{n:.0f} steps", ""] for k, n in enumerate(run.steps)),
    ]  # fmt: skip
    heads = ["lag", "gradients of the policy", "gradients of critics"]
    return (
        f"<h3>{escape(name)}</h3>{texts(heads, lags)}"
        f"{texts(['process', 'what it did', 'computing'], work)}"
    )
