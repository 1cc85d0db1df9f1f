"""K-SAMPLES: what do K samples per start state buy against a K times larger batch?

    claim       a batch of B starts with K samples each has variance σ_b²/B + σ_w²/(BK)
    paper       MAAC, Figure 5 and section 4.3 (several samples per start against a larger batch)
    criterion   variance of repeated batches over that formula within ±10% at every (B, K), its
                whole 95% interval

    python -m analyses.identities.k_samples [--small] [--output reports/identities]

σ_b² and σ_w², between and within start states, come from one large one-way design; the variances
from batches on other seeds. Double integrator with strong dynamics noise, Gaussian policy, three
model steps and a critic. Starts repeat by `gradlab.gradients.start_laws.repeated`.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor, nn

from analyses.harness.verdicts import FOLDER, Verdict, study
from analyses.identities.one_over_n import total_variance
from gradlab import tasks
from gradlab.data.noise import child
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.start_laws import initial, repeated
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.statistics.intervals import Z
from gradlab.tasks import Task

DESIGNS = ((8, 1), (8, 4), (8, 16), (32, 1), (32, 4), (128, 1))  # (B, K)
HORIZON = 3
WITHIN = 0.1
REPEATS = 8000
STARTS = 131072  # of the one-way design
ROWS = 8192  # samples per call
NOISE = 0.3  # variance of each state's dynamics noise


def measure(small: bool = False) -> Verdict:
    designs, repeats, starts = (DESIGNS[:2], 400, 8192) if small else (DESIGNS, REPEATS, STARTS)
    task, policy, estimator = setting()
    between, within = variance_parts(task, policy, estimator, starts, 8)
    rows = []
    for b, k in designs:
        means = batch_means(task, policy, estimator, b, k, repeats)
        value, relative = total_variance(means)
        shares = between / b + within / (b * k)
        predicted = float(shares.mean())
        of_prediction = float(shares.std()) / math.sqrt(starts) / predicted
        rows.append(
            {
                "B": b,
                "K": k,
                "variance": value,
                "relative_se": math.hypot(relative, of_prediction),
                "predicted": predicted,
                "predicted_independent": float((between + within).mean()) / (b * k),
            }
        )
    return judge(pd.DataFrame(rows), float(between.mean()), float(within.mean()), repeats)


def setting() -> tuple[Task, nn.Module, Estimator]:
    torch.manual_seed(0)
    eye = torch.eye(2, dtype=torch.float64)
    task = tasks.linear_quadratic(noise_covariance=NOISE * eye)
    policy = Gaussian(Policy(2, 1, (16,), "tanh"), 0.5).double()
    critic = QCritic(2, 1, (16,), "tanh").double()
    system = task.simulator
    return task, policy, Estimator(system, system, "all", Tail(HORIZON, critic, task.discount))


def batch_means(
    task: Task, policy: nn.Module, estimator: Estimator, b: int, k: int, repeats: int
) -> Tensor:
    """Means of `repeats` independent batches of b starts with k samples each, [repeats, P]."""
    at_once = max(1, ROWS // (b * k))
    found: list[Tensor] = []
    for chunk in range(-(-repeats // at_once)):
        seed = child(chunk, f"batches {b} {k}")
        starts = repeated(initial(task, at_once * b, seed), k)
        samples = estimator.gradients(policy, starts, seed)
        found.append(samples.reshape(at_once, b * k, -1).mean(dim=1))
    return torch.cat(found)[:repeats]


def variance_parts(
    task: Task, policy: nn.Module, estimator: Estimator, starts: int, k: int
) -> tuple[Tensor, Tensor]:
    """One-way analysis of variance over `starts` starts with k samples each.

    Returns:
        each start's share [starts] of σ_b² and of σ_w²; their means are the unbiased estimates.
    """
    at_once = min(ROWS // k, starts)
    means, within = [], []
    for chunk in range(starts // at_once):
        seed = child(chunk, "design")
        begin = repeated(initial(task, at_once, seed), k)
        samples = estimator.gradients(policy, begin, seed).reshape(at_once, k, -1)
        means.append(samples.mean(dim=1))
        squares = (samples - means[-1][:, None]) ** 2
        within.append(squares.sum(dim=(1, 2)) / (k - 1))
    every, sigma_w = torch.cat(means), torch.cat(within)
    spread = ((every - every.mean(dim=0)) ** 2).sum(dim=1) * len(every) / (len(every) - 1)
    return spread - sigma_w / k, sigma_w


def judge(table: pd.DataFrame, between: float, within: float, repeats: int) -> Verdict:
    """The verdict from columns B, K, variance, relative_se, predicted, predicted_independent.

    relative_se is that of measured over predicted variance.
    """
    ratio = table["variance"] / table["predicted"]
    naive = table["variance"] / table["predicted_independent"]
    widest = float((Z * table["relative_se"]).max())
    several = table["K"] > 1
    numbers = {
        "sigma_between_2": between,
        "sigma_within_2": within,
        "ratio_least": float(ratio.min()),
        "ratio_largest": float(ratio.max()),
        "interval_half_width": widest,
        "naive_ratio_largest": float(naive[several].max()),
        "k_for_half_of_the_gain": within / between,
    }
    half = Z * table["relative_se"] * ratio
    holds = bool(((ratio - 1).abs() + half <= WITHIN).all())
    shares = ", ".join(
        f"({row.B}, {row.K}) {row.variance / row.predicted:.3f}" for row in table.itertuples()
    )
    sentence = (
        f"{'True' if holds else 'Not seen'}: σ_b² {between:.3g}, σ_w² {within:.3g}; measured over "
        f"predicted variance at (B, K): {shares}, each ± {widest:.3f} at most ({repeats:,} "
        f"batches). Samples of one start are not a larger batch: σ²/(BK) would be up to "
        f"{numbers['naive_ratio_largest']:.1f} times too small, and beyond "
        f"K = {within / between:.1f} (= σ_w²/σ_b²) the start states are most of what is left."
    )
    return Verdict(
        "K-SAMPLES",
        "MAAC, Fig. 5, section 4.3",
        "variance over σ_b²/B + σ_w²/(BK) within 1 ± 0.1 at every (B, K), with its interval",
        holds,
        sentence,
        numbers,
        table,
    )


if __name__ == "__main__":
    study(measure, FOLDER)
