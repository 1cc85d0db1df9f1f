"""Returns of runs that begin with the measured policy and follow the chosen gradient.

    python -m analyses.choice.begun_with [--small] [--output reports/choice]

Three things that `docs/howto/choose_and_train.md` says, each a few minutes of one core:

    kept      path tracking's committed policy and critic, for which `model_all` at h = 25 gains
              most, followed at three learning rates of the policy, two seeds
    fresh     a new policy after 250 iterations of that row: the gain of the same gradient there
    page      the policy of that page, 1,500 iterations on the double integrator with a learned
              model, followed at h = 24 and two learning rates

Writes begun-with.csv (world, rate, iteration, seed, quantity, value and its interval), and the
table of that page. The row's own rate falls to a hundredth while a run lasts, the others stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import nn

import gradlab
from analyses.harness.verdicts import put
from gradlab.networks import checkpoint
from gradlab.runs.training.results import load
from gradlab.tasks import Task
from gradlab.training import checkpoints
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find, with_horizons, with_starts, with_weights
from gradlab.training.loop import train
from gradlab.training.models.model_choice import LearnedModel

KEPT = Path("reports/path-tracking")
OUTPUT, PAGE = Path("reports/choice"), Path("docs/howto/choose_and_train.md")
RATES = (1e-6, 1e-5, 3e-4)
OWN = 3e-4  # of the rows
Row = dict[str, object]


def kept(folder: Path, updates: int) -> Iterator[Row]:
    policy, critic = (
        checkpoint.load(KEPT / f"path_tracking.{kind}.safetensors") for kind in ("policy", "critic")
    )
    for rate in RATES:
        yield from followed(
            "path tracking", through_all(), gradlab.tasks.path_tracking(), rate, folder,
            policy=policy, critic=critic, seeds=2, iterations=updates, evaluate_every=updates // 3,
        )  # fmt: skip


def fresh(folder: Path, updates: int, starts: int) -> Iterator[Row]:
    task, path = gradlab.tasks.path_tracking(), folder / "fresh.h5"
    train(through_all(), task, path, iterations=updates, evaluate_every=updates, keep=(1.0,))
    policy, critic = networks_of(path, updates)
    profile = gradlab.measure(task, policy, critic, starts=starts, truth="objective", seed=1)
    gain = profile.estimate("model_all", "gain", 25)
    ends = profile.interval("model_all", "gain", 25)
    yield {
        "world": "path tracking, a new policy", "rate": OWN, "iteration": updates, "seed": 0,
        "quantity": "gain of model_all, h = 25", "value": gain.value, "low": ends.low,
        "high": ends.high,
    }  # fmt: skip


def page(folder: Path, first: int, updates: int) -> Iterator[Row]:
    task, path = gradlab.tasks.double_integrator(), folder / "first.h5"
    learned = replace(find("mpg-v2"), model=LearnedModel())
    train(learned, task, path, iterations=first, keep=(1.0,))
    policy, critic = networks_of(path, first)
    for rate in (1e-5, OWN):
        yield from followed(
            "double integrator", with_weights(learned, (1.0,), (24,)), task, rate, folder,
            policy=policy, critic=critic, iterations=updates, evaluate_every=updates // 6,
        )  # fmt: skip


def through_all() -> Algorithm:
    """`gradlab train n-step-adp --horizons 25 --beta 0`."""
    return with_starts(with_horizons(find("n-step-adp"), (25,)), 0.0)


def followed(
    world: str, row: Algorithm, task: Task, rate: float, folder: Path, **settings: object
) -> Iterator[Row]:
    """Returns of a run with this learning rate; the row's own falls while it trains."""
    chosen = row if rate == OWN else replace(row, policy_rate=(rate, rate))
    path = folder / f"{task.name}-{rate}.h5"
    run = load(train(chosen, task, path, **settings))  # type: ignore[arg-type]
    for k, iteration in enumerate(run.iteration):
        for j, seed in enumerate(run.seeds):
            yield {
                "world": world, "rate": rate, "iteration": int(iteration), "seed": int(seed),
                "quantity": "return", "value": float(run.returns[k, j]),
            }  # fmt: skip


def networks_of(path: Path, iteration: int) -> tuple[nn.Module, nn.Module]:
    """Policy and critic that a run has kept."""
    folder = checkpoints.folder(path, iteration)
    policy, critic = (
        checkpoint.load(folder / f"seed0-{kind}.safetensors") for kind in ("policy", "critic")
    )
    return policy, critic


def rates(table: pd.DataFrame) -> str:
    """Returns by rate and iteration, means over the seeds, as a Markdown table."""
    returns = table[table["quantity"] == "return"]
    wide = returns.pivot_table("value", ["world", "rate"], "iteration", sort=False)
    lines = [
        f"| {world} | {rate:g}{', falling' * (rate == OWN)} | "
        f"{', '.join(f'{v:.3g} after {k}' for k, v in row.dropna().items())} |"
        for (world, rate), row in wide[sorted(wide)].iterrows()  # type: ignore[misc]
    ]
    head = "| task | `--policy-rate` | return after how many updates |\n|---|---|---|"
    return "\n".join([head, *lines]).replace("| -", "| −").replace(", -", ", −")


def main(small: bool = False, output: Path = OUTPUT) -> None:
    """Train, measure and write begun-with.csv.

    Args:
        small: a few iterations only, to see that it runs.
        output: folder of the table.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = (
            kept(folder, 3 if small else 60),
            fresh(folder, 3 if small else 250, 8 if small else 128),
            page(folder, 6 if small else 1500, 6 if small else 300),
        )
        table = pd.DataFrame([row for part in parts for row in part])
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "begun-with.csv", index=False, float_format="%.4g")
    if not small:
        put(PAGE, "rates", rates(table))


if __name__ == "__main__":
    tyro.cli(main)
