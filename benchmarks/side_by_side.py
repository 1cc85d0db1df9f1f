"""Ratios of running times, the contestants taking turns in one process.

A ratio of medians over interleaved rounds survives a noisy machine; seconds do not.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def seconds(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each contestant over `rounds` turns, after one warm-up turn."""
    return {name: wall for name, (wall, _) in clocks(contestants, rounds).items()}


def clocks(
    contestants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median wall-clock and processor time (of all threads) of each contestant.

    Processor time does not see who else uses the machine.
    """
    medians = {}
    for name, taken in turns(contestants, rounds).items():
        wall, processor = zip(*taken, strict=True)
        medians[name] = statistics.median(wall), statistics.median(processor)
    return medians


def turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall-clock and processor time of every turn after a warm-up one, in the order of rounds."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = time.perf_counter(), time.process_time()
            run()
            if turn:
                ended = time.perf_counter(), time.process_time()
                taken[name].append((ended[0] - begun[0], ended[1] - begun[1]))
    return taken


def processor() -> str:
    """Its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
