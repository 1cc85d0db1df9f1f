"""Do intervals hold where few starts carry the variance, or is it said that they may not?

`gradlab.measure`'s own sample, pilot and check (`measurement.rare_starts`), on worlds whose moments
are known from 65,536 starts that cover the rare ones by design:

    far      a linear-quadratic task; 2% of its starts are six times farther (the two parts of the
             mixture are integrated apart)                                        N = 64, 256
    pole     a damped pole with saturated torque, of which 1 start in 150 falls (a jittered grid of
             starts with their density)                                           N = 256
    laws     the former task from Gaussian, uniform and bimodal starts: flags alone;
             from Student's t with 5 degrees of freedom: both, for the record     N = 64, 256

Each as `measure` samples it, 120 runs; for the record, 60 runs with strata off, of the pole at
N = 64, and of t5. A run misses where the interval
does not hold the known value and the check passes; a quantity of which a truth is needed and there
is none is not decided.

Criterion, written before the runs: with strata on, for every quantity the share of runs that miss
without a flag, over the five estimators, is at most 7% (far at both N, pole at N = 256); flags are
raised in at most 5% of runs from Gaussian, uniform and bimodal starts, at each N.

    python -m analyses.coverage.rare_events [repetitions] → reports/rare-events
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

from analyses.coverage.gain_coverage import networks, turning
from gradlab.gradients.start_laws import visits
from gradlab.gradients.starts import Starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.moments.by_blocks import path_sums, visit_sums
from gradlab.measurement.moments.grams import Held
from gradlab.measurement.moments.visited import SAMPLES, gradients_at, objective_moments
from gradlab.measurement.problem import Given, problem
from gradlab.measurement.rare_starts import rare_starts, with_pilot
from gradlab.progress import silent
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import estimates
from gradlab.systems import from_function
from gradlab.tasks import Task
from gradlab.truth.oracles import all_action_gradients, piece
from gradlab.truth.truth import matched_truth

REPORT = Path("reports/rare-events")
REPETITIONS, FOR_THE_RECORD = 120, 60
H, BATCH, T = 2, 256, 150
CELLS = (("data", 0), ("model", H), ("mixed", H), ("model_all", H), ("true_dynamics_all", H))
QUANTITIES = ("mean_norm", "variance", "bias2", "mse", "relative_mse", "snr", "gain")
NEEDS_TRUTH = ("bias2", "mse", "relative_mse", "gain")
KNOWN, BLOCK = 1 << 16, 4096
FAR, FARTHER = 0.02, 6.0
SLOW, DT, TORQUE, WIDE = 4.0, 0.1, 3.0, 0.285
MOST_MISSED, MOST_FLAGGED = 0.07, 0.05
ERROR = 0.02  # standard error of a share near 5%
NOTE = (
    "*far*: 2% of the starts are six times farther. *pole*: 1 start in 150 falls. *t5*: starts of "
    "Student's t with 5 degrees of freedom. *strata*: does the measurement sample rare starts "
    "apart? q: a start's share of the sum of squares, by the pilot.\n\nThe criterion was written "
    "before the first run; the method was changed after it, twice. With "
    "half of N by q, a pilot of 30 N and the intervals of plain samples, 18% of the variances and "
    "13% of the SNR missed (far, N = 64; 11% of the variances at 256). So a quarter of N goes by "
    "q², strata are drawn from a pilot four times as large, and intervals of strata are made in "
    "the logarithm. Then 7.5% of squared biases missed under falls, with N/16 of the sample for "
    "them: they have N/8 since, and the pole ran again. Starts without rare ones ran before both; "
    "what changed for them since (what is unseen of light tails is no reason any more) raises "
    "fewer flags. Misses of the five estimators are those of the same runs: the standard error of "
    "a share near 5% is about 2%."
)


@dataclass(frozen=True, eq=False)
class World:
    """A task with its networks; parts: starts [n, ds] and how much each of them weighs."""

    task: Task
    policy: nn.Module
    critic: object
    parts: tuple[tuple[Tensor, Tensor], ...] = ()


def far() -> World:
    task = turning()
    policy, critic = networks(task)
    centre, spread = torch.tensor([0.6, -0.3], dtype=torch.float64), 0.5**0.5

    def near(n: int, generator: torch.Generator) -> Tensor:
        return spread * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        x = near(n, generator)
        rare = torch.rand(n, 1, generator=generator, dtype=torch.float64) < FAR
        return centre + torch.where(rare, FARTHER * x, x)

    generator = torch.Generator().manual_seed(1)
    half = KNOWN // 2
    ones = torch.ones(half, dtype=torch.float64) / half
    parts = (
        (centre + near(half, generator), (1 - FAR) * ones),
        (centre + FARTHER * near(half, generator), FAR * ones),
    )
    return World(replace(task, starts=starts), policy, critic, parts)


def pole() -> World:
    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        torque = TORQUE * torch.tanh(a[..., 0] / TORQUE)
        speed = s[..., 1] * (1 - DT) + DT * (SLOW * torch.sin(s[..., 0]) + torque)
        reward = torch.cos(s[..., 0]) - 1 - 0.01 * torque**2
        return torch.stack([s[..., 0] + DT * speed, speed], dim=-1), reward

    def linear(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        speed = s[..., 1] + DT * (3.0 * s[..., 0] + a[..., 0])
        reward = -0.5 * s[..., 0] ** 2 - 0.01 * a[..., 0] ** 2
        return torch.stack([s[..., 0] + DT * s[..., 1], speed], dim=-1), reward

    def critic(s: Tensor, a: Tensor) -> Tensor:
        own = 3 * s[:, 0] ** 2 + s[:, 1] ** 2 + 0.3 * a[:, 0] ** 2
        return -own - 0.2 * s[:, 0] * a[:, 0]

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return WIDE * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    simulator = from_function(step, 2, 1, alive=lambda s: s[..., 0].abs() < 1.5)
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([[-8.0, -3.0]], dtype=torch.float64)
    task = Task("pole", simulator, from_function(linear, 2, 1), starts, 0.9, H)
    side, reach = int(KNOWN**0.5), 5.0
    generator = torch.Generator().manual_seed(1)
    edge = torch.arange(side, dtype=torch.float64)
    grid = torch.cartesian_prod(edge, edge) + torch.rand(side**2, 2, generator=generator).double()
    x = reach * (2 * grid / side - 1)
    density = torch.exp(-x.square().sum(dim=1) / 2)
    return World(task, policy, critic, ((WIDE * x, density / density.sum()),))


def other(law: str) -> World:
    world = far()

    def starts(n: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        side = (torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.5).double() * 2 - 1
        chi2 = torch.randn(n, 5, generator=generator, dtype=torch.float64).square().sum(dim=1)
        laws = {
            "gaussian": 0.5**0.5 * x,
            "uniform": 1.5**0.5 * (2 * torch.special.ndtr(x) - 1),
            "bimodal": side * torch.tensor([0.9, 0.4], dtype=torch.float64) + 0.2 * x,
            "t5": 0.5**0.5 * x * (3 / chi2[:, None]) ** 0.5,
        }
        return torch.tensor([0.6, -0.3], dtype=torch.float64) + laws[law]

    task = replace(world.task, starts=starts)
    if law != "t5":
        return replace(world, task=task, parts=())
    ones = torch.ones(KNOWN, dtype=torch.float64) / KNOWN
    return replace(
        world, task=task, parts=((starts(KNOWN, torch.Generator().manual_seed(2)), ones),)
    )


def known_values(world: World) -> dict[tuple[str, int], dict[str, float]]:
    """Every quantity of every cell from sums over all starts of the parts: no statistics."""
    task, policy = world.task, world.policy
    chosen = estimators_at(task, world.critic, None, H, every=True)  # type: ignore[arg-type]
    staying = {name: e for name, e in chosen.items() if e.way.every}
    visiting = {name: e for name, e in chosen.items() if not e.way.every}
    mean: dict[tuple[str, int], Tensor] = {}
    square: dict[tuple[str, int], float] = {}
    truth = torch.zeros(sum(p.numel() for p in policy.parameters()), dtype=torch.float64)
    for states, weights in world.parts:
        for k in range(0, len(states), BLOCK):
            s, w = states[k : k + BLOCK], weights[k : k + BLOCK]
            label = torch.arange(len(s))
            begin = Starts(s, torch.ones(len(s), dtype=torch.float64), label)
            setting = Setting(task.simulator, policy, begin, task.discount, H, "ignore", k)
            long = piece(setting, T)
            truth += w @ all_action_gradients(long, policy, T, task.discount)
            held, rows = Held(setting, len(staying)), slice(0, len(s))
            found = {}
            for name, estimator in staying.items():
                horizons = tuple(range(H + 1))
                X, squares = path_sums(held.rows(estimator, rows, horizons), label)
                found |= {(name, n): (X[:, n], squares[n], 1) for n in horizons}
            at = visits(replace(setting, horizon=T), SAMPLES)
            there = gradients_at(visiting, setting, at)
            X, squares = visit_sums(there, label, SAMPLES)
            found |= {key: (X[:, i], squares[i], SAMPLES) for i, key in enumerate(there.keys)}
            for key, (sums, norms, count) in found.items():
                mean[key] = mean.get(key, torch.zeros_like(truth)) + w @ sums / count
                square[key] = square.get(key, 0.0) + float(w @ torch.from_numpy(norms)) / count
    return {key: _quantities(mean[key], square[key], truth) for key in mean}


def _quantities(mean: Tensor, square: float, truth: Tensor) -> dict[str, float]:
    norm2, truth2 = float(mean @ mean), float(truth @ truth)
    variance, bias2 = square - norm2, float((mean - truth).square().sum())
    mse = bias2 + variance / BATCH
    return {
        "mean_norm": norm2**0.5,
        "variance": variance,
        "bias2": bias2,
        "mse": mse,
        "relative_mse": mse / truth2,
        "snr": norm2 / variance,
        "gain": float(mean @ truth) / (norm2 * truth2) ** 0.5,
    }


def runs(
    world: World, known: Mapping[tuple[str, int], Mapping[str, float]], n: int, strata: bool,
    repetitions: int,
) -> Iterator[dict[str, object]]:  # fmt: skip
    for seed in range(repetitions):
        given = Given(
            world.task, world.policy, world.critic, None, H, n, BATCH, None, "ignore", None, seed,
        )  # type: ignore[arg-type]  # fmt: skip
        posed = with_pilot(problem(given), None if strata else False, silent)
        truth = matched_truth(posed.setting, kinds=posed.kinds)
        measured = objective_moments(posed.chosen, posed.setting, truth)
        (check,) = rare_starts(posed, truth, measured)
        assert posed.pilot is not None
        common = {
            "seed": seed,
            "flag": not check.passed,
            "stratified": posed.pilot.strata is not None,
            "truth": truth.status,
            "result": check.result,
        }
        for key in CELLS:
            found = estimates(measured.cells[key], BATCH)
            for quantity in QUANTITIES:
                here = common | {"cell": " ".join(map(str, key)), "quantity": quantity}
                if quantity in NEEDS_TRUTH and truth.status not in ("converged", "imprecise"):
                    continue  # of another return, or of none
                ends = interval(quantity, found[quantity])
                value = known[key][quantity] if key in known else np.nan
                inside = bool(ends.low <= value <= ends.high) if np.isfinite(value) else True
                yield here | {"inside": inside}


LIGHT = ("gaussian", "uniform", "bimodal")
WORLDS = {"far": far, "pole": pole} | {law: lambda law=law: other(law) for law in (*LIGHT, "t5")}
ARMS = [
    ("far", 64, True),
    ("far", 256, True),
    ("pole", 256, True),
    *((law, n, True) for law in LIGHT for n in (64, 256)),
    *(("far", n, False) for n in (64, 256)),
    ("pole", 256, False),
    ("pole", 64, True),
    *(("t5", n, True) for n in (64, 256)),
]
JUDGED = 3 + 2 * len(LIGHT)  # of these, with all repetitions


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """By arm and quantity: coverage, and misses without a flag, of all estimators and the worst."""
    rows = rows.assign(missed=~rows["inside"] & ~rows["flag"])
    by = ["world", "n", "strata", "quantity"]
    worst = rows.groupby([*by, "cell"])["missed"].mean().groupby(by).max()
    seen = rows[~rows["flag"]].groupby(by)["inside"].mean()
    whole = rows.groupby(by).agg(
        runs=("seed", "nunique"), coverage=("inside", "mean"), missed=("missed", "mean"),
        flags=("flag", "mean"), stratified=("stratified", "mean"),
    )  # fmt: skip
    return whole.assign(unflagged_coverage=seen, worst_missed=worst).reset_index()


def verdict(table: pd.DataFrame) -> list[str]:
    """The criterion, judged."""
    on = table[table["strata"]]
    goal = on[(on["world"] == "far") | ((on["world"] == "pole") & (on["n"] == 256))]
    over = goal[goal["missed"] > MOST_MISSED]
    light = on[on["world"].isin(LIGHT)]
    flags = light.groupby(["world", "n"])["flags"].first()
    most_missed = goal["missed"].max()
    held = "holds" if most_missed + ERROR <= MOST_MISSED else "reached by its estimate, undecided"
    held = held if over.empty else "refuted: " + "; ".join(
        f"{r.world} N = {r.n}, {r.quantity} {r.missed:.1%}" for r in over.itertuples()
    )  # fmt: skip
    most = f"{flags.max():.1%}" if len(flags) else "not run"
    return [
        f"- misses without a flag, at most {MOST_MISSED:.0%} for every quantity: {held} "
        f"(largest {most_missed:.1%}, standard error {ERROR:.0%})",
        f"- flags from Gaussian, uniform and bimodal starts, at most {MOST_FLAGGED:.0%}: "
        f"{'holds' if flags.max() <= MOST_FLAGGED else 'refuted'} (largest {most})",
    ]


def main(repetitions: tyro.conf.Positional[int] = REPETITIONS) -> None:
    """Arms that are in the file already are not run again."""
    torch.set_num_threads(1)
    REPORT.mkdir(parents=True, exist_ok=True)
    file = REPORT / "coverage.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame()
    known: dict[str, Mapping[tuple[str, int], dict[str, float]]] = {}
    for k, (name, n, strata) in enumerate(ARMS):
        done = (
            not table.empty
            and ((table["world"] == name) & (table["n"] == n) & (table["strata"] == strata)).any()
        )
        if done:
            continue
        world = WORLDS[name]()
        if name not in known:
            known[name] = known_values(world)
        count = repetitions if k < JUDGED else min(repetitions, FOR_THE_RECORD)
        rows = pd.DataFrame(runs(world, known[name], n, strata, count))
        arm = summary(rows.assign(world=name, n=n, strata=strata))
        if not known[name]:
            arm[["coverage", "missed", "unflagged_coverage", "worst_missed"]] = np.nan
        table = pd.concat([table, arm], ignore_index=True)
        table.to_csv(file, index=False, float_format="%.4f")
        print(arm.to_string(index=False), flush=True)
    (REPORT / "README.md").write_text(page(table), encoding="utf-8")


def page(whole: pd.DataFrame) -> str:
    light = whole["world"].isin(LIGHT)
    flags, table = whole[light].drop_duplicates(["world", "n"]), whole[~light]
    shown = table[["world", "n", "strata", "quantity", "coverage", "missed", "flags"]]
    wide = shown.pivot(index=["world", "n", "strata", "flags"], columns="quantity", values="missed")
    cover = shown.pivot(index=["world", "n", "strata"], columns="quantity", values="coverage")
    lines = [
        "# Rare events", "", *verdict(whole), "",
        "`python -m analyses.coverage.rare_events`: shares of runs over five estimators; "
        "criterion in the docstring.", "", NOTE, "",
        "Flags without rare starts:", "", _markdown(flags[["world", "n", "runs", "flags"]]), "",
        "Misses without a flag:", "", _markdown(wide[list(QUANTITIES)].reset_index()), "",
        "Coverage, whatever is flagged:", "", _markdown(cover[list(QUANTITIES)].reset_index()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy().tolist()]
    told = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in told)


if __name__ == "__main__":
    tyro.cli(main)
