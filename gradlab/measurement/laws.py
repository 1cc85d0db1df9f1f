"""The law of the states where gradients are taken, and the truth that they are compared with.

    visited   states that the policy visits from the task's starts, ν, where an update takes its
              gradients; the truth is the gradient of the return, ∇_θ E_ζ[V^π]
    start     the starts themselves, ζ (or those that are given); the truth of each kind of gradient
              is its own, E_ζ[J_θπᵀ ∂_a Q^π] or ∇_θ E_ζ[V^π]

`gradlab.measurement.shared_truth` records a third word where its caller brings the states:

    given     states of the caller's own, such as replayed ones (`--weights measured`), with the
              matched truths of "start"

ζ is the task's own law, or that law trimmed (`tasks.trimmed`): truth, visits, gains and checks then
rest on the trimmed one alone.

A matched truth at start states can be nearly orthogonal to the gradient of the return: it says how
good an estimator is at those states, never whether a step along it helps.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from torch import Tensor

from gradlab import validation
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.tasks import Task, trimmed

Law = Literal["visited", "start"]
TruthKind = Literal["objective", "matched"]
LAWS, TRUTHS = get_args(Law), get_args(TruthKind)


def resolved(
    starts: int | Tensor | Path, law: str | None, truth: str | None
) -> tuple[Law, TruthKind]:
    """Law and truth of a measurement, what is None by its default.

    A number of starts means visited states, a tensor or a path the states that it holds; visited
    states are judged by the gradient of the return, given ones by their matched truths.

    Raises:
        InputError: an unknown word, or law, truth and starts that contradict one another.
    """
    if law is not None:
        validation.word("law", law, LAWS)
    if truth is not None:
        validation.word("truth", truth, TRUTHS)
    counted = isinstance(starts, int)
    _check_contradictions(starts, law, truth)
    if law is None:
        law = "visited" if counted or truth == "objective" else "start"
    if truth is None:
        truth = "objective" if law == "visited" else "matched"
    return cast(Law, law), cast(TruthKind, truth)


def narrowed(task: Task, trim_starts: float, starts: int | Tensor | Path) -> Task:
    """The task with its starts trimmed by this share; as it is where that is 0.

    Raises:
        InputError: it is no such share, or the states were given and so have no law to trim.
    """
    share = validation.number("trim_starts", trim_starts, "a share of the starts, 0 for none")
    if share == 0:
        return task
    if not isinstance(starts, int):
        raise InputError(
            f"trim_starts is {share:g}, but starts holds the states themselves: leave out "
            f"rows by a rule that was fixed before they were drawn, or give a number of starts"
        )
    return trimmed(task, share)


def _check_contradictions(starts: int | Tensor | Path, law: str | None, truth: str | None) -> None:
    if law == "start" and truth == "objective":
        raise InputError(
            "law is 'start' and truth is 'objective': against the gradient of the return, "
            "first-action gradients are judged at visited states; leave law out, or use "
            "truth='matched' at the starts"
        )
    if law != "visited" or isinstance(starts, int):
        return
    if isinstance(starts, Path):
        raise InputError(
            "law is 'visited' but starts is a Path, which is a law of its own: leave law out, or "
            "give a number of starts"
        )
    if truth == "matched":
        raise InputError(
            "law is 'visited' and truth is 'matched', but starts is a tensor, whose rows are the "
            "states to judge at: leave law out, or give a number of starts"
        )
