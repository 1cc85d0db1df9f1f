"""Do 95% intervals cover in 95 of 100 cases?

    python -m analyses.coverage [--small] [--resume] [--output reports/coverage]
    python -m analyses.coverage --shard 0 --of 4        a quarter of the blocks, in a process alone
    python -m analyses.coverage --page      README.md and verdict.json from what was measured

planted    synthetic gradients with known mean, bias and covariance: Gaussian, multivariate t4.5 and
           lognormal sizes; squared bias 0, 1, 30 times its noise tr Σ/N; truth as large as the
           spread of one sample or a tenth of it
lq         linear-quadratic worlds of 1, 2 and 4 dimensions, true return of 10 and of 60 steps:
           data, model and mixed gradients at horizons 0, 5, 25; skewed like a chi-square
growth     doubling of the variance in an unstable scalar model, over horizons 1 … 25
starts     lq and growth under Gaussian, t9 and t4.5 starts, with the check "starts rarer than the
           sample"; measured: the same through `gradlab.measure` (`coverage_starts`)
chosen, seeds   the smallest error of 13 candidates; medians over five seeds (`coverage_choices`)

Criterion, each less two standard errors of the repetitions:
    every cell            0.90, or flagged by the check in half of the measurements
    small N               cosine, its mean over batches, SNR, growth, agreement of signs: 0.93 on
                          average over the cells that are not flagged, at every N
    squared bias          planted: 0.93 to 0.98 on average where there is one; where there is none
                          the upper end cannot miss, 0.96 to 0.99
    flags                 at most 5% under Gaussian starts, at least 95% under t4.5
    chosen, headline      0.94 on average
    seeds                 what is promised, 0.9375
An interval that is everything counts as held and is counted in "lost".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import tyro

from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.cells import growth_cells, lq_cells, planted_cells
from analyses.coverage.choices import chosen_cells, seeds_cells
from analyses.coverage.page import verdict_and_text
from analyses.coverage.starts import LAWS, measured_cells, starts_cells, tailed_growth
from analyses.coverage.synthetic import TAILS
from gradlab import provenance

COMMAND = "python -m analyses.coverage"
Cells = Callable[[], Iterator[pd.DataFrame]]
# Repetitions by samples; a measurement costs a thousand times what a drawn cell does.
DRAWN = {64: 1000, 256: 500, 1024: 200}
TAILED = {64: 600, 256: 300}
CHOSEN = {64: 400, 256: 200}
MEASURED = {("turning", 64): 30, ("turning", 256): 15, ("path tracking", 64): 6,
            ("path tracking", 256): 3}  # fmt: skip
HEADLINES = 3  # times as many under Gaussian starts at 64, whose headline is judged
SEEDS = 20_000
SMALL = 10  # repetitions of a small run


def blocks(small: bool = False) -> Iterator[tuple[str, Cells]]:
    """Named pieces of the work, cheap ones first."""

    def some(repetitions: Mapping[int, int]) -> dict[int, int]:
        return {64: SMALL} if small else dict(repetitions)

    yield "seeds", lambda: seeds_cells(SMALL if small else SEEDS)
    for n, count in some(DRAWN).items():
        for tails in TAILS:
            yield f"planted {tails} {n}", lambda n=n, t=tails, r=count: planted_cells(n, t, r)
        for world in lq.WORLDS:
            yield f"lq {world.name} {n}", lambda n=n, w=world, r=count: lq_cells(n, w, r)
        yield f"growth {n}", lambda n=n, r=count: iter([growth_cells(n, r)])
    for n, count in some(TAILED).items():
        for law in LAWS:
            yield f"starts {law} {n}", lambda n=n, law=law, r=count: starts_cells(law, n, r)
            yield f"tailed growth {law} {n}", lambda n=n, a=law, r=count: tailed_growth(a, n, r)
    for n, count in some(CHOSEN).items():
        yield f"chosen {n}", lambda n=n, r=count: chosen_cells(n, r)
    measured = {("turning", 64): 2} if small else MEASURED
    for (task, n), count in measured.items():
        for law in LAWS:
            times = HEADLINES if (task, law, n) == ("turning", "Gaussian", 64) else 1
            yield (
                f"measured {task} {law} {n}",
                lambda t=task, law=law, n=n, r=times * count: measured_cells(t, law, n, r),
            )


def main(
    small: bool = False,
    resume: bool = False,
    page: bool = False,
    shard: int = 0,
    of: int = 1,
    output: Path = Path("reports/coverage"),
) -> None:
    """Measure and freeze.

    Args:
        small: few repetitions of the smallest N, to see that it runs.
        resume: keep the blocks that the table already holds.
        page: measure nothing; shards become one table.
        shard, of: which of how many processes this is.
        output: folder of the outcome.
    """
    output.mkdir(parents=True, exist_ok=True)
    target = output / ("coverage.csv" if of == 1 else f"shard-{shard}.csv")
    shards = sorted(output.glob("shard-*.csv")) if page else []
    before = shards or ([target] if (page or resume) and target.exists() else [])
    parts: list[pd.DataFrame] = []
    done: set[str] = set()
    for path in before:
        table = pd.read_csv(path)
        parts.append(table[~table["block"].isin(done)])
        done |= set(table["block"])
    for name, cells in () if page else list(blocks(small))[shard::of]:
        if name in done:
            continue
        parts.append(pd.concat(list(cells())).assign(block=name, commit=provenance.commit()))
        pd.concat(parts).to_csv(target, index=False, float_format="%.6g")
        print(name, parts[-1].groupby("quantity")["coverage"].min().round(3).to_dict(), flush=True)
    if of == 1:
        order = [name for name, _ in blocks(small)]
        table = pd.concat(parts, ignore_index=True)
        table = table.sort_values("block", key=lambda b: b.map(order.index), kind="stable")
        table = table.reset_index(drop=True)
        table.to_csv(target, index=False, float_format="%.6g")
        freeze(table, output, COMMAND + (" --small" if small else ""), small)


def freeze(table: pd.DataFrame, output: Path, command: str, small: bool = False) -> None:
    """Verdict and page of what has been measured; names what has not."""
    done = set(table["block"])
    missing = [name for name, _ in blocks(small) if name not in done]
    verdict, text = verdict_and_text(table, command, missing)
    (output / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n")
    (output / "README.md").write_text(text)
    print(json.dumps(verdict))


if __name__ == "__main__":
    tyro.cli(main)
