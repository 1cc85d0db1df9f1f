"""ASYNC: do several learners bring MPG's updates to the speed of data-driven methods?

    claim       with 12 learners the time of an update falls to that of a data-driven method
    paper       MPG and MPG (journal), section IV-C, Figures 5 and 6b
    criterion   two learners make at least 1.5 times the updates per second of one learner: the
                interval over paired rounds lies above 1.5
    premise     two runs that know of no other make at least 1.5 times the updates of one, by
                estimate: the machine has a second processor to give
    worlds      mpg-v2 on the inverted pendulum (analytic), 400 updates, 2 actors, 2 buffers

    python -m analyses.staleness.asynchronous [--rounds 7] [--output reports/scale]

With nothing else at work; about three minutes a round. `async-rounds.csv` has every round, and a
second call adds what is missing. 12 learners are a prediction (`benchmarks.asynchronous`), for a
processor each: the optimiser's share S of an update is its processor time, a learner's Z is what is
left of the time that one learner was measured to take.
"""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray

from analyses.harness.contrast_parts import met
from analyses.harness.student import geometric_mean
from analyses.harness.verdicts import Verdict, save
from benchmarks.asynchronous import PAPERS, Costs, Pace, measured_costs, pace, plain, predicted

LEARNERS = (1, 2, 4)
LEAST = 1.5
ONE, TWO = "one run in one process", "two runs, a process each"
ITERATIONS = 400


def name_of(learners: int) -> str:
    return f"{learners} learner" + ("s" if learners > 1 else "")


def measured(iterations: int) -> pd.DataFrame:
    """A round: updates per second, and counts of the policy's lags, of every arm in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs: list[tuple[str, Pace]] = [
            (ONE, Pace(plain(folder, 1, iterations), np.ones(1))),
            (TWO, Pace(plain(folder, 2, iterations), np.ones(1))),
        ]
        pairs += [(name_of(count), pace(folder, count, iterations)) for count in LEARNERS]
    return pd.DataFrame(
        {"arm": arm, "rate": found.rate, "mean lag": found.mean,
         "lags": " ".join(f"{count:.0f}" for count in np.trim_zeros(found.lags, "b"))}
        for arm, found in pairs
    )  # fmt: skip


def judged(rows: pd.DataFrame, costs: Costs) -> Verdict:
    """The verdict from rounds: columns round, arm, rate, mean lag, lags."""
    rates = rows.pivot(index="round", columns="arm", values="rate")
    table = pd.DataFrame(
        [
            contrast(rates, name_of(2), name_of(1), LEAST),
            contrast(rates, TWO, ONE),
            contrast(rates, name_of(2), ONE),
            contrast(rates, name_of(4), name_of(1)),
            contrast(rates, name_of(4), ONE),
            contrast(rates, name_of(1), ONE),
        ]
    )
    premise = table["value"].iloc[1] >= LEAST
    if not premise:
        table["least"] = np.nan
    alone = float(rates[ONE].median())
    # With a learner that computes so long that one learner makes `rate` updates per second: beside
    # other processes it finds its memory colder than alone.
    more = 1 / float(rates[name_of(1)].median()) - costs.learner - costs.optimiser
    costs = replace(costs, compute=costs.compute + more)
    numbers = {
        f"{row['label']}{end}": float(row[key])
        for row in table.to_dict("records")
        for key, end in (("value", ""), ("low", " low"), ("high", " high"))
    }
    numbers |= {f"{name} ms": 1e3 * cost for name, cost in asdict(costs).items() if name != "bytes"}
    numbers |= {"Z ms": 1e3 * costs.learner, "S ms": 1e3 * costs.optimiser}
    numbers |= {f"predicted, {n} learners": predicted(costs, n) for n in (*LEARNERS, PAPERS)}
    numbers |= {"updates/s in one process": alone, "MB an update": costs.bytes / 1e6}
    found = []
    for count in LEARNERS[1:]:
        own = Pace(np.nan, shares(rows, name_of(count)))
        found.append(
            f"with {name_of(count)} {own.mean:.1f} on average, 95% at most {own.at_most(0.95)}"
        )
    lags = f"Lag of the policy's gradients, in its steps: {'; '.join(found)}."
    sentence = (
        f"{'; '.join(map(worded, table.to_dict('records')))}. {lags} Predicted for a "
        f"processor each: {PAPERS} learners make "
        f"{predicted(costs, PAPERS) / alone:.1f} times the updates of one process, and about "
        f"{costs.saturation:.0f} keep the optimiser busy (a learner computes "
        f"{1e3 * costs.learner:.0f} ms an update, the optimiser {1e3 * costs.optimiser:.1f} ms)."
    )
    if not premise:
        sentence = f"Not tested: the machine has no second processor to give. {sentence}"
    return Verdict(
        "ASYNC", "MPG §IV-C",
        f"updates/s of two learners over one: interval over paired rounds above {LEAST}, where two "
        f"runs that know of no other make {LEAST} times the updates of one",
        met(table),
        sentence, numbers, table,
    )  # fmt: skip


def contrast(
    rates: pd.DataFrame, first: str, second: str, least: float = np.nan
) -> dict[str, object]:
    """Geometric mean of an arm's updates per second over another's, round by round."""
    value, low, high = geometric_mean(rates[first] / rates[second])
    return {
        "label": f"updates/s, {first} over {second}", "value": value, "low": low, "high": high,
        "least": least, "most": np.nan, "rounds": len(rates),
    }  # fmt: skip


def worded(row: Mapping[Hashable, Any]) -> str:
    return f"{row['label']}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def shares(rows: pd.DataFrame, arm: str) -> NDArray[np.float64]:
    """Of the policy's gradients at every lag, all rounds together."""
    each = [np.array(lags.split(), float) for lags in rows.loc[rows["arm"] == arm, "lags"]]
    total = np.zeros(max(map(len, each)))
    for counts in each:
        total[: len(counts)] += counts
    return np.asarray(total / total.sum())


def rounds_of(path: Path, rounds: int, iterations: int) -> Iterator[pd.DataFrame]:
    """Those in the file, then as many more as are missing, kept as they come."""
    kept = [pd.read_csv(path, dtype={"lags": str})] if path.exists() else []
    yield from kept
    done = int(kept[0]["round"].max()) + 1 if kept else 0
    for k in range(done, rounds):
        found = measured(iterations).assign(round=k)
        found.to_csv(path, mode="a", header=k == 0, index=False, float_format="%.6g")
        print(f"round {k + 1} of {rounds}", flush=True)
        yield found


def main(
    rounds: int = 7, iterations: int = ITERATIONS, output: Path = Path("reports/scale")
) -> None:
    """
    Args:
        rounds: turns of every arm; iterations: updates of a run.
    """
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    rows = pd.concat(rounds_of(output / "async-rounds.csv", rounds, iterations), ignore_index=True)
    path = output / "async-costs.csv"
    # Measured once, and kept.
    if not path.exists():
        found = pd.DataFrame(asdict(measured_costs(25)).items(), columns=["part", "cost"])
        found.to_csv(path, index=False, float_format="%.6g")
    costs = Costs(**pd.read_csv(path).set_index("part")["cost"])
    save(judged(rows, costs), output, "python -m analyses.staleness.asynchronous")


if __name__ == "__main__":
    tyro.cli(main)
