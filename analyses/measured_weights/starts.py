"""Where to measure weights: at states of replay, or at the task's starts?

    python -m analyses.measured_weights.starts measure --task path_tracking --iteration 2500
    python -m analyses.measured_weights.starts table        README.md's table, from its .csv

Networks and replay of the arms "rule-pair" and "h0" of `analyses.measured_weights`. For either law
the weights of J_0 and J_25 of least MSE are fitted on 128 starts of it, and judged by their MSE on
128 further states of replay: what the update averages over. One row per network and law.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from analyses.harness.commands import commands
from analyses.harness.verdicts import put
from analyses.measured_weights.runs import FOLDER, SEEDS, SETS, TASKS
from analyses.mpg_table_1.runs import task_of
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.measurement.assembly import SharedTruth, shared_truth
from gradlab.measurement.moments.inner_products import estimator_moments
from gradlab.networks import checkpoint
from gradlab.storage import records
from gradlab.tasks import Task
from gradlab.training.measured.switching import Errors, errors, propose_weights

STARTS, BATCH = 128, 256
ARMS = ("rule-pair", "h0")
PAIR = SETS["pair"]


def measure(
    task: str, iteration: int, runs: Path = FOLDER / "runs",
    output: Path = FOLDER / "measured-starts.csv",
) -> None:  # fmt: skip
    """Both laws at one iteration of one task, every seed and arm."""
    torch.set_num_threads(1)
    found = pd.DataFrame(
        row
        for arm in ARMS
        for seed in range(SEEDS)
        for row in _rows(
            {"task": task, "iteration": iteration, "arm": arm, "seed": seed},
            runs / f"{task}-{arm}-checkpoints" / f"{iteration:06d}",
        )
    )
    if output.is_file():
        found = pd.concat([pd.read_csv(output), found], ignore_index=True)
    found.drop_duplicates(["task", "iteration", "arm", "seed", "law"], keep="last").to_csv(
        output, index=False, float_format="%.6g"
    )


def _rows(about: dict[str, object], place: Path) -> Iterator[dict[str, object]]:
    """The two laws with the networks of a checkpoint."""
    task, seed = task_of(str(about["task"])), int(str(about["seed"]))
    policy, critic = (
        checkpoint.load(place / f"seed{seed}-{kind}.safetensors").double()
        for kind in ("policy", "critic")
    )
    states = torch.from_numpy(records.read(place / "states.h5").groups["states"]["state"].values)
    order = torch.randperm(len(states[seed]), generator=torch.Generator().manual_seed(seed))
    drawn = states[seed][order]
    unseen = measured(task, policy, critic, drawn[STARTS : 2 * STARTS], 1)
    for law, starts in (("replay", drawn[:STARTS]), ("task", STARTS)):
        truth, found = measured(task, policy, critic, starts, 0)
        reference = truth.reference
        row = about | {"law": law, "status": reference.status, "unseen": np.nan}
        if found is not None and reference.first is not None:
            weights = propose_weights(found, np.array([0.5, 0.5])).weights
            row |= {"weight_0": weights[0], "relative_se": reference.first.relative_se}
            if unseen[1] is not None:
                row["unseen"] = unseen[1].mse(weights).value
                row["unseen_even"] = unseen[1].mse(np.array([0.5, 0.5])).value
        yield row


def measured(
    task: Task, policy: nn.Module, critic: nn.Module, starts: Tensor | int, seed: int
) -> tuple[SharedTruth, Errors | None]:
    """The truth, and the errors of J_0 and J_25; None without a truth or finite gradients."""
    truth = shared_truth(task, policy, starts, max(PAIR), BATCH, seed=seed, check=False)
    if not truth.reference.admissible:
        return truth, None
    tail = Tail(max(PAIR), critic, task.discount)
    assert task.prior is not None
    found = estimator_moments(
        {"": Estimator(task.prior, task.prior, "first", tail)}, truth.setting, truth.reference
    )
    if not all(np.isfinite(found.cells["", n].squares).all() for n in PAIR):
        return truth, None
    return truth, errors(found.kernels[0].grams([("", n) for n in PAIR]), BATCH)


def starts_table(folder: Path = FOLDER) -> None:
    """The table of README.md."""
    text = table(pd.read_csv(folder / "measured-starts.csv"))
    put(folder / "README.md", "starts", text)
    print(text)


def table(found: pd.DataFrame) -> str:
    """Per task: truths, their precision, and the MSE on unseen states, paired over networks."""
    heads = ["task", "law", "networks", "a truth", "precise (relative error < 1/4)"]
    heads += ["MSE on unseen replay, times that of weights from replay: median (quartiles)"]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    keys = ["iteration", "arm", "seed"]
    for task in TASKS:
        own = found[found["task"] == task]
        base = own[own["law"] == "replay"].set_index(keys)["unseen"]
        for law, rows in own.groupby("law"):
            ratio = rows.set_index(keys)["unseen"] / base
            ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
            low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
            cells = [
                task, str(law), str(len(rows)), f"{(rows['status'] != 'none').mean():.0%}",
                f"{(rows['relative_se'] < 0.25).mean():.0%}",
                f"{middle:.3g} ({low:.3g} to {high:.3g}; {len(ratio)} networks)",
            ]  # fmt: skip
            lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commands(measure=measure, table=starts_table)
