"""Which likelihood leaves the reward something to learn by?

    python -m analyses.model_based.reward_losses [--most N] [--judge]

The next state's 1/σ² outweighs the reward in layers that both share. Candidates, beside the papers'
likelihood (`nll`) and the squared error (`mse`), both as they are:

    beta .5, beta 1    ½ mean_j sg(v_j)^β ((ŷ − m)_j² / v_j + log v_j)  (Seitzer et al. 2022, eq. 5)
    floor -4           the likelihood with log v_j ≥ −4

Six tasks, three seeds, 4,000 rows of an untrained policy, two hidden layers of 64, three members,
143 epochs of 256 rows (about 2,000 steps, a first fit of a training), the best epoch by the
held-out likelihood (with its floor; `mse`: squared error).

Criterion, before any fit: of the three candidates that one is taken whose shortfall of the
explained reward behind `mse`, in the task where it is largest (medians of the seeds), is the least,
provided that (1) it explains the reward no worse than `nll` in any task, by more than .01, (2) nor
the states (mean over coordinates), by more than .01, and (3) its held-out likelihood, by the
variances that it learned, is below `nll`'s by .25 nats a coordinate at most, in every task. If none
is left, none.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from analyses.harness.cells import grown, lines_of
from gradlab import tasks
from gradlab.data.noise import child
from gradlab.fitting.collection import collect
from gradlab.fitting.losses import BOUNDS, LOG_2PI, Bound, OneStepError, StandardisedRows, outputs
from gradlab.fitting.model_settings import ModelSettings
from gradlab.fitting.models import fit_model
from gradlab.systems import LearnedSystem
from gradlab.tasks import Task

WORLDS: dict[str, Callable[[], Task]] = {
    "pendulum": lambda: tasks.pendulum(coordinates="circle"),
    "cart-pole": tasks.cart_pole_swing_up,
    "inverted-pendulum": tasks.inverted_pendulum,
    "path-tracking": tasks.path_tracking,
    "hopper": lambda: tasks.mujoco("Hopper-v5"),
    "half-cheetah": lambda: tasks.mujoco("HalfCheetah-v5"),
}
SETTINGS = ModelSettings(
    members=3, hidden=(64, 64), epochs=143, patience=None, bootstrap=False, held_out=0.1
)
PATH = Path("reports/model-based/reward-losses.jsonl")


@dataclass(frozen=True)
class Likelihood(OneStepError):
    """The likelihood, weighted by v^β, above a floor of log v."""

    beta: float = 0.0
    floor: float = -math.inf

    def bind(
        self, rows: StandardisedRows, training: Tensor, held_out: Tensor
    ) -> tuple[Bound, Bound]:
        def value(ensemble: Any, at: Tensor, beta: float) -> Tensor:
            mean, log_variance = outputs(ensemble, rows.inputs[at])
            above = log_variance.clamp_min(self.floor)
            square = (rows.targets[at] - mean).square()
            each = 0.5 * (square * (-above).exp() + above + LOG_2PI)
            weighted = (beta * above.detach()).exp() * each
            pull = BOUNDS * (ensemble.high - ensemble.low).sum(dim=(1, 2)).to(each)
            return weighted.mean(dim=(1, 2)) + pull

        return (
            Bound(training, lambda ensemble, at, turn: value(ensemble, at, self.beta)),
            Bound(held_out, lambda ensemble, at, turn: value(ensemble, at, 0.0)),
        )


LOSSES = {
    "nll": OneStepError("nll"),
    "mse": OneStepError("mse"),
    "beta .5": Likelihood(beta=0.5),
    "beta 1": Likelihood(beta=1.0),
    "floor -4": Likelihood(floor=-4.0),
}
CANDIDATES = ("beta .5", "beta 1", "floor -4")


def made(world: str, loss: str, seed: int) -> dict[str, Any]:
    """One fit: what it explains, its likelihood on held-out rows, the error of its ∂r."""
    task = WORLDS[world]()
    fit = fit_model(collect(task, 4000, seed=seed), SETTINGS, LOSSES[loss])
    explained = fit.explained.mean(dim=0)
    fresh = collect(task, 1000, seed=child(seed, "fresh rows"))
    learned, target = (
        fit.ensemble,
        torch.cat([fresh.next_state - fresh.state, fresh.reward[:, None]], dim=1),
    )
    numbers = learned.double()
    inputs = (torch.cat([fresh.state, fresh.action], 1) - numbers.input_mean) / numbers.input_std
    mean, log_variance = outputs(numbers, inputs)
    if loss.startswith("floor"):
        log_variance = log_variance.clamp_min(float(loss.split()[1]))
    error = (target - numbers.target_mean) / numbers.target_std - mean
    nats = -0.5 * (error.square() * (-log_variance).exp() + log_variance + LOG_2PI)
    return {
        "world": world, "loss": loss, "seed": seed,
        "reward": float(explained[-1]), "states": float(explained[:-1].mean()),
        "nats": float(nats.mean()),
        "slope_error": _slope_error(task, LearnedSystem(numbers), fresh),
    }  # fmt: skip


def _slope_error(task: Task, learned: LearnedSystem, rows: Any) -> float:
    """‖∂r̂ − ∂r‖ / ‖∂r‖ over states and actions, root mean squares."""
    s, a = rows.state[:300], rows.action[:300]
    true, found = task.simulator.linearize(s, a), learned.linearize(s, a)
    off = torch.cat([found.r_s - true.r_s, found.r_a - true.r_a], dim=1)
    whole = torch.cat([true.r_s, true.r_a], dim=1)
    return float(off.square().sum().sqrt() / whole.square().sum().sqrt())


def judged(path: Path) -> str:
    """The table, and the candidate that the criterion takes."""
    rows = lines_of(path)

    def median(world: str, loss: str, column: str) -> float:
        cell = [r[column] for r in rows if r["world"] == world and r["loss"] == loss]
        return statistics.median(cell)

    columns = ("reward", "states", "nats", "slope_error")
    lines = ["| world | loss | reward | states | nats | error of ∂r |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {world} | {loss} | "
        + " | ".join(f"{median(world, loss, column):.3f}" for column in columns)
        + " |"
        for world, loss in itertools.product(WORLDS, LOSSES)
    ]
    shortfall = {}
    for loss in CANDIDATES:
        worse = [
            f"{column} in {world}"
            for world in WORLDS
            for column, most in (("reward", 0.01), ("states", 0.01), ("nats", 0.25))
            if median(world, "nll", column) - median(world, loss, column) > most
        ]
        lines.append(f"\n{loss}: " + ("nothing worse than nll" if not worse else ", ".join(worse)))
        if not worse:
            shortfall[loss] = max(
                median(world, "mse", "reward") - median(world, loss, "reward") for world in WORLDS
            )
    taken = min(shortfall, key=lambda loss: shortfall[loss]) if shortfall else "none"
    return "\n".join([*lines, f"\nTaken: {taken} ({shortfall})"])


def main(most: int | None = None, judge: bool = False) -> None:
    """
    Args:
        most: fits, at the most.
        judge: the table of the fits that are there, alone.
    """
    if not judge:
        cells = itertools.product(WORLDS, LOSSES, range(3))
        grown(
            PATH, cells, ("world", "loss", "seed"), made, lambda row: f"{row['reward']:.3f}", most
        )
    print(judged(PATH))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
