"""First-order rows on four tasks: runs that the questions of `reports/first-order` share.

    python -m analyses.first_order list                        arms, their updates and prices
    python -m analyses.first_order train --arm shac --world hopper --horizon 16    one; goes on
    python -m analyses.first_order all --first 0 --of 2        every second arm that is due

Five seeds as one program. Every update collects a window of 32 steps of each environment and cuts
it into paths of h steps: arms of one row at several h have the same amount of data, fits of the
critic and number of updates, and differ in the horizon of the policy's gradient alone. Swing-ups
have episodes of whole windows. Rows as they are listed, but for networks of 64 units, 4 passes of
the critic instead of 16, and models of `dmo` fitted by 16 steps on batches of 128 for each update
instead of 128 on 256. `sac` has the settings of `beside_sb3`,
with rates of 1e-3 on MuJoCo's tasks.

    window   shac at h = 32, measured at h = 1, 2, 4, … and five stages, and at the horizon of least
             error (`first_order_errors.chosen`): cart-pole swing-up, Hopper-v5. There the run at
             h = 16 is measured, since an early Hopper falls within 32 steps
    dmo      shac and dmo at h = 16, both measured: the same two tasks
    race     shac, ahac, sapo, apg at h = 32 and sac, beside Stable-Baselines3's SAC
             (`first_order_sb3`): InvertedPendulum-v5, Gymnasium's pendulum on the circle, Hopper-v5

Truths of measurements are by score functions, as in `model_based`: chains of Jacobians outgrow the
discount of the swing-ups. Processor seconds of every few updates stand beside a run (`Clock`), so
that they do not depend on what else a machine does.

PRICES, processor minutes of five seeds, from a few updates of each (`list` has every arm's):

    cart-pole            1,500 updates of 0.14 s (dmo 0.25)     3.5   and 1.7 for five measurements
    pendulum             1,500            0.08 s                2.0       1.0
    InvertedPendulum       600            0.33 s                3.3       0.8
    Hopper                 600            1.2 s (dmo 0.3)      12.0       4.2
    sac                  4,000 to 20,000  0.01 s               0.7 to 3.3
    Stable-Baselines3    the same         0.006 s a seed       2 to 10.5

The pendulum's budget is by a pilot of shac on another seed, 100: −1,371 at first, −453 after 200 of
1,200 updates, −180 after 600 and to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

import gradlab
from analyses.beside_sb3 import runs as beside_sb3
from analyses.first_order.clock import Clock
from analyses.first_order.errors import chosen
from analyses.harness.running import commands, ended
from gradlab import tasks
from gradlab.progress import Progress
from gradlab.runs.training.results import load
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find, with_temperature
from gradlab.training.checkpoints import resume_file
from gradlab.training.loop import train
from gradlab.training.parts.context import Passes
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.temperature import Automatic

RUNS, OUTPUT = Path("runs/first-order"), Path("reports/first-order")
World = Literal["cart-pole", "pendulum", "inverted-pendulum", "hopper"]
IDS: Mapping[World, str] = {"inverted-pendulum": "InvertedPendulum-v5", "hopper": "Hopper-v5"}
FIRST_ORDER = ("shac", "ahac", "sapo", "apg")
RACED: tuple[World, ...] = ("inverted-pendulum", "pendulum", "hopper")
STUDIED: tuple[World, ...] = ("cart-pole", "hopper")
SEEDS, STAGES, EVALUATIONS, STARTS = 5, 5, 25, 20
WINDOW, PATHS_OF_DMO = 32, 16
SECONDS_OF_DMO = 0.3  # of an update, in either world
RATE = 1e-3  # of sac on MuJoCo's tasks, on either side


@dataclass(frozen=True)
class Scale:
    """How long a world's runs are.

    Attributes:
        updates, agents: of first-order rows; episode: steps; rewards: factor in training.
        seconds: processor seconds of a first-order update and of a measured stage, five seeds.
        sac: updates of SAC, one for each step of one environment, and seconds of one.
    """

    updates: int
    agents: int
    episode: int
    rewards: float
    seconds: tuple[float, float]
    sac: tuple[int, float] = (0, 0.0)


SCALES: Mapping[World, Scale] = {
    "cart-pole": Scale(1500, 32, 64, 1.0, (0.14, 20.0)),
    "pendulum": Scale(1500, 16, 192, beside_sb3.REWARDS, (0.08, 12.0), (4000, 0.01)),
    "inverted-pendulum": Scale(600, 8, 1000, 1.0, (0.33, 10.0), (5000, 0.01)),
    "hopper": Scale(600, 8, 1000, 1.0, (1.2, 50.0), (20_000, 0.01)),
}


@dataclass(frozen=True)
class Arm:
    """One run: a row of the table in a world, with paths of `horizon` steps."""

    row: str
    world: World
    horizon: int = WINDOW

    @property
    def name(self) -> str:
        return f"{self.row}-{self.world}" + ("" if self.row == "sac" else f"-h{self.horizon}")

    @property
    def scale(self) -> Scale:
        return SCALES[self.world]

    @property
    def measured(self) -> bool:
        """Windows of 32 steps of an early Hopper hold the end of an episode."""
        return self.row != "sac" and (self.world != "hopper" or self.horizon < WINDOW)

    @property
    def iterations(self) -> int:
        return self.scale.sac[0] if self.row == "sac" else self.scale.updates

    @property
    def evaluate_every(self) -> int:
        return self.iterations // EVALUATIONS

    @property
    def log_every(self) -> int:
        """Updates of an interval of `Clock`; one of five or six holds an evaluation."""
        return max(self.evaluate_every // 5, 1)

    @property
    def minutes(self) -> float:
        """Predicted processor minutes."""
        if self.row == "sac":
            return self.scale.sac[0] * self.scale.sac[1] / 60
        update, stage = self.scale.seconds
        if self.row == "dmo":
            update = SECONDS_OF_DMO
        return (self.iterations * update + self.measured * STAGES * stage) / 60

    def algorithm(self) -> Algorithm:
        if self.row == "sac":
            return sac(self.world)
        row = find(self.row)
        changes: dict[str, object] = {} if self.row == "apg" else {"fit": Passes(4, 4)}
        if row.model is not None:
            changes["model"] = replace(row.model, steps=16, batch=128)
        return replace(
            row, name=self.name, hidden=(64, 64), source=Newest(WINDOW),
            terms=(replace(row.terms[0], horizon=self.horizon),), **changes,
        )  # type: ignore[arg-type]  # fmt: skip

    def task(self) -> Task:
        if self.world == "cart-pole":
            return tasks.cart_pole_swing_up()
        if self.world == "pendulum":
            return beside_sb3.task()
        plain = tasks.mujoco(IDS[self.world])
        if self.row == "sac":
            return plain
        return replace(plain, simulator=gradlab.differentiable(plain))


def sac(world: World) -> Algorithm:
    """As in `beside_sb3`."""
    rate = RATE if world in IDS else beside_sb3.RATE
    row = replace(beside_sb3.row("sac", rate), name=f"sac-{world}")
    return with_temperature(row, Automatic(rate=rate))


def window_arms(world: World) -> tuple[Arm, Arm]:
    """The run whose gradient decides, and the default."""
    return Arm("shac", world, 16 if world == "hopper" else WINDOW), Arm("shac", world)


def measured_arm(world: World, folder: Path) -> Arm | None:
    """shac at the horizon of least error; None while the run that decides is not finished."""
    decides, _ = window_arms(world)
    if not finished(decides, folder):
        return None
    return replace(decides, horizon=chosen(load(path_of(decides, folder))))


def arms(folder: Path = RUNS) -> list[Arm]:
    """All runs in the order of the questions; those at measured horizons once these are there."""
    of_windows = [arm for world in STUDIED for arm in window_arms(world)]
    of_dmo = [Arm(row, world, PATHS_OF_DMO) for world in STUDIED for row in ("shac", "dmo")]
    race = [Arm(row, world) for world in RACED for row in ("sac", *FIRST_ORDER)]
    at_measured = [arm for world in STUDIED if (arm := measured_arm(world, folder))]
    return list(dict.fromkeys([*of_windows, *of_dmo, *race, *at_measured]))


def path_of(arm: Arm, folder: Path) -> Path:
    return folder / f"{arm.name}.h5"


def finished(arm: Arm, folder: Path) -> bool:
    return ended(path_of(arm, folder), arm.iterations)


def trained(arm: Arm, folder: Path) -> None:
    """Train an arm to its end, unless it has been; Ctrl-C saves its state."""
    if finished(arm, folder):
        return
    path = path_of(arm, folder)
    clock = Clock(path.with_suffix(".seconds.csv"), resume_file(path).exists())
    started(arm, path, clock)


def started(arm: Arm, path: Path, progress: Progress, **changes: object) -> None:
    """Train an arm into a file, or go on with it, with these changes of its settings."""
    off_policy = arm.row == "sac"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    settings: dict[str, object] = dict(
        seeds=SEEDS, iterations=arm.iterations, agents=1 if off_policy else arm.scale.agents,
        interval=1, warmup=beside_sb3.WARMUP if off_policy else 1, episode=arm.scale.episode,
        evaluate_every=arm.evaluate_every, evaluation_starts=STARTS, log_every=arm.log_every,
        checkpoint_every=arm.evaluate_every, keep=(), reward_scale=arm.scale.rewards,
        gradient_every=arm.iterations // STAGES if arm.measured else 0, gradient_truth="score",
    )  # fmt: skip
    train(
        arm.algorithm(), arm.task(), path, resume=resume_file(path).exists(), progress=progress,
        command=f"python -m analyses.first_order train --arm {arm.row} --world {arm.world} "
        f"--horizon {arm.horizon}",
        **(settings | changes),
    )  # type: ignore[arg-type]  # fmt: skip


def one(arm: str, world: World, horizon: int = WINDOW, folder: Path = RUNS) -> None:
    """Train one arm; goes on where it stopped."""
    with suppress(KeyboardInterrupt):
        trained(Arm(arm, world, horizon), folder)


def every(first: int = 0, of: int = 1, folder: Path = RUNS) -> None:
    """Train all arms in turn, those of other processes left out."""
    with suppress(KeyboardInterrupt):
        for arm in arms(folder)[first::of]:
            print(arm.name, flush=True)
            trained(arm, folder)


def listed(folder: Path = RUNS) -> None:
    """Print the arms, their updates and predicted processor minutes."""
    for arm in arms(folder):
        print(f"{arm.name:32}{arm.iterations:8,} updates{arm.minutes:8.1f} min")
    print(f"{sum(arm.minutes for arm in arms(folder)):.0f} min")


def main() -> None:
    commands(train=one, all=every, list=listed)
