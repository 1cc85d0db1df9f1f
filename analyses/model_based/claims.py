"""Claims about training that the runs of `model_based` decide, five paired seeds each.

    python -m analyses.model_based.claims [--runs runs/model-based]

AUC is the mean return over the run. Differences are over paired seeds, with 95% intervals that
leave one seed out in turn; the range is from the worst to the best mean return of the arms that a
claim compares, at any evaluation.

    ABL-H0       maac-h0 − maac, AUC: below 0. maac-no-steve − maac and maac-one-sample − maac, AUC:
                 within 10% of the range ("not significant", "fine in simple tasks")
    ENTROPY-REAL maac − maac-no-entropy and maac − maac-real-data, AUC: above 0
    TWO-MODEL    ddppo − ddppo-one-model, ddppo − ddppo-no-gradient-loss and ddppo-one-model −
                 ddppo-no-gradient-loss, AUC: above 0
    CAPACITY     ddppo − ddppo-double-parameters, AUC: above 0
    DDPPO-H      ddppo at H = 5 and at 10 − at 3, AUC: below 0
    MPC          what planning adds to the return of maac's last policy, both worlds: above 0 holds,
                 below 0 refutes
    SN-TRAIN-SWING-UP  premise: rp-dp at h = 15 ends lower than at h = 3 by more than 10% of the
                 range. rp-dp-sn − rp-dp, final return: above 0 at h = 15, above −10% of the range
                 at h = 3

The paper's tasks are MuJoCo's. `maac-five-batch` and the final returns of a claim of speed are
reported beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import tyro

from analyses.harness.contrast_parts import in_words, met, numbers_of
from analyses.harness.verdicts import Verdict, save
from analyses.model_based.runs import RUNS, Arm, Swing, World, finished, path_of
from gradlab.runs.training.pairs import pairs
from gradlab.runs.training.results import Training, load
from gradlab.statistics.comparison import difference
from gradlab.statistics.moments import Estimate
from gradlab.storage.journal import read

OUTPUT = Path("reports/model-based")
AUC, FINAL = "mean return over the run", "final return"
Wanted = Literal["above", "below", "within", "not far below", "beside"]
NEAR = 0.10  # of the range of returns
THRESHOLDS: Mapping[Wanted, tuple[float, float]] = {  # least and most, over the range
    "above": (0.0, np.nan),
    "below": (np.nan, 0.0),
    "within": (-NEAR, NEAR),
    "not far below": (-NEAR, np.nan),
    "beside": (np.nan, np.nan),
}


@dataclass(frozen=True)
class Contrast:
    """An arm's return less another's, and on which side of what it is claimed to lie."""

    arm: Arm
    less: Arm
    wanted: Wanted
    quantity: str = AUC

    @property
    def label(self) -> str:
        return f"{self.arm.name} − {self.less.name}"


@dataclass(frozen=True)
class Claim:
    """Contrasts that decide; of `premise` the first ends much lower than the second, or the claim
    is not tested."""

    id: str
    paper: str
    criterion: str
    contrasts: tuple[Contrast, ...]
    premise: Contrast | None = None


def _on(world: World, first: str, second: str, wanted: Wanted) -> Contrast:
    return Contrast(Arm(first, world), Arm(second, world), wanted)


def _final(contrast: Contrast) -> Contrast:
    """The same of the final return, which decides nothing."""
    return replace(contrast, wanted="beside", quantity=FINAL)


def _of_horizons(row: str, horizons: tuple[int, int | None], wanted: Wanted) -> Contrast:
    first, second = (Arm(row, "pendulum", h) for h in horizons)
    return Contrast(first, second, wanted)


SHORT, LONG = Arm("rp-dp", "cart-pole"), Arm("rp-dp", "cart-pole", 15)  # h = 3, its own, and 15


def _normalised(horizon: int, plain: Arm, wanted: Wanted) -> Contrast:
    return Contrast(Arm("rp-dp-sn", "cart-pole", horizon), plain, wanted, FINAL)


CLAIMS = (
    Claim(
        "ABL-H0", "MAAC, Fig. 3",
        "H = 0 − H = 3, AUC: below 0; without STEVE − with, one sample − five: within 10% of the "
        "range",
        (
            _on("pendulum", "maac-h0", "maac", "below"),
            _on("pendulum", "maac-no-steve", "maac", "within"),
            _on("pendulum", "maac-one-sample", "maac", "within"),
            _on("pendulum", "maac-five-batch", "maac", "beside"),
            _final(_on("pendulum", "maac-h0", "maac", "below")),
        ),
    ),
    Claim(
        "ENTROPY-REAL", "MAAC, Fig. 5",
        "with − without entropy, imagined − real data alone, AUC: above 0",
        (
            _on("pendulum", "maac", "maac-no-entropy", "above"),
            _on("pendulum", "maac", "maac-real-data", "above"),
            _final(_on("pendulum", "maac", "maac-real-data", "above")),
        ),
    ),
    Claim(
        "TWO-MODEL", "DDPPO, Figs. 3 right, 5",
        "two models − one, two − none with the gradient loss, one − none, AUC: above 0",
        (
            _on("pendulum", "ddppo", "ddppo-one-model", "above"),
            _on("pendulum", "ddppo", "ddppo-no-gradient-loss", "above"),
            _on("pendulum", "ddppo-one-model", "ddppo-no-gradient-loss", "above"),
        ),
    ),
    Claim(
        "CAPACITY", "DDPPO, Figs. 4, 7", "two models − one of twice the parameters, AUC: above 0",
        (
            _on("pendulum", "ddppo", "ddppo-double-parameters", "above"),
            _final(_on("pendulum", "ddppo", "ddppo-double-parameters", "above")),
        ),
    ),
    Claim(
        "DDPPO-H", "DDPPO, App. B.2", "H = 5 and 10 − H = 3, AUC: below 0",
        (
            _of_horizons("ddppo", (5, None), "below"),
            _of_horizons("ddppo", (10, None), "below"),
            _final(_of_horizons("ddppo", (5, None), "below")),
            _final(_of_horizons("ddppo", (10, None), "below")),
        ),
    ),
    Claim(
        "SN-TRAIN-SWING-UP", "RP-PGM, section 7.3, Fig. 4",
        "normalised − plain final return at h = 15: above 0; at h = 3: above −10% of the range; no "
        "test unless plain training ends lower at h = 15 than at h = 3 by more than 10% of it",
        (
            _normalised(15, LONG, "above"),
            _normalised(3, SHORT, "not far below"),
        ),
        premise=Contrast(LONG, SHORT, "beside", FINAL),
    ),
)  # fmt: skip


def judged(claim: Claim, folder: Path) -> Verdict | None:
    """The verdict; None while a run that it rests on is missing or not finished."""
    premise = [claim.premise] if claim.premise else []
    made = [one for one in claim.contrasts if one.wanted != "beside" or _finished([one], folder)]
    contrasts = [*made, *premise]
    if not _finished(contrasts, folder):
        return None
    runs = {arm: load(path_of(arm, folder)) for arm in _arms(contrasts)}
    span = spread(list(runs.values()))
    runs = {arm: together(arm, run, folder) for arm, run in runs.items()}
    rows = pd.DataFrame([_row(contrast, runs, span) for contrast in contrasts])
    rows.loc[rows["label"].duplicated(), "label"] += ", final return"
    occurs = not premise or float(rows["value"].iloc[-1]) < -NEAR * span
    if not occurs:
        rows[["least", "most"]] = np.nan
    sentence = "; ".join(in_words(row) for row in rows.to_dict("records"))
    unmet = "" if occurs else " Not tested: the premise does not occur."
    return Verdict(
        claim.id, claim.paper, claim.criterion,
        occurs and met(rows),
        f"{sentence}. Range of returns {span:.3g}.{unmet}", numbers_of(rows, range=span), rows,
    )  # fmt: skip


def together(arm: Arm, run: Training, folder: Path) -> Training:
    """The run with its further seeds, once they are all there."""
    if not finished(arm, folder, more=True):
        return run
    more = load(path_of(arm, folder, more=True))
    return replace(
        run,
        seeds=np.concatenate([run.seeds, more.seeds]),
        returns=np.concatenate([run.returns, more.returns], axis=1),
        gradients={},
    )


def _arms(contrasts: Sequence[Contrast]) -> list[Arm]:
    return list(dict.fromkeys(arm for one in contrasts for arm in (one.arm, one.less)))


def _finished(contrasts: Sequence[Contrast], folder: Path) -> bool:
    return all(finished(arm, folder) for arm in _arms(contrasts))


def _row(contrast: Contrast, runs: dict[Arm, Training], span: float) -> dict[str, Any]:
    paired = {pair.quantity: pair for pair in pairs(runs[contrast.less], runs[contrast.arm])}
    pair = paired[contrast.quantity]
    least, most = THRESHOLDS[contrast.wanted]
    return {
        "label": contrast.label, "quantity": contrast.quantity, "value": pair.change,
        "low": pair.low, "high": pair.high, "least": least * span, "most": most * span,
        "seeds": pair.seeds, "first": pair.first, "second": pair.second,
    }  # fmt: skip


def spread(runs: Sequence[Training]) -> float:
    """From the worst to the best mean return over the seeds, at any evaluation of any run."""
    means = np.concatenate([run.returns.mean(axis=1) for run in runs])
    return float(means.max() - means.min())


def planned(folder: Path) -> Verdict | None:
    """MPC: what a plan adds to the return of the last policies, mean over the seeds."""
    lines = []
    for world in get_args(Swing):
        arm = Arm("maac", world)
        if not finished(arm, folder):
            return None
        gain = np.concatenate([
            read(path_of(arm, folder, more)).groups["evaluations"]["planned_gain_mean"].values[-1]
            for more in (False, True)
            if finished(arm, folder, more)
        ])  # fmt: skip
        mean = Estimate(float(gain.mean()), (gain.sum() - gain) / (len(gain) - 1))
        bounds = difference(mean, Estimate(0.0, np.zeros(len(gain))))
        lines.append({
            "label": f"planned − own, {world}", "value": mean.value, "low": bounds.low,
            "high": bounds.high, "least": 0.0, "most": np.nan, "seeds": len(gain),
        })  # fmt: skip
    rows = pd.DataFrame(lines)
    sentence = "; ".join(in_words(row) for row in rows.to_dict("records"))
    return Verdict(
        "MPC", "MAAC, Table 2", "planned − policy's own return, both worlds: above 0",
        bool((rows["low"] > 0).all()), f"What a plan of 5 model steps adds: {sentence}.",
        numbers_of(rows), rows,
    )  # fmt: skip


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    verdicts = [*(judged(claim, runs) for claim in CLAIMS), planned(runs)]
    for verdict in verdicts:
        if verdict is not None:
            save(verdict, output, "python -m analyses.model_based.claims")


if __name__ == "__main__":
    tyro.cli(main)
