"""Does the sweep stay linear in samples and in horizon, with flat memory?

    python -m benchmarks.scaling [--largest 65536] [--rounds 3] [--threads 1]

Path tracking's prior model, first-action means and norms of every horizon, float32, policy and
critic tanh 2×256. Slopes are of log time on log N (H 25) and on log H (N 256) over the upper half
of the range; memory is the peak of the resident set beyond what the process had before.
"""

from __future__ import annotations

import resource

import numpy as np
import torch
import tyro

from benchmarks.side_by_side import seconds
from gradlab import tasks
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.named import unified
from gradlab.gradients.starts import as_starts
from gradlab.networks.mlp import Policy, QCritic


def run(samples: int, horizon: int) -> None:
    task = tasks.path_tracking()
    model = task.prior
    assert model is not None
    torch.manual_seed(0)
    sizes, scale = (model.state_dim, model.action_dim), task.observation_scale
    policy, critic = (kind(*sizes, activation="tanh", scale=scale) for kind in (Policy, QCritic))
    starts = task.starts(samples, torch.Generator().manual_seed(0)).float()
    estimator = unified(model, critic, task.discount, horizon)
    horizon_gradients(estimator, policy, as_starts(starts, sizes[0]))


def slope(sizes: list[int], times: list[float]) -> float:
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)[0])


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(largest: int = 65536, rounds: int = 3, threads: int = 1) -> None:
    """Print times, slopes and memory.

    Args:
        largest: largest N.
        rounds: turns of each size.
        threads: torch threads.
    """
    torch.set_num_threads(threads)
    run(1024, 25)
    before = megabytes()
    batches = [n for n in (256, 1024, 4096, 16384, 65536) if n <= largest]
    times = seconds({str(n): lambda n=n: run(n, 25) for n in batches}, rounds)
    print("N: " + ", ".join(f"{n} {times[str(n)]:.3g} s" for n in batches))
    print(f"slope in N: {slope(batches, [times[str(n)] for n in batches]):.2f}")
    print(f"memory beyond N = 1024: {megabytes() - before:.0f} MB")
    lengths = [5, 10, 25, 50, 100, 200]
    times = seconds({str(h): lambda h=h: run(256, h) for h in lengths}, rounds)
    print("H: " + ", ".join(f"{h} {times[str(h)]:.3g} s" for h in lengths))
    print(f"slope in H: {slope(lengths, [times[str(h)] for h in lengths]):.2f}")


if __name__ == "__main__":
    tyro.cli(main)
