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
             iterations, at 5%, 25% and 100% of them; 4,096 states of each seed's replay
changed      after 256 states had told no cosine: 4,096 states (on the pendulum 1,024 of them are
             judged, `--states 1024`: its places take nine minutes with all); the ratio is that of
             the means over seeds, by Fieller's interval, since a seed without a direction has none
             of its own; and ten more seeds at 5% of path tracking (`record --tasks path_tracking
             --first-seed 5 --stages 1`, and 10), after five had not told whether the premise holds
beside       cos(g(θ_{t−k}), g(θ_t)), and the squared bias over that without lag: added after most
             places were seen to have no truth, or one too imprecise for a cosine
price        training 40 + 20 processor minutes, truths and gradients 4 for each of 30 places

python -m analyses.staleness record     consecutive networks before each stage, into runs/scale
python -m analyses.staleness judge      into reports/scale: the verdict, staleness-lags.csv (lag →
                                        cosine, squared bias), staleness-seeds.csv (every place)

Both go on after an interruption: a task whose last stage is recorded and a place (a seed at a
stage) that is measured are not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from analyses.harness.contrast_parts import met
from analyses.harness.student import geometric_mean, half_width
from analyses.harness.verdicts import Verdict, save
from analyses.staleness.gradients import measured
from analyses.staleness.networks import SMALL, STAGES, Place, Scale, record, recorded
from gradlab.figures.style import BLUE, INK, MUTED, VERMILION, Look, ruled
from gradlab.statistics.moments import Estimate
from gradlab.statistics.over_groups import ratio_of_means

TASKS = ("path_tracking", "inverted_pendulum")
SHOWN = (1, 2, 8)
KEEPS, LEAST = 0.95, 0.1
LOOKS = (
    Look("early", BLUE, "-", "o"),
    Look("middle", VERMILION, (0, (5, 1.6)), "s"),
    Look("late", INK, (0, (1.2, 1.4)), "^"),
)
QUANTITIES = {
    "cosine": "cosine",
    "ratio": "ratio",
    "relative": "squared bias over the squared true gradient",
    "grown": "squared bias over that without lag",
    "turned": "cosine with the fresh gradient",
}
WRITTEN = {"cosine": "cosine with the true gradient", "ratio": "cosine at lag k over that without"}
COLUMNS = ["label", "value", "low", "high", "least", "most"]


def kept(place: Place, scale: Scale, most: int) -> pd.DataFrame:
    """`measured`, from its file where it has been."""
    path = place.file("measured.csv")
    if not path.exists():
        measured(place, scale, most).to_csv(path, index=False)
        print(f"{place.task} at {place.iteration:,}, seed {place.seed}", flush=True)
    return pd.read_csv(path)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every world and lag: means over seeds with Student's intervals, of a ratio of squared
    biases the geometric one. Places without a truth count where none is needed."""
    place = ["task", "iteration", "seed"]
    first = rows[rows["lag"] == 0].set_index(place)[["cosine", "bias2"]]
    joined = rows.join(first.add_suffix(" first"), on=place)
    joined["grown"] = joined["bias2"] / joined["bias2 first"]
    joined["relative"] = joined["bias2"] / joined["truth2"]
    return pd.DataFrame(_world(joined)).set_index(["task", "iteration", "lag"])


def _world(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    for (task, iteration, lag), one in rows.groupby(["task", "iteration", "lag"]):
        true = one[one["truth2"].notna()]
        numbers: dict[str, object] = {
            "task": task, "iteration": iteration, "lag": lag, "seeds": len(one), "truths": len(true)
        }  # fmt: skip
        for name, label in QUANTITIES.items():
            ends = _over(name, one if name == "turned" else true)
            numbers |= dict(zip((label, f"{label} low", f"{label} high"), ends, strict=True))
        yield numbers


def _over(name: str, one: pd.DataFrame) -> tuple[float, float, float]:
    """Value, low and high."""
    if one.empty:
        return (np.nan,) * 3
    if name == "ratio":
        above, below = (_mean(one[cosine]) for cosine in ("cosine", "cosine first"))
        found = ratio_of_means(above, below) if len(one) > 1 else None
        ends = (np.nan, np.nan) if found is None else (found.low, found.high)
        return above.value / below.value, *ends
    if name == "grown":
        return geometric_mean(one[name]) if (one[name] > 0).all() else (np.nan,) * 3
    value, reach = one[name].mean(skipna=False), float(half_width(one[name]))
    return value, value - reach, value + reach


def _mean(values: pd.Series) -> Estimate:
    """Over seeds, each a group."""
    found = values.to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return Estimate(found.mean(), (found.sum() - found) / np.float64(len(found) - 1))


def usable(world: pd.DataFrame, name: str = "ratio") -> tuple[int, int | None]:
    """The longest usable lag of one world, and the first that is lost (None: none of them)."""
    keeps = (world[f"{name} low"] >= KEEPS) | (world.index == 0)
    lags = world.index[keeps.cummin()]
    lost = world.index[world[f"{name} high"] < KEEPS]
    return int(lags[-1]), int(lost[0]) if len(lost) else None


def verdict(rows: pd.DataFrame) -> Verdict:
    """Parts of the criterion are the ratios at the shortest lag of the worlds that decide."""
    together = over_seeds(rows)
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
    if lags:
        each = "; ".join(text for _, text in lags)
        sentence = f"Up to lag {min(lags)[0]} the direction keeps 95% of its cosine ({each})."
    else:
        sentence = f"No world decides: no cosine without lag is shown to be above {LEAST:g}."
    sentence += f" {_pointing(rows, together)} {_growing(together)} {_turning(together)}"
    return Verdict(
        claim="STALENESS", paper="MPG §IV-C",
        criterion=f"at the shortest lag, every world: interval of the ratio above {KEEPS}",
        holds=met(pd.DataFrame(asked)),
        sentence=sentence, numbers=numbers, table=pd.DataFrame(asked, columns=COLUMNS),
        figure=drawn(together),
    )  # fmt: skip


def _pointing(rows: pd.DataFrame, together: pd.DataFrame) -> str:
    """Where gradients without lag point: the mean over seeds, and what each of them shows."""
    found = []
    for (task, iteration), one in rows[rows["lag"] == 0].groupby(["task", "iteration"]):
        mean = together.loc[task, iteration, 0]
        told = _interval(mean, "cosine") if np.isfinite(mean["cosine low"]) else "not told"
        forward, back = (one["cosine_low"] > 0).sum(), (one["cosine_high"] < 0).sum()
        found.append(
            f"{task} at {iteration:,} {told}, {forward} of {len(one)} seeds shown above 0 and "
            f"{back} below"
        )
    return f"Cosine with the true gradient without lag: {'; '.join(found)}."


def _growing(together: pd.DataFrame) -> str:
    """What the longest lag does to the squared bias."""
    name, found = QUANTITIES["grown"], []
    for (task, iteration), world in together.groupby(level=["task", "iteration"]):
        lag = world.index.get_level_values("lag").max()
        one = world.xs(lag, level="lag").iloc[0]
        told = f"{_interval(one, name, 3)} at lag {lag}"
        known = np.isfinite(one[f"{name} low"])
        found.append(f"{task} at {iteration:,} {told if known else 'not told'}")
    return f"Squared bias over that without lag: {'; '.join(found)}."


def _turning(together: pd.DataFrame) -> str:
    """How far stale gradients have turned, at the lags of two, three and nine learners, and up to
    which lag they are shown to keep their direction."""
    name, found = QUANTITIES["turned"], []
    for (task, iteration), world in together.groupby(level=["task", "iteration"]):
        one = world.droplevel(["task", "iteration"])
        lags = [lag for lag in SHOWN if np.isfinite(one[f"{name} low"].get(lag, np.nan))]
        told = ", ".join(f"{_interval(one.loc[lag], name)} at lag {lag}" for lag in lags)
        if told:
            longest, lost = usable(one, name)
            told += f", shown above {KEEPS:g} up to lag {longest}"
            told += "" if lost is None else f", shown below it at lag {lost}"
        found.append(f"{task} at {iteration:,} {told or 'not told'}")
    return f"Cosine of the stale gradient with the fresh one, without a truth: {'; '.join(found)}."


def _interval(one: pd.Series, name: str, digits: int = 2) -> str:
    """0.52 [0.35, 0.65]"""
    value, low, high = (f"{one[f'{name}{end}']:.{digits}f}" for end in ("", " low", " high"))
    return f"{value} [{low}, {high}]"


def drawn(together: pd.DataFrame) -> Figure:
    """Over the lag, a column for each task: the cosine with the true gradient, its ratio where that
    decides, what becomes of the squared bias, and how far the gradient has turned."""
    decides = together.xs(0, level="lag")["cosine low"] > LEAST
    tasks = list(dict.fromkeys(together.index.get_level_values("task")))
    chosen = ["cosine", *(["ratio"] if decides.any() else []), "grown", "turned"]
    names = [QUANTITIES[name] for name in chosen]
    size = 4.8 * len(tasks), 2.7 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(names), len(tasks), squeeze=False, sharex=True, sharey="row")
    for column, task in enumerate(tasks):
        worlds = together.loc[task].groupby(level="iteration")
        for k, ((iteration, world), look) in enumerate(zip(worlds, LOOKS, strict=False)):
            one = world.droplevel("iteration")
            places = np.arange(len(one)) + 0.16 * (k - 1)  # beside each other
            for ax, name in zip(axes[:, column], names, strict=True):
                if one[name].isna().all() or (name == "ratio" and not decides[task, iteration]):
                    continue
                ends = [(one[name] - one[f"{name} low"]), (one[f"{name} high"] - one[name])]
                ax.errorbar(
                    places, one[name], np.nan_to_num(ends), color=look.colour,
                    linestyle=look.dash, marker=look.marker, markersize=3.5, capsize=2,
                    label=f"{iteration:,} iterations",
                )  # fmt: skip
        axes[0, column].set_title(task.replace("_", " "), loc="left", fontweight="bold")
        axes[-1, column].set_xlabel("lag k, steps of the policy")
    axes[-1, -1].legend(frameon=False, fontsize=8)
    lags = together.index.get_level_values("lag").unique()
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel(WRITTEN.get(name, name))
        for ax in row:
            level = {"cosine": 0, "ratio": KEEPS}.get(name, 1)
            ax.axhline(level, color=MUTED, linestyle=":", linewidth=1)
            if name != QUANTITIES["grown"]:
                ax.set_ylim(-1.5, 1.5)
            ax.set_xticks(range(len(lags)), [str(lag) for lag in lags])
            ruled(ax)
    return figure


def main(
    what: tyro.conf.Positional[Literal["record", "judge"]],
    runs: Path = Path("runs/scale"),
    output: Path = Path("reports/scale"),
    tasks: tuple[str, ...] = TASKS,
    first_seed: int = 0,
    stages: int = len(STAGES),
    states: int = 4096,
    small: bool = False,
) -> None:
    """
    Args:
        first_seed: of the five that are recorded; stages: so many, from the earliest on.
        states: that a place is judged at, at most.
        small: a minute of everything, to see that it works.
    """
    scale = SMALL if small else Scale()
    if what == "record":
        for task in tasks:
            record(task, scale, runs, first_seed, stages)
        return
    every = [place for t in tasks for k in scale.stages for place in recorded(runs, t, k)]
    rows = pd.concat([kept(place, scale, states) for place in every], ignore_index=True)
    output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(output / "staleness-seeds.csv", index=False, float_format="%.6g")
    over_seeds(rows).to_csv(output / "staleness-lags.csv", float_format="%.6g")
    save(verdict(rows), output, "python -m analyses.staleness judge")


if __name__ == "__main__":
    tyro.cli(main)
