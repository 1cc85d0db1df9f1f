"""The quadrotor of `examples/`: promised against trained.

    python -m analyses.advice.quadrotor [--output reports/advice]

Policies: of the example's own training with seed 7, 10 to 60 updates old, with fitted critics and a
model that is a quarter too heavy. One measurement with defaults promises for each gradient (the
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
is kept (`gradlab.verdicts.advice`); the table names what is advised now. 45 came then, and is kept.
Policies 10, 20 and 30 updates old were added last, all three before any of them was measured, since
at 45 and 60 nothing raises the return: there the criterion judges only that a policy is kept. They
have not been run to their end; at 10 the critic alone and one model step had promised a fall, and
25 updates along either raised the return, by a thousand where the drone falls in any case.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import tyro

from analyses.advice.follow import RATE, REFIT, Candidate, change, differences, followed
from analyses.advice.run import advice_of, measured
from analyses.advice.worlds import WORLDS, Cell
from analyses.harness.running import example
from gradlab.data.trajectories import child
from gradlab.fitting import fit_critic
from gradlab.networks.interface import double_copy

HORIZONS = (1, 5, 10, 15, 25)
ARMS: tuple[Candidate, ...] = (("data", 0), *(("model_all", h) for h in HORIZONS))
AGES, SEED = (45, 60, 10, 20, 30), 7
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


def main(output: Path = Path("reports/advice")) -> None:
    """
    Args:
        output: of quadrotor.csv; ages that are there are judged anew.
    """
    table = output / "quadrotor.csv"
    torch.set_num_threads(1)
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame({"age": []})
    for age in AGES:
        if age not in set(rows["age"]):
            rows = pd.concat([rows, run(age)], ignore_index=True)
            rows.to_csv(table, index=False, float_format="%.6g")
    for _, some in rows.groupby("age"):
        print(verdict(some))


if __name__ == "__main__":
    tyro.cli(main)
