"""Settings of a training run: lengths, numbers and intervals, all that is not the algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from gradlab import validation
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.first_networks import FRESH, GivenNetworks
from gradlab.training.planning import Planning


@dataclass(frozen=True)
class Settings:
    """Settings of a run; `for_task` has those of the papers' tasks.

    Attributes:
        seeds: how many runs are trained side by side; first_seed: the seed of the first.
        iterations: critic updates.
        agents: environments per seed; interval: iterations between two of their steps.
        warmup: transitions per seed collected before the first update.
        episode: steps after which an episode is truncated.
        termination: "ignore" values states beyond the terminal set, "mask" does not. Episodes end
            there in both.
        at_end: an evaluation episode that ends may "restart" from a fresh start and go on summing
            until its fixed length (MPG), or "stop".
        reward_scale: factor on rewards inside training; returns are reported without it.
        ramp: T of MPG's weights, in iterations.
        evaluate_every, evaluation_starts: evaluation on the same starts each time.
        log_every: iterations that one row of the record sums up.
        checkpoint_every: iterations between two states from which a killed run goes on.
        keep: shares of the run after which policy, critics and sampled states are kept.
        gradient_every: iterations between two measurements of the gradient that the policy follows;
            0: never; None: where networks are kept, for mixtures of MPG with a learned model.
        gradient_starts: of one measurement; from the task's law for mixtures of MPG, else states
            that the row starts from.
        gradient_truth: "unrolled", the simulator's Jacobians chained until the return has
            converged; or "score", score functions (`truth.score_actions`), of a deterministic
            policy with its exploration noise. For rows whose own loss is measured.
        measure_every: iterations between two measurements of the weights of a mixture, where they
            are measured; measure_starts: states of each seed, replayed or visited, of each one.
        probe_budget: share of the time that the probe of the run may take, in (0, 1]; None: there
            is none.
        planning: how actions are planned in a second evaluation (`planning`); None: there is none.
        asynchronous: the processes that a run is divided among; None: it is in one.
        given: networks that every seed begins with instead of fresh ones.
        precision: "float32", or "float64" for comparisons.
        products: networks side by side are multiplied as one batch ("batched") or one after another
            ("separate"); "measured": what is faster on this machine when the run begins.
        device: "cpu" or "cuda".
    """

    seeds: int = 1
    first_seed: int = 0
    iterations: int = 100_000
    agents: int = 8
    interval: int = 8
    warmup: int = 1000
    episode: int = 1000
    termination: Literal["ignore", "mask"] = "mask"
    at_end: Literal["restart", "stop"] = "stop"
    reward_scale: float = 1.0
    ramp: int = 9000
    evaluate_every: int = 3000
    evaluation_starts: int = 50
    log_every: int = 50
    checkpoint_every: int = 3000
    keep: tuple[float, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
    gradient_every: int | None = None
    gradient_starts: int = 128
    gradient_truth: Literal["unrolled", "score"] = "unrolled"
    measure_every: int = 1000
    measure_starts: int = 128
    probe_budget: float | None = None
    planning: Planning | None = None
    asynchronous: Asynchronous | None = None
    given: GivenNetworks = FRESH
    precision: Literal["float32", "float64"] = "float32"
    products: Literal["measured", "batched", "separate"] = "measured"
    device: str = "cpu"

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
        for name in ("termination", "at_end", "precision", "products", "gradient_truth"):
            validation.word(name, getattr(self, name), get_args(_TYPES[name]))
        validation.number("reward_scale", self.reward_scale, above=0)
        for share in self.keep:
            validation.number("keep", share, least=0, most=1)
        if self.probe_budget is not None:
            validation.number("probe_budget", self.probe_budget, above=0, most=1)

    @property
    def kept(self) -> set[int]:
        """Iterations after which networks are kept."""
        return {round(share * self.iterations) for share in self.keep}


_TYPES = get_type_hints(Settings)

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
