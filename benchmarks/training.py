"""Updates per second beside Stable-Baselines3: `python -m benchmarks.training [--threads 1]`.

TD3 and SAC with two hidden layers of 256 ReLU units and batches of 256, one seed and five in one
program, and MPG-v2 at H = 25: products as training chooses them here, and as torch comes (at
"highest", as one batch). All contestants take turns in one process; a ratio is the median over the
rounds of the ratio within a round, with the order statistics around it (95%), of processor time,
which does not see who else uses the machine.
Needs stable-baselines3 (`pip install -c constraints.txt stable-baselines3`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro

import gradlab
from benchmarks.all_horizons import finished
from benchmarks.side_by_side import processor, turns
from gradlab.networks.layers import fast_products
from gradlab.statistics.over_groups import aggregate
from gradlab.storage.journal import Journal
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find
from gradlab.training.recording import tables
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import for_task
from gradlab.training.state import begin

BOOKS = "td3, replay and records alone"
PLAIN = ", products as torch comes"
EVERY = ", every update with the policy"
STEPS = 20  # updates in one turn: two cycles of batch reuse and delays


def ours(
    algorithm: Algorithm, seeds: int, device: str, *, plain: bool = False
) -> Callable[[], None]:
    """A turn of `STEPS` updates of gradlab's loop: batch, update, window, no environment.

    Args:
        plain: products as torch comes, else those that training chooses on this machine.
    """
    task = gradlab.tasks.path_tracking()
    run = begin(algorithm, task, for_task(task.name, seeds=seeds, warmup=5000, device=device))
    collect(run)
    window = run.window

    def turn() -> None:
        with nullcontext() if plain else fast_products(device):
            for _ in range(STEPS):
                k = run.iteration
                window.add(run.learner.update(k, next_batch(run)))
                run.iteration += 1
            window.row(run.iteration, 0.0)

    return finished(turn, torch.device(device))


def bookkeeping(algorithm: Algorithm, folder: Path, device: str) -> Callable[[], None]:
    """Of the same turn what is no update: transitions in, batches out, statistics, journal rows.

    A row per turn, where training writes one every 50 updates: an upper bound.
    """
    task = gradlab.tasks.path_tracking()
    settings = for_task(task.name, warmup=5000, device=device)
    run = begin(algorithm, task, settings)
    collect(run)
    rows = run.replay.rows[:, : settings.agents].clone()
    made = run.learner.update(0, next_batch(run))
    about = {"kind": "training"}
    journal = Journal(folder / "run.h5", tables(algorithm, task, settings), about)

    def turn() -> None:
        for _ in range(STEPS):
            next_batch(run)
            run.window.add(made)
            if run.iteration % settings.interval == 0:
                run.replay.put(rows)
            run.iteration += 1
        journal.append("updates", run.window.row(run.iteration, 0.0))

    return turn


def theirs(name: str, device: str = "cpu") -> Callable[[], None]:
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
    made = {
        "SB3 TD3": theirs("TD3", device),
        "SB3 SAC": theirs("SAC", device),
        BOOKS: bookkeeping(td3, folder, device),
    }
    for plain in (False, True):
        end = PLAIN if plain else ""
        made |= {
            f"td3{end}": ours(td3, 1, device, plain=plain),
            f"td3, five seeds{end}": ours(td3, 5, device, plain=plain),
            f"sac{end}": ours(sac, 1, device, plain=plain),
            f"sac, five seeds{end}": ours(sac, 5, device, plain=plain),
            f"mpg-v2{end}": ours(mpg, 1, device, plain=plain),
        }
    return made | {f"mpg-v2{EVERY}": ours(replace(mpg, delay=1), 1, device)}


def main(rounds: int = 15, threads: int = 1, device: str = "cpu") -> None:
    """Print rates and ratios.

    Args:
        rounds: turns of each contestant.
        threads: torch threads.
        device: "cpu" or "cuda", by the clock.
    """
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        clocks = turns(contestants(Path(folder), device), rounds)
    which = 1 if device == "cpu" else 0
    taken = {name: np.array([turn[which] for turn in each]) for name, each in clocks.items()}
    with fast_products(device):
        precision = torch.get_float32_matmul_precision()
    print(
        f"{processor()}, {device}, {threads} thread{'s' if threads > 1 else ''}, torch "
        f'{torch.__version__}, float32: training multiplies at "{precision}"'
    )
    books = taken.pop(BOOKS) / taken["td3"]
    print(f"{BOOKS}: {np.median(books):.1%} of gradlab's TD3 update")
    for name, seconds in taken.items():
        peer = taken["SB3 SAC" if "sac" in name.lower() else "SB3 TD3"]
        gain = aggregate(peer * (5 if "five" in name else 1) / seconds)
        print(
            f"{name:45}{1e3 * np.median(seconds) / STEPS:8.2f} ms {gain.value:6.2f} "
            f"[{gain.low:.2f}, {gain.high:.2f}] × SB3   cost {1 / gain.value:.2f}"
        )


if __name__ == "__main__":
    tyro.cli(main)
