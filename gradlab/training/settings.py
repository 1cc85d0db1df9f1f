"""Settings of a training run: lengths, numbers and intervals, all that is not the algorithm.

The words of its fields are those of `gradlab train --help`. Read without torch.

Where a run has several processes a gradient is computed at the parameters θ_v that its learner was
given, and applied when they have become θ_t. Its lag, or staleness, is t − v (MPG section IV-C,
which bounds it by a short queue).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from gradlab import validation

if TYPE_CHECKING:
    from gradlab.training.first_networks import GivenNetworks


_Termination = Literal["ignore", "mask"]
_AtEnd = Literal["restart", "stop"]
_Precision = Literal["float32", "float64"]
_GradientTruth = Literal["unrolled", "score"]
_GradientHorizons = Literal["shorter", "own"]
_WORDS = {
    "termination": _Termination, "at_end": _AtEnd, "precision": _Precision,
    "gradient_truth": _GradientTruth, "gradient_horizons": _GradientHorizons,
}  # fmt: skip
Role = Literal["critic", "policy"]  # of a gradient: whose parameters it is of
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Asynchronous:
    """Processes of a run. Deterministic with one learner, one actor, one buffer and no queue it is
    the run without processes, bit for bit."""

    learners: int = 1
    """Processes that compute gradients. Default: 1; without any, one process."""
    actors: int = 1
    """Processes that step environments, each as many as --agents, in turn."""
    buffers: int = 1
    """Processes that hold the transitions and draw batches, in turn."""
    queue: int = 1
    """Gradients that may wait while their learners go on; 0: none."""
    deterministic: bool = False
    """Apply gradients in the order begun: repeatable bit for bit, slower."""

    def __post_init__(self) -> None:
        for name, least in (("learners", 1), ("actors", 1), ("buffers", 1), ("queue", 0)):
            validation.whole(name, getattr(self, name), least)


@dataclass(frozen=True)
class Planning:
    """Settings of the search.

    Attributes:
        horizon: H, model steps; samples: action sequences of a round; elites: the best of them,
            whose mean and standard deviation the next round is drawn from.
        starts: evaluation episodes that are planned, the first of those without a plan.
    """

    horizon: int
    samples: int = 64
    elites: int = 8
    rounds: int = 3
    starts: int = 8

    def __post_init__(self) -> None:
        for name in ("horizon", "samples", "elites", "rounds", "starts"):
            validation.whole(f"planning's {name}", getattr(self, name), 1)
        if not 2 <= self.elites <= self.samples:
            raise validation.expected(
                "planning's elites", self.elites, f"2 to its {self.samples} samples"
            )


@dataclass(frozen=True)
class Settings:
    """Settings of a run; `for_task` has those of the papers' tasks."""

    seeds: int = 1
    """Policies trained side by side."""
    first_seed: int = 0
    """Seed of the first one, for every random draw."""
    iterations: int = 100_000
    """Critic updates, as many as in the papers."""
    agents: int = 8
    """Environments of each seed. Default: the task's, mostly 8."""
    interval: int = 8
    """Iterations between steps of the environments. Default: the algorithm's or task's."""
    warmup: int = 1000
    """Transitions that a seed collects before the first update."""
    episode: int = 1000
    """Steps after which an episode is truncated. Default: the task's, mostly 1000."""
    termination: _Termination = "mask"
    """Whether states beyond the terminal set have a value ("ignore"). Default: the task's."""
    at_end: _AtEnd = "stop"
    """Evaluations at a terminal state: "restart" and go on summing (MPG), or "stop"."""
    reward_scale: float = 1.0
    """Factor on rewards inside training, not on returns. Default: the task's."""
    ramp: int = 9000
    """T of MPG's weights, in iterations. Default: the task's."""
    evaluate_every: int = 3000
    """Iterations between evaluations."""
    evaluation_starts: int = 50
    """Starts of an evaluation, the same each time."""
    log_every: int = 50
    """Iterations in one row of the record."""
    checkpoint_every: int = 3000
    """Iterations between saved states, from which --resume goes on."""
    keep: tuple[float, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
    """Shares of the run after which policy, critics and sampled states are kept."""
    gradient_every: int | None = None
    """Iterations between measurements of its gradient; 0: never. Default: mostly never."""
    gradient_starts: int = 128
    """Starts of one such measurement."""
    gradient_truth: _GradientTruth = "unrolled"
    """The true gradient: by chained Jacobians, or scores, which need more starts."""
    gradient_horizons: _GradientHorizons = "shorter"
    """Horizons of one: the algorithm's and shorter ones, or its own alone."""
    measure_every: int = 1000
    """Iterations between two measurements of weights or horizon."""
    measure_starts: int = 128
    """States per measurement and seed: replayed, or visited with --by gain."""
    planning: Planning | None = None
    """How actions are planned in a second evaluation (`planning`); None: there is none."""
    asynchronous: Asynchronous | None = None
    """The processes that a run is divided among; None: it is in one."""
    given: GivenNetworks | None = None
    """Networks that every seed begins with instead of fresh ones."""
    precision: _Precision = "float32"
    """Precision of training."""
    device: str = "cpu"
    """Device of the networks: "cpu" or "cuda"."""

    def __post_init__(self) -> None:
        for name in (
            "seeds", "iterations", "agents", "interval", "warmup", "episode", "ramp",
            "evaluate_every", "evaluation_starts", "log_every", "checkpoint_every", "measure_every",
        ):  # fmt: skip
            validation.whole(name, getattr(self, name), 1)
        validation.whole("gradient_starts", self.gradient_starts, 4)
        validation.whole("measure_starts", self.measure_starts, 8)
        if self.gradient_every is not None:
            validation.whole("gradient_every", self.gradient_every)
        for name, words in _WORDS.items():
            validation.word(name, getattr(self, name), get_args(words))
        validation.number("reward_scale", self.reward_scale, above=0)
        for share in self.keep:
            validation.number("keep", share, least=0, most=1)

    @property
    def kept(self) -> set[int]:
        """Iterations after which networks are kept."""
        return {round(share * self.iterations) for share in self.keep}


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
