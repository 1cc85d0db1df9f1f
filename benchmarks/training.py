"""Updates per second beside Stable-Baselines3: `python -m benchmarks.training [--threads 1]`.

TD3 and SAC with two hidden layers of 256 ReLU units and batches of 256, one seed and five in one
program, and MPG-v2 at H = 25. All contestants take turns in one process; a ratio is of medians.
Needs stable-baselines3 (`pip install -c constraints.txt stable-baselines3`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro

import gradlab
from benchmarks.all_horizons import finished
from benchmarks.side_by_side import seconds
from gradlab.storage.journal import Journal
from gradlab.training.algorithms import Algorithm, find
from gradlab.training.recording import tables
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import for_task
from gradlab.training.state import begin

BOOKS = "td3, replay and records alone"
STEPS = 20  # updates in one turn: two cycles of batch reuse and delays


def ours(algorithm: Algorithm, seeds: int, device: str) -> Callable[[], None]:
    """A turn of `STEPS` updates of gradlab's loop: batch, update, window, no environment."""
    task = gradlab.tasks.path_tracking()
    run = begin(algorithm, task, for_task(task.name, seeds=seeds, warmup=5000, device=device))
    collect(run)
    window = run.window

    def turn() -> None:
        torch.set_float32_matmul_precision("medium")  # what `train` chooses where it is accurate
        for _ in range(STEPS):
            k = run.iteration
            window.add(run.learner.update(k, next_batch(run)))
            run.iteration += 1
        window.row(run.iteration, 0.0)
        torch.set_float32_matmul_precision("highest")

    return finished(turn, torch.device(device))


def bookkeeping(algorithm: Algorithm, folder: Path, device: str) -> Callable[[], None]:
    """Of the same turn what is no update: transitions in, batches out, statistics, journal rows.

    A row per turn, where training writes one every 50 updates: an upper bound.
    """
    task = gradlab.tasks.path_tracking()
    settings = for_task(task.name, warmup=5000, device=device)
    run = begin(algorithm, task, settings)
    collect(run)
    parts = run.replay.rows[:, : settings.agents].split(list(run.replay.widths), dim=2)
    state, action, reward, after, ended = parts
    made = run.learner.update(0, next_batch(run))
    about = {"kind": "training"}
    journal = Journal(folder / "run.h5", tables(algorithm, task, settings), about)

    def turn() -> None:
        for _ in range(STEPS):
            next_batch(run)
            run.window.add(made)
            if run.iteration % settings.interval == 0:
                run.replay.add(state, action, reward[..., 0], after, ended[..., 0])
            run.iteration += 1
        journal.append("updates", run.window.row(run.iteration, 0.0))

    return turn


def theirs(name: str, device: str) -> Callable[[], None]:
    """`STEPS` gradient steps of Stable-Baselines3 on a task of the same dimensions."""
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    class Noise(gymnasium.Env[np.ndarray, np.ndarray]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

        def reset(self, **_: object) -> tuple[np.ndarray, dict[str, object]]:
            return np.random.randn(6).astype(np.float32), {}

        def step(self, _: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
            return np.random.randn(6).astype(np.float32), 0.0, False, False, {}

    maker = getattr(stable_baselines3, name)
    width = {"policy_kwargs": {"net_arch": [256, 256]}}
    model = maker("MlpPolicy", Noise(), batch_size=256, learning_starts=0, device=device, **width)
    model.set_logger(Logger(None, []))
    space = model.action_space
    for _ in range(1000):
        state, after = np.random.randn(2, 1, 6).astype(np.float32)
        action = space.sample()[None]
        model.replay_buffer.add(state, after, action, np.zeros(1), np.zeros(1), [{}])

    def turn() -> None:
        model.train(gradient_steps=STEPS, batch_size=256)

    return finished(turn, torch.device(device))


def contestants(folder: Path, device: str) -> dict[str, Callable[[], None]]:
    like = {"activation": "relu", "reuse": 1}
    td3, sac = (replace(find(name), **like) for name in ("td3", "sac"))
    mpg = find("mpg-v2")
    policy = replace(mpg, delay=1)
    return {
        "SB3 TD3": theirs("TD3", device),
        "SB3 SAC": theirs("SAC", device),
        "td3": ours(td3, 1, device),
        BOOKS: bookkeeping(td3, folder, device),
        "td3, five seeds": ours(td3, 5, device),
        "sac": ours(sac, 1, device),
        "sac, five seeds": ours(sac, 5, device),
        "mpg-v2": ours(mpg, 1, device),
        "mpg-v2, every update with the policy": ours(policy, 1, device),
    }


def main(rounds: int = 15, threads: int = 1, device: str = "cpu") -> None:
    """Print rates and ratios.

    Args:
        rounds: turns of each contestant.
        threads: torch threads.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        medians = seconds(contestants(Path(folder), device), rounds)
    td3, sac = medians["SB3 TD3"], medians["SB3 SAC"]
    print(f"{BOOKS}: {medians.pop(BOOKS) / medians['td3']:.1%} of gradlab's TD3 update")
    for name, taken in medians.items():
        rate = STEPS / taken * (5 if "five" in name else 1)
        peer = sac if "sac" in name.lower() else td3
        ratio = rate / (STEPS / peer)
        print(f"{name:40}{rate:8.0f} updates/s {ratio:6.2f} × SB3   cost {1 / ratio:.2f}")


if __name__ == "__main__":
    tyro.cli(main)
