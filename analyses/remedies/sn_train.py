"""SN-TRAIN: does spectral normalisation rescue training through long unrolls of a learned model?

    claim       short unrolls: normalising "will at least not sacrifice" performance; long ones:
                plain training fails and normalised training does not
    paper       RP-PGM, section 7.3, Fig. 4 (there: Hopper h = 15, Walker2d h = 10)
    criterion   normalised − plain return at h = 15: interval above 0; at h = 3 its lower end above
                −10% of the range of returns. It is no test of the claim unless plain training fails
                at h = 15: ends lower than at h = 3, by more than 10% of that range

    python -m analyses.remedies.sn_train train      every unroll and arm, seeds beside each other
    python -m analyses.remedies.sn_train table      from the run files to the verdict

MPG's inverted pendulum in closed form (wide slider), about 20,000 simulator steps a seed. The
policy follows the reparameterised gradient of h = 3, 10, 15 model steps and a critic (RP-PGM
eq. 4.2), θ in every action; one model per seed, refitted as data grows. Policy of four ReLU layers,
all of them normalised, model of five, all but the last. Both arms share seeds: draws, starts,
initial weights. Not the paper's Fig. 4: a balancing task in the place of locomotion, a
deterministic policy without entropy, no swing-up, no longer unroll.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import gradlab
from analyses.harness.commands import commands
from analyses.harness.training import trained
from analyses.harness.verdicts import Verdict, save
from analyses.remedies import page as remedy_claims
from gradlab.runs.training.pairs import Pair, pairs
from gradlab.runs.training.results import Training, load
from gradlab.training.algorithms import Algorithm, OneStep, Term
from gradlab.training.checkpoints import resume_file
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.context import FixedWeights

FOLDER = remedy_claims.FOLDER
RUNS = FOLDER / "sn-train-runs"
UNROLLS = (3, 10, 15)
SHORT, LONG = 3, 15
ARMS = ("plain", "normalised")
SEEDS = 5
ITERATIONS = 2500  # of 8 simulator steps each
LOST = 0.10  # of the range of returns
MODEL = LearnedModel(
    hidden=(64, 64, 64, 64), activation="relu", members=1, first_steps=1000, steps=250
)
ROW = Algorithm(
    "rp-dp", (Term(3, "all"),), FixedWeights((1.0,)), OneStep(twin=True), delay=2,
    hidden=(64, 64, 64), activation="relu", batch=64, policy_rate=(3e-4, 3e-4),
    value_rate=(8e-4, 8e-4), clip=3.0, model=MODEL,
)  # fmt: skip


def algorithm(unroll: int, arm: str) -> Algorithm:
    """The row that unrolls h steps, with or without normalised layers."""
    row = replace(ROW, name=f"rp-dp-h{unroll}-{arm}", terms=(Term(unroll, "all"),))
    if arm == ARMS[0]:
        return row
    return replace(row, model=replace(MODEL, spectral="all_but_last"), policy_spectral="all")


def training(iterations: int = ITERATIONS, seeds: int = SEEDS, folder: Path = RUNS) -> None:
    """Train every unroll and arm; what is finished is kept, what was killed goes on."""
    task = gradlab.tasks.inverted_pendulum(engine="analytic", slider="wide")
    for row in (algorithm(unroll, arm) for unroll in UNROLLS for arm in ARMS):
        path = folder / f"{row.name}.h5"
        if not path.exists() or resume_file(path).exists():
            trained(
                row, task, path, seeds=seeds, iterations=iterations,
                evaluate_every=max(iterations // 20, 1), checkpoint_every=500, gradient_every=0,
                command="python -m analyses.remedies.sn_train train",
            )  # fmt: skip


def table(folder: Path = RUNS, output: Path = FOLDER) -> None:
    """The verdict from the run files."""
    save(judge(loaded(folder)), output, "python -m analyses.remedies.sn_train table")
    remedy_claims.refresh(output)


Runs = Mapping[tuple[int, str], Training]


def loaded(folder: Path) -> Runs:
    """Runs by unroll and arm; those that are not there are left out."""
    paths = {(h, arm): folder / f"{algorithm(h, arm).name}.h5" for h in UNROLLS for arm in ARMS}
    return {key: load(path) for key, path in paths.items() if path.exists()}


def judge(runs: Runs) -> Verdict:
    """The verdict from the runs that are there, of h = 3 and 15 at least."""
    unrolls = [h for h in UNROLLS if all((h, arm) in runs for arm in ARMS)]
    found = {h: {each.quantity: each for each in pairs(runs[h, ARMS[0]], runs[h, ARMS[1]])}
             for h in unrolls}  # fmt: skip
    final = {h: each["final return"] for h, each in found.items()}
    span = spread([runs[h, arm] for h in unrolls for arm in ARMS])
    rescued, kept = final[LONG].low > 0, final[SHORT].low > -LOST * span
    failed = final[LONG].first < final[SHORT].first - LOST * span
    run = runs[SHORT, ARMS[0]]
    numbers = {"range": span}
    for h, each in found.items():
        for name, pair in each.items():
            key = f"h{h}_{name.replace(' ', '_')}"
            numbers |= {f"{key}_plain": pair.first, f"{key}_normalised": pair.second,
                        f"{key}_difference": pair.change, f"{key}_low": pair.low,
                        f"{key}_high": pair.high}  # fmt: skip
    side = {1: "helps", 0: "is not shown to help", -1: "costs return"}[final[LONG].side]
    cost = "costs less" if kept else "may cost more"
    premise = (
        ""
        if failed
        else f"Not tested: the premise did not occur, plain training does not fail at h = {LONG} "
        f"(final return {final[LONG].first:.3g}, at h = {SHORT} {final[SHORT].first:.3g}). "
    )
    sentence = premise + (
        f"At h = {LONG} normalising {side}, at h = {SHORT} it {cost} than {LOST:.0%} of the range "
        f"of returns ({span:.3g}). Final return, plain → normalised: "
        f"{'; '.join(_told(h, each) for h, each in found.items())}. {len(run.seeds)} paired seeds, "
        f"{run.iteration[-1]} iterations."
    )
    return Verdict(
        "SN-TRAIN",
        "RP-PGM, section 7.3, Fig. 4",
        "normalised − plain final return at h = 15: interval above 0; at h = 3 its lower end above "
        "−10% of the range",
        bool(failed and rescued and kept),
        sentence,
        numbers,
        curves(runs),
    )


def spread(runs: Sequence[Training]) -> float:
    """From the worst to the best mean return over the seeds, at any evaluation of any run."""
    means = np.concatenate([run.returns.mean(axis=1) for run in runs])
    return float(means.max() - means.min())


def _told(unroll: int, found: Mapping[str, Pair]) -> str:
    def said(pair: Pair) -> str:
        gap = f"{pair.change:+.3g} [{pair.low:.3g}, {pair.high:.3g}]"
        return f"{pair.first:.3g} → {pair.second:.3g} ({gap})"

    whole = found["mean return over the run"]
    return f"h = {unroll} {said(found['final return'])}, mean over the run {said(whole)}"


def curves(runs: Runs) -> pd.DataFrame:
    """One row per unroll, arm, seed and evaluation."""
    return pd.DataFrame(
        {"h": h, "arm": arm, "seed": int(seed), "iteration": int(k), "return": float(value)}
        for (h, arm), run in runs.items()
        for k, row in zip(run.iteration, run.returns, strict=True)
        for seed, value in zip(run.seeds, row, strict=True)
    )


if __name__ == "__main__":
    commands(train=training, table=table)
