"""Do 95% intervals of a measurement hold what is known? Linear-quadratic worlds, laws of starts.

    python -m benchmarks.coverage --folder FOLDER [--repetitions 100] [--starts 256]

    s' = A s + B a,   a = W s,   r = −(|s|² + |a|²),   critic −(sᵀC s + aᵀE a + 2 sᵀF a)

Of dimensions 3–5, stable, with a prior that is about 10% off. Along a linear path ∂J/∂a = M s with
one matrix per gradient and horizon, so that one start's gradient in W is (M s) sᵀ. Its mean is
M E[ssᵀ] and the trace of its covariance tr(MᵀM E[ssᵀ|s|²]) − ‖M E[ssᵀ]‖², which needs nothing of
the package. Both moments of a law are means of 4·10⁶ draws.

A measurement is flagged where it says itself that few starts carry the variance. A row per law and
quantity pools the worlds, gradients and horizons that are not flagged; `rejected` counts cells of
one world, gradient and horizon whose coverage is below 95% by Holm's test at 1%.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from scipy.stats import binom
from torch import Tensor, nn

import gradlab
from gradlab.findings.checks import concentration
from gradlab.tasks import Task

Array = np.ndarray
DISCOUNT, HORIZON, BATCH, DRAWS, BLOCK = 0.7, 4, 256, 4_000_000, 25
MEAN, DEVIATION = 0.6, 0.5**0.5  # of every coordinate of a start
CELLS = (("data", 0), ("model", HORIZON), ("mixed", HORIZON), ("true_dynamics", HORIZON))
QUANTITIES = ("mean_norm", "variance", "bias2", "mse", "relative_mse", "snr", "cosine")


def _normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def _shell(n: int, d: int, generator: torch.Generator) -> Tensor:
    x = _normal(n, d, generator)
    return d**0.5 * x / x.norm(dim=1, keepdim=True)


def _uniform(n: int, d: int, generator: torch.Generator) -> Tensor:
    return 3**0.5 * (2 * torch.rand(n, d, generator=generator, dtype=torch.float64) - 1)


def _bimodal(n: int, d: int, generator: torch.Generator) -> Tensor:
    x = 0.3 * _normal(n, d, generator)
    side = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    return (x + side) / (1 + 0.3**2) ** 0.5


def _lognormal(n: int, d: int, generator: torch.Generator) -> Tensor:
    x = torch.exp(0.8 * _normal(n, d, generator))
    return (x - np.exp(0.32)) / (np.exp(1.28) - np.exp(0.64)) ** 0.5


def _far(n: int, d: int, generator: torch.Generator) -> Tensor:
    """2% of the starts are six times farther."""
    x = _normal(n, d, generator)
    rare = torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.02
    return torch.where(rare, 6 * x, x) / (1 + 0.02 * 35) ** 0.5


Law = Callable[[int, int, torch.Generator], Tensor]
LAWS: dict[str, Law] = {
    "Gaussian": _normal, "uniform": _uniform, "shell": _shell, "bimodal": _bimodal,
    "log-normal": _lognormal, "2% far": _far,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """Simulator (A, B), prior (A, B), the policy's W and the critic's C, E, F."""

    simulator: tuple[Array, Array]
    prior: tuple[Array, Array]
    W: Array
    critic: tuple[Array, Array, Array]


def world(seed: int) -> World:
    """A random one with a stable closed loop."""
    rng = np.random.default_rng(seed)
    d = 3 + seed % 3
    da = max(1, d // 2)
    while True:
        A, B = rng.normal(size=(d, d)), 0.5 * rng.normal(size=(d, da))
        A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
        W = 0.2 * rng.normal(size=(da, d))
        prior = A + 0.1 * rng.normal(size=(d, d)) / d**0.5, B + 0.1 * rng.normal(size=(d, da))
        loops = [M + N @ W for M, N in ((A, B), prior)]
        if max(np.abs(np.linalg.eigvals(loop)).max() for loop in loops) < 1:
            C, E = np.eye(d) * rng.uniform(1, 4), 1.5 * np.eye(da)
            return World((A, B), prior, W, (C, E, 0.2 * rng.normal(size=(d, da))))


def matrix(w: World, states: str, model: str, horizon: int | None) -> Array:
    """M [da, d]: states and derivatives by `states` and `model`; None: no end and no critic."""
    C, E, F = w.critic
    (A, B), (A_m, B_m) = getattr(w, states), getattr(w, model)
    W, d = w.W, len(A)
    if horizon == 0:
        return -2 * (E @ W + F.T)
    loop, derivative = A + B @ W, A_m + B_m @ W
    steps = 100 if horizon is None else horizon
    paths = [np.linalg.matrix_power(loop, t) for t in range(steps + 1)]
    end = C + W.T @ E @ W + F @ W + W.T @ F.T
    costate = -2 * (np.zeros_like(A) if horizon is None else end) @ paths[-1]
    for t in range(steps - 1, 0, -1):
        costate = -2 * (np.eye(d) + W.T @ W) @ paths[t] + DISCOUNT * derivative.T @ costate
    return -2 * W + DISCOUNT * B_m.T @ costate


def known(w: World, starts: Array) -> dict[tuple[str, int], dict[str, float]]:
    """Every quantity of every cell."""
    second = starts.T @ starts / len(starts)
    fourth = (starts * (starts**2).sum(axis=1, keepdims=True)).T @ starts / len(starts)
    truth = matrix(w, "simulator", "simulator", None) @ second
    of = {
        "data": ("simulator", "simulator"), "model": ("prior", "prior"),
        "mixed": ("simulator", "prior"), "true_dynamics": ("simulator", "simulator"),
    }  # fmt: skip
    found = {}
    for name, h in CELLS:
        M = matrix(w, *of[name], h)
        mean = M @ second
        variance = float(np.trace(M.T @ M @ fourth) - (mean**2).sum())
        bias2, norm = float(((mean - truth) ** 2).sum()), float(np.linalg.norm(mean))
        mse = bias2 + variance / BATCH
        found[name, h] = {
            "mean_norm": norm, "variance": variance, "bias2": bias2, "mse": mse,
            "relative_mse": mse / float((truth**2).sum()), "snr": norm**2 / variance,
            "cosine": float((mean * truth).sum() / norm / np.linalg.norm(truth)),
        }  # fmt: skip
    return found


def task_of(w: World, law: Law) -> Task:
    """The world as a task from starts of that law."""
    A, B = (torch.from_numpy(each) for each in w.simulator)
    d = len(A)
    made = gradlab.tasks.linear_quadratic(
        A, B, noise_covariance=torch.zeros(d, d), discount=DISCOUNT,
        prior=tuple(torch.from_numpy(each) for each in w.prior),
    )  # fmt: skip

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return MEAN + DEVIATION * law(n, d, generator)

    return replace(made, starts=starts)


def repeated(block: int, law: str, seed: int, n: int) -> pd.DataFrame:
    """A row per repetition, cell and quantity: is the known value inside, is it flagged?"""
    torch.set_num_threads(1)
    w = world(seed)
    task = task_of(w, LAWS[law])
    truth = known(w, task.starts(DRAWS, torch.Generator().manual_seed(seed)).numpy())
    policy = nn.Linear(*w.W.shape[::-1], bias=False, dtype=torch.float64)
    policy.weight.data.copy_(torch.from_numpy(w.W))
    C, E, F = (torch.from_numpy(each) for each in w.critic)

    def critic(s: Tensor, a: Tensor) -> Tensor:
        return -((s @ C * s).sum(-1) + (a @ E * a).sum(-1) + 2 * (s @ F * a).sum(-1))

    rows = []
    for k in range(BLOCK * block, BLOCK * (block + 1)):
        profile = gradlab.measure(
            task, policy, critic, horizon=HORIZON, starts=n, batch=BATCH, law="start",
            truth="matched", seed=1000 * seed + k, rehearse=False, judges=4,
        )  # fmt: skip
        finding = concentration(profile.sanity)
        flagged = finding is not None and finding.decision != "pass"
        for (name, h), quantities in truth.items():
            for quantity in QUANTITIES:
                ends = profile.interval(name, quantity, h)
                inside = ends.low <= quantities[quantity] <= ends.high
                rows.append((law, seed, name, h, quantity, inside, flagged))
    columns = ["law", "world", "estimator", "horizon", "quantity", "inside", "flagged"]
    return pd.DataFrame(rows, columns=columns)


def pooled(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Coverage by law and quantity where it is not flagged."""
    for (law, quantity), all_of in rows.groupby(["law", "quantity"], sort=False):
        sure = all_of[~all_of["flagged"]]
        cells = sure.groupby(["world", "estimator"])["inside"].agg(["sum", "count"])
        p = np.sort(binom.cdf(cells["sum"], cells["count"], 0.95))
        rejected = np.cumprod(p < 0.01 / np.arange(len(p), 0, -1)).sum()
        yield {
            "law": law, "quantity": quantity, "flagged": all_of["flagged"].mean(),
            "coverage": sure["inside"].mean(), "intervals": len(sure), "rejected": int(rejected),
        }  # fmt: skip


def kept(block: int, law: str, seed: int, n: int, folder: Path) -> pd.DataFrame:
    """The rows of that block in their file, which is written once."""
    path = folder / f"{law}-{n}-{seed}-{block}.csv"
    if not path.exists():
        repeated(block, law, seed, n).to_csv(path, index=False)
    return pd.read_csv(path)


def main(
    folder: Path, worlds: int = 20, repetitions: int = 100, starts: int = 256, processes: int = 2,
    laws: tuple[str, ...] = tuple(LAWS),
) -> None:  # fmt: skip
    """Measures every world under every law and prints what its intervals hold.

    Args:
        folder: a file per world, law and 25 repetitions; those that are there are not made again.
        starts: N of a measurement.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = product(range(repetitions // BLOCK), laws, range(worlds))
    run = partial(kept, n=starts, folder=folder)
    with ProcessPoolExecutor(processes) as pool:
        rows = pd.concat(pool.map(run, *zip(*work, strict=True)))
    print(pd.DataFrame(pooled(rows)).to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    tyro.cli(main)
