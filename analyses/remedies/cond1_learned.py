"""COND1 with learned models: does the state error grow linearly with the prediction horizon?

    claim       sup |s_{t+i} − ŝ_{t+i}| ≤ c_m i: "model state error grows linearly"
    paper       MPG and MPG journal, Condition 1
    criterion   25 steps, 256 starts, learned models of both tasks: the exponent of a power law has
                a 95% interval inside [0.8, 1.2] and R² ≥ 0.95 in every fit; "violated" where an
                exponential wins

    python -m analyses.remedies.cond1_learned [--small] [--output reports/remedies]

As `cond1` tests the printed priors: closed loop, each under the policy (Riccati feedback,
distilled), and open loop, the model replaying the simulator's actions. Models: two hidden layers of
64 SiLU units by likelihood on 5000 transitions of that policy with the tasks' exploration added;
5 seeds of data and fit. Their mean predictions are judged; draws of their noise beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import torch

from analyses.harness.verdicts import Verdict, study
from analyses.lemmas import cond1
from analyses.lemmas.cond1 import LOOPS, NORM, SEED, STARTS, STEPS, Case
from analyses.remedies import page as remedy_claims
from analyses.remedies.spectral_arms import ROWS, SEEDS
from gradlab.data.noise import child, stream
from gradlab.fitting import stabilising_policy
from gradlab.fitting.collection import collect, exploring
from gradlab.fitting.model_settings import SMALL, ModelSettings
from gradlab.fitting.models import fit_model
from gradlab.gradients.starts import as_starts
from gradlab.tasks import Task, with_learned_prior

FOLDER = remedy_claims.FOLDER
MODEL = replace(SMALL, members=1, bootstrap=False, reward=False)
MEAN, DRAWN = "mean", "drawn"
LAWS = ("linear", "slower", "faster", "exponential", "undecided")


def measure(small: bool = False) -> Verdict:
    starts, seeds, rows = (32, 2, 500) if small else (STARTS, SEEDS, ROWS)
    settings = replace(MODEL, epochs=2) if small else MODEL
    return judge(
        pd.DataFrame(
            row
            for name, case in cond1.cases().items()
            for row in _rows(name, case.task, starts, seeds, rows, settings)
        )
    )


def _rows(
    name: str, task: Task, count: int, seeds: int, rows: int, settings: ModelSettings
) -> Iterator[dict[str, object]]:
    """One row per seed, loop, noise and coordinate."""
    policy = stabilising_policy(task).double()
    begin = as_starts(task.starts(count, stream(SEED, "starts")), task.simulator.state_dim)
    for seed in range(seeds):
        data = collect(task, rows, exploring(task, policy), seed=child(seed, "growth data"))
        fit = fit_model(data, replace(settings, seed=seed))
        learned = with_learned_prior(task, fit.ensemble, reward=_none)
        for loop in LOOPS:
            for noise in (MEAN, DRAWN):
                gaps = cond1.differences(
                    Case(learned, 0.0), policy, begin, loop, drawn=noise == DRAWN
                )
                about = {"task": name, "seed": seed, "loop": loop, "noise": noise}
                about |= {"explained": float(fit.explained.min())}
                for row in cond1.growth(gaps, task.state_names):
                    yield about | row


def _none(state: torch.Tensor, action: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """No reward: errors are of states."""
    return 0.0 * after[:, 0]


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from one row per task, seed, loop, noise and coordinate."""
    norms = table[table["coordinate"] == NORM]
    judged = norms[norms["noise"] == MEAN]
    linear, bounded = (int(judged["law"].isin(laws).sum()) for laws in (LAWS[:1], LAWS[:2]))
    cells = {
        f"{task}, {loop} loop{'' if noise == MEAN else ', noise drawn'}": rows
        for (noise, task, loop), rows in norms.groupby(["noise", "task", "loop"], sort=False)
    }
    numbers: dict[str, float] = {
        "fits": len(judged),
        "fits_linear": linear,
        "fits_bounded": bounded,
    }
    for name, rows in cells.items():
        key = name.replace(", ", "_").replace(" ", "_")
        numbers |= {f"{key}_exponent": rows["exponent"].median()}
        numbers |= {f"{key}_rate": rows["rate"].median(), f"{key}_c_m": rows["c_m"].median()}
    growing = table[(table["law"] == "exponential") & (table["noise"] == MEAN)]
    where = Counter(f"{row['coordinate'].split()[0]} of the {row['task']}, {row['loop']} loop"
                    for _, row in growing[growing["coordinate"] != NORM].iterrows())  # fmt: skip
    exponential = "; ".join(f"{name} ({count})" for name, count in where.items()) or "none"
    return Verdict(
        "COND1-LEARNED",
        "MPG and MPG (journal), Condition 1",
        "exponent's interval inside [0.8, 1.2], R² ≥ 0.95: learned models of both tasks, open and "
        "closed loop, every fit",
        linear == len(judged),
        f"{'Holds' if linear == len(judged) else 'Does not hold in general'}: linear in {linear} "
        f"of {len(judged)} fits; slower growth, which meets the inequality as well, in "
        f"{bounded - linear} more. Norm of the error over {table['seed'].nunique()} fits each, "
        f"{'; '.join(_told(name, rows) for name, rows in cells.items())}. Coordinates whose error "
        f"is exponential (fits): {exponential}.",
        numbers,
        table,
    )


def _told(name: str, rows: pd.DataFrame) -> str:
    counts = Counter(rows["law"])
    laws = ", ".join(f"{law} {counts[law]}" for law in LAWS if counts[law])
    ends = rows["exponent"].median(), rows["exponent_low"].min(), rows["exponent_high"].max()
    return (
        f"{name}: {laws} (exponent {ends[0]:.2f}, all intervals in [{ends[1]:.2f}, {ends[2]:.2f}]; "
        f"error {rows['error_1'].median():.2g} after 1 step, {rows[f'error_{STEPS}'].median():.2g} "
        f"after {STEPS})"
    )


if __name__ == "__main__":
    study(measure, FOLDER, remedy_claims.refresh)
