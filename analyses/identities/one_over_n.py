"""1-OVER-N: is the variance of a batch-mean gradient proportional to 1/N?

    claim       Var ∇̂J ∝ 1/N at batch size N
    paper       RP-PGM, Proposition 5.4
    criterion   slope of log tr Cov of the batch mean on log N, N = 1 … 256: −1.00 ± 0.05, its whole
                95% interval

    python -m analyses.identities.one_over_n [--small] [--output reports/identities]

Inverted pendulum (analytic engine) and its prior model, Gaussian policy, five model steps, both
model derivatives on predictions (eq. 4.2) and on simulator states (eq. 4.5). The control takes all
N samples of a batch from one start state: they are not independent, and the law must fail there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.harness.verdicts import FOLDER, Verdict, study
from gradlab import tasks
from gradlab.data.noise import child
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.start_laws import initial, repeated
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.statistics.intervals import Z, jackknife_se

SIZES = (1, 4, 16, 64, 256)
BATCHES = 1000
HORIZON = 5
WITHIN = 0.05
CONTROL = "control: one start per batch"


def measure(small: bool = False) -> Verdict:
    sizes, batches = ((1, 4, 16), 60) if small else (SIZES, BATCHES)
    rows = []
    for name, gradient in batch_means().items():
        for size in sizes:
            key = f"{name} {size}"
            means = torch.stack([gradient(size, child(k, key)) for k in range(batches)])
            value, relative = total_variance(means)
            rows.append({"gradient": name, "N": size, "variance": value, "relative_se": relative})
    return judge(pd.DataFrame(rows), batches)


def batch_means() -> dict[str, Callable[[int, int], Tensor]]:
    """name → (N, seed) → batch-mean gradient [P]."""
    task = tasks.inverted_pendulum(engine="analytic")
    simulator, model = task.simulator, task.prior
    assert model is not None
    torch.manual_seed(0)
    ds, da = simulator.state_dim, simulator.action_dim
    policy = Gaussian(Policy(ds, da, (16,), "tanh"), 0.3).double()
    tail = Tail(HORIZON, QCritic(ds, da, (16,), "tanh").double(), task.discount)
    dp = Estimator(model, model, "all", tail)
    dr = Estimator(simulator, model, "all", tail)

    def one_start(size: int, seed: int) -> Tensor:
        return dp.mean_gradient(policy, repeated(initial(task, 1, seed), size), seed)

    return {
        "DP": lambda n, seed: dp.mean_gradient(policy, initial(task, n, seed), seed),
        "DR": lambda n, seed: dr.mean_gradient(policy, initial(task, n, seed), seed),
        CONTROL: one_start,
    }


def total_variance(means: Tensor) -> tuple[float, float]:
    """tr Cov of the batch means [R, P], and the jackknife standard error of its logarithm."""
    r = len(means)
    squares = ((means - means.mean(dim=0)) ** 2).sum(dim=1)
    total = squares.sum()
    # Leaving one out removes R/(R − 1) of its square.
    left_out = (total - r / (r - 1) * squares) / (r - 2)
    return float(total / (r - 1)), jackknife_se(left_out.log().numpy())


def judge(table: pd.DataFrame, batches: int) -> Verdict:
    """The verdict from columns gradient, N, variance, relative_se."""
    numbers: dict[str, float] = {}
    for key, name in (("dp", "DP"), ("dr", "DR"), ("control", CONTROL)):
        rows = table[table["gradient"] == name]
        # Least-squares slope on log N and the half-width of its 95% interval; batches independent.
        x = np.log(rows["N"].to_numpy(float))
        weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        se = np.sqrt(((weights * rows["relative_se"].to_numpy()) ** 2).sum())
        slope, half = float(weights @ np.log(rows["variance"].to_numpy())), float(Z * se)
        numbers |= {f"{key}_slope": slope, f"{key}_low": slope - half, f"{key}_high": slope + half}
    ends = [numbers[f"{key}_{end}"] for key in ("dp", "dr") for end in ("low", "high")]
    holds = all(abs(end + 1) <= WITHIN for end in ends)

    def said(key: str) -> str:
        low, high = numbers[f"{key}_low"], numbers[f"{key}_high"]
        return f"{numbers[f'{key}_slope']:.3f} [{low:.3f}, {high:.3f}]"

    sentence = (
        f"{'True' if holds else 'Not seen'}: slope of log variance on log N {said('dp')} with "
        f"derivatives on predictions, {said('dr')} on simulator states ({batches:,} batches per N, "
        f"N to {table['N'].max()}). Control, all N samples from one start: {said('control')}."
    )
    return Verdict(
        "1-OVER-N",
        "RP-PGM, Proposition 5.4",
        "slope of log variance on log N within −1.00 ± 0.05, with its interval",
        bool(holds),
        sentence,
        numbers,
        table,
    )


if __name__ == "__main__":
    study(measure, FOLDER)
