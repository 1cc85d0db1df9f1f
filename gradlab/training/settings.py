"""Settings of a training run: lengths, numbers and intervals, all that is not the algorithm.

The words of its fields are those of `gradlab train --help`. Read without torch.

Where a run has several processes a gradient is computed at the parameters θ_v that its learner was
given, and applied when they have become θ_t. Its lag, or staleness, is t − v (MPG section IV-C,
which bounds it by a short queue).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from gradlab import validation
from gradlab.options import COUNT, Within, check

if TYPE_CHECKING:
    from gradlab.training.first_networks import GivenNetworks


Role = Literal["critic", "policy"]  # of a gradient: whose parameters it is of
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Asynchronous:
    """Processes of a run. Deterministic with one learner, one actor and no queue it is the run
    without processes, bit for bit."""

    learners: COUNT = 1
    """Processes that compute gradients. Default: 1; without any, one process."""
    actors: COUNT = 1
    """Processes that step environments, each as many as --agents, in turn."""
    queue: int = 1
    """Gradients that may wait while their learners go on; 0: none."""
    deterministic: bool = False
    """Apply gradients in the order begun: repeatable bit for bit, slower."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Planning:
    """Settings of the search.

    Attributes:
        horizon: H, model steps; samples: action sequences of a round; elites: the best of them,
            whose mean and standard deviation the next round is drawn from.
        starts: evaluation episodes that are planned, the first of those without a plan.
    """

    horizon: COUNT
    samples: COUNT = 64
    elites: COUNT = 8
    rounds: COUNT = 3
    starts: COUNT = 8

    def __post_init__(self) -> None:
        check(self, "planning's {}".format)
        if not 2 <= self.elites <= self.samples:
            raise validation.expected(
                "planning's elites", self.elites, f"2 to its {self.samples} samples"
            )


@dataclass(frozen=True)
class Settings:
    """Settings of a run; `for_task` has those of the papers' tasks."""

    seeds: COUNT = 1
    """Policies trained side by side."""
    first_seed: int = 0
    """Seed of the first one, for every random draw."""
    iterations: COUNT = 100_000
    """Critic updates, as many as in the papers."""
    agents: COUNT = 8
    """Environments of each seed. Default: the task's, mostly 8."""
    interval: COUNT = 8
    """Iterations between steps of the environments. Default: the algorithm's or task's."""
    warmup: COUNT = 1000
    """Transitions that a seed collects before the first update."""
    episode: COUNT = 1000
    """Steps after which an episode is truncated. Default: the task's, mostly 1000."""
    termination: Literal["ignore", "mask"] = "mask"
    """Whether states beyond the terminal set have a value ("ignore"). Default: the task's."""
    at_end: Literal["restart", "stop"] = "stop"
    """Evaluations at a terminal state: "restart" and go on summing (MPG), or "stop"."""
    reward_scale: Annotated[float, Within(above=0)] = 1.0
    """Factor on rewards inside training, not on returns. Default: the task's."""
    ramp: COUNT = 9000
    """T of MPG's weights, in iterations. Default: the task's."""
    evaluate_every: COUNT = 3000
    """Iterations between evaluations."""
    evaluation_starts: COUNT = 50
    """Starts of an evaluation, the same each time."""
    log_every: COUNT = 50
    """Iterations in one row of the record."""
    checkpoint_every: COUNT = 3000
    """Iterations between saved states, from which --resume goes on."""
    keep: Annotated[tuple[float, ...], Within(0, most=1)] = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
    """Shares of the run after which policy, critics and sampled states are kept."""
    gradient_every: Annotated[int, Within(0)] = 0
    """Iterations between measurements of its gradient; 0: never."""
    gradient_starts: Annotated[int, Within(4)] = 128
    """Starts of one such measurement."""
    gradient_truth: Literal["unrolled", "score"] = "unrolled"
    """The true gradient: by chained Jacobians, or scores, which need more starts."""
    gradient_horizons: Literal["shorter", "own"] = "shorter"
    """Horizons of one: the algorithm's and shorter ones, or its own alone."""
    measure_every: COUNT = 1000
    """Iterations between two measurements of weights or horizon."""
    measure_starts: Annotated[int, Within(8)] = 128
    """States per measurement and seed: replayed, or visited with --by gain."""
    planning: Planning | None = None
    """How actions are planned in a second evaluation (`planning`); None: there is none."""
    asynchronous: Asynchronous | None = None
    """The processes that a run is divided among; None: it is in one."""
    given: GivenNetworks | None = None
    """Networks that every seed begins with instead of fresh ones."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of training."""
    device: str = "cpu"
    """Device of the networks: "cpu" or "cuda"."""

    def __post_init__(self) -> None:
        check(self)


# MPG App. B-A and Table VI; the reward scale of path tracking is its published code's.
_TASK_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "path_tracking": {
        "episode": 200, "termination": "ignore", "at_end": "restart", "reward_scale": 0.01,
        "ramp": 9000, "agents": 64, "interval": 8,
    },
    "inverted_pendulum": {
        "episode": 100, "termination": "ignore", "at_end": "restart", "ramp": 4000, "agents": 64,
        "interval": 8,
    },
}  # fmt: skip


def for_task(task: str, **changes: object) -> Settings:
    """The settings of the papers for `task`, else the defaults, with `changes`."""
    return Settings(**{**_TASK_SETTINGS.get(task, {}), **changes})  # type: ignore[arg-type]
