"""Every ratio of the performance table that a GPU can have: `python -m benchmarks.gpu`.

    all_horizons         norms and means of every horizon, cases C1 and C2, in backpropagations
    peers                one horizon with exact variance, beside Opacus, vmap and BackPACK
    ensemble_jacobians   of a learned ensemble, in forward passes
    model_fitting        members batched and apart, losses of derivatives
    training             updates per second beside Stable-Baselines3

The other rows of `benchmarks/README.md` are of MuJoCo, of files and of measurements in float64,
which run on the processor. Without a CUDA device one line says so, and the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
import tyro

from benchmarks import all_horizons, ensemble_jacobians, model_fitting, peers, training

DEVICE = "cuda"


def sections(rounds: int) -> dict[str, Callable[[], None]]:
    """The benchmarks, each with `rounds` turns of its contestants."""
    common = dict(rounds=rounds, device=DEVICE)
    return {
        "all_horizons C1": partial(all_horizons.main, case="C1", **common),
        "all_horizons C2": partial(all_horizons.main, case="C2", **common),
        "peers": partial(peers.main, **common),
        "ensemble_jacobians": partial(ensemble_jacobians.main, **common),
        "model_fitting": partial(model_fitting.main, **common),
        "training": partial(training.main, **common),
    }


def main(rounds: int = 9) -> None:
    """Print every ratio on the CUDA device; exit code 1 where there is none, or one failed.

    Args:
        rounds: turns of each contestant.
    """
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: no CUDA device here, so nothing was measured")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    failed = []
    for name, run in sections(rounds).items():
        print(f"\n{name}", flush=True)
        try:
            run()
        except (RuntimeError, ImportError) as error:
            failed.append(name)
            print(f"failed: {error}", file=sys.stderr)
    if failed:
        sys.exit(f"benchmarks.gpu: failed: {', '.join(failed)}")


if __name__ == "__main__":
    tyro.cli(main)
