"""Settings of a training run: lengths, numbers and intervals, all that is not the algorithm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gradlab.errors import InputError
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.given_networks import FRESH, GivenNetworks
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
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, expected an integer from 1")
        if self.termination not in ("ignore", "mask"):
            raise InputError(f"termination is {self.termination!r}, expected 'ignore' or 'mask'")
        if self.at_end not in ("restart", "stop"):
            raise InputError(f"at_end is {self.at_end!r}, expected 'restart' or 'stop'")
        if self.precision not in ("float32", "float64"):
            raise InputError(f"precision is {self.precision!r}, expected 'float32' or 'float64'")
        if self.products not in ("measured", "batched", "separate"):
            raise InputError(
                f"products is {self.products!r}, expected 'measured', 'batched' or 'separate'"
            )
        if not 0 < self.reward_scale < math.inf:
            raise InputError(f"reward_scale is {self.reward_scale!r}, expected a positive number")
        if any(not 0 <= share <= 1 for share in self.keep):
            raise InputError(f"keep is {self.keep}, expected shares of the run between 0 and 1")
        if self.gradient_every is not None and self.gradient_every < 0:
            raise InputError(f"gradient_every is {self.gradient_every}, expected a number from 0")
        if self.gradient_starts < 4:
            raise InputError(f"gradient_starts is {self.gradient_starts}, expected at least 4")
        if self.gradient_truth not in ("unrolled", "score"):
            raise InputError(
                f"gradient_truth is {self.gradient_truth!r}, expected 'unrolled' or 'score'"
            )
        if not isinstance(self.measure_starts, int) or self.measure_starts < 8:
            raise InputError(f"measure_starts is {self.measure_starts!r}, expected an integer ≥ 8")
        budget = self.probe_budget
        if budget is not None and not (isinstance(budget, int | float) and 0 < budget <= 1):
            raise InputError(f"probe_budget is {budget!r}, expected a share in (0, 1]")

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
