"""Does what logs say agree with what a simulator says, where there is one?

    python -m analyses.measurements.logs_against_truth [--small] [--output reports/logs]

coverage    the double integrator, whose answers are closed forms: 300 records of 200 trajectories,
            judged each through the exact model and through two wrong ones. How often do intervals
            hold the norm of the true gradient (of the score), and the true difference between the
            model's gradient and the truth; how often is a model called right or wrong?
simulators  one record of each task, beside the same difference from many simulated paths, on which
            model and simulator are differentiated (both without a score): the inverted pendulum
            through the paper's prior, the MuJoCo pendulum and Hopper through fitted ensembles

Criterion: 92% of the intervals hold what they are of; the exact model is refuted in at most 5% of
the records, at any horizon; wrong ones are never called right beyond the tolerance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

from gradlab import provenance, tasks
from gradlab.data.noise import child, stream
from gradlab.fitting.model_settings import SMALL
from gradlab.fitting.models import fit_model
from gradlab.fitting.policies import stabilising_policy
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.recording import record
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import Gaussian
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.tools.logs.compute import measure_logs
from gradlab.tools.logs.result import TOLERANCE, LogsRun, agreements, numbers
from gradlab.truth.lqr import lqr_gradient

FOLDER = Path("reports/logs")
WEIGHT, NOISE = (-1.0, -1.2), 0.3  # of the linear policy and of its actions
PUSHES = {"exact": 1.0, "push 0.8": 0.8, "push 0.4": 0.4}  # of the models
HORIZON, STEPS = 10, 12
STATUSES = ("agree", "disagree", "undecided")
SHARE = 0.8  # of the feedback: leaves the gradient something to learn
PENDULUM, HOPPER = "MuJoCo inverted pendulum, ensemble", "Hopper-v5, ensemble"
REFERENCE = 40_000  # paths behind a difference that is called true


@dataclass(frozen=True, eq=False)
class Case:
    """A task, the noisy policy that is recorded, and the model that is judged."""

    name: str
    task: Task
    policy: nn.Module
    model: System
    trajectories: int
    reference: int


def true_gaps(case: Case, horizons: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """|E M − E S| / |E S| by simulated paths, and its spread over quarters of them, [K] each.

    S differentiates the simulator along its own paths, M the model along the same: no score.
    """
    parts = [
        _means(case, horizons, case.reference // 4, child(seed, f"reference {k}")) for k in range(4)
    ]
    every = torch.stack([torch.stack(part) for part in parts])  # [4, 2, K, P]
    whole, single = every.mean(dim=0), every
    gap = (whole[0] - whole[1]).norm(dim=-1) / whole[1].norm(dim=-1)
    each = (single[:, 0] - single[:, 1]).norm(dim=-1) / single[:, 1].norm(dim=-1)
    return gap.numpy(), (each.std(dim=0) / 2).numpy()


def _means(case: Case, horizons: Sequence[int], count: int, seed: int) -> list[Tensor]:
    simulator, tail = case.task.simulator, Tail(max(horizons), None, case.task.discount)
    starts = case.task.starts(count, stream(seed, "starts"))
    found = []
    for jacobians in (case.model, simulator):
        estimator = Estimator(simulator, jacobians, "all", tail)
        means = horizon_gradients(
            estimator, case.policy, starts, horizons=horizons, seed=seed, termination="mask"
        ).means
        assert means is not None
        found.append(means)
    return found


def judged(case: Case, seed: int, horizon: int = HORIZON) -> LogsRun:
    """One record of the case, and what it says."""
    starts = case.task.starts(case.trajectories, stream(seed, "record starts"))
    data = record(case.task.simulator, case.policy, starts, max(STEPS, horizon), seed)
    return measure_logs(
        data, case.policy, case.model, discount=case.task.discount, horizon=horizon, seed=seed
    )


def recorded(repetitions: int, kept: Path) -> pd.DataFrame:
    """A row per model, record and horizon: ends of intervals and status; goes on with its file."""
    known = pd.read_csv(kept) if kept.is_file() else pd.DataFrame({"model": [], "record": []})
    done = set(zip(known["model"], known["record"], strict=True))
    for k, case in itertools.product(range(repetitions), list(linear_cases(0))):
        if (case.name, k) in done:
            continue
        known = pd.concat([known, pd.DataFrame(one_record(case, k))], ignore_index=True)
        known.to_csv(kept, index=False, float_format="%.8g")
    return known


def one_record(case: Case, k: int) -> list[dict[str, object]]:
    run = judged(case, child(k, "record"))
    norm = numbers(run, "gradient", "mean_norm", "score")
    return [
        {
            "model": case.name,
            "record": k,
            "horizon": each.horizon,
            "norm_low": norm[each.horizon].low,
            "norm_high": norm[each.horizon].high,
            "gap_low": max(each.gap.low, 0.0) ** 0.5,
            "gap_high": max(each.gap.high, 0.0) ** 0.5,
            "status": each.status,
        }
        for each in agreements(run, "same")
    ]


def coverage(found: pd.DataFrame, reference: int) -> pd.DataFrame:
    """A row per model and horizon: share of records whose interval holds the truth, and of those
    that call the model right or wrong; a difference that is lost in noise holds everything."""
    rows = []
    for case in linear_cases(reference):
        own = found[found["model"] == case.name]
        horizons = sorted(int(each) for each in set(own["horizon"]))
        gaps = true_gaps(case, horizons, seed=1)[0] if case.name != "exact" else [0.0] * 99
        for h, gap in zip(horizons, gaps, strict=False):
            at, norm = own[own["horizon"] == h], float(true_gradient(case, h).norm())
            lost = at["gap_low"].isna()
            held = lost | ((at["gap_low"] <= gap + 1e-12) & (gap <= at["gap_high"]))
            shares = {each: (at["status"] == each).mean() for each in STATUSES}
            row = {
                "model": case.name,
                "horizon": h,
                "true_norm": norm,
                "norm_covered": ((at["norm_low"] <= norm) & (norm <= at["norm_high"])).mean(),
                "true_gap": gap,
                "gap_covered": held.mean(),
                "gap_lost": lost.mean(),
            }
            rows.append(row | shares | {"records": len(at)})
    return pd.DataFrame(rows)


def linear_cases(reference: int) -> Iterator[Case]:
    policy = Policy(2, 1, (), bias=False).double()
    with torch.no_grad():
        policy.network[0].weight.copy_(torch.tensor([WEIGHT]))  # type: ignore[union-attr]
    for name, push in PUSHES.items():
        task = tasks.double_integrator(prior_push=push)
        assert task.prior is not None
        yield Case(name, task, Gaussian(policy, NOISE), task.prior, 200, reference)


def true_gradient(case: Case, horizon: int) -> Tensor:
    """∇ E[Σ_{t<n} γᵗ r] of the linear policy, its noise included, in closed form."""
    second = torch.eye(2, dtype=torch.float64)  # of the starts
    noise = torch.full((1, 1), NOISE**2, dtype=torch.float64)
    return lqr_gradient(
        case.task.simulator, torch.tensor([WEIGHT], dtype=torch.float64), second,
        case.task.discount, "all", horizon, noise,
    )  # fmt: skip


def simulators(small: bool, kept: Path) -> pd.DataFrame:
    """A row per case and horizon: what the logs say, and what the simulator does; cases that are
    in the file are not tried again."""
    known = pd.read_csv(kept) if kept.is_file() else pd.DataFrame({"case": []})
    for name in list(ROBOTS)[: 1 if small else None]:
        if name not in set(known["case"]):
            found = pd.DataFrame(compared(ROBOTS[name](small)))
            known = pd.concat([known, found], ignore_index=True)
            known.to_csv(kept, index=False, float_format="%.6g")
    return known


def compared(case: Case) -> list[dict[str, object]]:
    run = judged(case, seed=3)
    found = agreements(run, "same")
    gaps, errors = true_gaps(case, [each.horizon for each in found], seed=4)
    rows = []
    for each, gap, error in zip(found, gaps, errors, strict=True):
        logs, low, high = (
            max(x, 0.0) ** 0.5 for x in (each.gap.value, each.gap.low, each.gap.high)
        )
        rows.append(
            {
                "case": case.name,
                "horizon": each.horizon,
                "logs": logs,
                "low": low,
                "high": high,
                "simulator": gap,
                "simulator_se": error,
                "held": bool(low <= gap + 2 * error and gap - 2 * error <= high),
                "status": each.status,
                "right": _right(each.status, gap),
                "trajectories": each.n,
            }
        )
    return rows


def _right(status: str, gap: float) -> bool:
    return bool(gap <= TOLERANCE if status == "agree" else gap > 0 or status == "undecided")


def pendulum(small: bool) -> Case:
    """Through the paper's prior."""
    task = tasks.inverted_pendulum(engine="analytic")
    assert task.prior is not None
    sizes = (100, 64) if small else (2000, 4096)
    return Case("inverted pendulum, prior", task, _noisy(task), task.prior, *sizes)


def robot(name: str, task: Task) -> Case:
    """A MuJoCo task through an ensemble that was fitted to a record of its own."""
    policy = _noisy(task)
    model = fitted(task, policy, 10_000)
    return Case(name, task, policy, model, 1000, 1024)


def _noisy(task: Task) -> nn.Module:
    return Gaussian(stabilising_policy(task, share=SHARE).double(), 0.1)


ROBOTS = {
    "inverted pendulum, prior": pendulum,
    PENDULUM: lambda small: robot(PENDULUM, tasks.inverted_pendulum()),
    HOPPER: lambda small: robot(HOPPER, tasks.mujoco("Hopper-v5")),
}


def fitted(task: Task, policy: nn.Module, rows: int) -> System:
    """An ensemble of five, fitted to a record of its own."""
    starts = task.starts(rows // STEPS, stream(11, "fitting starts"))
    data = record(task.simulator, policy, starts, STEPS, seed=11)
    settings = replace(SMALL, members=5, epochs=25)
    return LearnedSystem(fit_model(data, settings).ensemble.double())


def page(covered: pd.DataFrame, robots: pd.DataFrame) -> str:
    """README.md."""
    wrong = covered[covered["model"] == "exact"]["disagree"].max()
    fooled = covered[covered["true_gap"] > TOLERANCE]["agree"].max()
    shares = covered[["norm_covered", "gap_covered"]].to_numpy()
    missed, cells = int((shares < 0.92).sum()), shares.size
    lines = [
        "# What logs say, beside what a simulator says",
        "",
        "`python -m analyses.measurements.logs_against_truth` "
        f"(commit {provenance.commit()}); {int(covered['records'].max())} records of 200 "
        f"trajectories, {STEPS} steps each, judged without a critic.",
        "",
        f"Double integrator: intervals of the score's norm hold the closed form in "
        f"{covered['norm_covered'].mean():.1%} of the records (worst horizon "
        f"{covered['norm_covered'].min():.1%}), those of the model's relative difference in "
        f"{covered['gap_covered'].mean():.1%} (worst {covered['gap_covered'].min():.1%}). The "
        f"exact model is refuted in at most {wrong:.1%} of the records at any horizon; a model "
        f"that is off by more than {TOLERANCE:.0%} is called right in at most {fooled:.1%}.",
        "",
        _markdown(covered.drop(columns=["records"])),
        "",
        f"Criterion: 92% of the intervals, met on average and missed in {missed} of {cells} cells; "
        f"the exact model refuted in at most 5%, {'met' if wrong <= 0.05 else 'missed'}; a wrong "
        f"one never called right, {'met' if fooled == 0 else f'missed by {fooled:.1%}'}. `agree`, "
        "`disagree`, `undecided` are shares of the records, `gap_lost` of those whose score is "
        "lost in noise, which hold everything.",
        "",
        "One record of each task (`logs`, with its 95% interval), beside the difference between "
        "model and simulator along many simulated paths (`simulator`; `inf` where the simulator's "
        "gradient is exactly 0, so that any other is wrong). These differences are between "
        "derivatives. A score also sees what derivatives miss, as contacts: where the two columns "
        "differ on Hopper, that may be it, or chance, since the horizons of one record are far "
        "from independent.",
        "",
        _markdown(robots),
        "",
    ]
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> str:
    def text(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    head = [list(table.columns), ["---"] * table.shape[1]]
    rows = [[text(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [*head, *rows])


def main(small: bool = False, output: Path = FOLDER) -> None:
    """Write records.csv, coverage.csv, simulators.csv and README.md; goes on where it stopped.

    Args:
        small: a few records, the analytic pendulum alone.
        output: their folder.
    """
    output.mkdir(parents=True, exist_ok=True)
    found = recorded(5 if small else 300, output / "records.csv")
    covered = coverage(found, 2000 if small else REFERENCE)
    covered.to_csv(output / "coverage.csv", index=False, float_format="%.6g")
    robots = simulators(small, output / "simulators.csv")
    (output / "README.md").write_text(page(covered, robots))


if __name__ == "__main__":
    tyro.cli(main)
