"""Do 95% intervals of the gain of a step cover in 95 of 100 cases, and are they missed either way?

    python -m analyses.coverage.gain_coverage [--small] [--output reports/coverage]

direct    linear-quadratic worlds of three states and two actions, gradients (M z) s₀ᵀ drawn
          directly: data, model and mixed at horizons 1 and 5, 64 and 256 starts
measured  `gradlab.measure` as a user calls it, 64 starts, in a world that turns its states, with
          a critic of another policy and a prior whose actions push 40° aside: gradients at visited
          states, in groups of the start that they are visited from, against the gradient of the
          return, both with every expectation in closed form

Criterion: cells at least 94% on average and none under 93% less two of its standard errors; no
side missed in more than 5%. Beside it what the interval without the errors of lengths covers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

import gradlab
from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.synthetic import moments
from gradlab import provenance
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import estimates
from gradlab.systems import LinearQuadratic
from gradlab.tasks import Task, linear_quadratic
from gradlab.truth.lqr import ExactCritic, lqr_gradient, second_moment

WORLDS = (0, 1, 2, 4, 6, 8)  # seeds with stable loops, true and of the prior
GAMMA, STEPS = 0.9, 400
WEIGHT, CRITIC, ANGLE = -0.1, -0.35, 0.7
HORIZONS = (1, 4)
MISSES = ("too_good", "too_bad")  # the whole interval above or below the known gain


def world(seed: int) -> lq.World:
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(3, 3)), 0.5 * rng.normal(size=(3, 2))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    prior = A + 0.2 * rng.normal(size=(3, 3)), B + 0.2 * rng.normal(size=(3, 2))
    return lq.World(f"world {seed}", A, B, *prior, 0.1 * rng.normal(size=(2, 3)), 0.1, 20)


def direct(w: lq.World, n: int, repetitions: int) -> Iterator[dict[str, object]]:
    M = lq.action_gradients(w, (1, 5))
    true = lq.mean_of(w, M["truth"])
    for k, (name, m) in enumerate(M.items()):
        if name == "truth":
            continue
        known, rng, rows = _cosine(lq.mean_of(w, m), true), np.random.default_rng([n, k]), []
        for _ in range(repetitions):
            data = lq.drawn(w, {"G": m, "T": M["truth"]}, n, rng)
            gain = estimates(moments(data["G"], data["T"]), n)["gain"]
            both = (interval("gain", each) for each in (gain, replace(gain, parts=None)))
            rows.append([(found.low > known, found.high < known) for found in both])
        yield _row("direct", w.name, n, name, known, np.array(rows))


def turning() -> Task:
    two = torch.eye(2, dtype=torch.float64)
    return linear_quadratic(
        A=0.9 * _turned(0.3), B=0.5 * two, Q=two, R=0.1 * two, noise_covariance=0.1 * two,
        start_mean=torch.tensor([0.6, -0.3], dtype=torch.float64), start_covariance=0.5 * two,
        discount=GAMMA, prior=(0.8 * _turned(0.2), 0.5 * _turned(ANGLE)),
    )  # fmt: skip


def networks(task: Task) -> tuple[nn.Linear, ExactCritic]:
    """A linear policy, and the exact critic of another one."""
    policy, two = nn.Linear(2, 2, bias=False).double(), torch.eye(2, dtype=torch.float64)
    policy.weight.data = WEIGHT * two
    return policy, ExactCritic(task.simulator, CRITIC * two, GAMMA)


def measured(n: int, seeds: int) -> Iterator[dict[str, object]]:
    task = turning()
    policy, critic = networks(task)
    known = known_gains(task, policy.weight.detach(), critic)
    rows: dict[tuple[str, int], list[list[tuple[bool, bool]]]] = {cell: [] for cell in known}
    for seed in range(seeds):
        profile = gradlab.measure(task, policy, critic, horizon=max(HORIZONS), starts=n, seed=seed)
        for cell, gain in known.items():
            found = (
                profile.interval(cell[0], "gain", cell[1]),
                interval("gain", profile.estimate(cell[0], "gain", cell[1])),
            )
            rows[cell].append([(each.low > gain, each.high < gain) for each in found])
    for (name, h), missed in rows.items():
        yield _row("measured", "turning", n, f"{name} {h}", known[name, h], np.array(missed))


def known_gains(task: Task, weight: Tensor, critic: ExactCritic) -> dict[tuple[str, int], float]:
    """Every default estimator's gain from expected gradients in closed form."""
    sim, prior = task.simulator, task.prior
    two = torch.eye(2, dtype=torch.float64)
    start = second_moment(torch.tensor([0.6, -0.3], dtype=torch.float64), 0.5 * two)
    truth = lqr_gradient(sim, weight, start, GAMMA, "all").numpy()
    visited = sum(GAMMA**t * each for t, each in enumerate(_moments(sim, weight, start, STEPS)))
    arms = {"model": (prior, prior), "mixed": (sim, prior), "true_dynamics": (sim, sim)}
    known = {("data", 0): _cosine(_first(sim, sim, weight, critic, 0) @ visited, truth)}
    for name, (states, jacobians) in arms.items():
        for h in HORIZONS:
            along = _moments(states, weight, start, h + 1)
            parts = [
                GAMMA**k * _first(states, jacobians, weight, critic, h - k) @ each
                for k, each in enumerate(along)
            ]
            first = _first(states, jacobians, weight, critic, h) @ visited
            known[name, h] = _cosine(first, truth)
            known[f"{name}_all", h] = _cosine(torch.stack(parts).sum(dim=0), truth)
    return known


def _moments(system: LinearQuadratic, weight: Tensor, start: Tensor, steps: int) -> list[Tensor]:
    """E[s_t s_tᵀ], t < steps."""
    closed, found = system.A + system.B @ weight, [start]
    for _ in range(steps - 1):
        found.append(closed @ found[-1] @ closed.T + system.noise_covariance)
    return found


def _first(
    states: LinearQuadratic, jacobians: LinearQuadratic, weight: Tensor, critic: ExactCritic, n: int
) -> Tensor:
    """L with E g_n = L s: the gradient in the first action is linear in the start."""
    F, M = states.A + states.B @ weight, jacobians.A + jacobians.B @ weight
    P, own = critic.P, critic.system
    c = -2 * (states.Q + weight.T @ states.R @ weight)
    q_ss, q_sa = -2 * (own.Q + GAMMA * own.A.T @ P @ own.A), -2 * GAMMA * own.A.T @ P @ own.B
    q_a = q_sa.T - 2 * (own.R + GAMMA * own.B.T @ P @ own.B) @ weight
    if n == 0:
        return q_a
    gradient, D, state = -2 * states.R @ weight, jacobians.B, F
    for t in range(1, n):
        gradient, D, state = gradient + GAMMA**t * D.T @ c @ state, M @ D, F @ state
    return gradient + GAMMA**n * D.T @ (q_ss + q_sa @ weight + weight.T @ q_a) @ state


def _turned(angle: float) -> Tensor:
    cos, sin = np.cos(angle), np.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def _cosine(first: Tensor | lq.Array, other: lq.Array) -> float:
    one = np.asarray(first).ravel()
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def _row(
    family: str, name: str, n: int, cell: str, known: float, missed: lq.Array
) -> dict[str, object]:
    """`missed`: [repetitions, interval now and without the errors of lengths, side]."""
    shares = missed.mean(axis=0)
    return {
        "family": family,
        "world": name,
        "n": n,
        "cell": cell,
        "known": known,
        "coverage": 1 - shares[0].sum(),
        **dict(zip(MISSES, shares[0], strict=True)),
        "without": 1 - shares[1].sum(),
        "repetitions": len(missed),
    }


def verdict(table: pd.DataFrame) -> dict[str, object]:
    """The criterion, judged."""
    error = np.sqrt(0.93 * 0.07 / table["repetitions"])
    sides = table.groupby(["family", "n"])[list(MISSES)].mean()
    holds = (
        table["coverage"].mean() >= 0.94
        and bool((table["coverage"] >= 0.93 - 2 * error).all())
        and float(sides.to_numpy().max()) <= 0.05
    )
    return {"mean": table["coverage"].mean(), "least": table["coverage"].min(), "holds": holds}


def page(table: pd.DataFrame, command: str) -> str:
    made = verdict(table)
    lines = [
        "# Coverage of the gain of a step",
        "",
        f"{made['mean']:.3f} on average, no cell under {made['least']:.3f}; without the errors of "
        f"lengths {table['without'].mean():.3f}, least {table['without'].min():.3f}. Criterion "
        f"(0.94 and 0.93 less two standard errors; 0.05 on either side): "
        f"{'holds' if made['holds'] else 'refuted'}.",
        "",
        f"Made by `{command}`, commit {provenance.commit()}; every cell in `gain.csv`.",
        "",
        "family | starts | cells | coverage | least | interval above the gain | below | "
        "coverage without the errors of lengths | least",
        " | ".join(["---"] * 9),
    ]
    for (family, n), rows in table.groupby(["family", "n"]):
        above, below = (rows[name].mean() for name in MISSES)
        lines.append(
            f"{family} | {n} | {len(rows)} | {rows['coverage'].mean():.3f} | "
            f"{rows['coverage'].min():.3f} | {above:.3f} | {below:.3f} | "
            f"{rows['without'].mean():.3f} | {rows['without'].min():.3f}"
        )
    return "\n".join([*lines, ""])


def main(small: bool = False, output: Path = Path("reports/coverage")) -> None:
    """Measure and freeze.

    Args:
        small: a few repetitions, to see that it runs.
        output: folder of the outcome.
    """
    worlds, sizes, repetitions, seeds = (
        ((0,), (64,), 5, 2) if small else (WORLDS, (64, 256), 300, 100)
    )
    rows = list(measured(64, seeds))
    for n in sizes:
        for seed in worlds:
            rows += direct(world(seed), n, repetitions)
            print(n, seed, flush=True)
    table = pd.DataFrame(rows)
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "gain.csv", index=False, float_format="%.6g")
    command = "python -m analyses.coverage.gain_coverage" + (" --small" if small else "")
    (output / "gain.md").write_text(page(table, command))
    print(page(table, command))


if __name__ == "__main__":
    tyro.cli(main)
