"""Is the error of a gradient through contacts bias, and does a fitted model's gradient err less?

python -m analyses.lasting.contact measure             # makes what is missing, then the tables
python -m analyses.lasting.contact measure --most 1    # one group more; 0: the tables alone
python -m analyses.lasting.contact train --arm fitted  # shac on Hopper, or goes on with it
python -m analyses.lasting.contact trained             # the arms' table

At states that a policy of SAC visits, along shared directions u of θ and on the same noise,

    p_i = ∇̂J_h(s_i) · u                          what an estimator promises
    d_i = (J_h(θ + ηu) − J_h(θ − ηu)) / 2η       what the simulator's own steps bring

J_h is h steps of the simulator and SAC's critic after them, so that the critic is on both sides; η
moves the actions by 4% of their size. The bias is the mean of p − d, the variance that of p over
64 starts. Criterion: reports/lasting/contact.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from analyses.first_order.clock import Clock, seconds_at
from analyses.first_order.runs import PATHS_OF_DMO, Arm, path_of, started
from analyses.harness.running import Row, commands, grown
from analyses.harness.verdicts import put
from analyses.lasting.__main__ import interval
from gradlab import Estimator, Tail
from gradlab.data import trajectories
from gradlab.data.noise import child, stream
from gradlab.fitting import ModelSettings, collect, fit_model
from gradlab.fitting.collection import exploring
from gradlab.gradients import gram
from gradlab.gradients.start_laws import visits
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.tail import Setting
from gradlab.gradients.weighted_terms import carried
from gradlab.runs.training.results import load
from gradlab.systems.system import Linearization, System, inner
from gradlab.tasks import Task, with_learned_prior
from gradlab.tools.board.stages import sac_stage
from gradlab.training.checkpoints import resume_file
from gradlab.truth.common_random import own_size, perturbed_rollout
from gradlab.truth.oracles import perturbed

OUTPUT, RUNS = Path("reports/lasting"), Path("runs/contact")
TASKS = ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")
STAGES = {"early": 6_250, "middle": 12_500, "late": 25_000}  # updates of SAC
SEEDS = range(5)
HORIZONS = (1, 2, 4, 8, 16, 32)
STARTS, VISITS, STEPS = 64, 4, 200
BATCH = 64  # starts of the gradient whose variance the bias is compared with
MOVE = 0.04  # of the actions' size: the length of the differences
SIGMA, DRAWS = 0.1, 4  # of a smoothed Jacobian: noise of an action, times its limit; copies
NAMES = ("simulator", "model", "smoothed", "mixed")


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A system whose Jacobians are means over actions with noise; its steps are the system's."""

    system: System
    sigma: Tensor

    state_dim = inner("state_dim")
    action_dim = inner("action_dim")
    noise_dim = inner("noise_dim")
    differentiable = inner("differentiable")
    sample_noise = inner("sample_noise")
    step = inner("step")

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        half = self.sigma * torch.randn(
            DRAWS // 2, self.action_dim, generator=stream(0, "smoothing"), dtype=torch.float64
        )
        shifts = torch.cat([half, -half]).to(action)
        several = [self.system.linearize(state, action + shift, noise) for shift in shifts]
        mean = [torch.stack([getattr(each, block) for each in several]).mean(dim=0)
                for block in ("A", "B", "r_s", "r_a")]  # fmt: skip
        return Linearization(*mean, several[0].certificate)


def deviation(task: Task) -> Tensor:
    """Of the noise of actions, [da]."""
    return SIGMA * torch.as_tensor(task.action_limit, dtype=torch.float64)


def estimators(task: Task, critic: nn.Module, model: System) -> dict[str, Estimator]:
    """θ in every action; by the simulator's, smoothed, model's Jacobians, and the model alone."""
    simulator, tail = task.simulator, Tail(max(HORIZONS), critic, task.discount)
    return {
        "simulator": Estimator(simulator, simulator, "all", tail),
        "smoothed": Estimator(simulator, Smoothed(simulator, deviation(task)), "all", tail),
        "mixed": Estimator(simulator, model, "all", tail),
        "model": Estimator(model, model, "all", tail),
    }


def group(env_id: str, stage: str, seed: int) -> Row:
    """Promised and brought, of every estimator and horizon along each one's own direction."""
    begun = time.monotonic()
    task, policy, critic = sac_stage(env_id, STAGES, stage, seed)
    exploration = [0.3] * task.simulator.action_dim
    rows = [
        collect(task, count, by, length=STEPS, seed=child(seed, f"contact rows {k}"))
        for k, (count, by) in enumerate(
            ((16_000, exploring(task, policy, exploration)), (4_000, None))
        )
    ]
    settings = ModelSettings(
        members=3, epochs=60, hidden=(256, 256), seed=child(seed, "contact model") >> 1
    )
    fitted = fit_model(trajectories.joined(rows), settings)
    model = with_learned_prior(task, fitted.ensemble).prior
    assert model is not None
    chosen = estimators(task, critic, model)
    aiming, judging = (visited(task, policy, f"contact {part}", seed) for part in ("aim", "judge"))
    cells = []
    found = {name: carried(one, policy, aiming, HORIZONS, seed, "ignore")
             for name, one in chosen.items()}  # fmt: skip
    means = {name: gram.path_mean_gradients(one.jacobian, one.costates, one.ends)
             for name, one in found.items()}  # fmt: skip
    del found
    judged = {name: carried(one, policy, judging, HORIZONS, seed, "ignore")
              for name, one in chosen.items()}  # fmt: skip
    for k, horizon in enumerate(HORIZONS):
        aims = {name: mean[k] for name, mean in means.items() if mean[k].isfinite().all()}
        units = nn.functional.normalize(torch.stack(list(aims.values())), dim=1)
        d = brought(task, policy, critic, judging, units, horizon, seed)
        for name, one in judged.items():
            moved = gram.along(one.jacobian, units).unflatten(1, (-1, len(judging.states)))
            p = torch.einsum("tna,dtna->dn", one.costates[k], moved)
            for j, along in enumerate(aims):
                cells.append(
                    {"estimator": name, "horizon": horizon, "along": along} | numbers(p[j], d[j])
                )
    return {
        "task": env_id, "stage": stage, "seed": seed, "starts": len(judging.states),
        "seconds": round(time.monotonic() - begun), "cells": cells,
    }  # fmt: skip


def visited(task: Task, policy: nn.Module, name: str, seed: int) -> Starts:
    """States of the policy's first 200 steps, before an episode's end, of equal weight."""
    drawn = as_starts(task.starts(STARTS, stream(seed, name)).double(), task.simulator.state_dim)
    noise = child(seed, name)
    setting = Setting(task.simulator, policy, drawn, task.discount, STEPS, "mask", noise)
    seen = visits(setting, VISITS)
    return as_starts(seen.states[seen.weight != 0], task.simulator.state_dim)


def brought(
    task: Task,
    policy: nn.Module,
    critic: nn.Module,
    starts: Starts,
    units: Tensor,
    horizon: int,
    seed: int,
) -> Tensor:
    """Central differences of J_h along unit directions [D, P], per start, [D, N]."""
    setting = Setting(task.simulator, policy, starts, task.discount, horizon, "ignore", seed)
    noise = starts.policy_noise(policy, seed, 0)
    steps = [MOVE * own_size(policy, starts.states, noise, unit[None]) for unit in units]
    moved = [perturbed(policy, sign * step * unit)
             for unit, step in zip(units, steps, strict=True) for sign in (1, -1)]  # fmt: skip
    end = perturbed_rollout(setting, moved, "all", lambda *_: None, "contact")
    with torch.no_grad():
        value = critic(end.state, end.action).reshape(-1)
    total = end.rewards.sum(dim=0) + task.discount**horizon * value
    up, down = total.reshape(len(units), 2, -1).unbind(dim=1)
    return (up - down) / (2 * torch.tensor(steps, dtype=up.dtype)[:, None])


def numbers(p: Tensor, d: Tensor) -> dict[str, float]:
    """Means, the bias with its standard error, and the standard deviation of p over starts."""
    error = p - d
    values = {
        "promised": p.mean(), "brought": d.mean(), "bias": error.mean(),
        "bias_se": error.std() / len(error) ** 0.5, "sd": p.std(), "sd_brought": d.std(),
    }  # fmt: skip
    return {name: float(f"{float(value):.5g}") for name, value in values.items()}


def errors(rows: list[Row]) -> pd.DataFrame:
    """One row of each group, horizon and estimator: bias², variance of a batch, what its own
    direction brings as a share of the best direction's."""
    cells = pd.DataFrame(
        [{**cell, **{name: row[name] for name in ("task", "stage", "seed", "starts")}}
         for row in rows for cell in row["cells"]]
    )  # fmt: skip
    cells["bias2"] = cells["bias"] ** 2 - cells["bias_se"] ** 2
    cells["variance"] = cells["sd"] ** 2 / BATCH
    group = ["task", "stage", "seed", "horizon"]
    table = cells.groupby([*group, "estimator"])[["bias2", "variance"]].mean()
    own = cells[cells["estimator"] == cells["along"]].set_index([*group, "estimator"])["brought"]
    table["gain"] = own / own.groupby(group).transform("max").where(lambda best: best > 0)
    table["more bias"] = (table["bias2"] - table["variance"]) / (
        table["bias2"].abs() + table["variance"]
    )
    mse = table["bias2"].clip(lower=0) + table["variance"]
    of_simulator = mse.where(mse.index.get_level_values("estimator") == "simulator")
    table["log ratio"] = np.log(mse / of_simulator.groupby(group).transform("max"))
    return table.reset_index()


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Of every task, horizon and estimator: more bias than variance? error over the simulator's;
    share of the best direction."""
    rows = []
    for (task, horizon, name), part in table.groupby(["task", "horizon", "estimator"], sort=False):
        made: dict[str, object] = {"task": task, "horizon": horizon, "estimator": name}
        for column in ("more bias", "log ratio", "gain"):
            mean, low, high = interval(part[column].to_numpy(float), list(part["seed"]))
            made |= {column: mean, f"{column} low": low, f"{column} high": high}
        rows.append(made)
    return pd.DataFrame(rows)


def outcome(low: float, high: float, bound: float, below: str, above: str) -> str:
    """Where a whole interval lies."""
    return below if high < bound else above if low > bound else "undecided"


def written(found: pd.DataFrame, groups: int, page: Path) -> None:
    """The table of the page."""
    lines = [
        "| task | h | more bias or variance | model | smoothed | mixed | brings most |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = {
        (row["task"], row["horizon"], row["estimator"]): row for row in found.to_dict("records")
    }
    for task, horizon in dict.fromkeys((task, horizon) for task, horizon, _ in rows):
        part = {name: rows[task, horizon, name] for name in NAMES}
        of = part["simulator"]
        kind = outcome(of["more bias low"], of["more bias high"], 0, "variance", "bias")
        best = max(NAMES, key=lambda name: part[name]["gain"])
        cells = [
            task, str(horizon), f"{kind}: {_shown(of, 'more bias')}",
            *(_shown(part[name], "log ratio", np.exp) for name in NAMES[1:]),
            f"{best} {part[best]['gain']:.2f}, simulator {of['gain']:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    text = f"{groups} of {len(TASKS) * len(STAGES) * len(SEEDS)} groups.\n\n" + "\n".join(lines)
    put(page, "contact", text)


def _shown(row: Mapping[Any, Any], name: str, scale: Callable[[float], float] = float) -> str:
    mean, low, high = (scale(row[key]) for key in (name, f"{name} low", f"{name} high"))
    return f"{mean:.2g} [{low:.2g}, {high:.2g}]" if np.isfinite(low) else f"{mean:.2g} (one seed)"


def measure(most: int | None = None, output: Path = OUTPUT) -> None:
    """Make the groups that are missing, at most so many; then the table."""
    every = [(task, stage, seed) for seed in SEEDS for task in TASKS for stage in STAGES]

    def said(row: Row) -> str:
        table = errors([row]).query("estimator == 'simulator'")
        shares = zip(table["horizon"], table["more bias"], strict=True)
        return ", ".join(f"h {h}: {share:+.2f}" for h, share in shares)

    rows = grown(output / "contact.jsonl", every, ("task", "stage", "seed"), group, said, most)
    if rows:
        found = summary(errors(rows))
        written(found, len(rows), output / "contact.md")
        print(found.to_string(index=False))


@dataclass(frozen=True)
class SmoothedArm(Arm):
    """shac whose simulator has smoothed Jacobians."""

    @property
    def name(self) -> str:
        return f"smoothed-{super().name}"

    def task(self) -> Task:
        plain = super().task()
        return replace(plain, simulator=Smoothed(plain.simulator, deviation(plain)))


ARMS = {
    "true": Arm("shac", "hopper", PATHS_OF_DMO),
    "fitted": Arm("dmo", "hopper", PATHS_OF_DMO),
    "smoothed": SmoothedArm("shac", "hopper", PATHS_OF_DMO),
}


def train(arm: Literal["true", "fitted", "smoothed"], folder: Path = RUNS) -> None:
    """600 updates of five seeds on Hopper, unmeasured; goes on where it stopped."""
    path = path_of(ARMS[arm], folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    clock = Clock(path.with_suffix(".seconds.csv"), resume_file(path).exists())
    with suppress(KeyboardInterrupt):
        started(ARMS[arm], path, clock, gradient_every=0)


def trained(folder: Path = RUNS, output: Path = OUTPUT) -> None:
    """Returns at the last update and at the seconds that the quickest arm had, by pairs of seeds
    against the true Jacobians."""
    runs = {name: load(path_of(arm, folder)) for name, arm in ARMS.items()}
    took = {
        name: seconds_at(path_of(arm, folder).with_suffix(".seconds.csv"), runs[name].iteration,
                         arm.evaluate_every)
        for name, arm in ARMS.items()
    }  # fmt: skip
    least = min(seconds[-1] for seconds in took.values())
    lines = [
        "| Jacobians | processor seconds | return at the end | less true | at equal seconds "
        "| less true |",
        "|---|---|---|---|---|---|",
    ]
    ends = {name: run.returns[-1] for name, run in runs.items()}
    equal = {name: runs[name].returns[np.searchsorted(took[name], least, "right") - 1]
             for name in runs}  # fmt: skip
    for name in runs:
        cells = [f"{took[name][-1]:,.0f}"]
        for values in (ends, equal):
            less = stats.bootstrap(
                (values[name] - values["true"],), np.mean, rng=np.random.default_rng(0)
            ).confidence_interval if name != "true" else None  # fmt: skip
            cells += [
                f"{values[name].mean():,.0f} ({', '.join(f'{v:,.0f}' for v in values[name])})",
                "" if less is None else f"{(values[name] - values['true']).mean():+,.0f} "
                f"[{less.low:+,.0f}, {less.high:+,.0f}]",
            ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    put(output / "contact.md", "trained", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    commands(measure=measure, train=train, trained=trained)
