"""A success to look at: the quadrotor of `examples/`, promised against trained.

    python -m analyses.advice.quadrotor [--output reports/advice]

Policies: of the example's own training with seed 7, 45 and 60 updates old, with fitted critics and
a model that is a quarter too heavy. One measurement with defaults promises for each gradient (the
critic alone, the model at five horizons) what one step adds to the return. Then each is trained
with: Adam at the rate that the measurement names, fresh batches, the critic fitted again every 25
updates, for as many updates as are recommended and for 100, by three draws of all that is random.

    criterion   (a) where the interval of a promised gain leaves 0, the return after the recommended
                number of updates has its sign, by its whole interval over the draws; (b) after 100
                updates the recommended gradient has at least 95% of the best one's change, holding
                being one of them; holding is right where none raises it
    returns     200 steps from 512 fresh starts, the same for all; Student's 95% over the draws

Written before the first run, and changed twice after looking. First, the policy was 100 updates
old: the measurement keeps it and promises nothing to train with (one gradient was followed there).
Then, at 60, the critic alone was recommended in amber for 5 updates, while a plain step along it
lowered the return; followed, it lowered the return, and so did all others. Since then such a policy
is kept (`gradlab.verdicts.advice`); the table names what is advised now. 45 came last.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analyses.advice.follow import RATE, REFIT, Candidate, change, differences, followed
from analyses.advice.run import advice_of, measured
from analyses.advice.worlds import WORLDS, Cell
from analyses.harness.running import example
from gradlab.data.noise import child
from gradlab.fitting import fit_critic
from gradlab.networks.interface import double_copy

HORIZONS = (1, 5, 10, 15, 25)
ARMS: tuple[Candidate, ...] = (("data", 0), *(("model_all", h) for h in HORIZONS))
AGES, SEED = (45, 60), 7
DRAWS, LONG = 3, 100


def cell(age: int, seed: int = SEED) -> Cell:
    """The example's task and policy, and a critic that is fitted to it."""
    world = replace(WORLDS["quadrotor"], most=512, steps=200)
    task = world.make(seed)
    policy = double_copy("policy", example("quadrotor").train(task, age, seed))
    critic = fit_critic(task, policy, seed=child(seed, "advice critic"))
    return Cell(world, "quadrotor", "example", seed, task, policy, critic)


def run(age: int) -> pd.DataFrame:
    """A row for each gradient: what was promised, and what the training did."""
    here = cell(age)
    profile = measured(here)
    advice = advice_of(profile)
    gains = profile.table()
    gains = gains[gains["quantity"] == "gain"].set_index(["estimator", "horizon"])
    arms = tuple(dict.fromkeys((*ARMS, *([advice.candidate] if advice.candidate else []))))
    rate = advice.rate or RATE
    rows = []
    for arm in arms:
        promised = gains.loc[arm, ["value", "ci_low", "ci_high"]]
        row = {
            "age": age, "estimator": arm[0], "horizon": arm[1],
            "recommended": arm == advice.candidate, "updates": advice.updates, "rate": rate,
            "promised": promised.iloc[0], "promised_low": promised.iloc[1],
            "promised_high": promised.iloc[2],
        }  # fmt: skip
        for name, updates in (("followed", advice.updates or REFIT), ("trained", LONG)):
            draws = [replace(here, seed=child(here.seed, f"draw {k}")) for k in range(DRAWS)]
            after = [followed(draw, arm, updates, rate) for draw in draws]
            paired = differences(here, [here.policy, *after], child(here.seed, "judge"))
            found = change(paired.mean(1))
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
        print(row, flush=True)
    return pd.DataFrame(rows)


def verdict(rows: pd.DataFrame) -> str:
    """Both parts of the criterion, for one age."""
    signs = [
        (rows[f"{name}_low"] > 0).astype(int) - (rows[f"{name}_high"] < 0)
        for name in ("promised", "followed")
    ]
    decided = (signs[0] * signs[1]) != 0
    right, open_ = int((signs[0] == signs[1])[decided].sum()), int((~decided).sum())
    chosen, most = rows.loc[rows["recommended"], "trained"].sum(), max(0.0, rows["trained"].max())
    of_best = f"{chosen / most:.0%} of the best" if most else f"{chosen:+.3g}, nothing raises it"
    return (
        f"{rows['age'].iloc[0]} updates: (a) {right} of {int(decided.sum())} signs right, {open_} "
        f"undecided; (b) advised, after {LONG} updates: {of_best}"
    )


def drawn(table: pd.DataFrame) -> Figure:
    """Promised gain of one step by horizon, and the return after the training; a row for each
    age."""
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    panels = figure.subplots(len(AGES), 2, sharex=True, squeeze=False)
    names = {
        "promised": "promised: gain of one step,\n% of the best possible",
        "trained": f"trained: change of the return\nafter {LONG} updates",
    }
    for line, (age, rows) in zip(panels, table.sort_values("horizon").groupby("age"), strict=True):
        kept = "" if rows["recommended"].any() else ": advised to keep the policy"
        line[0].set_title(f"policy after {age} updates{kept}", fontsize=10, loc="left")
        for ax, (name, label) in zip(line, names.items(), strict=True):
            scale = 100 if name == "promised" else 1
            for part, rest, colour, marker, size in (
                (rows["recommended"], "recommended", "#0072b2", "D", 8),
                (~rows["recommended"], "not recommended", "0.35", "o", 5),
            ):
                some = rows[part]
                low, high = some[f"{name}_low"], some[f"{name}_high"]
                spans = [scale * (some[name] - low), scale * (high - some[name])]
                ax.errorbar(
                    some["horizon"], scale * some[name], spans, fmt=marker, color=colour, ms=size,
                    lw=1.3, capsize=3, label=rest,
                )  # fmt: skip
            ax.axhline(0, color="0.3", lw=0.8)
            ax.set_ylabel(label, fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
        if rows["trained"].min() < -1000:  # a policy that no longer flies
            line[1].set_yscale("symlog", linthresh=1.0)
    for ax in panels[-1]:
        ax.set_xlabel("steps through the model (0: the critic alone)")
    panels[0][0].legend(frameon=False, fontsize=9)
    return figure


def main(output: Path = Path("reports/advice")) -> None:
    """
    Args:
        output: of quadrotor.csv and quadrotor.png; ages that are there are drawn and judged anew.
    """
    table = output / "quadrotor.csv"
    torch.set_num_threads(1)
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame({"age": []})
    for age in AGES:
        if age not in set(rows["age"]):
            rows = pd.concat([rows, run(age)], ignore_index=True)
            rows.to_csv(table, index=False, float_format="%.6g")
    figure = drawn(rows)
    FigureCanvasAgg(figure)
    figure.savefig(output / "quadrotor.png", dpi=130)
    for _, some in rows.groupby("age"):
        print(verdict(some))


if __name__ == "__main__":
    tyro.cli(main)
