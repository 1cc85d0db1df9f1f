"""LEMMA-A1: does MAAC's bound on the gradient error hold, and how loose is it?

    claim       |∇J − ∇Ĵ| ≤ c1(H) ε_f + c2(H) ε_Q;  D_TV(π', π̂') ≤ α c3 (c1(H) ε_f + c2(H) ε_Q)
    paper       MAAC, Lemmas A.1 and A.2
    criterion   200 random linear-quadratic systems, K and L measured: 0 violations

    python -m analyses.lemmas.lemma_a1 [--small] [--output reports/lemmas]

One trajectory per system, so that the constants are as small as they can be: L_f, L_π, L_r, L_Q
bound the derivatives along it (model and simulator), K with |d(s_t, a_t)/dθ| ≤ Kᵗ, θ scaled so that
|∂π/∂θ| ≤ 1. The proof speaks of derivatives on common states, the statement of each along its own;
every model also has a constant offset, which moves its states and none of its derivatives. c1 is
the repaired one of `analyses.harness.bounds`; the printed one stands beside it. D_TV
is that of Gaussian policies after one step of both gradients, largest over the visited states, c3
from their Fisher information.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from analyses.harness.bounds import MAACConstants, maac_c1, maac_c2
from analyses.harness.systems import Around, linear_policy
from analyses.harness.verdicts import Verdict, study
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import System, Transition

FOLDER = Path("reports/lemmas")
SYSTEMS, HORIZONS = 200, (1, 2, 3, 5, 10, 20)
WIDEST = (3, 2)  # of state and action
DISCOUNT = 0.95
READINGS = ("common states", "own states")
SPREAD = 0.5  # of the Gaussian policy
RATE = 1e-3  # α


@dataclass(frozen=True, eq=False)
class Draw:
    """One random system, its model, true and learned critic (quadratic), policy and start."""

    simulator: LinearQuadratic
    model: Shifted
    critics: tuple[Quadratic, Quadratic]
    W: Tensor
    start: Tensor

    @property
    def policy(self) -> Policy:
        return linear_policy(self.W)


@dataclass(frozen=True, eq=False)
class Shifted(Around):
    """A linear-quadratic system whose next state is off by a constant [ds]."""

    offset: Tensor
    differentiable: bool = True

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        out = self.system.step(state, action, noise)
        return replace(out, state=out.state + self.offset)


class Quadratic(nn.Module):
    """Q(s, a) = −xᵀ C x, x = (s, a)."""

    def __init__(self, C: Tensor) -> None:
        super().__init__()
        self.C = C

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([state, action], dim=1)
        return -torch.einsum("ni,ij,nj->n", x, self.C, x)

    def gradient(self, x: Tensor) -> Tensor:
        return -2 * x @ self.C


def draw(k: int) -> Draw:
    """The k-th system; its closed loop is stable or not, its model off by up to 20%."""
    generator = stream(k, "lemma A.1")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ds, da = (int(torch.randint(1, n + 1, (1,), generator=generator)) for n in WIDEST)
    size, error, off = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    A = normal(ds, ds)
    A = 1.2 * size * A / torch.linalg.eigvals(A).abs().max()
    B, W = 0.5 * normal(ds, da), 0.3 * normal(da, ds)
    Q, R, C = (_positive(normal(n, n)) for n in (ds, da, ds + da))
    still = torch.zeros(ds, ds, dtype=torch.float64)
    wrong_A, wrong_B = (x + 0.2 * error * normal(*x.shape) * x.norm() for x in (A, B))
    wrong_C = C + _positive(off * normal(ds + da, ds + da))
    return Draw(
        LinearQuadratic(A, B, Q, R, still),
        Shifted(LinearQuadratic(wrong_A, wrong_B, Q, R, still), 0.1 * normal(ds)),
        (Quadratic(C), Quadratic(wrong_C)),
        W,
        normal(1, ds),
    )


def _positive(x: Tensor) -> Tensor:
    return x @ x.T / len(x)


def measure(small: bool = False) -> Verdict:
    rows = [row for k in range(50 if small else SYSTEMS) for row in compared(draw(k), k)]
    return judge(pd.DataFrame(rows))


@dataclass(frozen=True, eq=False)
class Course:
    """x_t = (s_t, a_t) [H + 1, ds + da] and dx_t/dθ [H + 1, ds + da, P] along one system."""

    x: Tensor
    slope: Tensor


def course(states: Tensor, jacobians: LinearQuadratic, W: Tensor) -> Course:
    """Sensitivities da/dθ = W ds/dθ + I ⊗ sᵀ (θ = W row by row) along given states [H + 1, ds]."""
    eye = torch.eye(len(W), dtype=torch.float64)
    S = states.new_zeros(states.shape[1], W.numel())
    slopes = []
    for s in states:
        moved = W @ S + torch.kron(eye, s[None])
        slopes.append(torch.cat([S, moved]))
        S = jacobians.A @ S + jacobians.B @ moved
    return Course(torch.cat([states, states @ W.T], dim=1), torch.stack(slopes))


def visited(system: System, W: Tensor, start: Tensor) -> Tensor:
    """States [H + 1, ds] under a = W s."""
    states = [start]
    for _ in range(max(HORIZONS)):
        states.append(system.step(states[-1], states[-1] @ W.T).state)
    return torch.cat(states)


def compared(world: Draw, k: int) -> Iterator[dict[str, object]]:
    """Errors and bounds at each horizon and reading, one row each."""
    simulator, model, W = world.simulator, world.model, world.W
    here, there = (visited(x, W, world.start) for x in (simulator, model))
    real = course(here, simulator, W)
    scale = float(torch.cat([here, there]).norm(dim=1).max())
    for reading, states, theirs in (
        (READINGS[0], simulator, course(here, model.system, W)),
        (READINGS[1], model, course(there, model.system, W)),
    ):
        for h in HORIZONS:
            goal, guess = (
                Estimator(x, y, "all", Tail(h, Q, DISCOUNT)).mean_gradient(
                    world.policy, world.start
                )
                for x, y, Q in zip(
                    (simulator, states), (simulator, model), world.critics, strict=True
                )
            )
            c = constants(world, (real, theirs), h, scale)
            f, q = errors(world, (real, theirs), h)
            bound = float(maac_c1(h, c)) * f + float(maac_c2(h, c)) * q
            variation, step = total_variation(goal - guess, here, len(W))
            yield {
                "system": k,
                "reading": reading,
                "horizon": h,
                "error": float((goal - guess).norm()) / scale,
                "bound": bound,
                "printed": printed_c1(h, c) * f + float(maac_c2(h, c)) * q,
                "variation": variation,
                "variation_bound": step * bound * scale,
                "gamma_K": DISCOUNT * c.K,
            }


def errors(world: Draw, courses: tuple[Course, Course], h: int) -> tuple[float, float]:
    """ε_f and ε_Q."""
    simulated, modelled = (
        torch.cat([x.A, x.B], dim=1) for x in (world.simulator, world.model.system)
    )
    here, there = (
        Q.gradient(each.x[h : h + 1]) for Q, each in zip(world.critics, courses, strict=True)
    )
    gap = torch.linalg.matrix_norm(simulated - modelled, ord=2)
    return float(gap), float((here - there).norm())


def constants(world: Draw, courses: tuple[Course, Course], h: int, scale: float) -> MAACConstants:
    """Suprema along both courses up to step h, θ in units that make |∂π/∂θ| ≤ 1."""

    def largest(*matrices: Tensor) -> float:
        return max(float(torch.linalg.matrix_norm(m, ord=2)) for m in matrices)

    systems = (world.simulator, world.model.system)
    reward = torch.block_diag(world.simulator.Q, world.simulator.R)
    x = torch.cat([each.x[: h + 1] for each in courses])
    slopes = torch.stack([each.slope[1 : h + 1] for each in courses]) / scale
    norms = torch.linalg.matrix_norm(slopes, ord=2).amax(dim=0)
    roots = norms ** (1 / torch.arange(1, h + 1, dtype=torch.float64))
    tails = torch.stack([each.x[h] for each in courses])
    return MAACConstants(
        gamma=DISCOUNT,
        L_f=largest(*(torch.cat([s.A, s.B], dim=1) for s in systems)),
        L_pi=largest(world.W),
        L_r=float((-2 * x @ reward).norm(dim=1).max()),
        L_Q=max(float(Q.gradient(tails).norm(dim=1).max()) for Q in world.critics),
        K=max(1.0, float(roots.max())),
    )


def printed_c1(h: int, c: MAACConstants) -> float:
    """c1(H) as printed: prefactor L/(L − 1) on both fractions, no action in the critic's share."""
    L, gK = c.L_f * (1 + c.L_pi), c.gamma * c.K

    def fraction(x: float) -> float:
        return h if x == 1 else (x**h - 1) / (x - 1)

    return L / (L - 1) * (fraction(gK * L) - fraction(gK)) + c.L_Q * fraction(L) * gK**h


def total_variation(gap: Tensor, states: Tensor, da: int) -> tuple[float, float]:
    """Largest D_TV of N(W s, σ² I) after both steps, and α c3 = α max|s| / (2σ).

    Both means differ by α ΔW s, so that D_TV = erf(α|ΔW s| / (√8 σ)) and KL = α²|ΔW s|²/(2σ²).
    """
    moved = RATE * (states @ gap.reshape(da, -1).T).norm(dim=1).max()
    variation = torch.erf(moved / (math.sqrt(8) * SPREAD))
    return float(variation), RATE * float(states.norm(dim=1).max()) / (2 * SPREAD)


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from one row per system, reading and horizon."""
    slack = 1 + 1e-9

    def broken(reading: str, value: str, bound: str) -> int:
        rows = table[table["reading"] == reading]
        return int((rows[value] > slack * rows[bound]).sum())

    common = table[table["reading"] == READINGS[0]]
    tightness = (common["bound"] / common["error"]).groupby(common["horizon"])
    rising = common[common["horizon"] == max(HORIZONS)]["gamma_K"] > 1
    numbers: dict[str, float] = {
        "systems": table["system"].nunique(),
        "comparisons": len(common),
        "violations": broken(READINGS[0], "error", "bound"),
        "violations_printed": broken(READINGS[0], "error", "printed"),
        "violations_own_states": broken(READINGS[1], "error", "bound"),
        "violations_printed_own_states": broken(READINGS[1], "error", "printed"),
        "violations_total_variation": broken(READINGS[0], "variation", "variation_bound"),
        "critic_term_rises": float(rising.mean()),
    }
    numbers |= {f"bound_over_error_h{h}": x for h, x in tightness.median().items()}
    numbers |= {f"bound_over_error_least_h{h}": x for h, x in tightness.min().items()}
    holds = numbers["violations"] == 0 and numbers["violations_total_variation"] == 0
    n, last = f"{numbers['comparisons']:.0f}", max(HORIZONS)
    opening = "True once repaired, and very loose" if holds else "Violated even when repaired"
    sentence = (
        f"{opening}: with the corrected c1(H), {numbers['violations']:.0f} violations in {n} "
        f"comparisons on common states ({numbers['systems']:.0f} systems), "
        f"{numbers['violations_total_variation']:.0f} of the total-variation bound; bound over "
        f"error, median (least): {numbers['bound_over_error_h1']:.2g} "
        f"({numbers['bound_over_error_least_h1']:.2g}) at H = 1, "
        f"{numbers['bound_over_error_h5']:.2g} ({numbers['bound_over_error_least_h5']:.2g}) at 5, "
        f"{numbers[f'bound_over_error_h{last}']:.2g} at {last}. As printed it is violated "
        f"{numbers['violations_printed']:.0f} times. Along the model's own states, as the lemma "
        f"is stated, the corrected bound "
        f"is violated {numbers['violations_own_states']:.0f} times (the printed one "
        f"{numbers['violations_printed_own_states']:.0f}): the proof leaves out that rewards are "
        f"differentiated at other states, where an offset of the model leads unseen by ε_f. "
        f"γK > 1, so that c2(H) rises with H, in {numbers['critic_term_rises']:.0%} of the systems."
    )
    return Verdict(
        "LEMMA-A1",
        "MAAC, Lemmas A.1 and A.2",
        "200 random linear-quadratic systems, K and L measured: 0 violations",
        bool(holds),
        sentence,
        numbers,
        table,
    )


if __name__ == "__main__":
    study(measure, FOLDER)
