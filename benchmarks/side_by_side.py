"""Ratios of running times, the contestants taking turns in one process.

A ratio of medians over interleaved rounds survives a noisy machine; seconds do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each contestant over `rounds` turns, after one warm-up turn."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in taken.items()}
