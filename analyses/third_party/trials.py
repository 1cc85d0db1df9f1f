"""The probe in loops of others: bits, cost, false alarms on defaults, forty planted faults.

    python -m analyses.third_party [--cleanrl DIR] [--part faults] [--seeds 10]

Writes one row per run into reports/robustness/third-party as it goes, and goes on where it was
stopped. Without a checkout of CleanRL its loops are left out.

bits        parameters without, without again and with the probe from one seed, as digests
cost        processor time with over without, in turns
defaults    alarms of nine algorithms on five tasks, the budget unlimited
faults      `analyses.third_party.faults`, at the budget of 5%
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analyses.third_party import loops, plain, scripts
from analyses.third_party.faults import REFUSED, Fault, faults
from analyses.third_party.outcome import UNLIMITED, Outcome

TASKS = ("Pendulum-v1", "InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Reacher-v5")
USUAL: Mapping[str, Any] = {"overhead_budget": 0.05}
Row = dict[str, object]
Run = Callable[[str, int, Mapping[str, Any] | None], Outcome]  # task, seed, arguments of the probe
KEYS = ("loop", "task", "seed", "fault")


def known_loops(folder: Path | None, share: float = 1.0) -> dict[str, Run]:
    """Every loop by its name, `share` of its usual length long."""
    found: dict[str, Run] = {}
    for name in scripts.LINES if folder is not None else ():
        found[f"CleanRL {name.upper()}"] = _script(folder, name, share)
    for name in loops.ALGORITHMS:
        found[f"SB3 {name.upper()}"] = _model(name, share)
    steps = int(share * 500)
    found["TorchRL TD3"] = _trainer(steps, None)
    found["TorchRL TD3, prefetch 3"] = _trainer(steps, 3)
    found["plain"] = lambda task, seed, probed: plain.run(task, seed, int(500 * share), probed)
    return found


def _script(folder: Path | None, name: str, share: float) -> Run:
    assert folder is not None
    bare = scripts.text_of(folder, name)
    probed_text = scripts.with_probe(bare, name, ", **options")
    warm = name != "ppo"
    steps = int(share * scripts.LENGTH[name]) + (scripts.STARTS if warm else 0)

    def run(task: str, seed: int, probed: Mapping[str, Any] | None) -> Outcome:
        text = bare if probed is None else probed_text
        return scripts.run(text, task, seed, steps, probed, folder, warm)

    return run


def _model(name: str, share: float) -> Run:
    steps = int(share * loops.LENGTH[name])
    return lambda task, seed, probed: loops.run(name, task, seed, steps, probed)


def _trainer(steps: int, prefetch: int | None) -> Run:
    def run(task: str, seed: int, probed: Mapping[str, Any] | None) -> Outcome:
        from analyses.third_party import torchrl as torchrl  # seconds of imports

        return torchrl.run(task, seed, steps, probed, prefetch)

    return run


def bits(known: Mapping[str, Run], seeds: int) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Is a run with the probe the run without it?"""
    for loop, run in known.items():

        def both(run: Run = run) -> Row:
            without, again, with_it = (
                run(TASKS[2], 0, probed) for probed in (None, None, UNLIMITED)
            )
            return {
                "without": without.digest, "again": again.digest, "with": with_it.digest,
                "repeatable": without.digest == again.digest and not without.error,
                "equal": without.digest == with_it.digest and not without.error,
            }  # fmt: skip

        yield {"loop": loop, "task": TASKS[2], "seed": 0}, both


def cost(known: Mapping[str, Run], seeds: int) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Processor time of a pair of runs, the order changing from seed to seed."""
    for seed in range(seeds):
        for loop, run in known.items():

            def pair(run: Run = run, seed: int = seed) -> Row:
                taken, told = dict[bool, float](), math.nan
                for probed in (bool(seed % 2), not seed % 2):
                    begun = time.process_time()
                    outcome = run(TASKS[0], seed, USUAL if probed else None)
                    taken[probed] = time.process_time() - begun
                    told = outcome.spent if probed else told
                return {"without": taken[False], "with": taken[True],
                        "ratio": taken[True] / taken[False] - 1, "told": told}  # fmt: skip

            yield {"loop": loop, "task": TASKS[0], "seed": seed}, pair


def defaults(
    known: Mapping[str, Run], seeds: int, first: int = 0
) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """All alarms of sound loops, seeds `first` to `seeds` − 1."""
    for seed in range(first, seeds):
        for task in TASKS:
            for loop, run in known.items():
                if loop.startswith(("CleanRL", "SB3")):
                    yield (
                        {"loop": loop, "task": task, "seed": seed},
                        lambda run=run, task=task, seed=seed: told(run(task, seed, UNLIMITED)),
                    )


def told(outcome: Outcome) -> Row:
    """Kinds of alarm with the update at which each was told first."""
    first: dict[str, int] = {}
    for update, kind, _ in outcome.alarms:
        first.setdefault(kind, update)
    words = "; ".join(f"{kind} at {update}" for kind, update in first.items())
    return {"updates": outcome.updates, "alarms": words, "error": outcome.error[:80]}


def planted(folder: Path | None, seed: int) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Each fault once."""
    for fault in faults(folder):
        row: Row = {"fault": fault.fault, "loop": fault.loop, "seed": seed}
        yield row, lambda fault=fault: judged(fault, fault.run(USUAL, seed))


def judged(fault: Fault, outcome: Outcome) -> Row:
    """Was it told by its name and in time?"""
    row: Row = {"expected": fault.told, "begins": fault.at}
    if fault.told == REFUSED:
        found = outcome.error.startswith("InputError")
        return row | {"found": found, "told at": 0, "words": outcome.error}
    named = [each for each in outcome.alarms if each[1].startswith(fault.told)]
    soon = [each for each in named if each[0] <= fault.at + fault.within]
    sampled = any(fault.row in words for _, _, words in soon)
    at, _, words = (soon or named or [(-1, "", "")])[0]
    found = bool(soon) and sampled
    return row | {"found": found, "told at": at, "words": words, **told(outcome)}


def kept(path: Path, work: Iterator[tuple[Row, Callable[[], Row]]]) -> pd.DataFrame:
    """Rows of a file, with those that it does not have yet; each is written when it is there."""
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    done = {_key(row) for row in table.to_dict("records")}
    for head, run in work:
        if _key(head) in done:
            continue
        row = head | run()
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.5g")
        print("  ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    return table


def _key(row: Mapping[Any, object]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEYS if name in row)


def main(
    cleanrl: Path | None = None, output: Path = Path("reports/robustness/third-party"),
    part: str = "all", seeds: int = 10, first: int = 0, share: float = 1.0,
) -> None:  # fmt: skip
    """Runs what is not there yet.

    Args:
        cleanrl: folder with CleanRL's scripts; without it, the other loops alone.
        output: where the tables are; rows that they have are not run again.
        part: bits, cost, defaults, faults, or all of them.
        seeds: how many, of defaults and cost.
        first: the first seed of defaults, and the seed of the faults.
        share: of the usual lengths.
    """
    torch.set_num_threads(1)
    folder = None if cleanrl is None else cleanrl.resolve()
    known = known_loops(folder, share)
    parts = {
        "faults": lambda: planted(folder, first),
        "bits": lambda: bits(known, 1),
        "cost": lambda: cost(known, seeds),
        "defaults": lambda: defaults(known, seeds, first),
    }
    for name, work in parts.items():
        if part in (name, "all"):
            kept(output / f"{name}.csv", work())
    for name in scripts.LINES if folder is not None else ():
        print(f"CleanRL {name.upper()}: {len(scripts.lines_of(name))} lines of the user's")
