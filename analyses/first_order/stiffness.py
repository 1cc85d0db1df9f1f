"""AHAC-THRESHOLD: is there a stiffness above which a path should be cut?

    claim       first-order gradients of contact tasks err by stiff contacts: with paths cut where
                ‖∂s′/∂s‖ exceeds a threshold C, and valued there by the critic, they err less
    paper       Georgiev et al. 2024 (AHAC), sections 3 and 4
    criterion   stated before any run. On each of three contact tasks some C of THRESHOLDS has a
                ratio MSE(C) / MSE(∞) whose interval, at 95% for all six together (Bonferroni),
                lies below 1

    python -m analyses.first_order.stiffness train     one ahac of 40 updates for each task
    python -m analyses.first_order.stiffness judge

Five seeds of `ahac` are trained for each task, paths of 16 steps in windows of 32, 16 environments.
Then each seed's own gradient is measured at its newest paths, for every C on the same starts, noise
and Jacobians, against a truth by score functions with θ in the same 16 actions. A cut at a stiff
step t puts ∂V′/∂s at s_{t+1} in the place of the adjoint from beyond; the actions after it keep θ,
so that the truth is the same for all C. MSE is that of an update, summed over seeds.

AHAC itself adapts one horizon to a window's mean stiffness: while the policy is held its dual
drives that horizon to the shortest or to the longest, by C alone. That mean, and the share of steps
that each C cuts, stand beside.

PRICE, processor minutes: Hopper 3, Walker2d 6, HalfCheetah 5, of which measuring takes 1 each.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

import gradlab
from analyses.first_order.runs import OUTPUT, RUNS
from analyses.harness.contrast_parts import in_words, met, numbers_of
from analyses.harness.running import commands
from analyses.harness.verdicts import Verdict, save
from gradlab import tasks
from gradlab.data.noise import child
from gradlab.data.replay import Batch
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.runs.training.results import load
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import Estimate
from gradlab.tasks import Task
from gradlab.training import checkpoints
from gradlab.training.algorithm import Algorithm
from gradlab.training.algorithms import find
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner, alone
from gradlab.training.loop import describe, train
from gradlab.training.measured import gradient_errors, row_gradients
from gradlab.training.measured.row_errors import moments_of
from gradlab.training.measured.row_gradients import StartGradients, start_gradients
from gradlab.training.members import unstacked
from gradlab.training.models.seed_models import simulator_slopes
from gradlab.training.parts.context import Passes
from gradlab.training.parts.sources import Newest
from gradlab.training.settings import Settings
from gradlab.training.state import Run, begin
from gradlab.truth.score_actions import score_truth

World = Literal["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"]
WORLDS: tuple[World, ...] = ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")
THRESHOLDS = (1.5, 2.5, 5.0, 10.0, 20.0, 50.0, inf)
HORIZON, WINDOW = 16, 32
LEVEL = 0.05  # of all looks together


@dataclass(frozen=True)
class Scale:
    """Of a run."""

    seeds: int = 5
    agents: int = 16
    updates: int = 40


def row() -> Algorithm:
    ahac = find("ahac")
    return replace(
        ahac, hidden=(64, 64), fit=Passes(4, 4), source=Newest(WINDOW),
        terms=(replace(ahac.terms[0], horizon=HORIZON),),
    )  # fmt: skip


def task_of(world: World) -> Task:
    plain = tasks.mujoco(world)
    return replace(plain, simulator=gradlab.differentiable(plain))


def settings(scale: Scale) -> Settings:
    n = scale.updates
    return Settings(
        seeds=scale.seeds, iterations=n, agents=scale.agents, interval=1, warmup=1, episode=1000,
        evaluate_every=n, evaluation_starts=10, log_every=max(n // 10, 1),
        checkpoint_every=max(n // 4, 1), keep=(), gradient_every=0,
    )  # fmt: skip


def path_of(world: World, folder: Path) -> Path:
    return folder / f"stiffness-{world}.h5"


def trained(world: World, folder: Path, scale: Scale) -> None:
    path = path_of(world, folder)
    if path.exists() and int(load(path).iteration[-1]) == scale.updates:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    resume = checkpoints.resume_file(path).exists()
    train(row(), task_of(world), path, settings(scale), resume=resume)


def restored(world: World, folder: Path, scale: Scale) -> Run:
    """The trained run as it was saved at its end."""
    task, path = task_of(world), path_of(world, folder)
    chosen = settings(scale)
    own = replace(row(), batch=row().rows(chosen.agents))
    run = begin(own, task, chosen)
    config = describe(own, task, chosen) | gradient_errors.described(own, chosen)
    checkpoints.load(path, run, config)
    return run


def measured(world: World, folder: Path, scale: Scale) -> pd.DataFrame:
    """One row for each C: the ratio of its MSE to that of ∞, and what it cuts."""
    run = restored(world, folder, scale)
    batches = row_gradients.batches(run)
    like = torch.zeros((), dtype=torch.float64)
    errors: dict[float, list[Estimate]] = {C: [] for C in THRESHOLDS}
    stiffness: list[Tensor] = []
    for seed in np.flatnonzero(run.learner.finite()):
        single = alone(run.learner, int(seed), precision="float64", device="cpu")
        batch, count = row_gradients.rows_of(run, int(seed), batches, like)
        if count < row_gradients.FEWEST:
            continue
        stiff, at = gradients(run, single, batch)
        stiffness.append(stiff)
        T = truth(run, single, at[inf].states)
        if T is None:
            continue
        for C, G in at.items():
            numbers = moments_of(G.gradients.numpy(), T.numpy(), run.algorithm.batch // HORIZON)
            errors[C].append(numbers["mse"])
    return pd.DataFrame(_rows(world, errors, torch.cat(stiffness)))


def gradients(
    run: Run, single: Learner, batch: Batch
) -> tuple[Tensor, dict[float, StartGradients]]:
    """‖∂s′/∂s‖ of every step, and the gradients of all starts at each C."""
    slopes = simulator_slopes(run.task.simulator, batch)
    ds = batch.state.shape[2]
    stiff = torch.linalg.matrix_norm(slopes[..., :ds, :ds], 2)
    draws = Draws(single.seeds, single.dtype, single.device, row_gradients.USE, block=1)
    after = batch.next_state.detach().clone().requires_grad_()
    value = single.context(run.iteration, draws).target_value(after)
    (slope,) = torch.autograd.grad(value.sum(), after)
    going_on = 1 - batch.terminated if single.objective.masked else torch.ones_like(batch.reward)
    beyond = single.objective.discount * going_on[..., None] * slope
    term = run.algorithm.terms[0]
    return stiff[0], {
        C: start_gradients(
            single, replace(batch, slopes=cut(slopes, beyond, stiff > C)), term, None, draws,
            run.iteration,
        )
        for C in THRESHOLDS
    }  # fmt: skip


def cut(slopes: Tensor, beyond: Tensor, where: Tensor) -> Tensor:
    """Slopes with γ V′(s′) as a part of the reward, and s′ held, where bool [E, N].

    Args:
        slopes: ∂(s′, r)/∂(s, a), [E, N, ds + 1, ds + da]; beyond: γ ∂V′/∂s′, [E, N, ds].
    """
    after, reward = slopes[..., :-1, :], slopes[..., -1, :]
    valued = reward + torch.einsum("eni,enij->enj", beyond, after)
    held = torch.cat([torch.zeros_like(after), valued[..., None, :]], dim=2)
    return torch.where(where[..., None, None], held, slopes)


def truth(run: Run, single: Learner, states: Tensor) -> Tensor | None:
    """With θ in the first `HORIZON` actions, [N, P]."""
    simulator = run.task.simulator
    policy = unstacked(single.policy, 0, copy.deepcopy(single.policy_module).double())
    setting = Setting(
        simulator, policy, as_starts(states, simulator.state_dim), run.task.discount,
        run.task.horizon, run.settings.termination, child(single.seeds[0], row_gradients.USE),
    )  # fmt: skip
    return score_truth(setting, (HORIZON,)).gradients(HORIZON)


def _rows(
    world: World, errors: Mapping[float, Sequence[Estimate]], stiffness: Tensor
) -> Iterator[dict[str, object]]:
    whole = total(errors[inf])
    for C in THRESHOLDS[:-1]:
        row: dict[str, object] = {
            "label": f"MSE(C = {C:g}) / MSE(∞), {world}", "world": world, "C": C,
            "cut": float((stiffness > C).double().mean()), "stiffness": float(stiffness.mean()),
            "median": float(stiffness.median()), "seeds": len(errors[C]),
            "least": np.nan, "most": np.nan,
        }  # fmt: skip
        yield row | ratio_of(total(errors[C]), whole, len(THRESHOLDS) - 1)


def total(parts: Sequence[Estimate]) -> Estimate:
    """Sum of estimates from samples of their own; NaN of none."""
    value = float(sum(part.value for part in parts)) if parts else np.nan
    left_out = [value - part.value + part.left_out for part in parts]
    return Estimate(value, np.concatenate(left_out) if parts else np.array([np.nan]))


def ratio_of(first: Estimate, second: Estimate, looks: int) -> dict[str, float]:
    """first / second on the same starts, with log ± z of the jackknife, z at 1 − 0.05 / 2·looks
    (Bonferroni); without ends where one is not known to be above 0."""
    value = first.value / second.value
    positive = all(one.value > 0 and bool((one.left_out > 0).all()) for one in (first, second))
    if not positive:
        return {"value": value, "low": np.nan, "high": np.nan}
    se = jackknife_se(np.log(first.left_out) - np.log(second.left_out))
    reach = float(stats.norm.ppf(1 - LEVEL / (2 * looks))) * se
    return {"value": value, "low": value * np.exp(-reach), "high": value * np.exp(reach)}


def judged(tables: Sequence[pd.DataFrame]) -> Verdict:
    """Of each task, the C whose interval ends lowest decides."""
    rows = pd.concat(tables, ignore_index=True)
    for _, own in rows.groupby("world"):
        rows.loc[own["high"].fillna(inf).idxmin(), "most"] = 1.0
    words = [in_words(one) for one in rows.to_dict("records") if np.isfinite(one["most"])]
    steps = [
        f"mean stiffness on {world} {own['stiffness'].iloc[0]:.3g}, median "
        f"{own['median'].iloc[0]:.3g}, C = 10 cuts {own['cut'][own['C'] == 10.0].iloc[0]:.0%}"
        for world, own in rows.groupby("world", sort=False)
    ]
    return Verdict(
        "AHAC-THRESHOLD", "AHAC, sections 3 and 4",
        "on each of three contact tasks some C of 1.5 to 50 has MSE(C) / MSE(∞) below 1, all C by "
        "Bonferroni",
        met(rows),
        f"Best C: {'; '.join(words)}. {'; '.join(steps)}.",
        numbers_of(rows), rows,
    )  # fmt: skip


def training(
    worlds: tuple[World, ...] = WORLDS, scale: Scale = Scale(), folder: Path = RUNS
) -> None:
    """Train what is missing; goes on where it stopped."""
    torch.set_num_threads(1)
    for world in worlds:
        trained(world, folder, scale)


def judge(
    worlds: tuple[World, ...] = WORLDS, scale: Scale = Scale(), folder: Path = RUNS,
    output: Path = OUTPUT,
) -> None:  # fmt: skip
    """Measure all C at the trained networks, and write the verdict."""
    torch.set_num_threads(1)
    tables = [measured(world, folder, scale) for world in worlds]
    save(judged(tables), output, "python -m analyses.first_order.stiffness judge")


if __name__ == "__main__":
    commands(train=training, judge=judge)
