"""DP-VS-DR: are model derivatives better taken on simulator states than on predictions?

    claim       derivatives on predictions (DP, eq. 4.2) and on real samples (DR, eq. 4.5) differ;
                DR makes no state error along the path, so its bias should be the smaller one
    paper       RP-PGM, section 4.2 and Figure 1
    criterion   20 random wrong models, at two sizes of their error: the paired 95% interval of
                log bias(DR)/bias(DP) is below 0 at every horizon

    python -m analyses.dp_vs_dr [--small] [--output reports/identities]

Linear-quadratic, four states, two actions, additive noise, the exact action value at the tail, so
that the model is the only error. DP rolls the model out; DR follows the simulator and takes the
model's Jacobians at the noise inferred from each transition. Expectations are exact (orthogonal
design), variances by sampling. Bias is measured against the same estimator with the true model
(same horizon, hence same scale); cosine and scale against ∇J itself, whose horizon is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor, nn

from analyses.dp_vs_dr.design import SEED, Designed, design
from analyses.harness.student import geometric_mean
from analyses.harness.systems import linear_policy
from analyses.harness.verdicts import FOLDER, Verdict, study
from gradlab.data.noise import child, stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import lqr_gradient

MODELS = 20
HORIZONS = (1, 2, 3, 5, 10, 20, 30)
ERRORS = (0.01, 0.05)  # of A and of B, relative to their Frobenius norms
DISCOUNT = 0.95
SAMPLES = 4096  # behind each variance


def measure(small: bool = False) -> Verdict:
    models, horizons, samples = (6, (1, 5), 512) if small else (MODELS, HORIZONS, SAMPLES)
    world = make_world()
    rows = [
        {"model": k, "error": error, **row}
        for error in ERRORS
        for k in range(models)
        for row in compared(world, wrong(world.system, k, error), horizons, samples)
    ]
    return judge(pd.DataFrame(rows))


@dataclass(frozen=True, eq=False)
class World:
    """The simulator, a policy short of its optimum, Q of that policy, starts and ∇J."""

    system: LinearQuadratic
    policy: Policy
    critic: nn.Module
    start_mean: Tensor
    start_covariance: Tensor
    truth: Tensor


class ExactCritic(nn.Module):
    """Q^π(s, a) up to a constant: r(s, a) − γ (As + Ba)ᵀ P (As + Ba)."""

    def __init__(self, system: LinearQuadratic, P: Tensor) -> None:
        super().__init__()
        self.system, self.P = system, P

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        out = self.system.step(state, action, None)
        return out.reward - DISCOUNT * torch.einsum("ni,ij,nj->n", out.state, self.P, out.state)


def make_world() -> World:
    """Two coupled double integrators at 10 Hz."""
    A = torch.eye(4, dtype=torch.float64)
    A[0, 1] = A[2, 3] = 0.1
    A[1, 2], A[3, 0] = 0.05, -0.05
    B = torch.tensor([[0.0, 0.0], [0.2, 0.05], [0.0, 0.0], [0.0, 0.2]], dtype=torch.float64)
    Q, R = torch.eye(4, dtype=torch.float64), 0.1 * torch.eye(2, dtype=torch.float64)
    system = LinearQuadratic(A, B, Q, R, 0.01 * Q)
    K = 0.6 * _optimal_gain(system)
    closed = math.sqrt(DISCOUNT) * (A - B @ K).numpy()
    cost = (Q + K.T @ R @ K).numpy()
    P = torch.from_numpy(scipy.linalg.solve_discrete_lyapunov(closed.T, cost))
    mean = torch.tensor([1.0, 0.0, -0.5, 0.0], dtype=torch.float64)
    spread = 0.25 * Q
    moment = spread + torch.outer(mean, mean)
    truth = lqr_gradient(system, -K, moment, DISCOUNT, "all")
    return World(system, linear_policy(-K), ExactCritic(system, P), mean, spread, truth)


def _optimal_gain(system: LinearQuadratic) -> Tensor:
    root = math.sqrt(DISCOUNT)
    A, B = root * system.A.numpy(), root * system.B.numpy()
    P = scipy.linalg.solve_discrete_are(A, B, system.Q.numpy(), system.R.numpy())
    return torch.from_numpy(np.linalg.solve(system.R.numpy() + B.T @ P @ B, B.T @ P @ A))


def wrong(system: LinearQuadratic, k: int, error: float) -> LinearQuadratic:
    """The k-th wrong model: A and B off in random directions, rewards and noise right."""
    draw = stream(k, "wrong model")

    def off(matrix: Tensor) -> Tensor:
        direction = torch.randn(matrix.shape, generator=draw, dtype=torch.float64)
        return matrix + error * matrix.norm() / direction.norm() * direction

    return LinearQuadratic(
        off(system.A), off(system.B), system.Q, system.R, system.noise_covariance
    )


def compared(
    world: World, model: LinearQuadratic, horizons: tuple[int, ...], samples: int
) -> Iterator[dict[str, object]]:
    """Bias, cosine, scale and variance of DP and DR at each horizon, one row each."""
    for h in horizons:
        starts, noise = design(world.start_mean, world.start_covariance, h)
        tail = Tail(h, world.critic, DISCOUNT)
        simulated, predicted = Designed(world.system, noise), Designed(model, noise)
        right = Estimator(simulated, simulated, "all", tail)
        goal = right.mean_gradient(world.policy, starts, SEED)
        exact = {
            "DP": Estimator(predicted, predicted, "all", tail),
            "DR": Estimator(simulated, model, "all", tail),
        }
        sampled = {
            "DP": Estimator(model, model, "all", tail),
            "DR": Estimator(world.system, model, "all", tail),
        }
        seed = child(h, "variance")
        draws = torch.randn(samples, 4, generator=stream(seed, "starts"), dtype=torch.float64)
        random_starts = world.start_mean + draws @ world.start_covariance.sqrt()  # diagonal
        for name in ("DP", "DR"):
            mean = exact[name].mean_gradient(world.policy, starts, SEED)
            each = sampled[name].gradients(world.policy, random_starts, seed)
            yield {
                "gradient": name,
                "horizon": h,
                "bias": float((mean - goal).norm() / goal.norm()),
                "cosine": _cosine(mean, goal),
                "scale": float(mean.norm() / goal.norm()),
                "cosine_to_truth": _cosine(mean, world.truth),
                "scale_to_truth": float(mean.norm() / world.truth.norm()),
                "bias_to_truth": float((mean - world.truth).norm() / world.truth.norm()),
                "variance": float(each.var(dim=0).sum() / goal.norm() ** 2),
            }


def _cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from one row per error, model, gradient and horizon."""
    angled = table.assign(angle=np.arccos(table["cosine"].clip(upper=1.0)))
    errors, horizons = (sorted(table[name].unique().tolist()) for name in ("error", "horizon"))
    ratios = pd.DataFrame(
        [
            {"error": error, "horizon": h, "column": column}
            | dict(zip(("mean", "low", "high"), paired(angled, column, error, h), strict=True))
            for error in errors
            for column in ("bias", "angle", "variance")
            for h in horizons
        ]
    )
    medians = table.groupby(["error", "gradient", "horizon"]).median(numeric_only=True)
    bias = ratios[ratios["column"] == "bias"]
    undecided = sorted(set(bias[(bias["low"] <= 1) & (bias["high"] >= 1)]["horizon"]))
    against = sorted(set(bias[bias["low"] > 1]["horizon"]))
    holds = bool((bias["high"] < 1).all())
    short, long = horizons[0], horizons[-1]

    def said(column: str, error: float) -> str:
        rows = ratios[(ratios["column"] == column) & (ratios["error"] == error)]
        return ", ".join(
            f"h {row.horizon}: {row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"
            for row in rows.itertuples(index=False)
        )

    def both(column: str, h: int) -> str:
        dp, dr = (medians.loc[(errors[-1], name, h), column] for name in ("DP", "DR"))
        return f"{dp:.3g} and {dr:.3g}"

    below = [h for h in horizons if (bias[bias["horizon"] == h]["high"] < 1).all()]
    opening = "True" if holds else f"True at h in {below}, not at every horizon"
    sentence = (
        f"{opening}: bias(DR)/bias(DP), geometric mean over {table['model'].nunique()} models, "
        + "; ".join(f"model error {error:.0%}: {said('bias', error)}" for error in errors)
        + f" (not decided at h in {undecided or 'none'}, the other way at {against or 'none'}). "
        f"Direction alone, angle to the true model's gradient, error {errors[-1]:.0%}: "
        f"{said('angle', errors[-1])}. Variance: {said('variance', errors[-1])}. Medians of DP "
        f"and DR at h = {long}: relative bias {both('bias', long)}, cosine {both('cosine', long)}, "
        f"scale {both('scale', long)}. Scale against ∇J (no 1 − γ, as in eq. 4.2 and 4.5): "
        f"{both('scale_to_truth', short)} at h = {short}, {both('scale_to_truth', long)} at "
        f"h = {long}."
    )
    numbers = {
        f"{row.column}_ratio_{part}_h{row.horizon}_error{row.error}": getattr(row, part)
        for row in ratios.itertuples(index=False)
        for part in ("mean", "low", "high")
    } | {
        f"{name}_{column}_median_h{h}_error{error}": float(value)
        for (error, name, h), row in medians.drop(columns="model").iterrows()
        for column, value in row.items()
    }
    return Verdict(
        "DP-VS-DR",
        "RP-PGM, section 4.2, Fig. 1",
        "20 random wrong models: paired interval of bias(DR)/bias(DP) below 1 at every horizon",
        holds,
        sentence,
        numbers,
        table,
    )


def paired(
    table: pd.DataFrame, column: str, error: float, horizon: int
) -> tuple[float, float, float]:
    """Geometric mean over the models of DR over DP, with its 95% t-interval."""
    rows = table[(table["horizon"] == horizon) & (table["error"] == error)]
    wide = rows.pivot(index="model", columns="gradient", values=column)
    return geometric_mean(wide["DR"] / wide["DP"])


if __name__ == "__main__":
    study(measure, FOLDER)
