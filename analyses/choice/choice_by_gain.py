"""CHOICE-BY-GAIN: do steps along what gain chooses raise the return more than along MSE's choice?

    claim       among the gradients of one measurement, the one of largest gain (and the mixture of
                largest gain of one batch) gives the larger return after one step of a given length
    criterion   realised ΔJ / ΔJ(best step), chosen by gain − chosen by MSE, over random worlds:
                its 95% interval is above 0, for single gradients and for mixtures
    stated      before these worlds were run (20 others were tried while the script was written);
                plain steps of a common rate, which MSE is made for, are told without a criterion

    python -m analyses.choice.choice_by_gain [--worlds 120] [--small]

Linear-quadratic worlds in which everything but the choice is exact: s' = A s + B a + w, a = W s,
r = −(sᵀQs + aᵀRa), a wrong model (A', B') and a wrong quadratic critic. With P_0 that of the critic
and P_m = Q + WᵀRW + γ (A' + B'W)ᵀ P_{m−1} (A' + B'W), the gradient of the n-step return is

    G_n s sᵀ,     G_n = −2 (R W + γ B'ᵀ P_{n−1} (A' + B'W)),     n ≥ 1

and the truth has A, B and the P of the policy. `choose` sees N visited states; a step is judged by
J(W) = −tr P E s₀s₀ᵀ − γ/(1 − γ) tr P E wwᵀ, in closed form, before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov

from analyses.coverage.synthetic import explicit_grams, moments
from analyses.harness.verdicts import Verdict, save
from gradlab import choose
from gradlab.measurement.assembly import assembled
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import GroupProducts, Kernels
from gradlab.statistics.intervals import skewness_corrected
from gradlab.statistics.moments import Array, Estimate

DS, DA, GAMMA, NOISE = 3, 2, 0.95, 0.1
HORIZONS = (1, 2, 3, 5, 8, 12)
STARTS, VISITS, BATCH, BATCHES = 128, 8, 256, 64
LENGTH = 0.02  # of a step, in units of |W|
STABLE = 0.95  # largest closed-loop radius, discounted
CRITERIA = ("gain", "mse", "direction")
Cell = tuple[str, int]


@dataclass(frozen=True)
class World:
    """One system, its wrong model and critic, and a policy that is not the best one."""

    A: Array
    B: Array
    R: Array
    model_A: Array
    model_B: Array
    H: Array  # of the critic: Q = −(s, a)ᵀ H (s, a)
    W: Array

    def closed(self, W: Array) -> Array:
        return np.asarray(self.A + self.B @ W)

    def value(self, W: Array) -> Array:
        """P of the policy; the loop has to be stable when discounted."""
        return np.asarray(
            solve_discrete_lyapunov(GAMMA**0.5 * self.closed(W).T, np.eye(DS) + W.T @ self.R @ W)
        )

    def returns(self, W: Array) -> float:
        P = self.value(W)
        return -float(np.trace(P) * (1 + GAMMA / (1 - GAMMA) * NOISE**2))

    def gradients(self) -> dict[Cell, Array]:
        """G of each gradient, [da, ds]."""
        loop, W = self.model_A + self.model_B @ self.W, self.W
        H_as, H_aa = self.H[DS:, :DS], self.H[DS:, DS:]
        both = np.concatenate([np.eye(DS), W])
        P, found = both.T @ self.H @ both, {("data", 0): -2 * (H_as + H_aa @ W)}
        for n in range(1, max(HORIZONS) + 1):
            if n in HORIZONS:
                found["model", n] = -2 * (self.R @ W + GAMMA * self.model_B.T @ P @ loop)
            P = np.eye(DS) + W.T @ self.R @ W + GAMMA * loop.T @ P @ loop
        return found

    def truth(self) -> Array:
        P, loop = self.value(self.W), self.closed(self.W)
        return np.asarray(-2 * (self.R @ self.W + GAMMA * self.B.T @ P @ loop))

    def visited(self, rng: np.random.Generator, starts: int) -> Array:
        """States of the discounted visitation, `VISITS` per start as `measure` has them: their
        times are spread over the quantiles of a start, [starts · VISITS, ds]."""
        quantile = (np.arange(VISITS) + rng.uniform(size=(starts, 1))) / VISITS
        when = np.floor(np.log1p(-quantile) / np.log(GAMMA)).astype(int)
        s, loop = rng.normal(size=(starts, DS)), self.closed(self.W)
        found = np.zeros((starts, VISITS, DS))
        for t in range(int(when.max()) + 1):
            found[when == t] = np.repeat(s[:, None], VISITS, axis=1)[when == t]
            s = s @ loop.T + NOISE * rng.normal(size=(starts, DS))
        return found.reshape(-1, DS)

    def covariance(self) -> Array:
        """E s sᵀ of the visitation, exactly."""
        added = (1 - GAMMA) * np.eye(DS) + GAMMA * NOISE**2 * np.eye(DS)
        return np.asarray(solve_discrete_lyapunov(GAMMA**0.5 * self.closed(self.W), added))


def world(rng: np.random.Generator) -> World:
    while True:
        A = rng.normal(size=(DS, DS))
        A *= rng.uniform(0.8, 1.1) / np.abs(np.linalg.eigvals(A)).max()
        B, R = rng.normal(size=(DS, DA)), rng.uniform(0.1, 1.0) * np.eye(DA)
        P = solve_discrete_are(GAMMA**0.5 * A, GAMMA**0.5 * B, np.eye(DS), R)
        best = -np.linalg.solve(R + GAMMA * B.T @ P @ B, GAMMA * B.T @ P @ A)
        W = best + rng.uniform(0.1, 0.6) * np.linalg.norm(best) / DS * rng.normal(size=best.shape)
        if GAMMA**0.5 * np.abs(np.linalg.eigvals(A + B @ W)).max() < STABLE:
            break
    wrong, critic = np.exp(rng.uniform(np.log([0.03, 0.05]), np.log([0.5, 1.5])))
    found = World(A, B, R, A, B, np.eye(DS + DA), W)
    P, both = found.value(W), np.concatenate([A, B], axis=1)
    exact = GAMMA * both.T @ P @ both
    exact[:DS, :DS] += np.eye(DS)
    exact[DS:, DS:] += R
    error = rng.normal(size=exact.shape)
    scale = np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)))
    return replace(
        found,
        model_A=A + wrong * rng.normal(size=A.shape),
        model_B=B + wrong * rng.normal(size=B.shape),
        H=exact + critic * scale * (error + error.T) / 2,
    )


def measured(
    one: World,
    rng: np.random.Generator,
    starts: int,
    batch: int,
    gradients: Mapping[Cell, Array] | None = None,
) -> Profile:
    """What `measure` would keep of explicit gradients at visited states.

    Args:
        gradients: G of each; None: those of the world.
    """
    s, group = one.visited(rng, starts), np.repeat(np.arange(starts), VISITS)
    samples = {cell: _samples(G, s) for cell, G in (gradients or one.gradients()).items()}
    truth = _samples(one.truth(), s)
    config = {
        "task": "planted", "starts": starts, "batch": batch, "discount": GAMMA, "horizon": 0,
        "truth": "objective", "actions": {},
    }  # fmt: skip
    facts = {
        "kind": "objective", "admissible": True, "status": "converged", "lyapunov": -0.1,
        "reason": "planted",
    }  # fmt: skip
    cells = {cell: moments(G, truth, group) for cell, G in samples.items()}
    found = assembled(cells, max(HORIZONS), batch, config, {}, facts)
    grams = explicit_grams(np.stack([*samples.values(), truth], axis=1), group)
    products = GroupProducts(grams.size, grams.own, grams.within, grams.total, grams.fold)
    return replace(found, kernels=(Kernels("objective", tuple(samples), True, products),))


def _samples(G: Array, s: Array) -> Array:
    return np.einsum("ij,nj,nk->nik", G, s, s).reshape(len(s), -1)


def gained(one: World, direction: Array, length: float) -> float:
    """ΔJ of a step; −∞ where the loop is no longer stable."""
    W = one.W + length * direction.reshape(one.W.shape)
    if GAMMA**0.5 * np.abs(np.linalg.eigvals(one.closed(W))).max() >= 1:
        return -np.inf
    return one.returns(W) - one.returns(one.W)


def rate(one: World, truth: Array) -> float:
    """That of exact line search along the truth, on a grid of ratio 1.2."""
    grid = 1e-5 * 1.2 ** np.arange(80)
    return float(grid[np.argmax([gained(one, truth, each) for each in grid])])


def trial(seed: int, starts: int, batch: int) -> list[dict[str, object]]:
    """Realised shares of one world: a row per criterion and what was chosen."""
    rng = np.random.default_rng([2027, seed])
    one = world(rng)
    chosen = choose(measured(one, rng, starts, batch))
    S, unseen = one.covariance(), rng.permutation(one.visited(rng, BATCHES * batch // VISITS))
    means = {cell: (G @ S).ravel() for cell, G in one.gradients().items()}
    batches = {
        cell: _samples(G, unseen).reshape(BATCHES, batch, -1).mean(axis=1)
        for cell, G in one.gradients().items()
    }
    truth, length = (one.truth() @ S).ravel(), LENGTH * float(np.linalg.norm(one.W))
    best, step = gained(one, unit(truth), length), rate(one, truth)
    plain = gained(one, truth, step)
    assert chosen.several is not None
    weights = {"mse": chosen.several.mse, "direction": chosen.several.direction}
    picks: list[tuple[str, str, Mapping[Cell, float]]] = []
    for name in CRITERIA:
        found = getattr(chosen, name)
        picks.append((name, "single", {found.cell: 1.0}))
    if chosen.several.gain is not None:
        weights["gain"] = chosen.several.gain
    for name, each in weights.items():
        shares = dict(zip(chosen.several.cells, map(float, each.share), strict=True))
        picks.append((name, "mixture", shares))
    rows: list[dict[str, object]] = []
    for name, what, shares in picks:
        mean = _mixed(shares, means)
        each_batch = _mixed(shares, batches)
        rows.append(
            {
                "world": seed, "criterion": name, "chosen": what,
                "cells": " ".join(f"{e}:{h}" for (e, h), w in shares.items() if w > 0.05),
                "same length": gained(one, unit(mean), length) / best,
                "one batch": float(
                    np.mean([gained(one, unit(g), length) for g in each_batch]) / best
                ),
                "line search": gained(one, mean, step) / plain,
                "tenth of it": gained(one, mean, step / 10) / gained(one, truth, step / 10),
            }
        )  # fmt: skip
    return rows


def _mixed(shares: Mapping[Cell, float], gradients: Mapping[Cell, Array]) -> Array:
    return np.asarray(sum(w * gradients[cell] for cell, w in shares.items()))


def unit(direction: Array) -> Array:
    size = float(np.linalg.norm(direction))
    return direction / size if size > 0 else direction


STEPS = ("same length", "one batch", "line search", "tenth of it")


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Paired differences to MSE's choice over worlds, per criterion and kind of step."""
    rows = []
    for what in ("single", "mixture"):
        part = table[table["chosen"] == what]
        for step in STEPS:
            wide = part.pivot(index="world", columns="criterion", values=step)
            wide = wide.clip(lower=-1.0)  # a step that makes the loop unstable counts as −100%
            for name in ("gain", "direction"):
                gap = (wide[name] - wide["mse"]).to_numpy()
                left_out = (gap.sum() - gap) / (len(gap) - 1)
                low, high = skewness_corrected(Estimate(float(gap.mean()), left_out))
                rows.append(
                    {
                        "chosen": what, "step": step, "criterion": name,
                        "share": wide[name].mean(), "share by mse": wide["mse"].mean(),
                        "difference": gap.mean(), "low": low, "high": high,
                        "better": int((gap > 1e-9).sum()), "worse": int((gap < -1e-9).sum()),
                        "harms": float((wide[name] < 0).mean()),
                        "mse harms": float((wide["mse"] < 0).mean()), "worlds": len(gap),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def judge(table: pd.DataFrame) -> Verdict:
    found = compared(table)

    def row(what: str, step: str, name: str) -> pd.Series:
        mask = (found["chosen"] == what) & (found["step"] == step) & (found["criterion"] == name)
        return found[mask].iloc[0]

    main = [row("single", "same length", "gain"), row("mixture", "one batch", "gain")]
    holds = all(each["low"] > 0 for each in main)
    told = "; ".join(
        f"{each['chosen']}, {each['step']}: {each['share']:.0%} of the best gain by "
        f"{each['criterion']}, {each['share by mse']:.0%} by MSE, difference "
        f"{each['difference']:+.3f} [{each['low']:.3f}, {each['high']:.3f}], better in "
        f"{each['better']} and worse in {each['worse']} of {each['worlds']} worlds, lowers the "
        f"return in {each['harms']:.0%} (MSE {each['mse harms']:.0%})"
        for each in (
            *main,
            row("single", "line search", "gain"),
            row("single", "tenth of it", "gain"),
        )
    )
    return Verdict(
        claim="CHOICE-BY-GAIN",
        paper="–",
        criterion="realised share of the best gain of one step of a given length, by gain − by "
        "MSE: 95% interval over worlds above 0, for single gradients and for mixtures",
        holds=holds,
        sentence=f"{'Holds' if holds else 'Not shown'}: {told}.",
        numbers={
            f"{each['chosen']}, {each['step']}, {each['criterion']}: {name}": float(each[name])
            for _, each in found.iterrows()
            for name in ("difference", "low", "high")
        },
        table=found,
    )


def main(
    worlds: int = 120,
    starts: int = STARTS,
    batch: int = BATCH,
    small: bool = False,
    output: Path = Path("reports/choice/by-gain"),
) -> None:
    """Random worlds, one choice by each criterion, one step along each choice."""
    rows = [row for seed in range(4 if small else worlds) for row in trial(seed, starts, batch)]
    table = pd.DataFrame(rows)
    save(judge(table), output, "python -m analyses.choice.choice_by_gain")
    table.to_csv(output / "worlds.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    tyro.cli(main)
