"""THM1-MPG-J: are data- and model-driven gradients special cases of the unified one?

    claim       ∇J^Data = ∇J_0, and ∇J^Model = ∇J_∞ / (1 − γ) where f = p and starts are stationary
    paper       MPG (journal), Theorem 1
    criterion   n = 600: relative error < 1e-8 exact; < 2% by Monte Carlo with the 95% interval of
                the difference covering 0

    python -m analyses.identities.thm1_mpg_j [--small] [--output reports/identities]

∇J^Model is θ in every action of the return, ∇J_n in the first alone. The limit is judged apart from
the identity: how far both sides are from one another at the horizons that are used (H = 25).
"""

from __future__ import annotations

import math

import pandas as pd
import torch

from analyses.harness.verdicts import FOLDER, Verdict, study
from analyses.identities.scalar_lq import QuadraticCritic, World, by_gradlab, by_moments
from gradlab import tasks
from gradlab.data.noise import child
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.start_laws import initial
from gradlab.gradients.tail import Tail
from gradlab.statistics.intervals import Z
from gradlab.truth.lqr import lqr_gradient

LONG = 600
HORIZONS = (1, 5, 10, 25, 50, 100, 200, 400, LONG)
CHUNK = 4096
CHUNKS = 16


def measure(small: bool = False) -> Verdict:
    world = World()
    m, gamma = world.stationary, world.discount
    rows = []
    for name, gradients in (("moments", by_moments(world)), ("gradlab", by_gradlab(world))):
        for n in (25, LONG) if small else HORIZONS:
            model = gradients.full(n, m, None)
            unified = gradients.unified_return(n, m) / (1 - gamma)
            elsewhere = (
                gradients.full(n, m / 4, None),
                gradients.unified_return(n, m / 4) / (1 - gamma),
            )
            rows.append(
                {
                    "way": name,
                    "n": n,
                    "model_gradient": model,
                    "unified_over_1_minus_gamma": unified,
                    "relative_error": abs(unified - model) / abs(model),
                    "relative_error_not_stationary": abs(elsewhere[1] / elsewhere[0] - 1),
                }
            )
    table = pd.DataFrame(rows)
    return judge(world, table, monte_carlo(world, 1 if small else CHUNKS, 25 if small else LONG))


def monte_carlo(world: World, chunks: int, horizon: int) -> torch.Tensor:
    """Per-sample gradients of both sides on common starts and noise, [2, N]."""
    task = tasks.linear_quadratic(
        [[world.a]],
        [[world.b]],
        [[world.q]],
        [[world.rho]],
        noise_covariance=[[world.variance]],
        start_covariance=[[world.stationary]],
        discount=world.discount,
    )
    policy, tail = world.policy(), Tail(horizon, None, world.discount)
    scale = {"all": 1.0, "first": 1 / (1 - world.discount)}
    found = []
    for chunk in range(chunks):
        seed = child(1, f"chunk {chunk}")
        starts = initial(task, CHUNK, seed)
        both = [
            scale[actions]
            * Estimator(task.simulator, task.simulator, actions, tail).gradients(
                policy, starts, seed
            )[:, 0]
            for actions in ("all", "first")
        ]
        found.append(torch.stack(both))
    return torch.cat(found, dim=1)


def judge(world: World, table: pd.DataFrame, samples: torch.Tensor) -> Verdict:
    """The verdict from exact rows and Monte Carlo samples [2, N]."""

    def at(n: int, column: str) -> float:
        return float(table[table["n"] == n][column].max())

    lyapunov = float(
        lqr_gradient(
            world.system(),
            torch.tensor([[world.theta]], dtype=torch.float64),
            torch.tensor([[world.stationary]], dtype=torch.float64),
            world.discount,
            "all",
        )[0]
    )
    exact = table[(table["way"] == "gradlab") & (table["n"] == LONG)].iloc[0]
    model, unified = samples.mean(dim=1).tolist()
    difference = samples[1] - samples[0]
    half = Z * float(difference.std()) / math.sqrt(len(difference))
    gap = float(difference.mean())
    numbers = {
        "model_gradient": exact["model_gradient"],
        "unified_over_1_minus_gamma": exact["unified_over_1_minus_gamma"],
        "exact_error": at(LONG, "relative_error"),
        "error_against_lyapunov": abs(exact["model_gradient"] / lyapunov - 1),
        "data_error": _data_error(world),
        "error_at_25": at(25, "relative_error"),
        "not_stationary_error": at(LONG, "relative_error_not_stationary"),
        "monte_carlo_error": abs(gap / model),
        "monte_carlo_model": model,
        "monte_carlo_unified": unified,
        "difference_low": gap - half,
        "difference_high": gap + half,
        "samples": samples.shape[1],
    }
    identity = max(numbers[key] for key in ("exact_error", "error_against_lyapunov", "data_error"))
    covers = numbers["difference_low"] <= 0 <= numbers["difference_high"]
    opening = "True in the limit" if identity < 1e-8 else "False even in the limit"
    sentence = (
        f"{opening}: at n = {LONG} both sides are {exact['model_gradient']:.7f} (relative "
        f"error {numbers['exact_error']:.0e}, {numbers['error_against_lyapunov']:.0e} against the "
        f"Lyapunov equation); by {samples.shape[1]:,} samples {model:.3f} and {unified:.3f}, "
        f"difference {gap:+.3f} [{gap - half:+.3f}, {gap + half:+.3f}], "
        f"{numbers['monte_carlo_error']:.2%}. ∇J^Data = ∇J_0 to {numbers['data_error']:.0e}. Not "
        f"at a working horizon: at n = 25 the two differ by {numbers['error_at_25']:.0%} "
        f"(γ = {world.discount}), and from starts that are not stationary by "
        f"{numbers['not_stationary_error']:.0%} at n = {LONG}."
    )
    return Verdict(
        "THM1-MPG-J",
        "MPG (journal), Theorem 1",
        "n = 600: relative error < 1e-8 exact; < 2% by Monte Carlo with an interval covering 0",
        bool(identity < 1e-8 and numbers["monte_carlo_error"] < 0.02 and covers),
        sentence,
        numbers,
        table,
    )


def _data_error(world: World) -> float:
    """∇J^Data = E ∇_θπ ∂_aQ written out, against n = 0 of the unified gradient."""
    m, (_, c_su, c_uu) = world.stationary, world.critic
    data = -2 * (c_su + c_uu * world.theta) * m
    unified = [each(world).unified(0, m) for each in (by_moments, by_gradlab)]
    starts = torch.tensor([[math.sqrt(m)]], dtype=torch.float64)
    tail = Tail(0, QuadraticCritic(world), world.discount)
    estimator = Estimator(world.system(), None, "all", tail)
    found = [*unified, float(estimator.mean_gradient(world.policy(), starts)[0])]
    return max(abs(each / data - 1) for each in found)


if __name__ == "__main__":
    study(measure, FOLDER)
