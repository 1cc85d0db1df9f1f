"""VAR-EXP with a learned model: does the variance of its unrolled gradient grow exponentially?

    claim       the gradient variance of reparameterised gradients explodes exponentially with h
    paper       RP-PGM, Proposition 5.4, section 7.2, Fig. 2 (there: Hopper, an MLP model)
    criterion   as `var_exp` has it for simulators: unstable systems: log tr Cov is a line in h
                rather than in log h (ΔAIC >= 10), slope CI > 0; contractive control: slope CI
                includes <= 0; slope <= 6 log max(L_f, 1) + 4 log max(L_π, 1) everywhere

    python -m analyses.remedies.var_exp_learned [--small] [--output reports/remedies]

The systems, starts and random policies of `var_exp`; in the place of each simulator a plain model
of five ReLU layers (128 wide), its reward too, fitted to 5000 transitions of random actions.
5 seeds of data and fit; a variance is the geometric mean over them, intervals are over seeds
(Student's quantile). L_f and L_π: the largest over seeds, on the way of 64 starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from analyses.harness.verdicts import Verdict, study
from analyses.jacobians import var_exp
from analyses.jacobians.var_exp import (
    ALL,
    SAMPLES,
    World,
    constants,
    gradients,
    random_policy,
    traces,
    worlds,
)
from analyses.remedies import page as remedy_claims
from analyses.remedies.spectral_arms import MODEL, ROWS, SEEDS
from gradlab.data.noise import child
from gradlab.fitting.collection import collect
from gradlab.fitting.models import fit_model
from gradlab.systems.learned import LearnedSystem
from gradlab.tasks import Task

FOLDER = remedy_claims.FOLDER
FEW = 64  # starts on whose way L_f and L_π are taken
Array = NDArray[np.float64]


def measure(small: bool = False) -> Verdict:
    seeds, rows, samples = (3, 500, 32) if small else (SEEDS, ROWS, SAMPLES)
    epochs = 2 if small else MODEL.epochs
    found = [row for world in worlds(small) for row in _rows(world, seeds, rows, epochs, samples)]
    return judge(pd.DataFrame(found))


def _rows(
    world: World, seeds: int, rows: int, epochs: int, samples: int
) -> Iterator[dict[str, object]]:
    policy = random_policy(world)
    learned = [learned_world(world, seed, rows, epochs) for seed in range(seeds)]
    each = [constants(model, policy, min(samples, FEW)) for model in learned]
    sizes = tuple(max(values) for values in zip(*each, strict=True))
    for actions in ("all", "first") if world.contracts else ("all",):
        variances = [variance(model, policy, actions, samples) for model in learned]
        found = over_seeds(np.array(variances))
        yield from var_exp.rows_of(
            world, actions, found, (sizes[0], sizes[1]), samples, stats.t.ppf(0.975, seeds - 1)
        )


def learned_world(world: World, seed: int, rows: int, epochs: int) -> World:
    """The same world with a model of its simulator, and of its reward."""
    task = Task(
        "world", world.system, None, world.starts, world.discount, ALL[-1],
        action_limit=world.limit,
    )  # fmt: skip
    data = collect(task, rows, length=ALL[-1], seed=child(seed, "spectral data"))
    settings = replace(MODEL, spectral=None, epochs=epochs, seed=seed)
    return replace(world, system=LearnedSystem(fit_model(data, settings).ensemble))


def variance(world: World, policy: nn.Module, actions: str, samples: int) -> list[float]:
    """tr Cov of every unroll."""
    return [traces(each)[0] for each in gradients(world, policy, actions, samples)]


def over_seeds(variances: Array) -> dict[int, tuple[float, Array]]:
    """[seeds, unrolls] → geometric means by unroll, with each seed left out."""
    logs = np.log(variances)
    without = (logs.sum(0) - logs) / (len(logs) - 1)
    return {h: (float(np.exp(logs[:, k].mean())), np.exp(without[:, k])) for k, h in enumerate(ALL)}


def judge(table: pd.DataFrame) -> Verdict:
    """`var_exp`'s verdict, of learned models."""
    return replace(var_exp.judge(table), claim="VAR-EXP-LEARNED")


if __name__ == "__main__":
    study(measure, FOLDER, remedy_claims.refresh)
