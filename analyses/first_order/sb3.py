"""Stable-Baselines3's SAC beside first-order rows: its runs, by processor seconds.

    python -m analyses.first_order.sb3 [--worlds hopper …] [--folder runs/first-order]

One run for each of five seeds, of as many updates as `sac` makes there, at the settings of
`beside_sb3.options`, with learning rates of 1e-3 on MuJoCo's tasks, on the same CPU with one
thread. Evaluated without exploration from the starts and by the simulator of the runs here.
Seconds are those of its own `learn`, simulator included.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
import pandas as pd
import torch
import tyro
from torch import Tensor

from analyses.beside_sb3 import runs as beside_sb3
from analyses.first_order.runs import EVALUATIONS, IDS, RACED, RATE, RUNS, SEEDS, STARTS, Arm, World
from gradlab import tasks
from gradlab.tasks import Task
from gradlab.training.collection import evaluate


def path_of(world: World, seed: int, folder: Path) -> Path:
    return folder / f"sb3-{world}-{seed}.csv"


def learner(world: World, seed: int) -> Any:
    """Stable-Baselines3's SAC, before its first step."""
    if world not in IDS:
        return beside_sb3.learner("sac", seed)
    import stable_baselines3

    updates = Arm("sac", world).iterations
    options = beside_sb3.options("sac") | {
        "learning_rate": RATE, "gamma": tasks.mujoco(IDS[world]).discount,
        "buffer_size": updates + beside_sb3.WARMUP,
    }  # fmt: skip
    return stable_baselines3.SAC("MlpPolicy", gymnasium.make(IDS[world]), seed=seed, **options)


def run(world: World, seed: int, updates: int) -> pd.DataFrame:
    """Train; columns update, seconds and return, one row per evaluation."""
    model, task = learner(world, seed), Arm("sac", world).task()
    model.gradient_steps = 0
    model.learn(beside_sb3.WARMUP)
    model.gradient_steps = 1
    rows, took = [{"update": 0, "seconds": 0.0, "return": evaluated(model, world, task)}], 0.0
    every = max(updates // EVALUATIONS, 1)
    for update in range(every, updates + 1, every):
        begun = time.process_time()
        model.learn(every, reset_num_timesteps=False)
        took += time.process_time() - begun
        rows.append({"update": update, "seconds": took, "return": evaluated(model, world, task)})
    return pd.DataFrame(rows)


def evaluated(model: Any, world: World, task: Task) -> float:
    """Mean return of episodes as long as the runs' here."""
    see = tasks.view(IDS[world]) if world in IDS else torch.nn.Identity()
    largest = torch.from_numpy(model.action_space.high).double()
    limit = torch.tensor(task.action_limit or (1.0,) * len(largest), dtype=torch.float64)

    def act(state: Tensor) -> Tensor:
        action, _ = model.predict(see(state[0]).numpy(), deterministic=True)
        return (torch.from_numpy(action) / largest * limit)[None]

    episodes = evaluate(task, act, 1, STARTS, Arm("sac", world).scale.episode, "stop", lambda x: x)
    return float(episodes.returns.mean())


def main(worlds: tuple[World, ...] = RACED, folder: Path = RUNS) -> None:
    """Train what is missing.

    Args:
        worlds: which of them.
        folder: of the runs.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for world in worlds:
        for seed in range(SEEDS):
            path = path_of(world, seed, folder)
            if not path.exists():
                frame = run(world, seed, Arm("sac", world).iterations)
                frame.to_csv(path, index=False, float_format="%.6g")
                print(path.stem, frame["return"].round(1).tolist()[-4:], flush=True)


if __name__ == "__main__":
    tyro.cli(main)
