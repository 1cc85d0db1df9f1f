"""Do 95% intervals cover in 95 of 100 cases?

    python -m analyses.coverage [--small] [--resume] [--output reports/coverage]

planted   synthetic gradients with known mean, bias and covariance: Gaussian, multivariate t4.5 and
          lognormal sizes; squared bias 0, 1, 30 times its noise tr Σ/N; truth as large as the
          spread of one sample or a tenth of it
lq        linear-quadratic worlds of 1, 2 and 4 dimensions, true return of 10 and of 60 steps: data,
          model and mixed gradients at horizons 0, 5, 25; skewed like a chi-square
growth    doubling of the variance in an unstable scalar model, over horizons 1 … 25

Criterion for squared bias, variance and MSE at N = 64 … 1024: light-tailed cells at least 92% on
average and none under 90%; heavy-tailed cells (planted so, or flagged by the tail index in half of
the repetitions) none under 86%, and the planted ones flagged. The other quantities are reported
with what they reach; an interval that is everything counts as held and is counted in "lost".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analyses import quadratic_gradients as lq
from analyses.synthetic import TAILS, drawn_batch_cosine, moments, planted
from gradlab import provenance
from gradlab.statistics.growth import variance_growth
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Moments, estimates
from gradlab.statistics.tails import HEAVY

CELLS = [(0.0, 1.0), (1.0, 1.0), (30.0, 1.0), (1.0, 0.1), (30.0, 0.1)]
JUDGED = ("bias2", "variance", "mse")
FLAGGED = 0.5  # share of repetitions from which on a cell counts as flagged
ROUNDING = 1e-9  # of a cosine that is exactly 1
HORIZONS = np.arange(1.0, 26.0)  # of growth
UNSTABLE = lq.scalar("growing", noise=0.01, steps=25, prior=1.25)
Sampler = Callable[[], Moments]


def covered(sample: Sampler, known: dict[str, float], batch: int, repetitions: int) -> pd.DataFrame:
    """One row per quantity: share of intervals that hold the known value."""
    hits: dict[str, list[bool]] = {name: [] for name in known}
    lost, widths = dict.fromkeys(known, 0), {name: [] for name in known}
    flags = 0
    for _ in range(repetitions):
        found = estimates(sample(), batch)
        flags += found["tail_index"].value > HEAVY
        for name, truth in known.items():
            ends = interval(name, found[name])
            undefined = bool(np.isnan(ends.low))
            lost[name] += undefined
            inside = ends.low - ROUNDING <= truth <= ends.high + ROUNDING
            hits[name].append(undefined or inside)
            widths[name].append(ends.high - ends.low)
    return pd.DataFrame(
        {
            "quantity": name,
            "known": known[name],
            "coverage": float(np.mean(hits[name])),
            "width": float(np.nanmedian(widths[name])) if lost[name] < repetitions else np.nan,
            "lost": lost[name] / repetitions,
            "flagged": flags / repetitions,
            "repetitions": repetitions,
        }
        for name in known
    )


def planted_cells(n: int, tails: str, repetitions: int) -> Iterator[pd.DataFrame]:
    rng = np.random.default_rng([0, n, TAILS.index(tails)])
    for ratio, size in CELLS:

        def sample(ratio: float = ratio, size: float = size) -> Moments:
            data = planted(rng, n, ratio=ratio, size=size, tails=tails)
            return moments(data.G, data.T)

        one = planted(np.random.default_rng(0), n, ratio=ratio, size=size, tails=tails)
        cosine = drawn_batch_cosine(one.mean, one.truth, np.diag(one.scale), n)
        known = one.known | {"cosine_batch": cosine}
        found = covered(sample, known, n, repetitions)
        yield found.assign(family="planted", tails=tails, n=n, cell=f"rho {ratio:g}, truth {size}")


def lq_cells(n: int, world: lq.World, repetitions: int) -> Iterator[pd.DataFrame]:
    M = lq.action_gradients(world)
    truth = M.pop("truth")
    many = lq.drawn(world, M, 200_000, np.random.default_rng(1))
    for k, (name, m) in enumerate(M.items()):
        rng = np.random.default_rng([1, n, lq.WORLDS.index(world), k])

        def sample(m: lq.Array = m, rng: np.random.Generator = rng) -> Moments:
            data = lq.drawn(world, {"G": m, "T": truth}, n, rng)
            return moments(data["G"], data["T"])

        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(many[name].T)))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        known = lq_known(world, m, truth, n)
        known["cosine_batch"] = drawn_batch_cosine(
            lq.mean_of(world, m), lq.mean_of(world, truth), root, n
        )
        found = covered(sample, known, n, repetitions)
        yield found.assign(family="lq", tails=world.name, n=n, cell=name)


def lq_known(world: lq.World, m: lq.Array, truth: lq.Array, batch: int) -> dict[str, float]:
    mean, true, trace = lq.mean_of(world, m), lq.mean_of(world, truth), lq.trace_of(world, m)
    bias2 = float(((mean - true) ** 2).sum())
    norms = np.linalg.norm(mean), np.linalg.norm(true)
    return {
        "mean_norm": float(norms[0]),
        "variance": trace,
        "bias2": bias2,
        "mse": bias2 + trace / batch,
        "relative_mse": float((bias2 + trace / batch) / norms[1] ** 2),
        "cosine": float(mean @ true / norms[0] / norms[1]),
        "sign_agreement": float((np.sign(mean) == np.sign(true)).mean()),
        "snr": float(norms[0] ** 2 / trace),
    }


def growth_cells(n: int, repetitions: int) -> pd.DataFrame:
    """Coverage of the slope of log variance on the stretch that each repetition chooses."""
    M = lq.action_gradients(UNSTABLE, tuple(int(h) for h in HORIZONS))
    models = {name: m for name, m in M.items() if name.startswith("model")}
    exact = np.log([lq.trace_of(UNSTABLE, m) for m in models.values()])
    rng, hits, widths, flags = np.random.default_rng([2, n]), [], [], 0
    for _ in range(repetitions):
        drawn = lq.drawn(UNSTABLE, models, n, rng)
        found = [estimates(moments(G), n) for G in drawn.values()]
        variance = [each["variance"] for each in found]
        flags += found[-1]["tail_index"].value > HEAVY
        growth = variance_growth(
            HORIZONS,
            np.array([v.value for v in variance]),
            np.stack([v.left_out for v in variance]),
        )
        assert growth is not None
        stretch = slice(growth.onset - 1, growth.last)
        slope = np.polyfit(HORIZONS[stretch], exact[stretch], 1)[0]
        hits.append(growth.low <= slope <= growth.high)
        widths.append(growth.high - growth.low)
    row = {"quantity": "growth", "known": float(np.polyfit(HORIZONS, exact, 1)[0]),
           "coverage": float(np.mean(hits)), "width": float(np.median(widths)), "lost": 0.0,
           "flagged": flags / repetitions, "repetitions": repetitions, "family": "growth",
           "tails": UNSTABLE.name, "n": n, "cell": "model 1 … 25"}  # fmt: skip
    return pd.DataFrame([row])


def blocks(
    sizes: tuple[int, ...], repetitions: int
) -> Iterator[tuple[str, Iterator[pd.DataFrame]]]:
    """Named pieces of the work, none longer than about two minutes."""
    for n in sizes:
        for tails in TAILS:
            yield f"planted {tails} {n}", planted_cells(n, tails, repetitions)
        for world in lq.WORLDS:
            yield f"lq {world.name} {n}", lq_cells(n, world, repetitions)
        yield f"growth {n}", (growth_cells(n, repetitions) for _ in range(1))


def verdict(table: pd.DataFrame) -> dict[str, object]:
    """The criterion, judged."""
    judged = table[table["quantity"].isin(JUDGED)]
    planted_heavy = (judged["family"] == "planted") & (judged["tails"] != "gaussian")
    flagged = judged["flagged"] >= FLAGGED
    heavy = judged[planted_heavy | flagged]["coverage"]
    light = judged[~(planted_heavy | flagged)]["coverage"]
    lq_rows = judged[judged["family"] == "lq"]["coverage"]
    planted_flags = judged[planted_heavy]["flagged"]
    holds = light.mean() >= 0.92 and light.min() >= 0.90 and heavy.min() >= 0.86
    return {
        "light_mean": float(light.mean()),
        "light_least": float(light.min()),
        "heavy_mean": float(heavy.mean()),
        "heavy_least": float(heavy.min()),
        "lq_mean": float(lq_rows.mean()),
        "lq_least": float(lq_rows.min()),
        "planted_heavy_flagged_least": float(planted_flags.min()),
        "light_flagged_most": float(judged[judged["tails"] == "gaussian"]["flagged"].max()),
        "holds": bool(holds and planted_flags.min() >= FLAGGED),
    }


def main(
    small: bool = False, resume: bool = False, output: Path = Path("reports/coverage")
) -> None:
    """Measure and freeze.

    Args:
        small: few repetitions of the smallest N, to see that it runs.
        resume: keep the blocks that coverage.csv already holds.
        output: folder of the outcome.
    """
    sizes, repetitions = ((64,), 10) if small else ((64, 256, 1024), 2000)
    output.mkdir(parents=True, exist_ok=True)
    target = output / "coverage.csv"
    parts = [pd.read_csv(target)] if resume and target.exists() else []
    done = set(parts[0]["block"]) if parts else set()
    for name, pieces in blocks(sizes, repetitions):
        if name in done:
            continue
        parts.append(pd.concat(list(pieces)).assign(block=name))
        pd.concat(parts).to_csv(target, index=False, float_format="%.6g")
        print(name, parts[-1].groupby("quantity")["coverage"].min().round(3).to_dict(), flush=True)
    freeze(pd.concat(parts), output, "python -m analyses.coverage" + (" --small" if small else ""))


def freeze(table: pd.DataFrame, output: Path, command: str) -> None:
    """Verdict and page of what has been measured; names what has not."""
    sizes = tuple(int(n) for n in sorted(table["n"].unique()))
    done = set(table["block"])
    missing = [name for name, _ in blocks(sizes, 0) if name not in done]
    made = verdict(table) | {
        "command": command,
        "commit": provenance.commit(),
        "not_measured": missing,
    }
    (output / "verdict.json").write_text(json.dumps(made, indent=2) + "\n")
    (output / "README.md").write_text(page(made, table))
    print(made)


def page(made: dict[str, object], table: pd.DataFrame) -> str:
    lines = [
        "# Coverage of nominal 95% intervals",
        "",
        f"Squared bias, variance and MSE: light tails {made['light_mean']:.3f} on average, no cell "
        f"under {made['light_least']:.3f}; heavy tails {made['heavy_mean']:.3f} on average, no "
        f"cell under {made['heavy_least']:.3f}. Criterion (0.92, 0.90; 0.86 and flagged): "
        f"{'met' if made['holds'] else 'not met'}{' so far' if made['not_measured'] else ''}.",
        "",
        f"Heavy is what was planted so, or what the tail index (above {HEAVY}) flags in half of "
        f"the repetitions: planted heavy tails are flagged in at least "
        f"{made['planted_heavy_flagged_least']:.0%} of them, Gaussian ones in at most "
        f"{made['light_flagged_most']:.0%}. Linear-quadratic gradients, quadratic in Gaussian "
        f"starts, count as heavy where flagged, yet reach {made['lq_mean']:.3f} on average and at "
        f"least {made['lq_least']:.3f}.",
        "",
        *_short_of(table),
        "Gains of steps, also end to end: `gain.md`, made by `python -m analyses.gain_coverage`.",
        "",
        *_not_measured(made["not_measured"]),
        f"{int(table['repetitions'].iloc[0])} repetitions a cell. Made by `{made['command']}`, "
        f"commit {made['commit']}; every cell in `coverage.csv`, with the share of intervals that "
        f"are everything (`lost`), of repetitions that are flagged, and median widths.",
        "",
    ]
    for which in ("mean", "min"):
        wide = table.pivot_table(
            index="quantity", columns=["family", "tails", "n"], values="coverage", aggfunc=which
        )
        for family in ("planted", "lq", "growth"):
            lines += _table(f"{which} over cells", wide[family].dropna(how="all"))
    return "\n".join(lines)


def _not_measured(names: object) -> list[str]:
    assert isinstance(names, list)
    if not names:
        return []
    listed = "; ".join(names)
    return [f"Not measured yet (`--resume` goes on where it stopped): {listed}.", ""]


def _short_of(table: pd.DataFrame) -> list[str]:
    """What other quantities fall under 90% somewhere."""
    rest = table[~table["quantity"].isin(JUDGED)]
    worst = rest.loc[rest.groupby("quantity")["coverage"].idxmin()]
    low = worst[worst["coverage"] < 0.90]
    if low.empty:
        return ["No other quantity falls under 0.90 in any cell.", ""]
    listed = "; ".join(
        f"{row.quantity} {row.coverage:.3f} ({row.tails}, N = {row.n}, {row.cell})"
        for row in low.itertuples()
    )
    return [f"Other quantities that fall under 0.90 somewhere, each at its worst: {listed}.", ""]


def _table(head: str, wide: pd.DataFrame) -> list[str]:
    names = [f"{tails}, N = {n}" for tails, n in wide.columns]
    lines = [f"{head} | " + " | ".join(names), " | ".join(["---"] * (len(names) + 1))]
    for name, row in wide.iterrows():
        lines.append(f"{name} | " + " | ".join(f"{value:.3f}" for value in row))
    return [*lines, ""]


if __name__ == "__main__":
    tyro.cli(main)
