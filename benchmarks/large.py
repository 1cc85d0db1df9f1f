"""Memory and time of a measurement of many starts, beside one of few.

    python -m benchmarks.large [--task path_tracking] [--starts 8192] [--horizon 200] [--few 512]

The policy is linear feedback, so that paths and Jacobians take the time. Each measurement
has a process of its own: its largest memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import torch
import tyro

import gradlab
from gradlab.data.trajectories import stream
from gradlab.networks.mlp import Policy, QCritic

SHRINKING = 0.05  # of the standardised state, that an action of the policy takes back


def measured(name: str, starts: int, horizon: int) -> dict[str, float]:
    """Seconds of the processor per start, and bytes at the largest."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = getattr(gradlab.tasks, name)()
    sizes = task.simulator.state_dim, task.simulator.action_dim
    policy, critic = Policy(*sizes, hidden=()), QCritic(*sizes, hidden=(16,))
    spread = task.starts(256, stream(0, "spread")).std(dim=0).clamp_min(1e-3)
    with torch.no_grad():
        next(policy.parameters()).copy_(-SHRINKING / spread.expand(sizes[1], -1))
    begun = time.process_time()
    gradlab.measure(task, policy, critic, horizon=horizon, starts=starts)
    return {
        "seconds": (time.process_time() - begun) / starts,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
    }


def alone(name: str, starts: int, horizon: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = (
        f"import json; from benchmarks.large import measured; "
        f"print(json.dumps(measured({name!r}, {starts}, {horizon})))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(
    task: str = "path_tracking", starts: int = 8192, horizon: int = 200, few: int = 512
) -> None:
    """Print both measurements and their ratio.

    Args:
        task: of `gradlab.tasks`.
        starts, few: of the two measurements; 0: none.
        horizon: of both.
    """
    for n in filter(None, (few, starts)):
        found = alone(task, n, horizon)
        print(
            f"{n} starts: {1e3 * found['seconds']:.3g} ms of a processor per start, "
            f"{found['peak'] / 1e6:.0f} MB at its largest",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
