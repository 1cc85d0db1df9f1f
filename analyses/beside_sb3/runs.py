"""Do `sac` and `td3` learn Gymnasium's pendulum as Stable-Baselines3's SAC and TD3 do?

    claim       the same algorithms, at the same settings, earn the same return
    criterion   here − Stable-Baselines3, Welch's 95% interval over seeds: of the return at the end
                (mean of the last four evaluations) within ±50, of the mean return over the run
                (trapezoids) within ±100, for both algorithms. An interval that reaches over a
                margin leaves it undecided, one that lies beyond refutes. The margins are 5% and 10%
                of what is to be learned: from about −1,200 untrained to about −150
    control     `sac` and `td3` here at learning rates of 3e-4 in the place of 2e-3: one of the two
                numbers, at least, must not be judged the same, else the test sees nothing

    python -m analyses.beside_sb3 train    all runs; finished ones are kept
    python -m analyses.beside_sb3 train --names td3 --first 5 --no-control
    python -m analyses.beside_sb3 judge    from the runs to the verdict

Five seeds on either side (of TD3 five more, once five had left it undecided), with nothing shared
between the sides but the settings (`options`; `beside_sb3_settings` reads them back); 500 steps of
the untrained policy, then 4,000 updates of SAC and 6,000 of TD3, one after each step of one
environment (of SAC 6,000 as well at first; cut for time while the first run of the other side was
under way, the side here had learned by 2,750). Both are judged on the same 50 starts, without
exploration.

Networks are of 64 units, batches of 128, for time; γ, the factor on rewards, learning rates and the
exploration of `td3` were chosen by pilots here, on other seeds, for learning within the run.
Actions are in units of the largest torque and observations as Gymnasium has them, since that is
what Stable-Baselines3's networks are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import pandas as pd
import torch
from gymnasium.wrappers import TransformReward
from torch import Tensor

from analyses.harness.running import commands, trained
from gradlab import tasks
from gradlab.runs.training.results import load
from gradlab.systems.function import from_function
from gradlab.systems.pendulum import TORQUE_LIMIT
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find, with_temperature
from gradlab.training.collection import evaluate
from gradlab.training.parts.targets import OneStep
from gradlab.training.parts.temperature import Automatic
from gradlab.training.settings import Settings

RUNS = Path("runs/beside-sb3")
Name = Literal["sac", "td3"]
NAMES: tuple[Name, ...] = ("sac", "td3")
HERE, THERE, CONTROL = "gradlab", "Stable-Baselines3", "gradlab, rates 3e-4"
STEMS = {HERE: "here", THERE: "sb3", CONTROL: "slow"}
SEEDS = 5
UPDATES: Mapping[Name, int] = {"sac": 4000, "td3": 6000}
WARMUP = 500
EVERY = 250  # updates between evaluations
RATE, SLOW = 2e-3, 3e-4
DISCOUNT = 0.95
REWARDS = 0.1  # factor on rewards in training
EXPLORATION = 0.3  # of td3, in units of the limit


def task() -> Task:
    """Gymnasium's Pendulum-v1, its torque in units of the largest."""
    plain = tasks.pendulum(discount=DISCOUNT, coordinates="circle")

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = plain.simulator.step(state, TORQUE_LIMIT * action)
        return after.state, after.reward

    return replace(
        plain,
        simulator=from_function(step, 3, 1),
        action_names=("torque / 2 N m",),
        action_limit=(1.0,),
        observation_scale=None,
    )


def row(name: Name, rate: float = RATE) -> Algorithm:
    """The row of the table at the settings of the comparison."""
    chosen = replace(
        find(name), hidden=(64, 64), activation="relu", batch=128,
        policy_rate=(rate, rate), value_rate=(rate, rate), exploration=EXPLORATION,
    )  # fmt: skip
    return with_temperature(chosen, Automatic(rate=rate)) if name == "sac" else chosen


def settings(name: Name, seeds: int = SEEDS, first_seed: int = 0) -> Settings:
    return Settings(
        seeds=seeds, first_seed=first_seed, iterations=UPDATES[name], agents=1, interval=1,
        warmup=WARMUP, episode=200, evaluate_every=EVERY, evaluation_starts=50,
        checkpoint_every=EVERY, keep=(), gradient_every=0, reward_scale=REWARDS,
    )  # fmt: skip


def options(name: Name) -> dict[str, Any]:
    """What makes Stable-Baselines3's algorithm the row here."""
    from stable_baselines3.common.noise import NormalActionNoise

    here = row(name)
    common: dict[str, Any] = {
        "learning_rate": here.value_rate[0], "batch_size": here.batch, "tau": here.tau,
        "gamma": DISCOUNT, "buffer_size": UPDATES[name] + WARMUP, "train_freq": 1,
        "gradient_steps": 1, "learning_starts": 0,
        "policy_kwargs": {"net_arch": list(here.hidden)}, "device": "cpu",
    }  # fmt: skip
    if name == "sac":
        return common | {"ent_coef": "auto"}
    assert isinstance(here.target, OneStep)
    return common | {
        "policy_delay": here.delay,
        "target_policy_noise": here.target.smoothing,
        "target_noise_clip": here.target.limit,
        "action_noise": NormalActionNoise(np.zeros(1), np.full(1, here.exploration)),
    }


def learner(name: Name, seed: int) -> Any:
    """Stable-Baselines3's, before its first step."""
    import stable_baselines3

    environment = TransformReward(gymnasium.make("Pendulum-v1"), lambda reward: REWARDS * reward)
    return getattr(stable_baselines3, name.upper())(
        "MlpPolicy", environment, seed=seed, **options(name)
    )


def theirs(name: Name, seed: int, updates: int, warmup: int = WARMUP) -> pd.DataFrame:
    """Train it; one row per evaluation."""
    model = learner(name, seed)
    # Its own warm-up acts uniformly at random, ours by the untrained policy.
    model.gradient_steps = 0
    model.learn(warmup)
    model.gradient_steps = 1
    rows = [{"update": 0, "return": evaluated(model)}]
    every = min(EVERY, updates)
    for update in range(every, updates + 1, every):
        model.learn(every, reset_num_timesteps=False)
        rows.append({"update": update, "return": evaluated(model)})
    assert model._n_updates == updates
    return pd.DataFrame(rows)


def evaluated(model: Any) -> float:
    """Mean return without exploration, from the starts and by the simulator of the runs here."""

    def act(state: Tensor) -> Tensor:
        action, _ = model.predict(state[0].numpy(), deterministic=True)
        return torch.from_numpy(action)[None] / TORQUE_LIMIT

    kept = settings("td3")
    episodes = evaluate(
        task(), act, 1, kept.evaluation_starts, kept.episode, kept.at_end, lambda x: x.float()
    )
    return float(episodes.returns.mean())


def ours(name: Name, side: str, folder: Path, chosen: Settings) -> Path:
    """Train a row of the table, all seeds side by side; goes on where it stopped."""
    path = folder / f"{STEMS[side]}-{name}-{chosen.first_seed}.h5"
    if path.exists() and load(path).iteration[-1] >= chosen.iterations:
        return path
    return trained(
        row(name, RATE if side == HERE else SLOW), task(), path, settings=chosen,
        command="python -m analyses.beside_sb3 train",
    )  # fmt: skip


def curves(folder: Path) -> pd.DataFrame:
    """One row per algorithm, side, seed and evaluation, of the runs that are there."""
    rows = pd.concat(_curves(folder), ignore_index=True)
    return rows[rows["update"] <= rows["algorithm"].map(UPDATES)].reset_index(drop=True)


def _curves(folder: Path) -> Iterator[pd.DataFrame]:
    for name in NAMES:
        for side in (HERE, CONTROL):
            for path in sorted(folder.glob(f"{STEMS[side]}-{name}-*.h5")):
                run = load(path)
                for k, seed in enumerate(run.seeds):
                    rows = {"update": run.iteration, "return": run.returns[:, k]}
                    yield _labelled(pd.DataFrame(rows), name, side, int(seed))
        for path in sorted(folder.glob(f"{STEMS[THERE]}-{name}-*.csv")):
            yield _labelled(pd.read_csv(path), name, THERE, int(path.stem.split("-")[-1]))


def _labelled(frame: pd.DataFrame, name: Name, side: str, seed: int) -> pd.DataFrame:
    return frame.assign(algorithm=name, side=side, seed=seed)[
        ["algorithm", "side", "seed", "update", "return"]
    ]


def both(
    names: tuple[Name, ...] = NAMES, first: int = 0, seeds: int = SEEDS, control: bool = True,
    folder: Path = RUNS,
) -> None:  # fmt: skip
    """Train every side of both algorithms; what is finished is kept.

    Args:
        names: which of them.
        first: number of the first seed.
        seeds: how many on either side.
        control: train the control, too.
        folder: of the runs.
    """
    torch.set_num_threads(1)
    for name in names:
        ours(name, HERE, folder, settings(name, seeds, first))
        for seed in range(first, first + seeds):
            path = folder / f"{STEMS[THERE]}-{name}-{seed}.csv"
            if not path.exists():
                frame = theirs(name, seed, UPDATES[name])
                frame.to_csv(path, index=False, float_format="%.6g")
                print(path.stem, frame["return"].round().tolist()[-4:], flush=True)
    for name in names if control else ():
        ours(name, CONTROL, folder, settings(name, seeds, first))


def judge(folder: Path = RUNS, output: Path = Path("reports/beside-sb3")) -> None:
    """The verdict from the runs."""
    from analyses.beside_sb3 import verdict

    verdict.write(curves(folder), output)


def main() -> None:
    commands(train=both, judge=judge)
