"""How many visited states per start: which form has the smaller error at equal time?

    python -m benchmarks.visited [--starts 128] [--tasks path_tracking …]

First-action gradients are judged against ∇_θ E_ζ[V^π]. Two unbiased ways to the same numbers:

    paired    K states visited from each start, in its group, beside the start's own ∇_θ V (θ in
              every action, as many numbers as θ)
    matched   the same states beside their own J_θπᵀ ∂_a Q^π, whose expectation times Σ γᵗ is that
              gradient: no θ-sized vectors, but the simulator is unrolled from every visited state

From n starts in t seconds of processor time a quantity has a jackknife standard error se ∝ 1/√n; so
se² t is the time that a given error takes. Printed in units of the paired form with K = 8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import nn

from gradlab import tasks
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.start_laws import visits
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.moments.inner_products import Measured, estimator_moments
from gradlab.measurement.moments.visited import objective_moments
from gradlab.networks import checkpoint
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import estimates
from gradlab.truth.truth import Truth, matched_truth

REPORTS = Path(__file__).parent.parent / "reports"
QUANTITIES = ("cosine", "bias2", "mse")
BATCH, SEED = 256, 0
HORIZONS = (0, 1, 2, 5, 10)
PAIRED, MATCHED = (16, 8, 4, 2, 1), (8, 4, 1)
NETWORKS = ("policy", "critic")
Found = TypeVar("Found")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A task with the committed networks of its report."""

    task: tasks.Task
    report: str
    horizon: int = 10

    def networks(self) -> tuple[nn.Module, nn.Module]:
        name = self.report.replace("-", "_")
        files = (REPORTS / self.report / f"{name}.{kind}.safetensors" for kind in NETWORKS)
        policy, critic = (checkpoint.load(file).double() for file in files)
        return policy, critic


def cases() -> dict[str, Case]:
    return {
        "path_tracking": Case(tasks.path_tracking(), "path-tracking"),
        "inverted_pendulum": Case(tasks.inverted_pendulum(engine="analytic"), "inverted-pendulum"),
        "inverted_pendulum, MuJoCo": Case(
            tasks.inverted_pendulum(engine="mujoco", slider="wide"), "inverted-pendulum"
        ),
    }


@dataclass(frozen=True)
class Given:
    """What both forms are given."""

    case: Case
    policy: nn.Module
    chosen: Mapping[str, Estimator]
    begin: Starts


def given_to_both(case: Case, n: int) -> Given:
    policy, critic = case.networks()
    states = case.task.starts(n, stream(SEED, "starts")).double()
    chosen = estimators_at(case.task, critic, None, case.horizon)
    first = {name: each for name, each in chosen.items() if each.actions == "first"}
    return Given(case, policy, first, as_starts(states, case.task.simulator.state_dim))


def setting_of(given: Given, starts: Starts) -> Setting:
    task, horizon = given.case.task, given.case.horizon
    return Setting(task.simulator, given.policy, starts, task.discount, horizon, seed=SEED)


def true_gradient(given: Given, begin: Starts, kind: str) -> Truth:
    return matched_truth(setting_of(given, begin), kinds=(kind,))


def paired(given: Given, truth: Truth, samples: int) -> Measured:
    setting = setting_of(given, given.begin)
    return objective_moments(given.chosen, setting, truth, samples=samples)


def matched(given: Given, steps: int, samples: int) -> Measured:
    at = visits(replace(setting_of(given, given.begin), horizon=steps), samples)
    truth = true_gradient(given, at, "first")
    return estimator_moments(given.chosen, setting_of(given, at), truth)


def errors(found: Measured) -> Array:
    """Squared standard errors of each quantity at some cells, [quantities, cells]."""
    cells = [each for (_, n), each in found.cells.items() if n in HORIZONS]
    made = [estimates(each, BATCH) for each in cells]
    return np.array(
        [[jackknife_se(each[name].left_out) ** 2 for each in made] for name in QUANTITIES]
    )


def timed(run: Callable[[], Found]) -> tuple[Found, float]:
    begun = time.process_time()
    found = run()
    return found, time.process_time() - begun


def compare(name: str, case: Case, n: int) -> None:
    given = given_to_both(case, n)
    truth, price = timed(lambda: true_gradient(given, given.begin, "all"))
    if not truth.admissible:
        print(f"{name}: {truth.reason}")
        return
    rows: dict[str, tuple[float, Array]] = {}
    for k in PAIRED:
        found, more = timed(lambda k=k: paired(given, truth, k))
        rows[f"paired, K = {k}"] = price + more, errors(found)
    for k in MATCHED:
        found, more = timed(lambda k=k: matched(given, truth.horizon, k))
        rows[f"matched, K = {k}"] = more, errors(found)
    print(f"{name}: {n} starts, T = {truth.horizon}, the truth of the starts {price:.1f} s")
    known = np.isfinite(np.stack([each for _, each in rows.values()])).all(axis=0)
    unit, best = rows["paired, K = 8"]
    for row, (seconds, squares) in rows.items():
        shares = [
            squares[q, cells].sum() / best[q, cells].sum() * seconds / unit
            for q, cells in enumerate(known)
        ]
        texts = "  ".join(f"{q} {share:6.2f}" for q, share in zip(QUANTITIES, shares, strict=True))
        print(f"  {row:16} {seconds:6.1f} s   time for the same error: {texts}", flush=True)


def main(starts: int = 128, tasks: tuple[str, ...] = tuple(cases())) -> None:
    """Print the comparison.

    Args:
        starts: n.
        tasks: which of the cases.
    """
    torch.set_num_threads(1)
    for name in tasks:
        compare(name, cases()[name], starts)


if __name__ == "__main__":
    tyro.cli(main)
