"""What model-based training costs beside its own SAC and Stable-Baselines3's TD3.

    python -m benchmarks.model_based [--rounds 11] [--write] [--claim-to reports/model-based]

Rows as listed, but for two hidden layers of 256 ReLU units of policy and critic in all of them; one
learned model of 5 members (mbpo: 7) for every seed, of widths as listed and of 2×256; batches of
256; path tracking. All contestants take turns in one process; a ratio is the median over the rounds
of the ratio within a round, with the order statistics around it (95%, `statistics.over_groups`), of
processor time, which does not see who else uses the machine.

    update        batch, critics, policy, targets and statistics, no environment; of shac its 64
                  steps of the critic and all Jacobians of its window
    training      what passes between two fits of the model: so many updates, the fit, and the
                  rollouts that fill the model's buffer; environment steps are left out
    five seeds    five times the time of one seed over the time of five in one program

About five minutes of a processor. `--write` puts the table into benchmarks/README.md, `--claim-to`
saves the verdict on MAAC-TIME: time of maac over that of mbpo, training, interval above 1.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray

import gradlab
from analyses.harness.verdicts import Verdict, put, save
from benchmarks.side_by_side import processor, turns
from benchmarks.training import STEPS, theirs
from gradlab.networks.products import fast_products
from gradlab.statistics.over_groups import aggregate
from gradlab.training.algorithms import Algorithm, find, with_horizons
from gradlab.training.models.branches import Branching
from gradlab.training.parts.sources import Newest
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import for_task
from gradlab.training.state import Run, begin

Floats = NDArray[np.float64]
PAGE = Path(__file__).parent / "README.md"
ROWS = ("maac", "rp-dp", "mbpo")
MANY = 5  # seeds
WIDE = " (models of 2×256)"
SHAC = "shac at window 16"
UPDATES = 2  # in one turn, SAC's five times as many
FIT = 10  # Adam's steps in one turn
PEER, OWN = "Stable-Baselines3's TD3", "sac"


def row(name: str) -> Algorithm:
    """The row at the widths that are compared, its fits as short as a turn."""
    if name == SHAC:
        shac = replace(with_horizons(find("shac"), (16,)), source=Newest(16))
        return replace(shac, hidden=(256, 256), activation="relu")
    listed = replace(find(name.removesuffix(WIDE)), hidden=(256, 256), activation="relu")
    if listed.model is None:
        return listed
    model = replace(listed.model, first_steps=FIT, steps=FIT)
    return replace(listed, model=replace(model, hidden=(256, 256)) if WIDE in name else model)


def begun(name: str, seeds: int) -> Run:
    """A run whose next update uses a model that was fitted, and a buffer that is full."""
    task = gradlab.tasks.path_tracking()
    settings, chosen = for_task(task.name, seeds=seeds, warmup=5000), row(name)
    run = begin(replace(chosen, batch=chosen.rows(settings.agents)), task, settings)
    collect(run)
    if run.dynamics is not None:
        fitted(run)
    if run.branches is not None:
        for _ in range(run.branches.choice.kept):
            filled(run)
    return run


def updated(run: Run, count: int) -> None:
    for _ in range(count):
        # One window for all updates, so that noise is inferred: environments have no part in it.
        batch = replace(next_batch(run), policy_noise=None)
        run.window.add(run.learner.update(run.iteration, batch))
        run.iteration += 1
    run.window.row(run.iteration, 0.0)


def fitted(run: Run) -> None:
    assert run.dynamics is not None
    run.dynamics.fit(run.replay)
    run.learner.model = run.dynamics.rollout()


def filled(run: Run) -> None:
    assert run.branches is not None and run.learner.model is not None
    learner = run.learner
    run.branches.fill(run.replay, run.learner.model, learner.explore, learner.limit, run.iteration)


def contestants() -> dict[str, Callable[[], None]]:
    """A turn of every part of every row, by "row, seeds, part"."""
    sac = begun(OWN, 1)
    made: dict[str, Callable[[], None]] = {
        PEER: theirs("TD3"),
        OWN: lambda: updated(sac, 5 * UPDATES),
    }
    shac = begun(SHAC, 1)
    made[f"{SHAC}, 1, update"] = lambda: updated(shac, 1)
    for name in ("maac", "rp-dp"):
        wide = begun(name + WIDE, 1)
        made[f"{name}{WIDE}, 1, update"] = lambda run=wide: updated(run, UPDATES)
    for name in ROWS:
        for seeds in (1, MANY):
            run = begun(name, seeds)
            made[f"{name}, {seeds}, update"] = lambda run=run: updated(run, UPDATES)
            made[f"{name}, {seeds}, fit"] = lambda run=run: fitted(run)
            if run.branches is not None:
                made[f"{name}, {seeds}, rollouts"] = lambda run=run: filled(run)
    return made


@dataclass(frozen=True)
class Times:
    """Processor seconds of every turn of every contestant, [rounds]."""

    of: Mapping[str, Floats]

    @property
    def peer(self) -> Floats:
        """Of one update of Stable-Baselines3's TD3."""
        return self.of[PEER] / STEPS

    @property
    def own(self) -> Floats:
        """Of one update of SAC here."""
        return self.of[OWN] / (5 * UPDATES)

    def update(self, name: str, seeds: int = 1) -> Floats:
        count = 1 if name == SHAC else UPDATES
        return self.of[f"{name}, {seeds}, update"] / count

    def training(self, name: str, seeds: int = 1) -> Floats:
        """Of what passes between two fits."""
        model = find(name).model
        assert model is not None
        total = model.every * self.update(name, seeds)
        total = total + model.steps / FIT * self.of[f"{name}, {seeds}, fit"]
        return total + self.of.get(f"{name}, {seeds}, rollouts", 0.0)


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds, with the order statistics around it."""

    label: str
    value: float
    low: float
    high: float
    goal: str = ""

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(label: str, above: Floats, below: Floats, goal: str = "") -> Ratio:
    median = aggregate(above / below)
    return Ratio(label, float(median.value), float(median.low), float(median.high), goal)


def ratios(times: Times) -> list[Ratio]:
    made = []
    for name in ("maac", f"maac{WIDE}", "rp-dp", f"rp-dp{WIDE}"):
        label = f"an update of {name} at H = 3, in updates of {PEER}"
        made.append(ratio(label, times.update(name), times.peer, "at most 3"))
    label = "an update of mbpo, in updates of sac here"
    made.append(ratio(label, times.update("mbpo"), times.own, "at most 1.1"))
    agents = for_task("path_tracking").agents
    label = f"an update of {SHAC}, of {agents} environments, in updates of {PEER}"
    made.append(ratio(label, times.update(SHAC), times.peer))
    for name in ROWS:
        for part, taken in (("updates", times.update), ("training", times.training)):
            label = f"five seeds of {name} one after another, in the time of five at once, {part}"
            made.append(ratio(label, MANY * taken(name), taken(name, MANY), "at least 2"))
    for part, taken in (("update", times.update), ("training", times.training)):
        label = f"maac over mbpo, {part}"
        made.append(ratio(label, taken("maac"), taken("mbpo")))
    return made


def memory(iterations: int = 1000, every: int = 25) -> tuple[float, float, bool]:
    """Peak resident memory in MB before and after so many iterations of mbpo with narrow networks,
    its buffer filled every 25; whether the buffer is where it was."""
    narrow = replace(row("mbpo"), hidden=(16, 16), source=find("mbpo").source)
    task = gradlab.tasks.path_tracking()
    run = begin(narrow, task, for_task(task.name, warmup=5000))
    collect(run)
    fitted(run)
    assert run.branches is not None
    place = run.branches.replay.rows.data_ptr()
    for _ in range(2 * Branching().kept):
        filled(run)
        updated(run, every)
    before = _peak()
    for _ in range(iterations // every):
        filled(run)
        updated(run, every)
    return before, _peak(), run.branches.replay.rows.data_ptr() == place


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of KiB on Linux


def table(made: list[Ratio], peaks: tuple[float, float, bool], about: str) -> str:
    lines = [
        "| model-based training (`python -m benchmarks.model_based`) | ratio | goal |",
        "|---|---|---|",
        *(f"| {one.label} | {one} | {one.goal or '–'} |" for one in made),
    ]
    before, after, same = peaks
    where = "in the same place" if same else "MOVED"
    return "\n".join([
        *lines,
        "| peak memory before and after 1,000 iterations of mbpo, 40 fillings of its model's "
        f"buffer ({where}) | {before:.0f} and {after:.0f} MB | flat |",
        "",
        about,
    ])  # fmt: skip


def claim(made: list[Ratio], rounds: int) -> Verdict:
    """MAAC-TIME."""
    times = [one for one in made if one.label.startswith("maac over mbpo")]
    numbers = {}
    for one in times:
        numbers |= {one.label: one.value, f"{one.label} low": one.low,
                    f"{one.label} high": one.high}  # fmt: skip
    texts = "; ".join(f"{one.label}: {one}" for one in times)
    return Verdict(
        "MAAC-TIME", "MAAC, Table 1", "time of maac over that of mbpo, training: above 1",
        times[-1].low > 1, f"{texts}, {rounds} rounds.", numbers,
        pd.DataFrame([vars(one) for one in made]),
    )  # fmt: skip


def main(
    rounds: int = 11, threads: int = 1, write: bool = False, claim_to: Path | None = None
) -> None:
    """Print the table.

    Args:
        rounds: turns of every contestant; from 6 on intervals have 95%.
        write: also into benchmarks/README.md.
        claim_to: folder for MAAC-TIME's verdict.
    """
    torch.set_num_threads(threads)
    peaks = memory()
    with fast_products():
        precision = torch.get_float32_matmul_precision()
        taken = turns(contestants(), rounds)
    times = Times({name: np.array(clocks)[:, 1] for name, clocks in taken.items()})
    made = ratios(times)
    about = (
        f"Processor time on {processor()}, {threads} thread{'s' * (threads > 1)}, torch "
        f'{torch.__version__}, float32 with products at torch\'s "{precision}", {rounds} rounds; '
        f"an update of {PEER} takes {1e3 * np.median(times.peer):.1f} ms, of sac "
        f"{1e3 * np.median(times.own):.1f} ms."
    )
    text = table(made, peaks, about)
    print(text)
    if write:
        put(PAGE, "model-based", text)
    if claim_to is not None:
        command = f"python -m benchmarks.model_based --claim-to {claim_to}"
        save(claim(made, rounds), claim_to, command)


if __name__ == "__main__":
    tyro.cli(main)
