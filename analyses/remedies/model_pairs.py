"""Models fitted with and without a remedy on the same record, and their paired differences.

    baseline   one long fit, photographed when it has taken as many steps as the remedy ("equal
               steps") and when it has been fitted for as long ("equal time")
    trial      one seed of record and of fit: first weights, order of rows and record are shared

Errors are held-out: on a record of its own, in standardised coordinates of the changes,

    prediction  mean ((s' − ŝ')_j / f_j)²         jacobian  mean ((J − Ĵ)_jk d_k / f_j)²

with d, f the deviations of (s, a) and of s' − s, r. Rows on the simulator's clip, whose derivative
jumps, are counted apart.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from analyses.harness.paired_trials import HORIZONS, Row, spread
from analyses.remedies.model_worlds import LONGEST, World, world
from gradlab.data.trajectories import Trajectories
from gradlab.fitting.fitted import Descent, Fit, finished
from gradlab.fitting.losses import Loss
from gradlab.fitting.model_settings import SMALL, ModelSettings
from gradlab.fitting.models import prepared
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.system import Linearization, System

TEST_ROWS = 4000
COST_ROWS, COST_TURNS = 2000, 7
TEST_SEED = 20_000  # of a record that no model is fitted to


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out rows: state [M, ds], action [M, da], change and reward [M, ds + 1].

    Attributes:
        jacobian: the simulator's [M, ds + 1, ds + da] of [s' − s, r].
        clipped: [M] bool, rows that the simulator flags.
        scale: (d [ds + da], f [ds + 1]).
    """

    state: Tensor
    action: Tensor
    jacobian: Tensor
    target: Tensor
    clipped: Tensor
    scale: tuple[Tensor, Tensor]


def held_out(simulator: System, record: Trajectories) -> HeldOut:
    """Errors are asked at the record's states and actions, against mean transitions."""
    state, action = record.state, record.action
    found = simulator.step(state, action)
    target = torch.cat([found.state - state, found.reward[:, None]], dim=1)
    linear = simulator.linearize(state, action)
    inputs = torch.cat([state, action], dim=1)
    return HeldOut(
        state, action, _whole(linear), target, linear.certificate.flags,
        (inputs.std(dim=0), target.std(dim=0)),
    )  # fmt: skip


def held_out_of(world: World) -> HeldOut:
    """Of a record that no model is fitted to."""
    return held_out(world.task.simulator, world.record(TEST_ROWS, TEST_SEED))


def _whole(linear: Linearization) -> Tensor:
    """∂[s' − s, r]/∂[s, a] [M, ds + 1, ds + da]."""
    eye = torch.eye(linear.A.shape[1]).to(linear.A)
    by_state = torch.cat([linear.A - eye, linear.r_s[:, None]], dim=1)
    return torch.cat([by_state, torch.cat([linear.B, linear.r_a[:, None]], dim=1)], dim=2)


def errors(system: System, test: HeldOut) -> Row:
    """Held-out errors of a model's mean; the Jacobian's of s' and of r, and on the clip."""
    with torch.no_grad():
        found = system.step(test.state, test.action)
    d, f = test.scale
    moved = torch.cat([found.state - test.state, found.reward[:, None]], dim=1)
    off = ((moved - test.target) / f).square()
    wrong = _whole(system.linearize(test.state, test.action)) - test.jacobian
    square = (wrong * d / f[:, None]).square()
    smooth, ds = ~test.clipped, test.state.shape[1]
    return {
        "prediction": float(off[:, :ds].mean()),
        "reward_prediction": float(off[:, ds].mean()),
        "jacobian": float(square[smooth][:, :ds].mean()),
        "jacobian_all": float(square[:, :ds].mean()),
        "reward_jacobian": float(square[smooth][:, ds].mean()),
        "clipped": float(test.clipped.double().mean()),
    }


def gradients(world: World, systems: Mapping[str, System]) -> dict[str, Row]:
    """Squared bias, its standard error and cosine against the shared truth, for every model.

    Squared biases are in units of the truth's squared norm.
    """
    tail = Tail(LONGEST, world.critic, world.task.discount)
    estimators = {n: Estimator(each, each, "first", tail) for n, each in systems.items()}
    profile = world.truth.profile(estimators)
    size = world.truth.reference.first.norm**2
    found: dict[str, Row] = {}
    for name in systems:
        row = found.setdefault(name, {})
        for h in HORIZONS:
            bias = profile.estimate(name, "bias2", h)
            row[f"bias2_{h}"] = max(bias.value, spread(bias)) / size
            row[f"cosine_{h}"] = float(np.clip(profile.estimate(name, "cosine", h).value, -1, 1))
            row[f"variance_{h}"] = profile.estimate(name, "variance", h).value / size
    return found


def learned(world: World, fit: Fit) -> LearnedSystem:
    return LearnedSystem(fit.ensemble.double(), world.reward, world.task.alive)


def settings(seed: int, **changes: object) -> ModelSettings:
    """One member of 2×64 SiLU units, all rows, no early end but the best held-out epoch kept."""
    plain = replace(SMALL, members=1, bootstrap=False, patience=None, reward=False, seed=seed)
    return replace(plain, **changes)  # type: ignore[arg-type]


def photographs(
    data: Trajectories, shape: ModelSettings, loss: Loss, steps: Iterable[int]
) -> dict[int, Fit]:
    """One descent, seen after each of these numbers of steps as if it had ended there.

    Steps are rounded to whole epochs.
    """
    descent, constant = prepared(data, shape, loss, None)
    each = batches(descent)
    wanted = {max(1, round(count / each)): count for count in sorted(steps)}
    begun, found = time.monotonic(), {}
    while descent.epoch < max(wanted):
        descent.run_epoch()
        descent.judge(None, time.monotonic() - begun)
        if descent.epoch in wanted:
            now = copy.deepcopy(descent.ensemble.state_dict())
            found[wanted[descent.epoch]] = finished(descent, shape, loss, constant)
            descent.ensemble.load_state_dict(now)
    return found


def batches(descent: Descent) -> int:
    """Steps of an epoch."""
    return -(-descent.sample.shape[1] // descent.batch)


@cache
def cost_ratio(name: str, noise: float, loss: Loss, baseline: Loss) -> float:
    """`cost_of` on a record of a world."""
    return cost_of(world(name, noise).record(COST_ROWS, TEST_SEED), loss, baseline)


def cost_of(data: Trajectories, loss: Loss, baseline: Loss) -> float:
    """Processor time of a step with `loss` over `baseline`'s: medians of epochs that take turns."""
    descents = [prepared(data, settings(0), each, None)[0] for each in (loss, baseline)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(COST_TURNS):
        for descent, taken in zip(descents, seconds, strict=True):
            begun = time.process_time()
            descent.run_epoch()
            taken.append((time.process_time() - begun) / batches(descent))
    return float(np.median(seconds[0]) / np.median(seconds[1]))
