"""STALENESS: up to which lag is a gradient still worth following?

g(θ_{t−k})   what a learner sends that was given the networks k steps of the policy before:
             MPG's mixture at those networks, policy and critics, at replayed states
∇(θ_t)       the true gradient with θ in the first action, at the policy that the step changes,
             at the same states: the simulator unrolled until the return has converged

criterion    stated before any run. A lag is usable in a world where the 95% interval over seeds
             of cos(g(θ_{t−k}), ∇) / cos(g(θ_t), ∇) lies above 0.95, and so it does at every
             shorter lag; it is lost where the interval lies below. Cosines are debiased, and
             paired: same starts, same noise. The verdict is the shortest of the six worlds.
premise      cos(g(θ_t), ∇) is known to be above 0.1 in a world, else it decides nothing
worlds       mpg-v2 on path_tracking and inverted_pendulum (analytic), five seeds of 10,000
             iterations, at 5%, 25% and 100% of them; 256 states of each seed's replay
beside       cos(g(θ_{t−k}), g(θ_t)), and the squared bias over that without lag: added after most
             places were seen to have no truth, or one too imprecise for a cosine
price        training 25 + 20 processor minutes, truths and gradients 30, predicted from 8 and
             6 ms an update and seed, and from a minute for each of 30 places

python -m analyses.staleness record     consecutive networks before each stage, into runs/scale
python -m analyses.staleness judge      into reports/scale: the verdict, staleness-lags.csv (lag →
                                        cosine, squared bias), staleness-seeds.csv (every place)

Both go on after an interruption: a task whose last stage is recorded and a place (a seed at a
stage) that is measured are not done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn

from analyses.contrast_parts import asked_of
from analyses.mpg_table_1 import task_of
from analyses.student import geometric_mean, half_width
from analyses.verdicts import Verdict, save
from gradlab.data.noise import stream
from gradlab.figures.style import BLUE, GRID, INK, MUTED, VERMILION, Look
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.measurement.shared_truth import shared_truth
from gradlab.networks import checkpoint
from gradlab.statistics.comparison import ratio_interval
from gradlab.statistics.intervals import interval
from gradlab.tasks import Task
from gradlab.training.algorithms import ALGORITHMS
from gradlab.training.configuration import scheduled, settings_of
from gradlab.training.measured.row_errors import moments_of
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import Settings
from gradlab.training.state import Run, begin

ROW = ALGORITHMS["mpg-v2"]
TASKS = ("path_tracking", "inverted_pendulum")
STAGES = (0.05, 0.25, 1.0)
SHOWN = (1, 2, 8)
LAGS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
KEEPS, LEAST = 0.95, 0.1
BATCH = 256
LOOKS = (
    Look("early", BLUE, "-", "o"),
    Look("middle", VERMILION, (0, (5, 1.6)), "s"),
    Look("late", INK, (0, (1.2, 1.4)), "^"),
)
QUANTITIES = {
    "cosine": "cosine",
    "ratio": "ratio",
    "bias2": "squared bias",
    "grown": "squared bias over that without lag",
    "turned": "cosine with the fresh gradient",
}
COLUMNS = ["label", "value", "low", "high", "least", "most"]
Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    iterations: int = 10_000
    seeds: int = 5
    starts: int = 256
    lags: tuple[int, ...] = LAGS

    @property
    def stages(self) -> tuple[int, ...]:
        return tuple(round(share * self.iterations) for share in STAGES)


SMALL = Scale(iterations=40, seeds=1, starts=16, lags=(0, 1))


def record(task_name: str, scale: Scale, folder: Path) -> None:
    """Networks of every lag before each stage, and states of replay there; nothing where they are
    all there."""
    if states_of(place_of(folder, task_name, scale.iterations), scale.seeds - 1).exists():
        return
    task = task_of(task_name)
    settings = settings_of(ROW, task, None, {"seeds": scale.seeds, "iterations": scale.iterations})
    row = replace(ROW, weights=scheduled(ROW.weights, settings))
    run = begin(row, task, settings)
    past = deque([run.learner.copies()], maxlen=max(scale.lags) + 1)
    while run.iteration < scale.iterations:
        collect(run)
        run.learner.update(run.iteration, next_batch(run))
        if run.iteration % row.delay == 0:  # the policy has made a step
            past.appendleft(run.learner.copies())
        run.iteration += 1
        if run.iteration in scale.stages:
            keep(run, past, scale, place_of(folder, task_name, run.iteration))
            print(f"{task_name}: {run.iteration} iterations recorded", flush=True)


def place_of(folder: Path, task_name: str, iteration: int) -> Path:
    return folder / task_name / f"{iteration:06d}"


def states_of(place: Path, seed: int) -> Path:
    """Written after the networks of its seed."""
    return place / f"seed{seed}-states.npy"


def keep(run: Run, past: deque, scale: Scale, place: Path) -> None:  # type: ignore[type-arg]
    """Files of each seed: policy and critic of every lag, and states."""
    place.mkdir(parents=True, exist_ok=True)
    uniform = torch.rand(scale.starts, generator=stream(0, "stale states"), dtype=torch.float64)
    states = run.replay.sample(uniform.expand(scale.seeds, -1)).state
    for seed in range(scale.seeds):
        for lag in scale.lags:
            policy, critic = past[lag]
            networks = run.learner.policy_of(seed, policy), run.learner.critic_of(seed, critic)
            for kind, network in zip(("policy", "critic"), networks, strict=True):
                assert network is not None
                checkpoint.save(network, place / f"seed{seed}-lag{lag}-{kind}.safetensors")
        np.save(states_of(place, seed), states[seed].double().numpy())


def kept(task_name: str, iteration: int, seed: int, scale: Scale, folder: Path) -> pd.DataFrame:
    """`measured`, from its file where it has been."""
    path = place_of(folder, task_name, iteration) / f"seed{seed}-measured.csv"
    if not path.exists():
        rows = measured(task_name, iteration, seed, scale, folder)
        rows.to_csv(path, index=False)
        print(f"{path.stem} of {task_name} at {iteration}", flush=True)
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:  # no admissible truth
        return pd.DataFrame()


def turned(task_name: str, iteration: int, seed: int, scale: Scale, folder: Path) -> pd.DataFrame:
    """A row for every lag: the cosine of the stale gradient with the fresh one, at the same states.
    It needs no truth."""
    path = place_of(folder, task_name, iteration) / f"seed{seed}-turned.csv"
    if not path.exists():
        found, rows = mixtures(task_name, iteration, seed, scale, folder), []
        for lag, gradient in found.items():
            cosine = moments_of(gradient, found[0], BATCH)["cosine"]
            ends = interval("cosine", cosine)
            rows.append(
                {"task": task_name, "iteration": iteration, "seed": seed, "lag": lag,
                 "turned": cosine.value, "turned_low": ends.low, "turned_high": ends.high}
            )  # fmt: skip
        pd.DataFrame(rows).to_csv(path, index=False)
    return pd.read_csv(path)


def measured(task_name: str, iteration: int, seed: int, scale: Scale, folder: Path) -> pd.DataFrame:
    """A row for every lag: cosine and relative squared bias against the truth at lag 0."""
    task, place = task_of(task_name), place_of(folder, task_name, iteration)
    states = torch.from_numpy(np.load(states_of(place, seed)))
    policy, _ = load(place, seed, 0)
    truth, status = true_gradients(task, policy, states, settings_at(task, scale).termination)
    if truth is None:
        return pd.DataFrame()
    stale = mixtures(task_name, iteration, seed, scale, folder)
    found = {lag: moments_of(gradient, truth, BATCH) for lag, gradient in stale.items()}
    rows = []
    for lag, moments in found.items():
        cosine = interval("cosine", moments["cosine"])
        bias = interval("bias2", moments["bias2"])
        ratio = ratio_interval(moments["cosine"], found[0]["cosine"])
        rows.append(
            {"task": task_name, "iteration": iteration, "seed": seed, "lag": lag, "truth": status,
             "cosine": moments["cosine"].value,
             "cosine_low": cosine.low, "cosine_high": cosine.high,
             "bias2": moments["bias2"].value, "bias2_low": bias.low, "bias2_high": bias.high,
             "relative_mse": moments["relative_mse"].value,
             "ratio": moments["cosine"].value / found[0]["cosine"].value,
             "ratio_low": ratio.low, "ratio_high": ratio.high}
        )  # fmt: skip
    return pd.DataFrame(rows)


def settings_at(task: Task, scale: Scale) -> Settings:
    return settings_of(ROW, task, None, {"iterations": scale.iterations})


def mixtures(
    task_name: str, iteration: int, seed: int, scale: Scale, folder: Path
) -> dict[int, np.ndarray]:
    """MPG's gradient at each state, [N, P], of every lag."""
    task, place = task_of(task_name), place_of(folder, task_name, iteration)
    states = torch.from_numpy(np.load(states_of(place, seed)))
    settings = settings_at(task, scale)
    rule = scheduled(ROW.weights, settings)(iteration, ROW.horizons)
    return {
        lag: mixture(task, load(place, seed, lag), states, rule, settings.termination)
        for lag in scale.lags
    }


def load(place: Path, seed: int, lag: int) -> Networks:
    policy, critic = (
        checkpoint.load(place / f"seed{seed}-lag{lag}-{kind}.safetensors").double()
        for kind in ("policy", "critic")
    )
    return policy, critic


def mixture(
    task: Task, networks: Networks, states: Tensor, weights: np.ndarray, termination: str
) -> np.ndarray:
    """MPG's gradient at each state, [N, P]; later actions follow the same old policy."""
    policy, critic = networks
    assert task.prior is not None
    parts = [
        weight * gradients(task.prior, policy, Tail(h, critic, task.discount), states, termination)
        for weight, h in zip(weights, ROW.horizons, strict=True)
        if weight
    ]
    return sum(parts[1:], parts[0])


def true_gradients(
    task: Task, policy: nn.Module, states: Tensor, termination: str
) -> tuple[np.ndarray | None, str]:
    """[N, P], and how the truth was found; None where there is none."""
    shared = shared_truth(task, policy, states, max(ROW.horizons), BATCH, termination, check=False)
    reference = shared.reference
    if not reference.admissible:
        return None, reference.reason
    tail = Tail(reference.horizon, NoValue(), task.discount)
    return gradients(task.simulator, policy, tail, states, termination), reference.status


def gradients(
    system: object, policy: nn.Module, tail: Tail, states: Tensor, termination: str
) -> np.ndarray:
    """With θ in the first action, along a system with its own Jacobians, [N, P]."""
    estimator = Estimator(system, system, "first", tail)  # type: ignore[arg-type]
    return estimator.gradients(policy, states, 0, termination).numpy()  # type: ignore[arg-type]


class NoValue(nn.Module):
    """What lies beyond the horizon of a truth counts nothing."""

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return 0 * action.sum(dim=1)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every world and lag: means over seeds of the quantities that there are, with Student's
    intervals; of a ratio of squared biases the geometric one."""
    return pd.DataFrame(_world(rows)).set_index(["task", "iteration", "lag"])


def _world(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    for (task, iteration, lag), one in rows.groupby(["task", "iteration", "lag"]):
        numbers: dict[str, object] = {
            "task": task, "iteration": iteration, "lag": lag, "seeds": len(one)
        }  # fmt: skip
        for name, label in QUANTITIES.items():
            if name not in one:
                continue
            value, reach = one[name].mean(skipna=False), float(half_width(one[name]))
            ends = value, value - reach, value + reach
            if name == "grown":
                ends = geometric_mean(one[name]) if (one[name] > 0).all() else (np.nan,) * 3
            numbers |= dict(zip((label, f"{label} low", f"{label} high"), ends, strict=True))
        yield numbers


def grown(rows: pd.DataFrame) -> pd.DataFrame:
    """With each place's squared bias over that at lag 0."""
    place = ["task", "iteration", "seed"]
    first = rows[rows["lag"] == 0].set_index(place)["bias2"].rename("first")
    joined = rows.join(first, on=place)
    return joined.assign(grown=joined["bias2"] / joined["first"]).drop(columns="first")


def usable(world: pd.DataFrame) -> tuple[int, int | None]:
    """The longest usable lag of one world, and the first that is lost (None: none of them)."""
    keeps = (world["ratio low"] >= KEEPS) | (world.index == 0)
    lags = world.index[keeps.cummin()]
    lost = world.index[world["ratio high"] < KEEPS]
    return int(lags[-1]), int(lost[0]) if len(lost) else None


def verdict(rows: pd.DataFrame, fresh: pd.DataFrame) -> Verdict:
    """Parts of the criterion are the ratios at the shortest lag of the worlds that decide.

    Args:
        rows: of `measured`; fresh: of `turned`.
    """
    together = over_seeds(grown(rows))
    lags, asked, numbers = [], [], {}
    for (task, iteration), world in together.groupby(level=["task", "iteration"]):
        one = world.droplevel(["task", "iteration"])
        if not one.loc[0, "cosine low"] > LEAST:
            continue
        lag, lost = usable(one)
        place = f"{task} at {iteration:,} iterations"
        lags.append((lag, f"{place}: {lag}" + ("" if lost is None else f", lost at {lost}")))
        numbers[place] = float(lag)
        shortest = one.iloc[1]
        asked.append(
            {"label": f"cosine at lag {one.index[1]} over that without lag, {place}",
             "value": shortest["ratio"], "low": shortest["ratio low"],
             "high": shortest["ratio high"], "least": KEEPS, "most": np.nan}
        )  # fmt: skip
    parts = [part for row in asked for part in asked_of(row)]
    if lags:
        each = "; ".join(text for _, text in lags)
        sentence = f"Up to lag {min(lags)[0]} the direction keeps 95% of its cosine ({each})."
    else:
        sentence = f"No world decides: no cosine without lag is shown to be above {LEAST:g}."
    sentence += f" {_growing(together)} {_turning(over_seeds(fresh))}"
    return Verdict(
        claim="STALENESS", paper="MPG §IV-C",
        criterion=f"at the shortest lag, every world: interval of the ratio above {KEEPS}",
        holds=bool(parts) and all(part.state == "met" for part in parts),
        sentence=sentence, numbers=numbers, table=pd.DataFrame(asked, columns=COLUMNS),
        figure=drawn(together, over_seeds(fresh)),
    )  # fmt: skip


def _growing(together: pd.DataFrame) -> str:
    """What the longest lag does to the squared bias."""
    name, found = QUANTITIES["grown"], []
    for (task, iteration), world in together.groupby(level=["task", "iteration"]):
        lag = world.index.get_level_values("lag").max()
        one = world.xs(lag, level="lag").iloc[0]
        value, low, high = (one[f"{name}{end}"] for end in ("", " low", " high"))
        found.append(f"{task} at {iteration:,} {value:.3f} [{low:.3f}, {high:.3f}] at lag {lag}")
    return f"Squared bias over that without lag: {'; '.join(found)}."


def _turning(fresh: pd.DataFrame) -> str:
    """How far stale gradients have turned, at the lags of two, three and nine learners."""
    name, found = QUANTITIES["turned"], []
    for (task, iteration), world in fresh.groupby(level=["task", "iteration"]):
        one = world.droplevel(["task", "iteration"])
        lags = [lag for lag in SHOWN if np.isfinite(one[f"{name} low"].get(lag, np.nan))]
        each = (
            f"{one.loc[lag, name]:.2f} [{one.loc[lag, f'{name} low']:.2f}, "
            f"{one.loc[lag, f'{name} high']:.2f}] at lag {lag}"
            for lag in lags
        )
        found.append(f"{task} at {iteration:,} {', '.join(each) or 'not told'}")
    return f"Cosine of the stale gradient with the fresh one, without a truth: {'; '.join(found)}."


def drawn(together: pd.DataFrame, fresh: pd.DataFrame) -> Figure:
    """Over the lag, a column for each task: the ratio of cosines where it decides, what becomes of
    the squared bias, and how far the gradient has turned."""
    together = fresh[[]].join(together).join(fresh.drop(columns="seeds"))
    decides = together.xs(0, level="lag")["cosine low"] > LEAST
    tasks = list(dict.fromkeys(together.index.get_level_values("task")))
    names = [*(["ratio"] if decides.any() else []), QUANTITIES["grown"], QUANTITIES["turned"]]
    size = 4.8 * len(tasks), 3.0 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(names), len(tasks), squeeze=False, sharex=True, sharey="row")
    for column, task in enumerate(tasks):
        worlds = together.loc[task].groupby(level="iteration")
        for (iteration, world), look in zip(worlds, LOOKS, strict=False):
            one = world.droplevel("iteration")
            for ax, name in zip(axes[:, column], names, strict=True):
                if one[name].isna().all() or (name == "ratio" and not decides[task, iteration]):
                    continue
                ends = [(one[name] - one[f"{name} low"]), (one[f"{name} high"] - one[name])]
                ax.errorbar(
                    range(len(one)), one[name], np.nan_to_num(ends), color=look.colour,
                    linestyle=look.dash, marker=look.marker, markersize=3.5, capsize=2,
                    label=f"{iteration:,} iterations",
                )  # fmt: skip
        axes[0, column].set_title(task.replace("_", " "), loc="left", fontweight="bold")
        axes[-1, column].set_xlabel("lag k, steps of the policy")
        axes[-1, column].legend(frameon=False, fontsize=8)
    lags = together.index.get_level_values("lag").unique()
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel("cosine at lag k over that without" if name == "ratio" else name)
        for ax in row:
            ax.axhline(KEEPS if name == "ratio" else 1, color=MUTED, linestyle=":", linewidth=1)
            if name != QUANTITIES["grown"]:
                ax.set_ylim(-1.5, 1.5)
            ax.set_xticks(range(len(lags)), [str(lag) for lag in lags])
            ax.grid(True, color=GRID, linewidth=0.8)
            ax.spines[["top", "right"]].set_visible(False)
    return figure


def main(
    what: tyro.conf.Positional[Literal["record", "judge"]],
    runs: Path = Path("runs/scale"),
    output: Path = Path("reports/scale"),
    tasks: tuple[str, ...] = TASKS,
    small: bool = False,
) -> None:
    """
    Args:
        small: a minute of everything, to see that it works.
    """
    scale = SMALL if small else Scale()
    if what == "record":
        for task in tasks:
            record(task, scale, runs)
        return
    places = [(t, k, s) for t in tasks for k in scale.stages for s in range(scale.seeds)]
    rows = pd.concat([kept(*place, scale, runs) for place in places], ignore_index=True)
    output.mkdir(parents=True, exist_ok=True)
    fresh = pd.concat([turned(*place, scale, runs) for place in places], ignore_index=True)
    rows.to_csv(output / "staleness-seeds.csv", index=False, float_format="%.6g")
    lags = over_seeds(fresh).drop(columns="seeds").join(over_seeds(grown(rows)))
    lags.to_csv(output / "staleness-lags.csv", float_format="%.6g")
    save(verdict(rows, fresh), output, "python -m analyses.staleness judge")


if __name__ == "__main__":
    tyro.cli(main)
