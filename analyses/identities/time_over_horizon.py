"""TIME-H: does a policy gradient's time grow linearly with its horizon?

    claim       the computing time of backpropagation through time is linear in H
    paper       MPG and MPG (journal), Figure 5/6a and section V-B2
    criterion   line through the times at H = 0, 1, 5, 10, 25, 50: R² >= 0.98; time(25)/time(0) >= 5

    python -m analyses.identities.time_over_horizon [--small] [--output reports/identities]

Path tracking's prior model, batch 256, policy and critic 2×256 ELU in float32, one thread. Plain
autograd, with θ in every action (eq. 5) and in the first alone (eq. 6), as in the papers; gradlab's
own sweep beside it. Times are medians of interleaved rounds; ratios survive a busy machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

from analyses.harness.verdicts import FOLDER, Verdict, save
from benchmarks.side_by_side import seconds
from gradlab import tasks
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy, QCritic

HORIZONS = (0, 1, 5, 10, 25, 50)
BLOCKS = 9
ROUNDS = 5
PAPER = "autograd, θ in all actions"
ONE = "autograd, θ in the first action"
SWEEP = "gradlab's sweep, θ in the first action"


def measure(small: bool = False) -> Verdict:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        batch, width, blocks = (32, 32, 3) if small else (256, 256, BLOCKS)
        running = contestants(batch, width)
        taken = [seconds(running, 2 if small else ROUNDS) for _ in range(blocks)]
    finally:
        torch.set_num_threads(threads)
    rows = [
        {"block": block, "gradient": name, "horizon": horizon, "seconds": each[f"{name}|{horizon}"]}
        for block, each in enumerate(taken)
        for name in (PAPER, ONE, SWEEP)
        for horizon in HORIZONS
    ]
    return judge(pd.DataFrame(rows))


def contestants(batch: int, width: int) -> Mapping[str, Callable[[], object]]:
    task = tasks.path_tracking()
    model, scale = task.prior, task.observation_scale
    assert model is not None
    torch.manual_seed(0)
    policy = Policy(model.state_dim, model.action_dim, (width, width), scale=scale)
    critic = QCritic(model.state_dim, model.action_dim, (width, width), scale=scale)
    frozen = copy.deepcopy(policy).requires_grad_(False)
    starts = task.starts(batch, stream(0, "starts")).float()

    def plain(horizon: int, later: nn.Module) -> Tensor:
        s, total = starts, starts.new_zeros(batch)
        for t in range(horizon):
            noise = model.sample_noise(batch, stream(0, "dynamics", t), s.dtype)
            out = model.step(s, later(s) if t else policy(s), noise)
            total, s = total + task.discount**t * out.reward, out.state
        last = later(s) if horizon else policy(s)
        total = total + task.discount**horizon * critic(s, last)
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(total.mean(), list(policy.parameters()))]
        )

    def sweep(horizon: int) -> Tensor:
        estimator = Estimator(model, model, "first", Tail(horizon, critic, task.discount))
        return estimator.mean_gradient(policy, starts)

    running: dict[str, Callable[[], object]] = {}
    for horizon in HORIZONS:
        running[f"{PAPER}|{horizon}"] = lambda h=horizon: plain(h, policy)
        running[f"{ONE}|{horizon}"] = lambda h=horizon: plain(h, frozen)
        running[f"{SWEEP}|{horizon}"] = lambda h=horizon: sweep(h)
    return running


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from times: columns block, gradient, horizon, seconds."""
    numbers: dict[str, float] = {}
    for key, name in (("all", PAPER), ("first", ONE), ("sweep", SWEEP)):
        blocks = table[table["gradient"] == name].pivot(
            index="block", columns="horizon", values="seconds"
        )
        median = blocks.median()
        ratio = blocks[25] / blocks[0]
        slope, intercept, r2 = line(median.index.to_numpy(float), median.to_numpy())
        numbers |= {
            f"{key}_r2": r2,
            f"{key}_ratio": float(median[25] / median[0]),
            f"{key}_ratio_low": float(ratio.min()),
            f"{key}_ratio_high": float(ratio.max()),
            f"{key}_ms_per_step": 1e3 * slope,
            f"{key}_ms_at_0": 1e3 * float(median[0]),
            f"{key}_intercept_ms": 1e3 * intercept,
        }
    holds = all(numbers[f"{k}_r2"] >= 0.98 and numbers[f"{k}_ratio"] >= 5 for k in ("all", "first"))

    def said(key: str) -> str:
        return (
            f"R² {numbers[f'{key}_r2']:.4f}, time(25)/time(0) {numbers[f'{key}_ratio']:.1f} "
            f"[{numbers[f'{key}_ratio_low']:.1f}, {numbers[f'{key}_ratio_high']:.1f}], "
            f"{numbers[f'{key}_ms_per_step']:.2f} ms per step"
        )

    sentence = (
        f"{'True' if holds else 'Not seen'}: θ in all actions {said('all')}; in the first "
        f"{said('first')} (range over blocks of interleaved rounds, one CPU thread). gradlab's "
        f"sweep, which holds every shorter horizon too: {said('sweep')}."
    )
    return Verdict(
        "TIME-H",
        "MPG and MPG (journal), Fig. 5/6a, V-B2",
        "R² >= 0.98 of a line through H = 0, 1, 5, 10, 25, 50; time(25)/time(0) >= 5",
        bool(holds),
        sentence,
        numbers,
        table,
    )


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least-squares slope, intercept and R²."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    return float(slope), float(intercept), float(1 - residual.var() / y.var())


def main(small: bool = False, output: Path = FOLDER) -> None:
    """Time gradients.

    Args:
        small: small networks and batch, few rounds.
        output: folder of the verdict.
    """
    save(
        measure(small), output, "OMP_NUM_THREADS=1 python -m analyses.identities.time_over_horizon"
    )


if __name__ == "__main__":
    tyro.cli(main)
