"""N-W-SENS: how much do the number of neighbours n and the weight w of the gradient loss matter?

    claim       the gradient loss is insensitive to n, even n = 1 helps; higher dimensions want a
                smaller w
    paper       DDPPO, Fig. 3 left and middle, Table 1
    criterion   at the w chosen on three trials, judged on six others, in every dimension: every
                ratio of Jacobian MSEs between two n below 1.5 (intervals for all six pairs
                together), every n below the model without the loss at equal steps; Spearman
                correlation of a trial's best w, n = 10, with the dimension below 0

    python -m analyses.remedies.n_w_sens [--small] [--output reports/remedies] [--trials FILE]

s' = ½ s + G tanh(W s) + B a with random G, W, B, of 3, 10 and 30 dimensions (1, 3, 10 actions),
2,000 rows of random actions; one network of 2×64 SiLU units, 1,000 steps of 256 rows by likelihood
+ w R as in GRADLOSS, one of the n neighbours per step in turn, so that every n costs the same;
n ∈ {1, 5, 10, 25}, w ∈ {0.01, 0.1, 1, 10, 50}. The trials that choose have every n and w, those
that judge every n at the chosen w and every w at n = 10. Before, three trials chose and judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from scipy import stats
from torch import Tensor

from analyses.harness.paired_trials import Paired, Row, kept, ratio
from analyses.harness.verdicts import Verdict
from analyses.remedies import page as remedy_claims
from analyses.remedies.model_pairs import (
    TEST_ROWS,
    TEST_SEED,
    cost_of,
    errors,
    held_out,
    photographs,
    settings,
)  # fmt: skip
from gradlab.data.noise import stream
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import OneStepError
from gradlab.systems.function import from_function
from gradlab.systems.learned import LearnedSystem
from gradlab.tasks import Task

DIMENSIONS, NEIGHBOURS, WEIGHTS = (3, 10, 30), (1, 5, 10, 25), (0.01, 0.1, 1.0, 10.0, 50.0)
ROWS, STEPS = 2000, 1000
CHOOSING, JUDGING = range(3), range(100, 106)  # trials
SHARED = 10  # n at which a judging trial has every w
GRID = tuple(product(NEIGHBOURS, WEIGHTS))
PLAIN = OneStepError("nll")
BOOTSTRAPS, SPREAD = 2000, 1.5


@cache
def task(dimension: int) -> Task:
    """Linear and tanh dynamics of one random draw; the reward −|s|² matters to nobody here."""
    actions, generator = max(1, dimension // 3), stream(0, "n-w-sens", dimension)

    def drawn(rows: int, columns: int, scale: float) -> Tensor:
        unit = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return scale * unit / math.sqrt(columns)

    W, G = drawn(dimension, dimension, 2.0), drawn(dimension, dimension, 1.0)
    B = drawn(dimension, actions, 1.0)

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = 0.5 * state + (state @ W.to(state).T).tanh() @ G.to(state).T
        return after + action @ B.to(state).T, -state.square().sum(dim=1)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, dimension, generator=generator, dtype=torch.float64)

    return Task(
        f"tanh-{dimension}", from_function(step, dimension, actions), None, starts, 0.95, 25
    )


def measure(trials: Path, small: bool = False) -> pd.DataFrame:
    """One row per dimension, trial and model."""
    dimensions, steps = ((3,), 10) if small else (DIMENSIONS, STEPS)
    choosing, judging = (CHOOSING[:2], JUDGING[:2]) if small else (CHOOSING, JUDGING)

    def cells(numbers: range) -> list[Row]:
        return [{"dimension": d, "trial": k, "steps": steps} for k in numbers for d in dimensions]

    first = kept(trials, cells(choosing), lambda cell: one_trial(cell, GRID))
    chosen = chosen_weights(first)

    def judged(cell: Row) -> list[Row]:
        return one_trial(cell, split_grid(chosen[int(cell["dimension"])]))

    return pd.concat([first, kept(trials, cells(judging), judged)], ignore_index=True)


def split_grid(weight: float) -> list[tuple[int, float]]:
    """n and w of a judging trial."""
    return [*product(NEIGHBOURS, (weight,)), *((SHARED, w) for w in WEIGHTS if w != weight)]


def chosen_weights(trials: pd.DataFrame) -> dict[int, float]:
    """The best w of each dimension, on the trials that choose."""
    rows = trials[trials["trial"].isin(CHOOSING)]
    return {int(d): best_weight(cell) for d, cell in rows.groupby("dimension")}


def one_trial(cell: Row, grid: Sequence[tuple[int, float]]) -> list[Row]:
    """The n and w of a grid in one cell, and the model without the loss."""
    here, seed = task(int(cell["dimension"])), int(cell["trial"])
    data, shape = collect(here, ROWS, seed=seed), settings(seed)
    test = held_out(here.simulator, collect(here, TEST_ROWS, seed=TEST_SEED))
    steps, times = int(cell["steps"]), times_of(int(cell["dimension"]))
    longer = round(times * steps)
    plain = photographs(data, shape, PLAIN, (steps, longer))

    def judged(fit: Fit) -> Row:
        reward = here.simulator.step
        model = LearnedSystem(fit.ensemble.double(), lambda s, a, after: reward(s, a).reward)
        return {"times": times, "best_epoch": fit.best_epoch[0]} | errors(model, test)

    found: list[Row] = [
        {"arm": "nll", "budget": name, "n": 0, "w": 0.0} | judged(plain[end])
        for name, end in (("equal steps", steps), ("equal time", longer))
    ]
    for n, w in grid:
        fit = photographs(data, shape, loss(n, w), (steps,))[steps]
        found.append({"arm": "dd", "budget": "both", "n": n, "w": w} | judged(fit))
    return found


def loss(n: int, w: float) -> DirectionalDerivative:
    return DirectionalDerivative(neighbours=n, weight=w, as_printed=True, directions=1)


@cache
def times_of(dimension: int) -> float:
    data = collect(task(dimension), ROWS, seed=TEST_SEED)
    return cost_of(data, loss(10, 1.0), PLAIN)


def judge(trials: pd.DataFrame) -> Verdict:
    """The verdict from one row per dimension, trial and model."""
    chosen = chosen_weights(trials)
    choosing = trials["trial"].isin(CHOOSING)
    first, judging = trials[choosing], trials[~choosing]
    rows = judging[judging["w"].isin([0.0]) | (judging["w"] == judging["dimension"].map(chosen))]
    table = against_plain(rows)
    steps, timed = (table[table["budget"] == name] for name in ("equal steps", "equal time"))
    span = {d: over_neighbours(rows[rows["dimension"] == d]) for d in chosen}
    rho = correlation(judging[judging["n"] == SHARED])
    numbers = with_ends("spearman", rho)
    numbers |= {f"chosen w, d = {d}": w for d, w in chosen.items()}
    for d, ends in span.items():
        numbers |= with_ends(f"largest/smallest over n, d = {d}", ends)
    for row in steps.to_dict("records"):
        name = f"with/without, d = {row['dimension']}, n = {row['n']}"
        numbers |= with_ends(name, (row["value"], row["ci_low"], row["ci_high"]))
    insensitive = max(high for _, _, high in span.values()) <= SPREAD
    helps = bool((steps["ci_high"] < 1).all())
    spans = ", ".join(f"d = {d} {_told(span[d])}" for d in span)
    sentence = (
        f"w chosen on {first['trial'].nunique()} trials: "
        f"{', '.join(_chosen(d, w) for d, w in chosen.items())}; judged on "
        f"{judging['trial'].nunique()} others. Jacobian MSE there, largest/smallest over n = "
        f"{', '.join(map(str, NEIGHBOURS))}: {spans}. With/without the loss, equal steps: "
        f"{_by_dimension(steps)}; equal time: {_by_dimension(timed)}. Spearman correlation of a "
        f"trial's best w, n = {SHARED}, with d: {_told(rho)}. 2×64 SiLU, {STEPS:,} steps. When "
        f"three trials chose and judged, the largest/smallest over n were 1.83, 1.07, 1.01."
    )
    return Verdict(
        "N-W-SENS",
        "DDPPO, Fig. 3 left and middle, Table 1",
        "at the w chosen on other trials, in every dimension: largest/smallest Jacobian MSE over n "
        "below 1.5 and every n below no loss at equal steps (whole 95% intervals); Spearman "
        "correlation of a trial's best w with the dimension below 0",
        helps and insensitive and rho[2] < 0,
        sentence,
        numbers,
        pd.concat([against_plain(first).assign(trials_of="choosing"),
                   table.assign(trials_of="judging")]),
    )  # fmt: skip


def _chosen(dimension: int, weight: float) -> str:
    edge = ", the largest tried" if weight == max(WEIGHTS) else ""
    return f"d = {dimension} {weight:g}{edge}"


Ends = tuple[float, float, float]


def with_ends(name: str, ends: Ends) -> dict[str, float]:
    """Value, low and high under the names that `criteria` reads."""
    return dict(zip((name, f"{name} low", f"{name} high"), ends, strict=True))


def _told(ends: Ends) -> str:
    return f"{ends[0]:.2f} [{ends[1]:.2f}, {ends[2]:.2f}]"


def against_plain(trials: pd.DataFrame) -> pd.DataFrame:
    """Jacobian MSE with the loss over without, one row per dimension, n, w and budget."""
    rows = []
    for (d, n, w), cell in trials[trials["arm"] == "dd"].groupby(["dimension", "n", "w"]):
        with_loss = cell.set_index("trial")["jacobian"].sort_index()
        for budget in ("equal steps", "equal time"):
            plain = trials[(trials["dimension"] == d) & (trials["budget"] == budget)]
            found = ratio(plain.set_index("trial")["jacobian"][with_loss.index], with_loss)
            rows.append({"dimension": d, "n": n, "w": w, "budget": budget} | _ends(found))
    return pd.DataFrame(rows)


def _ends(found: Paired) -> Row:
    return {
        "value": found.value, "ci_low": found.low, "ci_high": found.high, "trials": found.n
    }  # fmt: skip


def best_weight(trials: pd.DataFrame) -> float:
    """w of the smallest geometric mean of the Jacobian MSE over n and trials."""
    rows = trials[trials["arm"] == "dd"]
    return float(np.log(rows["jacobian"]).groupby(rows["w"]).mean().idxmin())


def over_neighbours(rows: pd.DataFrame) -> Ends:
    """Largest ratio of geometric means between two n, one weight, and the largest ends.

    The intervals of all pairs hold together in 95% (Bonferroni), so that the largest of their lower
    and of their upper ends hold the largest ratio, although it was picked.
    """
    by_n = [
        cell.sort_values("trial")["jacobian"].to_numpy()
        for _, cell in rows[rows["arm"] == "dd"].groupby("n")
    ]
    pairs = list(permutations(by_n, 2))
    found = [ratio(*pair, level=1 - 0.05 / (len(pairs) / 2)) for pair in pairs]
    value, low, high = (
        max(getattr(each, name) for each in found) for name in ("value", "low", "high")
    )
    return value, low, high


def correlation(trials: pd.DataFrame) -> Ends:
    """Spearman's, of each trial's best w with d; percentile bootstrap over trials."""
    best = {
        (d, trial): best_weight(rows) for (d, trial), rows in trials.groupby(["dimension", "trial"])
    }
    sizes, names = (sorted({key[k] for key in best}) for k in (0, 1))

    def of(chosen: Iterable[int]) -> float:
        pairs = [(d, best[d, trial]) for trial in chosen for d in sizes]
        one, other = zip(*pairs, strict=True)
        if len(set(one)) < 2 or len(set(other)) < 2:
            return 0.0  # nothing varies: no relation
        return float(stats.spearmanr(one, other).statistic)

    draws = np.random.default_rng(0).choice(names, (BOOTSTRAPS, len(names)))
    low, high = np.quantile([of(draw) for draw in draws], [0.025, 0.975])
    return of(names), float(low), float(high)


def _by_dimension(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"d = {d} {part['value'].min():.2g} to {part['value'].max():.2g} (below 1 in "
        f"{int((part['ci_high'] < 1).sum())} of {len(part)} n)"
        for d, part in rows.groupby("dimension")
    )


main = remedy_claims.trials_study(measure, judge, "n-w-sens-trials.csv")


if __name__ == "__main__":
    tyro.cli(main)
