"""DD-VS-MSE: does a model need a loss on its derivatives, or do state predictions suffice?

    claim       RP-PGM: models that predict states suffice; DDPPO: the model's gradient has to be
                learned, by directional derivatives to neighbouring data
    paper       RP-PGM, section 4.3, against DDPPO, section 5.2
    criterion   a decided answer at every data size: the interval of the ratio of the policy
                gradient's squared bias, with the loss over without, at equal fitting time, all
                systems together, lies below 1, above 1, or within [0.8, 1.25]; each system beside

    python -m analyses.remedies.dd_vs_mse [--small] [--output reports/remedies] [--trials FILE]

Pendulum and cart-pole, without noise and with noise of a tenth of the spread of s' − s; 500 to
20,000 rows; 7 seeds of record and of fit. One network of 2×64 SiLU units, 2,000 steps of 256 rows
by squared error, against the same with w R beside it (DDPPO eq. 9, sign corrected; n = 10, w = 10
as in Table 1 for InvertedPendulum, and w = 1; standardised, one of the ten neighbours per step in
turn), and against squared error for as long as that took. The reward is known. The policy's
gradient has θ in the first action, 1, 3, 5 and 10 model steps, and a critic that is all but exact,
so that its bias is the model's own; its square is averaged over five policies with rests and starts
of their own, each over the truth's squared norm.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pandas as pd
import tyro
from scipy import stats

from analyses.harness.paired_trials import (
    ALIKE,
    HORIZONS,
    Model,
    Row,
    as_numbers,
    columns,
    comparison,
    kept,
    with_bias,
)
from analyses.harness.verdicts import Verdict
from analyses.remedies import page as remedy_claims
from analyses.remedies.dd_vs_mse_report import ALL, MAIN, agreement, sentence
from analyses.remedies.model_pairs import (
    cost_ratio,
    errors,
    held_out_of,
    learned,
    over_views,
    photographs,
    settings,
)  # fmt: skip
from analyses.remedies.model_worlds import views, world
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.directional_loss_check import loss_check
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import OneStepError

WORLDS = (("pendulum", 0.0), ("pendulum", 0.1), ("cart-pole", 0.0), ("cart-pole", 0.1))
ROWS = (500, 2000, 5000, 20_000)
TRIALS = 7
STEPS = 2000
WEIGHTS = (0.0, 10.0, 1.0)  # 0: squared error alone
BASELINE = OneStepError("mse")
BUDGETS = ("equal time", "equal steps")
PAIRS = {
    f"w = {w:g}, {budget}": (("mse", budget), (f"dd, w = {w:g}", "both"))
    for w in WEIGHTS[1:]
    for budget in BUDGETS
}
CELL = ("world", "noise", "rows")
World = tuple[str, float]  # name and noise
QUANTITIES = (
    "bias2", *(f"{name}_{h}" for name in ("bias2", "cosine") for h in HORIZONS), "jacobian",
    "prediction",
)  # fmt: skip


def loss(weight: float) -> DirectionalDerivative:
    return DirectionalDerivative(prediction="mse", directions=1, weight=weight)


def measure(trials: Path, small: bool = False, most: int = TRIALS) -> pd.DataFrame:
    """One row per world, size, trial and model; `most` trials."""
    worlds, sizes = (WORLDS[2:3], (200,)) if small else (WORLDS, ROWS)
    count, steps = (2, 20) if small else (most, STEPS)
    cells: list[Row] = [
        {"world": name, "noise": noise, "rows": rows, "trial": trial, "steps": steps, "weight": w}
        for trial in range(count)
        for rows in sizes
        for name, noise in worlds
        for w in WEIGHTS
    ]
    return kept(trials, cells, one_trial)


def one_trial(cell: Row) -> list[Row]:
    """The models of one cell and weight: with the loss, or without it at both budgets."""
    name, noise, rows = str(cell["world"]), float(cell["noise"]), int(cell["rows"])
    here, shape, weight = world(name, noise), settings(int(cell["trial"])), float(cell["weight"])
    data, test = here.record(rows, int(cell["trial"])), held_out_of(here)
    steps, times = int(cell["steps"]), cost_ratio(name, noise, loss(1.0), BASELINE)
    fits: dict[Model, Fit] = {}
    about: Row = {"times": times}
    if weight:
        found = photographs(data, shape, loss(weight), (steps,))[steps]
        fits[f"dd, w = {weight:g}", "both"] = found
    else:
        longer = round(times * steps)
        plain = photographs(data, shape, BASELINE, (steps, longer))
        fits |= {("mse", "equal steps"): plain[steps], ("mse", "equal time"): plain[longer]}
        near = loss_check(data, plain[longer], loss(1.0).neighbours, loss(1.0).divided)
        about |= {"nearness": near.verdict, "distance": near.distance}
        about |= {"target_error": near.target_error, "model_error": near.model_error}
    systems = {" ".join(key): learned(here, fit) for key, fit in fits.items()}
    biases = over_views((here, *views(here)), systems)
    return [
        {"arm": arm, "budget": budget, "best_epoch": fit.best_epoch[0]}
        | errors(systems[f"{arm} {budget}"], test)
        | biases[f"{arm} {budget}"]
        | about
        for (arm, budget), fit in fits.items()
    ]


def foreseen(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, trial and weight: what `loss_check` said of the data, what came of it."""
    found = []
    cells = with_bias(trials).groupby(list(CELL))
    for ((name, noise, size), cell), w in product(cells, WEIGHTS[1:]):
        said = cell[cell["budget"] == "equal time"].set_index("trial")["nearness"]
        models = ("mse", "equal time"), (f"dd, w = {w:g}", "both")
        paired = columns(cell, *models, ("jacobian", "bias2"))
        ratios = {quantity: other / one for quantity, (one, other) in paired.items()}
        about = {"world": name, "noise": noise, "rows": size, "w": w}
        found.append(
            pd.DataFrame(about | {"said": said.to_numpy()[: len(ratios["bias2"])]} | ratios)
        )
    return pd.concat(found, ignore_index=True)


def together(trials: pd.DataFrame) -> pd.DataFrame:
    """One more world: geometric means over the worlds of one trial (cosines: means)."""
    rows_of = trials.groupby("trial")["world"].transform("size")
    complete = trials[rows_of == rows_of.max()]  # a trial may be under way
    names = [name for name in QUANTITIES if name != "bias2"]
    cells = complete.groupby(["rows", "trial", "arm", "budget"])[names]
    means = cells.agg(lambda x: x.mean() if x.name.startswith("cosine") else stats.gmean(x))
    return means.reset_index().assign(world=ALL, noise=0.0)


def resting_on(trials: pd.DataFrame) -> list[World]:
    """The worlds without which no size is decided when the others are taken together."""
    found = []
    for name, noise in dict.fromkeys(zip(trials["world"], trials["noise"], strict=True)):
        others = trials[(trials["world"] != name) | (trials["noise"] != noise)]
        if others.empty:
            continue
        timed = comparison(together(others), CELL, {MAIN: PAIRS[MAIN]}, ["bias2"])
        if (timed["answer"] == "undecided").all():
            found.append((str(name), float(noise)))
    return found


def judge(trials: pd.DataFrame) -> Verdict:
    """The verdict from one row per world, size, trial and model."""
    table, near = comparison(trials, CELL, PAIRS, QUANTITIES), foreseen(trials)
    whole = comparison(together(trials), CELL, PAIRS, QUANTITIES)
    table = pd.concat([table, whole], ignore_index=True)
    timed = whole[(whole["pair"] == MAIN) & (whole["quantity"] == "bias2")]
    numbers = as_numbers(table[table["quantity"] == "bias2"], (*CELL, "pair"))
    alone = resting_on(trials) if (timed["answer"] != "undecided").any() else []
    return Verdict(
        "DD-VS-MSE",
        "RP-PGM, section 4.3, against DDPPO, section 5.2",
        "a decided answer at every data size: the interval of the ratio of the policy gradient's "
        "squared bias, with the loss over without, at equal fitting time, lies below 1, above 1, "
        f"or within [{1 / ALIKE:g}, {ALIKE:g}], all systems together, w = 10",
        bool((timed["answer"] != "undecided").all()),
        sentence(table, near, float(trials["times"].median()), alone),
        numbers | agreement(near),
        table,
    )


main = remedy_claims.trials_study(measure, judge, "dd-vs-mse-trials.csv")


if __name__ == "__main__":
    tyro.cli(main)
