"""Steering on linear-quadratic worlds, where returns and the best policy are known.

    python -m analyses.steering.linear_quadratic --worlds 32

A world is a random system, a prior whose A and B are off by some per cent, and a policy at a stage
between nothing and the optimum; its critic is exact but for an error that is drawn anew at each
fit, every 25 of 200 updates. Adam begins anew at each fit and comparison. Share = (J − J_0)/(J* −
J_0) of the exact return. Arms:

    fixed n        J_n with θ in all actions throughout; "best fixed" is the best of them afterwards
    gain           at each fit the one of largest one-step gain (cosine with the true gradient)
    gain, hold     the same, but no update that lowers the return of 16 starts is kept
    rehearse       best length of the best horizon by 16 paired starts, or hold
    rehearse, no hold       the best of them in any case
    rehearse, unpaired      each candidate judged on starts of its own
    accept         back, half the step, next horizon, where 5 updates were lower on 16 starts
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.fitting.policies import riccati_gain
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import as_starts
from gradlab.measurement.rehearsal import Gradient, followed, rehearse
from gradlab.measurement.update import Update
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import costs_to_go, lqr_gradient, lqr_return

UPDATES, REFIT, COMPARED, JUDGES = 200, 25, 5, 16
HORIZONS, LENGTHS = (0, 1, 5, 25), (1, 5, 25)
GAMMA, T, BATCH = 0.95, 90, 64
STATE, ACTION = 4, 2
CELLS = {n: ("model_all", n) for n in HORIZONS}


@dataclass(frozen=True)
class World:
    """A system, its prior, the first weight W, the error of critics and the rate of Adam."""

    seed: int
    system: LinearQuadratic
    prior: LinearQuadratic
    weight: Tensor
    error: float
    update: Update

    def value(self, weight: Tensor) -> float:
        """The exact return from starts of unit covariance; −∞ where there is none."""
        try:
            return float(lqr_return(self.system, weight, torch.eye(STATE).double(), GAMMA))
        except ValueError:
            return -np.inf

    def critic(self, weight: Tensor, fit: int) -> Tensor | None:
        """Q(s, a) = −(s, a)ᵀ C (s, a) of a policy, with the error of this fit: C [6, 6]."""
        try:
            P = costs_to_go(self.system, weight, GAMMA)[-1]
        except ValueError:
            return None
        both = torch.cat([self.system.A, self.system.B], dim=1)
        exact = torch.block_diag(self.system.Q, self.system.R) + GAMMA * both.T @ P @ both
        draw = torch.randn(exact.shape, generator=stream(self.seed, "critic", fit)).double()
        return exact + self.error * exact.norm() / len(exact) * (draw + draw.T)

    def gradient(self, critic: Tensor, horizon: int, fit: int) -> Gradient:
        """∇_W of the n-step model return of a batch of fresh starts, by its second moment."""

        def ascent(policy: nn.Module, k: int) -> Tensor:
            W = next(policy.parameters()).detach().clone().requires_grad_()
            draw = stream(self.seed, "batch", 1000 * fit + k)
            states = torch.randn(BATCH, STATE, generator=draw).double()
            S, total, F = states.T @ states / BATCH, torch.zeros(()).double(), self.prior.A
            F = F + self.prior.B @ W
            cost = self.prior.Q + W.T @ self.prior.R @ W
            for t in range(horizon):
                total = total - GAMMA**t * (cost * S).sum()
                S = F @ S @ F.T
            both = torch.cat([torch.eye(STATE).double(), W])
            total = total - GAMMA**horizon * (critic * (both @ S @ both.T)).sum()
            (found,) = torch.autograd.grad(total, W)
            return found.flatten()

        return ascent


def world_of(seed: int) -> World:
    """Closed-loop radius of the system 1.02 at most, prior off by 10–60%, critics by 10–100%."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    A, B = normal(STATE, STATE), normal(STATE, ACTION) / 2
    A = A / torch.linalg.eigvals(A).abs().max() * between(0.85, 1.02)
    Q, R = torch.eye(STATE).double(), between(0.1, 1.0) * torch.eye(ACTION).double()
    none, off = torch.zeros(STATE, STATE).double(), between(0.1, 0.6)
    wrong = [X * (1 + off * normal(*X.shape)) for X in (A, B)]
    system, prior = LinearQuadratic(A, B, Q, R, none), LinearQuadratic(*wrong, Q, R, none)
    best = -riccati_gain(system, torch.zeros(STATE).double(), GAMMA)
    weight = between(0.2, 0.9) * best + 0.05 * normal(ACTION, STATE)
    rate = 0.04 * float(best.square().mean().sqrt()) * between(0.3, 1.0)
    return World(seed, system, prior, weight, between(0.1, 1.0), Update("adam", rate, REFIT))


def policy_of(weight: Tensor) -> nn.Linear:
    policy = nn.Linear(STATE, ACTION, bias=False).double()
    policy.weight.data = weight.clone()
    return policy


def setting_at(world: World, weight: Tensor, name: str, at: int) -> Setting:
    drawn = torch.randn(JUDGES, STATE, generator=stream(world.seed, name, at)).double()
    return Setting(world.system, policy_of(weight), as_starts(drawn, STATE), GAMMA, T)


def moved(
    world: World,
    weight: Tensor,
    critic: Tensor | None,
    n: int,
    at: int,
    length: int,
    share: float = 1.0,
) -> Tensor:
    """W after as many updates along J_n with a frozen critic; without one it stays."""
    if critic is None:
        return weight
    rate = share * float(world.update.rate or 0.0)
    ascent = world.gradient(critic, n, at)
    step = followed(policy_of(weight), ascent, world.update, rate, [length])[-1]
    return weight + step.reshape(weight.shape)


Arm = Callable[[World], Tensor]


def fixed(n: int) -> Arm:
    def run(world: World) -> Tensor:
        weight = world.weight
        for fit in range(UPDATES // REFIT):
            weight = moved(world, weight, world.critic(weight, fit), n, fit, REFIT)
        return weight

    return run


def by_gain(hold: bool) -> Arm:
    """The horizon whose gradient points most along the true one, at each fit."""

    def run(world: World) -> Tensor:
        weight = world.weight
        for fit in range(UPDATES // REFIT):
            critic = world.critic(weight, fit)
            if critic is None:
                break
            true = lqr_gradient(world.system, weight, torch.eye(STATE).double(), GAMMA, "all")
            cosines = [
                float(torch.cosine_similarity(
                    world.gradient(critic, n, fit)(policy_of(weight), 0), true, dim=0
                ))
                for n in HORIZONS
            ]  # fmt: skip
            best = HORIZONS[int(np.argmax(cosines))]
            after = moved(world, weight, critic, best, fit, REFIT)
            weight = _higher(world, weight, after, fit) if hold else after
        return weight

    return run


def by_rehearsal(hold: bool = True, paired: bool = True) -> Arm:
    def run(world: World) -> Tensor:
        weight = world.weight
        for fit in range(UPDATES // REFIT):
            critic = world.critic(weight, fit)
            if critic is None:
                break
            options: dict[tuple[int, int], float] = {}
            groups = [HORIZONS] if paired else [(n,) for n in HORIZONS]
            for at, group in enumerate(groups):
                setting = setting_at(world, weight, "judges", 100 * fit + at)
                candidates = {CELLS[n]: world.gradient(critic, n, fit) for n in group}
                found = rehearse(
                    setting, candidates, world.update, float(world.update.rate or 0.0),
                    setting.starts, BATCH, LENGTHS,
                )  # fmt: skip
                before = 0.0 if paired else float(found.before.mean())
                options |= {
                    (n, k): before + found.after(CELLS[n], k).value for n in group for k in LENGTHS
                }
            start = 0.0
            if not paired:
                own = setting_at(world, weight, "judges", 100 * fit + 99)
                start = float(_returns(own, own.policy).mean())
            options = {key: value for key, value in options.items() if np.isfinite(value)}
            best = max(options, key=lambda key: options[key], default=None)
            if best is not None and (not hold or options[best] > start):
                weight = moved(world, weight, critic, best[0], fit, best[1])
        return weight

    return run


def by_acceptance(world: World) -> Tensor:
    weight, share, candidate, critic = world.weight, 1.0, len(HORIZONS) - 1, None
    for at in range(UPDATES // COMPARED):
        if at % (REFIT // COMPARED) == 0:
            critic = world.critic(weight, at // (REFIT // COMPARED))
        after = moved(world, weight, critic, HORIZONS[candidate], 100 + at, COMPARED, share)
        kept = _higher(world, weight, after, at)
        if kept is weight:
            share, candidate = share / 2, (candidate + 1) % len(HORIZONS)
        else:
            weight, share = kept, min(1.3 * share, 1.0)
    return weight


def _higher(world: World, weight: Tensor, after: Tensor, at: int) -> Tensor:
    """Of two policies the one of the higher return from the same starts."""
    setting = setting_at(world, weight, "compared", at)
    change = _returns(setting, policy_of(after)) - _returns(setting, setting.policy)
    return after if float(change.mean()) > 0 else weight


def _returns(setting: Setting, policy: nn.Module) -> Tensor:
    total, state = torch.zeros(JUDGES).double(), setting.starts.states
    with torch.no_grad():
        for t in range(T):
            out = setting.simulator.step(state, policy(state))
            total, state = total + GAMMA**t * out.reward, out.state
    return total


ARMS: dict[str, Arm] = {
    **{f"fixed {n}": fixed(n) for n in HORIZONS},
    "gain": by_gain(hold=False),
    "gain, hold": by_gain(hold=True),
    "rehearse": by_rehearsal(),
    "rehearse, no hold": by_rehearsal(hold=False),
    "rehearse, unpaired": by_rehearsal(paired=False),
    "accept": by_acceptance,
}


def shares(worlds: range) -> pd.DataFrame:
    """Share of the possible improvement after 200 updates, a row per world."""
    rows = []
    for seed in worlds:
        world = world_of(seed)
        best = -riccati_gain(world.system, torch.zeros(STATE).double(), GAMMA)
        begin, top = world.value(world.weight), world.value(best)
        if not np.isfinite(begin):
            continue
        row = {
            name: max((world.value(arm(world)) - begin) / (top - begin), -10.0)
            for name, arm in ARMS.items()
        }
        rows.append(row | {"best fixed": max(row[f"fixed {n}"] for n in HORIZONS)})
        print(seed, {name: round(value, 2) for name, value in rows[-1].items()}, flush=True)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and median share (−10 at the least), below the start, against the best fixed."""
    beside = table["best fixed"].to_numpy()[:, None]
    return pd.DataFrame(
        {
            "mean": table.mean(),
            "median": table.median(),
            "below start": (table < 0).mean(),
            "better than best fixed": (table.to_numpy() > beside + 0.02).mean(axis=0),
            "worse": (table.to_numpy() < beside - 0.02).mean(axis=0),
        },
        index=table.columns,
    ).round(3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=32)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    table = shares(range(asked.first, asked.first + asked.worlds))
    print(summary(table).to_string())


if __name__ == "__main__":
    main()
