"""What is asked of a measurement: options of `gradlab measure`, arguments of `measure`, and what is
stored with its numbers.

    visited   states that the policy visits from the task's starts, where an update takes its
              gradients; the truth is the gradient of the return, ∇_θ E_ζ[V^π]
    start     the starts themselves (or those that are given); each kind of gradient has a truth of
              its own, which may be nearly orthogonal to the gradient of the return

Read without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from gradlab import validation
from gradlab.errors import InputError
from gradlab.gradients.ways import WAYS
from gradlab.options import Within, check, named

if TYPE_CHECKING:
    from gradlab.tasks import Task

Law = Literal["visited", "start"]
TruthKind = Literal["objective", "matched"]
Termination = Literal["ignore", "mask"]
FEWEST = 4  # groups that a jackknife needs
DENSITIES = tuple(name for name, way in WAYS.items() if not way.pathwise)
ALSO = (*DENSITIES, "cut_transition", "decay", "replayed")


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Options of a measurement; what is None is taken from the task or the starts (`resolved`)."""

    horizon: Annotated[int | None, named("H")] = None
    """Largest horizon, in steps. Default: the task's."""
    starts: Annotated[int, Within(FEWEST)] = 512
    """Number of starts, from which states are visited."""
    batch: Annotated[int, Within(1)] = 256
    """N′, the samples that one update of your algorithm averages."""
    termination: Annotated[Termination | None, named("ignore|mask")] = None
    """Terminal states: run on, or stop. Default: mask with a task's own networks."""
    law: Annotated[Law | None, named("visited|start")] = None
    """Judge gradients at states that the policy visits, or at the starts. Default: visited."""
    truth: Annotated[TruthKind | None, named("objective|matched")] = None
    """The return's gradient, or each estimator's target. Default: objective where visited."""
    attribute: bool = False
    """Find the causes of the error, too: takes several times as long."""
    surface: Annotated[tuple[int, ...], named("H")] = ()
    """Keep a slice of the value estimate at these horizons."""
    also: Annotated[tuple[str, ...], named("NAME")] = ()
    """Further estimators of the simulator: see `gradlab list estimators`."""
    trim_starts: Annotated[float, Within(0, below=0.5)] = 0.0
    """Share of the starts, the farthest from their mean, left out."""
    judges: Annotated[int | None, named("INT"), Within(FEWEST)] = None
    """Fresh starts for steps and rehearsals. Default: --starts, and 256 for rehearsals."""
    lr: Annotated[float | None, named("FLOAT"), Within(above=0)] = None
    """Your policy's learning rate. Default: actions move by 4%; 3e-4 in rehearsals."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Your policy's optimiser."""
    refit: Annotated[int, Within(1)] = 25
    """Updates between two fits of the critic, the most rehearsed."""
    no_rehearsal: bool = False
    """Skip the rehearsal: for how many updates the best gradients hold."""
    max_steps: Annotated[int | None, named("T"), Within(1)] = None
    """Steps that the truth is unrolled at most. Default: 1000."""
    seed: int = 0
    """Seed of every random draw."""

    def __post_init__(self) -> None:
        check(self)
        for name in self.also:
            if not cut_of(name):
                validation.word("also", name, (*ALSO, "decay_α (0 ≤ α < 1)", "stop_k (k ≥ 1)"))
        if self.law == "start" and self.truth == "objective":
            raise InputError(
                "law is 'start' and truth is 'objective': against the gradient of the return, "
                "first-action gradients are judged at visited states; leave law out, or use "
                "truth='matched' at the starts"
            )

    def resolved(self, task: Task, given: Literal["", "tensor", "Path"] = "") -> MeasureConfig:
        """With the task's horizon, and law and truth of the starts.

        A number of starts means visited states, a tensor or a path the states that it holds;
        visited states are judged by the gradient of the return, given ones by matched truths.

        Args:
            given: what holds the starts; "": they are drawn.

        Raises:
            InputError: law, truth and starts contradict one another.
        """
        law, truth = self.law, self.truth
        if given == "Path" and law == "visited":
            raise InputError(
                "law is 'visited' but starts is a Path, which is a law of its own: leave law out, "
                "or give a number of starts"
            )
        if given and law == "visited" and truth == "matched":
            raise InputError(
                "law is 'visited' and truth is 'matched', but starts is a tensor, whose rows are "
                "the states to judge at: leave law out, or give a number of starts"
            )
        if given and self.trim_starts:
            raise InputError(
                f"trim_starts is {self.trim_starts:g}, but starts holds the states themselves: "
                f"leave out rows by a rule that was fixed before they were drawn, or give a number "
                f"of starts"
            )
        law = law or ("visited" if not given or truth == "objective" else "start")
        return replace(
            self,
            horizon=task.horizon if self.horizon is None else self.horizon,
            law=law,
            truth=truth or ("objective" if law == "visited" else "matched"),
            termination=self.termination or "ignore",
        )


def cut_of(name: str) -> dict[str, Any]:
    """Arguments of the cut that is named: "cut_transition", "decay_α", α in [0, 1), or "stop_k", k
    from 1; {}: none is."""
    kind, _, number = name.partition("_") if isinstance(name, str) else ("", "", "")
    if name == "cut_transition":
        return {"transition": True}
    if kind == "stop" and number.isdecimal() and int(number) > 0:
        return {kind: int(number)}
    try:
        alpha = float(number)
    except ValueError:
        return {}
    return {kind: alpha} if kind == "decay" and 0 <= alpha < 1 else {}
