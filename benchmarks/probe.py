"""What the probe costs: `python -m benchmarks.probe [--rounds 50] [--threads 1]`, ten minutes.

The same loop with and without a probe takes turns of ten updates in one process, in random order;
nothing but the probe's hooks differs between turns. A round is `TURNS` turns of each, and the ratio
of its processor times less 1 is one observation of the share that a loop really loses. "told" is
what the probe says of itself, by which it keeps its budget: it should not be less. Needs
stable-baselines3; Cockpit is shown where it is installed, which it is best in an environment of its
own:

    python -m venv --system-site-packages cockpit
    cockpit/bin/pip install --no-deps cockpit-for-pytorch==1.0.2 backpack-for-pytorch==1.7.1 \\
        json-tricks einops unfoldNd opt_einsum
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.probe_loops import Loop, bare, callback, cockpit, stable_baselines

TURN = 10  # updates
TURNS = 20  # of either kind in a round, 200 updates: two rows of the probe's
BUDGETS = (0.01, 0.05, 0.2)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Of one loop.

    Attributes:
        update: seconds of an update without the probe.
        ratio: time with it over time without it, less 1, of every round.
        told: the same by the probe's own account, over all rounds.
        updates: with the probe.
    """

    update: float
    ratio: Array
    told: float
    updates: int

    def __str__(self) -> str:
        half = 1.96 * self.ratio.std(ddof=1) / np.sqrt(len(self.ratio))
        share = f"{self.ratio.mean():.2%} ± {half:.2%}"
        told = "" if np.isnan(self.told) else f"{self.told:.2%}"
        middle = f"{np.median(self.ratio):.2%}"
        return f"{1e3 * self.update:7.2f} {share:>18} {middle:>9} {told:>8} {self.updates:8d}"


def measured(loop: Loop, rounds: int, turns: int = TURNS, turn: int = TURN) -> Cost:
    """`rounds` rounds, after one to warm up."""
    order, ratios, base, own = np.random.default_rng(0), [], [], 0.0
    for k in range(rounds + 1):
        taken, began = {False: 0.0, True: 0.0}, loop.own()
        for _ in range(turns):
            first = bool(order.integers(2))
            for probed in (first, not first):
                taken[probed] += _turn(loop, probed, turn)
        if k:
            ratios.append(taken[True] / taken[False] - 1)
            base.append(taken[False])
            own += loop.own() - began
    updates = rounds * turns * turn
    return Cost(sum(base) / updates, np.array(ratios), own / sum(base), updates)


def _turn(loop: Loop, probed: bool, updates: int) -> float:
    loop.plug(probed)
    begun = time.process_time()
    loop.train(updates)
    taken = time.process_time() - begun
    if not probed:
        loop.clock.left_out += taken
    return taken


def show(loop: Loop | None, rounds: int, turns: int = TURNS, turn: int = TURN) -> None:
    if loop is not None:
        print(f"{loop.name:38}{measured(loop, rounds, turns, turn)}", flush=True)


def main(rounds: int = 50, threads: int = 1) -> None:
    """Print the table.

    Args:
        rounds: of 200 updates with the probe and 200 without, for Stable-Baselines3's TD3.
        threads: torch threads.
    """
    warnings.simplefilter("ignore", UserWarning)  # BackPACK's, about hooks
    torch.set_num_threads(threads)
    few = max(rounds // 5, 3)
    heads = ("ms", "share, 95%", "median", "told", "updates")
    print(f"{'':38}{heads[0]:>7} {heads[1]:>18} {heads[2]:>9} {heads[3]:>8} {heads[4]:>8}")
    show(stable_baselines(), rounds)
    show(callback(), few)
    show(bare(), few)
    for share in BUDGETS:
        show(stable_baselines(share), few)
    show(cockpit(False), few, turns=5)
    show(cockpit(True), 3, turns=2, turn=2)


if __name__ == "__main__":
    tyro.cli(main)
