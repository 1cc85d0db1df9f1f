"""LANDSCAPE: is the loss surface of a long unroll rougher than that of a short one?

    claim       the surface is rougher at long h (here without spectral normalisation)
    paper       RP-PGM, Fig. 3
    criterion   mean |second difference| / range of a 21×21 slice: h = 15 at least 3× that of h = 3

    python -m analyses.jacobians.landscape [--small] [--output reports/jacobians]

J_h(θ + α u + β v) on common random numbers, 16 starts, no critic; u and v random with the norm of
θ, α, β in [−1, 1]. Five pairs of directions give the interval of the ratio. For a quadratic
surface the measure does not depend on its scale: 0.0100 for α², the smoothest bend.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from analyses.harness.student import geometric_mean
from analyses.harness.verdicts import Verdict, study
from analyses.jacobians import page as jacobian_claims
from analyses.jacobians.var_exp import FOLDER, World, random_policy, worlds
from gradlab.data.noise import stream
from gradlab.measurement.return_slices import roughness
from gradlab.networks.interface import noise_dim

POINTS = 21
STARTS = 16
PAIRS = 5
SHORT, LONG = 3, 15
HORIZONS = (1, 2, 3, 5, 8, 10, 15)
ROUGHER = 3.0
Array = NDArray[np.float64]
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def measure(small: bool = False) -> Verdict:
    pairs = 2 if small else PAIRS
    rows = []
    for world in worlds(small):
        policy = random_policy(world)
        for pair in range(pairs):
            surface = slice_of(world, policy, pair)
            rows += [
                {"world": world.name, "contracts": world.contracts, "pair": pair, "h": h,
                 "roughness": roughness(surface[k])}
                for k, h in enumerate(HORIZONS)
            ]  # fmt: skip
    return judge(pd.DataFrame(rows))


def slice_of(world: World, policy: nn.Module, pair: int, change: Change | None = None) -> Array:
    """J_h over the slice, [horizons, 21, 21]: mean return of h steps over the starts.

    Args:
        change: of the moved parameters, each [441, …], before they act.
    """
    theta = {name: each.detach() for name, each in policy.named_parameters()}
    u, v = (_direction(theta, stream(pair, f"slice {axis}")) for axis in "uv")
    line = torch.linspace(-1, 1, POINTS, dtype=torch.float64)
    alpha, beta = (each.flatten() for each in torch.meshgrid(line, line, indexing="ij"))
    moved = {
        name: value
        + alpha.reshape(-1, *[1] * value.ndim) * u[name]
        + beta.reshape(-1, *[1] * value.ndim) * v[name]
        for name, value in theta.items()
    }
    acting = moved if change is None else change(moved)
    returns = _returns(world, policy, acting, len(alpha))
    return returns.reshape(len(HORIZONS), POINTS, POINTS).numpy()


def _direction(theta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Random, each parameter tensor with the norm that it has in θ (1 where that is 0)."""
    drawn = {
        name: torch.randn(each.shape, generator=generator, dtype=torch.float64)
        for name, each in theta.items()
    }
    norms = {
        name: each.norm() if each.norm() > 0 else torch.tensor(1.0) for name, each in theta.items()
    }
    return {name: each / each.norm() * norms[name] for name, each in drawn.items()}


def _returns(world: World, policy: nn.Module, moved: dict[str, Tensor], many: int) -> Tensor:
    """[horizons, many], every policy on the same starts and noise."""
    start = world.starts(STARTS, stream(0, "starts"))
    n, width = len(start), noise_dim(policy)

    def act(parameters: dict[str, Tensor], state: Tensor, noise: Tensor) -> Tensor:
        return functional_call(policy, parameters, (state, noise))

    state, total, found = start.repeat(many, 1, 1), torch.zeros(many, n).double(), []
    for t in range(LONG):
        noise = torch.randn(n, width, generator=stream(0, "policy", t), dtype=torch.float64)
        xi = world.system.sample_noise(n, stream(0, "dynamics", t))
        with torch.no_grad():
            action = vmap(act, in_dims=(0, 0, None))(moved, state, noise)
            out = world.system.step(state.flatten(0, 1), action.flatten(0, 1), xi.repeat(many, 1))
        state = out.state.reshape(many, n, -1)
        total = total + world.discount**t * out.reward.reshape(many, n)
        if t + 1 in HORIZONS:
            found.append(total.mean(1))
    return torch.stack(found)


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from the roughness of each world, pair of directions and h."""
    numbers, told, rougher = {}, [], []
    for world, rows in table.groupby("world", sort=False):
        by_h = rows.pivot(index="pair", columns="h", values="roughness")
        value, low, high = geometric_mean(by_h[LONG] / by_h[SHORT])
        key = str(world).replace(" ", "_")
        numbers |= {f"{key}_ratio": value, f"{key}_low": low, f"{key}_high": high}
        medians = by_h.median()
        told.append(
            f"{world} {value:.2f}× [{low:.2f}, {high:.2f}] "
            f"(median {medians[SHORT]:.4f} at h = {SHORT}, {medians[LONG]:.4f} at {LONG})"
        )
        if not rows["contracts"].any():
            rougher.append(value >= ROUGHER)
    opening = f"At least {ROUGHER:g}× rougher on {sum(rougher)} of {len(rougher)} systems"
    return Verdict(
        "LANDSCAPE",
        "RP-PGM, Fig. 3",
        "mean |second difference| / range: h = 15 at least 3× h = 3 (spectral normalisation apart)",
        bool(all(rougher)),
        f"{opening}, h = {LONG} against h = {SHORT}: {'; '.join(told)}. Geometric means over "
        f"{table['pair'].nunique()} pairs of directions, {STARTS} starts, 21×21 points; a parabola "
        f"has 0.0100.",
        numbers,
        table,
    )


if __name__ == "__main__":
    study(measure, FOLDER, jacobian_claims.refresh)
