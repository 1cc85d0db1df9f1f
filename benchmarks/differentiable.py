"""A differentiable step, forward and vector–Jacobian product, beside those of other engines.

    make engines                                     # MJX beside gradlab, in .venv-engines
    python -m venv .venv-mujoco-torch                # gradlab there, too, then the older MuJoCo
    .venv-mujoco-torch/bin/pip install -e . && .venv-mujoco-torch/bin/pip install \\
        mujoco-torch==0.2.0 mujoco==3.5.0
    python -m benchmarks.differentiable --mjx .venv-engines/bin/python \\
        --mujoco-torch .venv-mujoco-torch/bin/python

64 states of Hopper after 20 random actions, one gradient in states and actions of the same loss.
Each engine is a process (`differentiable_engine`) in an environment of its own; they take turns,
compiled before. A ratio is the median over the rounds of the ratio within a round, with the order
statistics around it (95% from 6 rounds on), of processor time and of the wall clock. MJX makes one
iteration of its solver, beyond which it has no reverse mode; mujoco-torch makes 10, and one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.jacobians import visited
from gradlab import tasks
from gradlab.statistics.over_groups import aggregate
from gradlab.systems.mujoco import MujocoEnvironment


@dataclass
class Engine:
    """A process that makes one call for each line it is sent."""

    process: subprocess.Popen[str]
    first: float

    @staticmethod
    def started(python: str, name: str, states: Path, threads: int) -> Engine | None:
        """None where the engine does not run; it says why on standard error."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            [python, "-m", "benchmarks.differentiable_engine", name, str(states)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert process.stdout is not None
        answer = process.stdout.readline()
        return Engine(process, json.loads(answer)["first"]) if answer else None

    def call(self) -> tuple[float, float]:
        """Wall-clock and processor seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        wall, processor = json.loads(self.process.stdout.readline())
        return wall, processor

    def ended(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main(
    mjx: str = sys.executable,
    mujoco_torch: str = sys.executable,
    env_id: str = "Hopper-v5",
    batch: int = 64,
    rounds: int = 6,
    threads: int = 1,
) -> None:
    """Print a row per engine.

    Args:
        mjx: Python of an environment with gradlab and MJX.
        mujoco_torch: Python of one with gradlab and mujoco-torch.
        env_id: Hopper-v5 or Walker2d-v5.
        batch: states.
        rounds: turns of every engine.
        threads: of torch and of MuJoCo's batches; JAX has its own.
    """
    pythons = {
        "gradlab": sys.executable, "MJX": mjx, "mujoco-torch": mujoco_torch,
        "mujoco-torch, one iteration": mujoco_torch,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        states = saved(env_id, batch, Path(folder) / "states.npz")
        engines = {
            name: engine
            for name, python in pythons.items()
            if (engine := Engine.started(python, name, states, threads)) is not None
        }
        taken = np.array([[engine.call() for engine in engines.values()] for _ in range(rounds)])
        for engine in engines.values():
            engine.ended()
    print(table(list(engines), [engine.first for engine in engines.values()], taken))


def saved(env_id: str, batch: int, path: Path) -> Path:
    system = tasks.mujoco(env_id).simulator
    assert isinstance(system, MujocoEnvironment)
    state, action = visited(env_id, batch)
    physical = system.chart.physical(state.numpy())
    weight = np.random.default_rng(0).standard_normal(physical.shape)
    np.savez(
        path, env_id=env_id, state=state.numpy(), physical=physical, action=action.numpy(),
        weight=weight,
    )  # fmt: skip
    return path


def table(names: list[str], first: list[float], taken: np.ndarray) -> str:
    """taken: seconds [rounds, engines, (wall, processor)]; the first engine is the unit."""
    lines = [
        "| engine | first call | a call, processor | over gradlab |",
        "|---|---|---|---|",
    ]
    for i, name in enumerate(names):
        seconds = f"{first[i]:.1f} s | {1e3 * np.median(taken[:, i, 1]):.0f} ms"
        lines.append(f"| {name} | {seconds} | {ratio(taken[:, i] / taken[:, 0])} |")
    return "\n".join(lines)


def ratio(rounds: np.ndarray) -> str:
    """Of processor times, with its interval; of the wall clock in brackets."""
    wall, processor = (aggregate(rounds[:, k]) for k in (0, 1))
    return f"{processor.value:.2f} [{processor.low:.2f}, {processor.high:.2f}] ({wall.value:.2f})"


if __name__ == "__main__":
    tyro.cli(main)
