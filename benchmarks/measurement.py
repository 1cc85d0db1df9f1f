"""What do the stages of a measurement cost, in units of one backpropagation through time?

    python -m benchmarks.measurement [--starts 128] [--rounds 3]

Path tracking, committed policy and critic, default law (the gradient of the return), all horizons
0 … 25 of seven estimators, processor time of one thread. The unit is ONE backpropagation through
time over the same starts and horizon: forward and backward through the prior model and both
networks in float64, in which everything is measured.

    truth       ∇_θ V of every start: unrolled until it converges, compared with finite differences
    estimators  moments of all estimators and horizons against it, and their inner products
    realised    the realised gains of steps
    checks      what runs beside every measurement
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable

import torch
import tyro

from benchmarks.all_horizons import backpropagate
from benchmarks.visited import cases
from gradlab.checks import Subject, examine
from gradlab.data.noise import stream
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.assembly import assembled
from gradlab.measurement.moments.visited import objective_moments
from gradlab.measurement.realised_gains import Stepping, realised_gains
from gradlab.truth.truth import matched_truth

HORIZON, BATCH, SEED = 25, 256, 0


def processor_time(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def stages(n: int) -> dict[str, float]:
    """Processor time of each stage of one measurement."""
    case = cases()["path_tracking"]
    task, (policy, critic) = case.task, case.networks()
    simulator, gamma, model = task.simulator, task.discount, task.prior
    assert model is not None
    begin = as_starts(task.starts(n, stream(SEED, "starts")).double(), simulator.state_dim)
    chosen = estimators_at(task, critic, None, HORIZON, every=True)
    given = copy.deepcopy(policy)
    marks = [time.process_time()]
    setting = Setting(simulator, policy, begin, gamma, HORIZON, seed=SEED)
    truth = matched_truth(setting, kinds=("all",))
    marks.append(time.process_time())
    measured = objective_moments(chosen, setting, truth)
    marks.append(time.process_time())
    profile = assembled(measured.cells, HORIZON, BATCH, {}, {}, {"kind": "objective"})
    stepping = Stepping(task, setting, chosen, measured, truth, profile.table())
    realised_gains(stepping)
    marks.append(time.process_time())
    examine(Subject(task, setting, given, [critic], chosen, truth, measured.at, measured.cells))
    marks.append(time.process_time())
    names = ("truth", "estimators", "realised", "checks")
    taken = [late - early for early, late in itertools.pairwise(marks)]
    unit = [
        processor_time(
            lambda: backpropagate(model, policy, policy, critic, begin.states, HORIZON, gamma)
        )
        for _ in range(5)
    ]
    return {"unit": statistics.median(unit), **dict(zip(names, taken, strict=True))}


def main(starts: int = 128, rounds: int = 3) -> None:
    """Print each stage in units.

    Args:
        starts: N.
        rounds: measurements, of which the median is taken.
    """
    torch.set_num_threads(1)
    found = [stages(starts) for _ in range(rounds)]
    unit = statistics.median(each["unit"] for each in found)
    print(f"path tracking, {starts} starts, H = {HORIZON}; unit: {1e3 * unit:.0f} ms")
    total = 0.0
    for name in list(found[0])[1:]:
        share = statistics.median(each[name] / each["unit"] for each in found)
        total += share
        print(f"  {name:12}{share:7.1f} units")
    print(f"  {'in all':12}{total:7.1f} units")


if __name__ == "__main__":
    tyro.cli(main)
