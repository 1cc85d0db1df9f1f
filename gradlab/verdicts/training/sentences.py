"""What a training run found, in sentences; read without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.training.results import GOALS, Training, first_reached
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.training.asynchrony import stale
from gradlab.verdicts.training.measured_weights import measured
from gradlab.verdicts.training.probe import probed
from gradlab.verdicts.training.row_gradient import row_gradient, sample_of, why_none
from gradlab.wording import percent, span, two

EXPLAINED = 0.5  # of an output's held-out variance, below which a model does not predict it


def verdict(run: Training, name: str = "") -> list[Sentence]:
    """Final return, goals, the gradient's error and the model's, and what went wrong.

    Args:
        name: what to call the run; default: its algorithm.
    """
    name = name or run.name
    events = (Sentence("health", True, text) for text in run.events)
    return [
        _final(run, name),
        *_goals(run, name),
        *measured(run, name),
        *_gradient(run, name),
        *row_gradient(run, name),
        *_model(run, name),
        *probed(run, name),
        *stale(run, name),
        *events,
    ]


def _final(run: Training, name: str) -> Sentence:
    settings = run.config["settings"]
    last, errors = run.returns[-1], run.errors[-1]
    seeds = ", ".join(
        f"{value:.3g} ± {error:.2g}" for value, error in zip(last, errors, strict=True)
    )
    middle = f"median {np.median(last):.3g} over {len(last)} seeds" if len(last) > 1 else "one seed"
    return Sentence(
        "return",
        True,
        f"{name} on {run.task}: return {seeds} after {int(run.iteration[-1])} iterations "
        f"({middle}; mean ± standard error over {settings['evaluation_starts']} fixed starts of "
        f"{settings['episode']} steps that {settings['at_end']} at terminal states; termination in "
        f"training: {settings['termination']}, reward scale: {settings['reward_scale']:g}).",
    )


def _goals(run: Training, name: str) -> list[Sentence]:
    told = []
    for goal in GOALS.get(run.task, ()):
        reached = first_reached(run, goal)
        count = int(np.isfinite(reached).sum())
        when = ""
        if count:
            when = f", at iteration {np.nanmedian(reached):.0f} in the median of those"
            if np.nanmax(reached) == run.iteration[0]:
                when = ", before any update"
        told.append(f"{goal:g} by {count} of {len(reached)} seeds{when}")
    return [Sentence("goals", True, f"{name} reached {'; '.join(told)}.")] if told else []


def _learned(run: Training, name: str) -> list[Sentence]:
    return [*_gradient(run, name), *_model(run, name)]


def _gradient(run: Training, name: str) -> list[Sentence]:
    """The error of the longest horizon's gradient when it was last measured."""
    errors = run.gradients
    if not errors:
        return []
    last = {name: errors[name][-1, :, -1] for name in ("relative_mse", "bias2", "mse", "cosine")}
    finite = np.isfinite(last["relative_mse"])
    where = f"h = {int(errors['horizon'][-1])}, iteration {int(errors['iteration'][-1])}"
    if not finite.any():
        why = why_none(run)
        what = "no error that a true gradient could show" if why else "no true gradient"
        return [Sentence("gradient", False, f"{name}: {what} at {where}{why}.")]
    error, bias, mse = (np.median(last[name][finite]) for name in ("relative_mse", "bias2", "mse"))
    # Without a part that is finite to be above noise a seed's gradient has no direction.
    # An estimate of a cosine may lie beyond ±1, the cosine itself may not.
    directions = np.clip(last["cosine"][np.isfinite(last["cosine"])], -1, 1)
    cosine = f"; {_cosines(directions)}" if len(directions) else ""
    each = last["relative_mse"][finite]
    if len(each) > 1:
        spread = f"median of {len(each)} seeds, {span(each.min(), each.max())}"
    else:
        ends = (errors[f"relative_mse_{end}"][-1, finite, -1][0] for end in ("low", "high"))
        spread = f"one seed, 95% interval {span(*ends)}"
    return [
        Sentence(
            "gradient",
            bool(error < 1),
            f"{name}: gradient MSE {two(error)} of the true gradient's square at {where} "
            f"({spread}; {sample_of(run)}, "
            f"batches of {run.samples}), {percent(max(bias, 0.0) / mse)} of "
            f"it squared bias{cosine}.",
        )
    ]


def _cosines(values: NDArray[np.float64]) -> str:
    """The seeds' median, and where they lie."""
    among = f" ({span(values.min(), values.max())})" if len(values) > 1 else ""
    return f"cosine {two(np.median(values))}{among}"


def _model(run: Training, name: str) -> list[Sentence]:
    """What the last fit explains of rows that were held out, and which output it does not."""
    if not run.model:
        return []
    parts, poor = [], []
    for role, loss in run.config["model_losses"].items():
        kind = "model" if role == "prediction" else "gradient model"
        explained = run.model[f"{role}_explained"][-1]
        least, share = _least_explained(run, np.median(explained, axis=0))
        parts.append(
            f"{kind} ({loss}) {np.median(explained):.4f} in the median of outputs and seeds, least "
            f"for {least}: {share:.4f}"
        )
        if share < EXPLAINED:
            instead = "; --loss mse fits squared errors" if loss == "nll" else ""
            text = (
                f"{name}: the {kind} does not predict {least}, less than half of whose held-out "
                f"variance it explains: gradients and values made from it have this error{instead}."
            )
            poor.append(Sentence("model", False, text))
    rows = int(run.model["rows"][-1])
    stated = f"{name}: held-out variance explained after {rows} rows: {'; '.join(parts)}."
    return [*poor, Sentence("model", True, stated)]


def _least_explained(run: Training, shares: NDArray[np.float64]) -> tuple[str, float]:
    """The name of the output, the reward being the last, and its share."""
    worst = int(np.argmin(np.nan_to_num(shares, nan=np.inf)))
    states = [f"state {k + 1}" for k in range(len(shares) - 1)]
    return [*(run.config["state_names"] or states), "reward"][worst], float(shares[worst])
