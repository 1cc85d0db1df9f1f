"""WINDOW-GAIN: is the window whose step gains most return better than SHAC's default of 32?

    why         added after a look at SHAC-WINDOW's numbers. Its truths, by score functions from 128
                starts, have errors above their norm at every stage: policies narrow, and a score's
                variance grows with 1/σ². The horizon of least error is then one of noise. Returns
                before and after a step need no truth
    choice      at the second of five stages, of every seed: steps along the gradient at h = 1, 2,
                4, …, 32 that move actions by 1% of their size, and the discounted return of the
                episode from 256 fresh starts before and after, on the same noise. The horizon with
                the largest mean over the seeds
    criterion   stated before these runs. Final return at that horizon, less that at 32, paired
                over five seeds: an interval above 0 on either task holds "the window that gains
                most is better"
    premise     that horizon is another than 32, and its gain's interval over seeds is above 0

    python -m analyses.first_order.window_gains train      the deciding runs up to their second
                                                           stage again, then those at the choice
    python -m analyses.first_order.window_gains judge

PRICE, processor minutes: the cart-pole 2 and 4, Hopper 6 and 2, and 4 + 14 at the choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from analyses.first_order.runs import (
    OUTPUT,
    RUNS,
    SEEDS,
    STAGES,
    STUDIED,
    WINDOW,
    Arm,
    World,
    finished,
    started,
    trained,
    window_arms,
)
from analyses.first_order.window import contrast
from analyses.harness.contrast_parts import in_words, met, numbers_of
from analyses.harness.running import commands
from analyses.harness.verdicts import Verdict, save
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.start_laws import visitation
from gradlab.gradients.tail import Setting, Tail
from gradlab.measurement.realised_gains import Direction, judging_starts, realise
from gradlab.networks import checkpoint
from gradlab.training import checkpoints

HORIZONS = (1, 2, 4, 8, 16, 32)
DECIDES = 2  # stage
STARTS, JUDGES = 128, 256
NAME = "simulator"


def kept_path(world: World, folder: Path) -> Path:
    return folder / f"{window_arms(world)[0].name}-kept.h5"


def stage(world: World) -> int:
    """The iteration at which is chosen."""
    return window_arms(world)[0].iterations * DECIDES // STAGES


def networks(world: World, seed: int, folder: Path) -> tuple[nn.Module, nn.Module] | None:
    """Policy and critic of a seed at the stage that decides, float64; None before."""
    place = checkpoints.folder(kept_path(world, folder), stage(world))
    files = [place / f"seed{seed}-{kind}.safetensors" for kind in ("policy", "critic")]
    if not all(file.exists() for file in files):
        return None
    policy, critic = (checkpoint.load(file).double() for file in files)
    return policy, critic


def keep(world: World, folder: Path) -> None:
    """Train the deciding run again, unmeasured, until its networks are kept."""
    arm, path = window_arms(world)[0], kept_path(world, folder)
    if networks(world, SEEDS - 1, folder) is not None:
        return

    def until(name: str, done: int, total: int) -> None:
        if name == "training" and done > stage(world):
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        started(arm, path, until, keep=(DECIDES / STAGES,), gradient_every=0)


def gains(world: World, folder: Path) -> Iterator[dict[str, object]]:
    """One row for each seed and horizon."""
    arm = window_arms(world)[0]
    task, episode = arm.task(), arm.scale.episode
    for seed in range(SEEDS):
        pair = networks(world, seed, folder)
        assert pair is not None
        policy, critic = pair
        begin = visitation(task, policy, STARTS, seed, termination="mask").states[0]
        plain = Estimator(
            task.simulator, task.simulator, "all", Tail(WINDOW, critic, task.discount, "V")
        )
        found = horizon_gradients(
            plain, policy, begin, horizons=HORIZONS, seed=seed, termination="mask"
        )
        directions = {
            (NAME, h): Direction(mean) for h, mean in zip(HORIZONS, found.means, strict=True)
        }
        fresh = judging_starts(task, JUDGES, seed)
        setting = Setting(task.simulator, policy, fresh, task.discount, episode, "mask", seed)
        realised = realise(setting, directions)
        for h in HORIZONS:
            change = realised.change((NAME, h))
            yield {
                "world": world, "seed": seed, "horizon": h, "moves": realised.moves[0],
                "gain": change.value, "before": float(realised.before.sum()) / JUDGES,
            }  # fmt: skip


def table(world: World, folder: Path) -> pd.DataFrame:
    """The gains, computed once and kept beside the runs."""
    path = folder / f"window-gains-{world}.csv"
    if not path.exists():
        pd.DataFrame(list(gains(world, folder))).to_csv(path, index=False, float_format="%.6g")
    return pd.read_csv(path)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean gain at every horizon with Student's interval; a direction that is none gains 0."""
    wide = rows.assign(gain=rows["gain"].fillna(0.0)).pivot(
        index="seed", columns="horizon", values="gain"
    )
    reach = stats.t.ppf(0.975, len(wide) - 1) * wide.std(ddof=1) / np.sqrt(len(wide))
    return pd.DataFrame(
        {"gain": wide.mean(), "low": wide.mean() - reach, "high": wide.mean() + reach}
    )


def chosen(rows: pd.DataFrame) -> int:
    return int(over_seeds(rows)["gain"].idxmax())


def chosen_arm(world: World, folder: Path) -> Arm:
    return Arm("shac", world, chosen(table(world, folder)))


def judged(folder: Path) -> Verdict | None:
    """The verdict; None while a run is missing."""
    arms = {world: (chosen_arm(world, folder), window_arms(world)[1]) for world in STUDIED}
    if not all(finished(arm, folder) for pair in arms.values() for arm in pair):
        return None
    shown = {
        world: bool(over_seeds(table(world, folder)).loc[arm.horizon, "low"] > 0)
        for world, (arm, _) in arms.items()
    }
    rows = pd.DataFrame(
        [contrast(world, arm, folder, shown[world]) for world, (arm, _) in arms.items()]
    )
    words = [
        in_words(row) if np.isfinite(row["least"]) else f"{row['label']}: not tested"
        for row in rows.to_dict("records")
    ]
    return Verdict(
        "WINDOW-GAIN", "SHAC, section 4",
        "final return at the horizon whose step gains most at the second stage − at 32, paired "
        "over five seeds: above 0 on either task",
        met(rows),
        f"{'; '.join(words)}. {' '.join(_worded(world, folder) for world in STUDIED)}",
        numbers_of(rows), rows,
    )  # fmt: skip


def _worded(world: World, folder: Path) -> str:
    means = over_seeds(table(world, folder))
    cells = (
        f"{row['gain']:.2g} [{row['low']:.2g}, {row['high']:.2g}] at {h}"
        for h, row in means.iterrows()
    )
    return f"Return gained by a step on {world}, by h: {', '.join(cells)}."


def training(worlds: tuple[World, ...] = STUDIED, folder: Path = RUNS) -> None:
    """Keep networks, measure gains and train at the choice; goes on where it stopped."""
    torch.set_num_threads(1)
    for world in worlds:
        keep(world, folder)
        arm = chosen_arm(world, folder)
        print(arm.name, flush=True)
        trained(arm, folder)


def judge(folder: Path = RUNS, output: Path = OUTPUT) -> None:
    """Write the verdict, once all runs are there."""
    verdict = judged(folder)
    if verdict is not None:
        save(verdict, output, "python -m analyses.first_order.window_gains judge")


if __name__ == "__main__":
    commands(train=training, judge=judge)
