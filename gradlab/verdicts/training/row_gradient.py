"""Sentences on the gradient of a row's own loss: what its error is made of, where it is usable,
and what measuring it cost. From a run that was asked for it (`gradient_every`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.decision_rules import COSINE, EXCESS, in_ranges
from gradlab.runs.training.results import Training
from gradlab.verdicts.phrases import capital, usable_text
from gradlab.verdicts.screen import Sentence
from gradlab.wording import duration, percent, times

_LAW = "gradient_law"  # in the configuration of such a run
_PARTS = {
    "bias2_states": "the model's states",
    "bias2_jacobians": "its Jacobians",
    "bias2_tail": "its critic",
}


def row_gradient(run: Training, name: str) -> list[Sentence]:
    """Nothing for runs whose gradients are measured at the task's starts."""
    if _LAW not in run.config or not run.gradients:
        return []
    took = float(np.nansum(run.gradients["seconds"]))
    share = percent(took / max(took + float(run.updates["seconds"][-1]), 1e-9))
    text = (
        f"{name}: {len(run.gradients['seconds'])} measurements of its gradient took "
        f"{duration(took)}, {share} of the time."
    )
    cost = Sentence("gradient cost", True, text)
    return [*_sources(run, name), *_usable(run, name), cost]


def sample_of(run: Training) -> str:
    """How many starts of which law."""
    law = run.config.get(_LAW, "starts of the task")
    starts = run.gradients.get("starts")
    count = run.config["settings"]["gradient_starts"]
    if starts is not None and np.isfinite(starts[-1]).any():
        count = int(np.nanmax(starts[-1]))
    return f"N = {count} {law}"


def why_none(run: Training) -> str:
    """What stood in the way of the newest truth, as the end of a sentence."""
    reasons = run.gradients.get("truth_reason")
    if reasons is None or not str(reasons[-1]):
        return ""
    return f": {reasons[-1]}"


def _newest(run: Training, column: str) -> NDArray[np.float64]:
    """Of every seed and horizon, [E, horizon]."""
    return np.asarray(run.gradients[column][-1], dtype=np.float64)


def _sources(run: Training, name: str) -> list[Sentence]:
    """Parts of the squared bias at the row's own horizon, in the median of the seeds in which a
    squared bias is shown."""
    shown = _newest(run, "bias2_low")[:, -1] > 0
    if not shown.any():
        return []
    whole = _newest(run, "bias2")[shown, -1]
    parts = dict(_PARTS)
    if run.config["algorithm"].get("target_rule") == "NoCritic":
        parts["bias2_tail"] = "the return that it cuts off"
    shares = {
        text: float(np.median(_newest(run, column)[shown, -1] / whole))
        for column, text in parts.items()
    }
    listed = ", ".join(
        f"{text} {f'−{percent(-share)}' if share < 0 else percent(share)}"
        for text, share in shares.items()
    )
    seeds = len(shown)
    among = f" (median of the {shown.sum()} of {seeds} seeds that show one)" if seeds > 1 else ""
    text = f"{name}: squared bias of its own gradient{among}: {listed}."
    return [Sentence("gradient sources", True, text)]


def _usable(run: Training, name: str) -> list[Sentence]:
    """By the seed that has the median cosine at the row's own horizon."""
    cosine, horizons = _newest(run, "cosine")[:, -1], run.gradients["horizon"]
    finite = np.flatnonzero(np.isfinite(cosine))
    if not len(finite) or int(horizons[-1]) < 1:
        return []
    seed = finite[np.argsort(cosine[finite])[len(finite) // 2]]
    error, low, high = (_newest(run, f"relative_mse{end}")[seed] for end in ("", "_low", "_high"))
    if not np.isfinite(error).any():
        return []
    surely = (_newest(run, "cosine_low")[seed] >= COSINE) & (error <= EXCESS * np.nanmin(error))
    perhaps = (_newest(run, "cosine_high")[seed] >= COSINE) & (low <= EXCESS * np.nanmin(high))
    usable = in_ranges(horizons.tolist(), surely.tolist(), perhaps.tolist())
    rule = f"cosine ≥ {COSINE:g}, at most {times(EXCESS)} the least relative error"
    text = usable_text(f"the gradient of {name}", usable, rule)
    return [Sentence("gradient range", usable.decided, f"{capital(text)}.")]
