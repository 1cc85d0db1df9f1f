"""Sentences about a fit for `gradlab fit`: (decided, sentence) pairs. Intervals are of 95%."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradlab.errors import InputError
from gradlab.wording import two

if TYPE_CHECKING:
    from gradlab.data.trajectories import Trajectories
    from gradlab.fitting.fitted import Fit
    from gradlab.networks.spectral import LayerNorm
    from gradlab.tasks import Task

_Sentences = list[tuple[bool, str]]


def fit_sentences(fit: Fit, task: Task, role: str | None = None) -> _Sentences:
    """Result of the fit, the held-out errors of each coordinate first.

    Args:
        role: of the model among several.
    """
    who = "" if role is None else f"{role.capitalize()} model: "
    sentences = [_explained(fit, task, who)]
    if fit.dropped:
        gone = ", ".join(f"{member} in epoch {epoch}" for member, epoch in fit.dropped.items())
        sentences.append((True, f"{who}Dropped, since they diverged: member {gone}."))
    if fit.constant:
        listed = ", ".join(fit.constant)
        sentences.append(
            (True, f"{who}Constant in these data, so the model knows no effect of it: {listed}.")
        )
    if fit.repeated:
        text = f"{fit.repeated} rows repeat an earlier (s, a); none is its own neighbour."
        sentences.append((True, who + text))
    if fit.settings.spectral is not None:
        text = f"Spectral norms, largest of the members: {listed_norms(fit.norms)}."
        sentences.append((True, who + text))
    return sentences


def _explained(fit: Fit, task: Task, who: str) -> tuple[bool, str]:
    """Decided where every output differs from the mean of the data beyond its interval."""
    change = "change of " if fit.settings.residual else "next "
    names = [change + name for name in task.state_names] or [
        f"{change}s{k}" for k in range(task.simulator.state_dim)
    ]
    names += ["reward"] * fit.settings.reward
    explained, error = fit.explained.mean(dim=0), 1.96 * fit.explained_error
    parts = [
        f"{name} {100 * value:.4g} ± {two(100 * half)}%"
        for name, value, half in zip(names, explained.tolist(), error.tolist(), strict=True)
    ]
    first, last = min(fit.best_epoch), max(fit.best_epoch)
    epochs = f"best after {last if first == last else f'{first} to {last}'} epochs"
    if last == len(fit.curves["seconds"]):
        epochs += ", the last: more --epochs may be better"
    return bool((explained.abs() > error).all()), (
        f"{who}{len(fit.members)} members on {fit.training_rows} rows by {fit.loss.name}, "
        f"{epochs}; held-out variance ({fit.held_out_rows} rows) explained: {', '.join(parts)}."
    )


def listed_norms(norms: Sequence[LayerNorm]) -> str:
    """Norms of the layers in order; in a normalised network, free layers are marked."""
    mixed = any(layer.normalised for layer in norms)
    return ", ".join(
        f"layer {k} {max(layer.values):.3g}{' (free)' if mixed and not layer.normalised else ''}"
        for k, layer in enumerate(norms, start=1)
    )


def foreign_sentence(task: Task, data: Trajectories, source: str) -> tuple[bool, str]:
    """Sentence about a Minari dataset: observations are taken for states, clipped velocities
    too."""
    text = f"{len(data)} transitions of {source}: its observations are taken for states."
    limit = getattr(getattr(task.simulator, "environment", None), "velocity_clip", None)
    if limit is None:
        return False, text
    rows = int((data.state.abs() == limit).any(dim=1).sum())
    return rows > 0, f"{text} Velocities are clipped at ±{limit:g}, in {rows} of them."


def nearness_sentences(
    data: Trajectories, fit: Fit, neighbours: int, divided: bool, seed: int
) -> _Sentences:
    """Whether directional derivatives would have helped a model that was fitted without them."""
    from gradlab.fitting.directional_loss_check import by_group

    try:
        checks = by_group(data, fit, neighbours, divided, seed)
    except InputError:  # too few points for an answer
        return []
    sentences: _Sentences = []
    for group, check in checks.items():
        what = "the states' derivatives" if group == "state" else "the reward's derivatives"
        decided = check.verdict != "undecided"
        whether = check.verdict if decided else "are not shown to help or to harm"
        gain, low, high = map(two, check.gain)
        text = (
            f"Directional derivatives (--loss dd) {whether} with {what}: along {neighbours} "
            f"neighbours, {two(check.distance)} deviations away in the median, the model misses by "
            f"{two(check.model_error)} and differences of the data by {two(check.target_error)} "
            f"(squared, standardised; gain {gain}, 95% [{low}, {high}], {check.rows} held-out "
            f"rows). Whether the policy gradient gains: `gradlab remedies`."
        )
        sentences.append((decided, text))
    return sentences
