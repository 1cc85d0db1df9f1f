"""How often do the probe's alarms ring where nothing is wrong, and how soon where something is?

    python -m analyses.alarms.alarm_rates [--small] [--output reports/alarms]

Whole runs of `gradlab.Probe` with an unlimited budget, so that every test is made as often as it
can be. An alarm must ring in at most 1% of the runs that are just not faulty, whatever the
minibatches have in common; `analyses.alarms.alarm_worlds` has the worlds and their closed forms.

noise        signal share of successive gradients against its closed form, and its alarm:
             independent batches, partitions, one batch ten times, a small replay, heavy tails, a
             mean that wanders, a step in between
border       that alarm where the share is 1%, more runs, without a probe around it
saturation   at the border, ½, and beyond
measured     a linear-quadratic loop that is sound, and one with each fault in several sizes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from scipy import stats

from analyses.alarms import alarm_worlds as worlds
from gradlab.probe.alarms.catalogue import ALPHA, NOISE

BATCHES = ("independent", "partition", "reuse", "replay", "heavy", "wandering")
NOISY = "gradient no better than noise"
SHARES = (0.0, 0.002, 0.01)  # 1%: the border of the noise alarm
SATURATED = (0.5, 0.55, 0.65, 0.8)  # ½: the border of "saturated actor"
STEPS = (0.0, 0.02, 0.1, 0.5)  # η h, of a step in between
FAULTS: dict[str, tuple[str, tuple[float, ...]]] = {
    "drift": ("drifting model Jacobian", (1.0, 1.2, 1.5, 3.0)),
    "critic": ("critic-dominated bias", (0.9, 0.8, 0.6, 0.2)),
    "bound": ("critic beyond its bound", (0.3, 0.6, 1.0, 2.0)),
    "sign": ("wrong direction", (1.0, 0.3, -0.3, -1.0)),
    "growth": ("diverging sensitivities", (1.0, 1.02, 1.05, 1.2)),
}


def row_of(world: str, size: float, kind: str, rung: Sequence[float]) -> dict[str, object]:
    """Share of runs in which an alarm rang, with its exact 95% interval.

    Args:
        rung: the update at which it rang first, inf where it did not.
    """
    hits, n = int(np.isfinite(rung).sum()), len(rung)
    low = stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    soon = float(np.median([x for x in rung if np.isfinite(x)])) if hits else np.nan
    named = {"world": world, "size": size, "alarm": kind}
    return {**named, "runs": n, "rang": hits / n, "low": low, "high": high, "median_at": soon}


def noise(runs: int, updates: int) -> pd.DataFrame:
    """Share and alarm of whole runs, against the closed form."""
    rows = []
    for name in BATCHES:
        for share in SHARES:
            found = [worlds.noisy(name, share, updates, seed) for seed in range(runs)]
            rows.append(_against(name, share, worlds.expected(name, share), found))
    for step in STEPS:
        found = [worlds.with_steps(step, updates, seed) for seed in range(runs)]
        rows.append(_against("step in between", step, -step / 2, found))
    return pd.DataFrame(rows)


def _against(
    name: str, size: float, truth: float, found: Sequence[tuple[float, float, float]]
) -> dict[str, object]:
    values, errors, rung = np.array(found).T
    known = values[np.isfinite(values)]
    measured = {
        "truth": truth, "measured": known.mean() if len(known) else np.nan,
        "spread": known.std(ddof=1) if len(known) > 1 else np.nan,
        "stated_se": np.nanmean(errors) if len(known) else np.nan,
    }  # fmt: skip
    return row_of(name, size, NOISY, list(rung)) | measured


def border(runs: int, looks: int) -> pd.DataFrame:
    """The noise test alone, many times, at the border of its hypothesis."""
    rows = []
    for name in BATCHES:
        rung = [worlds.bursts(name, NOISE, looks, seed) for seed in range(runs)]
        rows.append(row_of(name, NOISE, NOISY, rung))
    return pd.DataFrame(rows)


def saturation(runs: int, updates: int) -> pd.DataFrame:
    """At the border, ½, and beyond."""
    rows = []
    for name in ("independent", "replay"):
        for share in SATURATED:
            rung = [worlds.saturated(name, share, updates, seed) for seed in range(runs)]
            rows.append(row_of(name, share, "saturated actor", rung))
    return pd.DataFrame(rows)


def measured(runs: int, looks: int) -> pd.DataFrame:
    """A loop on a task: all alarms where it is sound, one alarm where one thing is wrong."""
    sound = [worlds.loop("none", 0.0, looks, seed) for seed in range(4 * runs)]
    kinds = sorted(
        {kind for each in sound for kind in each} | {kind for kind, _ in FAULTS.values()}
    )
    rows = [row_of("sound", 0.0, kind, _first(sound, kind)) for kind in kinds]
    for fault, (kind, sizes) in FAULTS.items():
        for size in sizes:
            found = [worlds.loop(fault, size, looks, seed) for seed in range(runs)]
            rows.append(row_of(fault, size, kind, _first(found, kind)))
    return pd.DataFrame(rows)


def _first(found: Sequence[dict[str, int]], kind: str) -> list[float]:
    return [each.get(kind, np.inf) for each in found]


def main(small: bool = False, output: Path = Path("reports/alarms"), part: str = "all") -> None:
    """Runs everything and writes one table per part.

    Args:
        small: a few short runs. part: one of noise, border, saturation, measured; all.
    """
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], pd.DataFrame]] = {
        "noise": lambda: noise(*((2, 140) if small else (20, 280))),
        "border": lambda: border(*((2, 3) if small else (300, 20))),
        "saturation": lambda: saturation(*((2, 110) if small else (20, 1700))),
        "measured": lambda: measured(*((1, 3) if small else (6, 4))),
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, work in parts.items():
        if part in (name, "all"):
            table = work()
            table.to_csv(output / f"{name}.csv", index=False, float_format="%.5g")
            print(table.to_string(index=False, float_format="%.4g"), flush=True)
    print(f"stated rate of each alarm over a whole run: {ALPHA:.0%}")


if __name__ == "__main__":
    tyro.cli(main)
