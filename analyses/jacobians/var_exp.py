"""VAR-EXP: does the variance of an unrolled gradient grow exponentially with the unroll h?

    claim       the gradient variance of reparameterised gradients explodes exponentially with h
    paper       RP-PGM, Proposition 5.4, section 7.2, Fig. 2
    criterion   unstable system: log tr Cov is a line in h rather than in log h (ΔAIC >= 10), slope
                CI > 0; contractive control: slope CI includes <= 0;
                slope <= 6 log max(L_f, 1) + 4 log max(L_π, 1) everywhere

    python -m analyses.jacobians.var_exp [--small] [--output reports/jacobians]

Derivatives of true simulators, θ in every action, N = 512 gradients of a random stochastic policy,
h = 1, 2, 3, 5, 8, 10, 15, 20, 30, without a critic. Two things are not in the criterion and decide
it: early growth is a power of h whatever comes later, so that h = 20 … 60 is fitted beside; and a
sum over h actions grows with h even where no product does, so that the contractive control is also
shown with θ in the first action alone. L_f, L_π: largest norms of [A B] and of K on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analyses.harness.verdicts import Verdict, study
from analyses.jacobians import page as jacobian_claims
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator, checked
from gradlab.gradients.gram import path_gradients
from gradlab.gradients.rollout import linearize_path, rollout_with_jacobians
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Tail
from gradlab.gradients.weighted_terms import carried
from gradlab.networks.policies import GaussianPolicy
from gradlab.statistics.intervals import Z, jackknife_se
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import System
from gradlab.tasks import task_from_name

FOLDER = Path("reports/jacobians")
HORIZONS = (1, 2, 3, 5, 8, 10, 15, 20, 30)
LATE = (20, 25, 30, 35, 40, 45, 50, 55, 60)
ALL = tuple(sorted({*HORIZONS, *LATE}))
SAMPLES = 512
DISCOUNT = 0.99
DECISIVE = 10.0
Array = NDArray[np.float64]
Starts = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class World:
    """A simulator, a start law, and what the claim expects there."""

    name: str
    system: System
    starts: Starts
    contracts: bool = False
    limit: tuple[float, ...] | None = None
    discount: float = DISCOUNT


def worlds(small: bool) -> list[World]:
    # The pre-step reward at h = 1 does not depend on the action: no variance to speak of.
    settings = {"slider": "wide", "reward": "post_step"}
    analytic, mujoco = (
        task_from_name("inverted_pendulum", {"engine": engine, **settings})
        for engine in ("analytic", "mujoco")
    )
    found = [
        World("cart-pole swing-up", analytic.simulator, hanging, limit=(3.0,)),
        World("contractive", contractive(), _normal, contracts=True, discount=0.9),
    ]
    if small:
        return found
    hopper, cheetah = (task_from_name(f"{name}-v5", {}) for name in ("Hopper", "HalfCheetah"))
    return [
        World("MuJoCo pendulum", mujoco.simulator, mujoco.starts, limit=(3.0,)),
        *found,
        World("Hopper", hopper.simulator, hopper.starts, limit=hopper.action_limit),
        World("HalfCheetah", cheetah.simulator, cheetah.starts, limit=cheetah.action_limit),
    ]


def contractive() -> LinearQuadratic:
    """Every step halves distances, whatever the policy's noise."""
    eye = torch.eye(2, dtype=torch.float64)
    A = torch.tensor([[0.4, 0.1], [-0.1, 0.4]], dtype=torch.float64)
    return LinearQuadratic(A, 0.3 * eye, eye, 0.1 * eye, 0.01 * eye)


def hanging(n: int, generator: torch.Generator) -> Tensor:
    """Near the hanging pole, θ = π."""
    start = 0.1 * torch.rand(n, 4, generator=generator, dtype=torch.float64) - 0.05
    return start + torch.tensor([0.0, torch.pi, 0.0, 0.0], dtype=torch.float64)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def random_policy(world: World) -> nn.Module:
    """Freshly initialised, 2×32 ELU, σ ≈ 0.2 before a tanh."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        system = world.system
        return GaussianPolicy(
            system.state_dim, system.action_dim, (32, 32), squash=world.limit is not None,
            limit=world.limit, log_std_bounds=(-5.0, 2.0),
        ).double()  # fmt: skip


def gradients(
    world: World,
    policy: nn.Module,
    actions: str,
    samples: int,
    horizons: tuple[int, ...] = ALL,
    seed: int = 0,
) -> list[Tensor]:
    """Per-sample gradients [N, P] for every horizon, along one rollout."""
    tail = Tail(horizons[-1], None, world.discount)
    estimator = Estimator(world.system, world.system, actions, tail)
    starts = world.starts(samples, stream(seed, "starts"))
    begin = checked(estimator, policy, starts, "ignore")
    found = carried(estimator, policy, begin, horizons, seed, "ignore")
    return [path_gradients(found.jacobian, costates) for costates in found.costates]


def constants(world: World, policy: nn.Module, samples: int) -> tuple[float, float]:
    """L_f and L_π: the largest norms of [A B] and K along the rollout."""
    starts = as_starts(world.starts(samples, stream(0, "starts")), world.system.state_dim)
    path, K = rollout_with_jacobians(world.system, policy, starts, ALL[-1])
    linear = linearize_path(path, world.system, K, path.dynamics_noise)
    joint = torch.cat([linear.A, linear.B], 3)[~linear.flags]
    return tuple(  # type: ignore[return-value]
        float(torch.linalg.matrix_norm(each, 2).max()) for each in (joint, K[:-1].flatten(0, 1))
    )


def measure(small: bool = False) -> Verdict:
    samples = 64 if small else SAMPLES
    rows = []
    for world in worlds(small):
        policy = random_policy(world)
        sizes = constants(world, policy, samples)
        for actions in ("all", "first") if world.contracts else ("all",):
            found = dict(
                zip(ALL, map(traces, gradients(world, policy, actions, samples)), strict=True)
            )
            rows += rows_of(world, actions, found, sizes, samples)
    return judge(pd.DataFrame(rows))


def rows_of(
    world: World,
    actions: str,
    found: Mapping[int, tuple[float, Array]],
    sizes: tuple[float, float],
    samples: int,
    quantile: float = Z,
) -> list[dict[str, object]]:
    """One row per h: variance, both fits of the world, L_f, L_π and the bound of the slope."""
    fits = fit(found, HORIZONS, quantile) | {
        f"late_{name}": value for name, value in fit(found, LATE, quantile).items()
    }
    L_f, L_pi = sizes
    bound = 6 * log(max(L_f, 1)) + 4 * log(max(L_pi, 1))
    about = {"world": world.name, "contracts": world.contracts, "actions": actions}
    return [
        about
        | {"h": h, "variance": found[h][0], "N": samples}
        | {"L_f": L_f, "L_pi": L_pi, "bound": bound}
        | fits
        for h in ALL
    ]


def traces(G: Tensor) -> tuple[float, Array]:
    """tr Cov of the rows of G [N, P], and with each row left out [N]."""
    G = G.double()
    n, total = len(G), G.sum(0)
    squares, cross = (G**2).sum(1), G @ total
    value = float((squares.sum() - total @ total / n) / (n - 1))
    rest = total @ total - 2 * cross + squares
    left_out = (squares.sum() - squares - rest / (n - 1)) / (n - 2)
    return value, left_out.numpy()


def fit(
    found: Mapping[int, tuple[float, Array]], horizons: tuple[int, ...], quantile: float = Z
) -> dict[str, float]:
    """Slope of log variance on h with its interval, and AIC of the power law less exponential's.

    Args:
        quantile: of the interval, in standard errors.
    """
    h, y = np.array(horizons, dtype=float), np.log([found[each][0] for each in horizons])
    left_out = np.log(np.stack([found[each][1] for each in horizons]))
    weights = (h - h.mean()) / ((h - h.mean()) ** 2).sum()
    slope, se = float(weights @ y), jackknife_se(weights @ left_out)
    power, line = _residual(np.log(h), y), _residual(h, y)
    return {
        "slope": slope,
        "slope_low": slope - quantile * se,
        "slope_high": slope + quantile * se,
        "delta_aic": len(h) * log((power + 1e-12) / (line + 1e-12)),
    }


def _residual(x: Array, y: Array) -> float:
    design = np.stack([np.ones_like(x), x], 1)
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from variances and fits: one row per world, actions and h."""
    each = table.drop_duplicates(["world", "actions"])
    unstable = each[~each["contracts"]]
    control = each[each["contracts"]].set_index("actions")
    exploding = (unstable["delta_aic"] >= DECISIVE) & (unstable["slope_low"] > 0)
    late = (unstable["late_delta_aic"] >= DECISIVE) & (unstable["late_slope_low"] > 0)
    flat = bool(control.loc["all", "slope_low"] <= 0)
    beyond = each[each["slope"] > each["bound"]]
    numbers = {}
    for _, row in each.iterrows():
        key = f"{row['world'].replace(' ', '_')}_{row['actions']}"
        for name in ("slope", "slope_low", "slope_high", "delta_aic", "late_slope",
                     "late_slope_low", "late_slope_high", "late_delta_aic", "bound"):  # fmt: skip
            numbers[f"{key}_{name}"] = float(row[name])
    records = [row for _, row in unstable.iterrows()]
    sentence = (
        f"{_opening(exploding, late)} Unstable: {'; '.join(map(_told, records))}. "
        f"Contractive control: θ in every action {_slope(control.loc['all'])}, in the first alone "
        f"{_slope(control.loc['first'])}, from h = 20 on "
        f"{control.loc['all', 'late_slope']:.4f} and {control.loc['first', 'late_slope']:.1e}: "
        f"what grows there is the number of terms. "
        f"Slopes above 6 log L̃_f + 4 log L̃_π: {len(beyond)} of {len(each)}"
        + (f" ({', '.join(beyond['world'] + ', ' + beyond['actions'])}: the bound's factor h⁸ is "
           f"left out of the criterion)" if len(beyond) else "")
        + f". N = {table['N'].iloc[0]}, without a critic."
    )  # fmt: skip
    return Verdict(
        "VAR-EXP",
        "RP-PGM, Prop. 5.4, Fig. 2",
        "unstable: exponential beats power law by ΔAIC >= 10, slope CI > 0; contractive: slope CI "
        "includes <= 0; no slope above 6 log L̃_f + 4 log L̃_π",
        bool(exploding.all() and flat and not len(beyond)),
        sentence,
        numbers,
        table,
    )


def _opening(exploding: pd.Series, late: pd.Series) -> str:
    if exploding.all():
        return "Exponential everywhere, already for h <= 30."
    return (
        f"For h <= 30 an exponential beats a power law on {int(exploding.sum())} of "
        f"{len(exploding)} unstable systems, for h = 20 to 60 on {int(late.sum())}."
    )


def _told(row: pd.Series) -> str:
    late = f"{row['late_slope']:.3f} [{row['late_slope_low']:.3f}, {row['late_slope_high']:.3f}]"
    return (
        f"{row['world']} {_slope(row)}, ΔAIC {row['delta_aic']:.0f} (from h = 20: {late}, "
        f"{row['late_delta_aic']:.0f})"
    )


def _slope(row: pd.Series) -> str:
    return f"{row['slope']:.3f} [{row['slope_low']:.3f}, {row['slope_high']:.3f}] per step"


if __name__ == "__main__":
    study(measure, FOLDER, jacobian_claims.refresh)
