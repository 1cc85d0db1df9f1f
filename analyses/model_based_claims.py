"""Claims about training that the runs of `model_based` decide, five paired seeds each.

    python -m analyses.model_based_claims [--runs runs/model-based]

AUC is the mean return over the run. Differences are over paired seeds, with 95% intervals that
leave one seed out in turn; the range is from the worst to the best mean return of the arms that a
claim compares, at any evaluation.

    ABL-H0       maac-h0 − maac, AUC: below 0. maac-no-steve − maac and maac-one-sample − maac, AUC:
                 within 10% of the range ("not significant", "fine in simple tasks")
    ENTROPY      maac − maac-no-entropy, AUC: above 0
    REAL         maac − maac-real-data, AUC: above 0
    TWO-MODEL-RETURNS  ddppo − ddppo-one-model, ddppo − ddppo-no-gradient-loss and ddppo-one-model −
                 ddppo-no-gradient-loss, AUC: above 0
    DDPPO-H      ddppo at H = 5 and at 10 − at 3, AUC: below 0
    MPC          what planning adds to the return of maac's last policy, both worlds: above 0 holds,
                 below 0 refutes
    SN-TRAIN-SWING-UP  premise: rp-dp at h = 15 ends lower than at h = 3 by more than 10% of the
                 range. rp-dp-sn − rp-dp, final return: above 0 at h = 15, above −10% of the range
                 at h = 3

The paper's tasks are MuJoCo's. `maac-five-batch` and `ddppo-double-parameters` are reported beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import tyro

from analyses.criteria import Part, Side
from analyses.model_based import RUNS, Arm, Swing, World, path_of
from analyses.sn_train import spread
from analyses.verdicts import Verdict, save
from gradlab.runs.training.pairs import pairs
from gradlab.runs.training.results import Training, load
from gradlab.statistics.comparison import difference
from gradlab.statistics.moments import Estimate
from gradlab.storage.journal import read

OUTPUT = Path("reports/model-based")
AUC, FINAL = "mean return over the run", "final return"
Wanted = Literal["above", "below", "within", "not far below", "beside"]
NEAR = 0.10  # of the range of returns


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


def _of_horizons(row: str, horizons: tuple[int, int | None], wanted: Wanted) -> Contrast:
    first, second = (Arm(row, "pendulum", h) for h in horizons)
    return Contrast(first, second, wanted)


def _unrolled(horizon: int, wanted: Wanted) -> Contrast:
    first, second = (Arm(row, "cart-pole", horizon) for row in ("rp-dp-sn", "rp-dp"))
    return Contrast(first, second, wanted, FINAL)


LONG, SHORT = (Arm("rp-dp", "cart-pole", h) for h in (15, 3))
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
        ),
    ),
    Claim("ENTROPY", "MAAC, Fig. 5", "with − without entropy, AUC: above 0",
          (_on("pendulum", "maac", "maac-no-entropy", "above"),)),
    Claim("REAL", "MAAC, Fig. 5", "imagined − real data alone, AUC: above 0",
          (_on("pendulum", "maac", "maac-real-data", "above"),)),
    Claim(
        "TWO-MODEL-RETURNS", "DDPPO, Figs. 3 right, 5",
        "two models − one, two − none with the gradient loss, one − none, AUC: above 0",
        (
            _on("pendulum", "ddppo", "ddppo-one-model", "above"),
            _on("pendulum", "ddppo", "ddppo-no-gradient-loss", "above"),
            _on("pendulum", "ddppo-one-model", "ddppo-no-gradient-loss", "above"),
            _on("pendulum", "ddppo", "ddppo-double-parameters", "beside"),
        ),
    ),
    Claim(
        "DDPPO-H", "DDPPO, App. B.2", "H = 5 and 10 − H = 3, AUC: below 0",
        (
            _of_horizons("ddppo", (5, None), "below"),
            _of_horizons("ddppo", (10, None), "below"),
            _of_horizons("ddppo", (1, None), "beside"),
            _of_horizons("ddppo", (2, None), "beside"),
        ),
    ),
    Claim(
        "SN-TRAIN-SWING-UP", "RP-PGM, section 7.3, Fig. 4",
        "normalised − plain final return at h = 15: above 0; at h = 3: above −10% of the range; no "
        "test unless plain training ends lower at h = 15 than at h = 3 by more than 10% of it",
        (
            _unrolled(15, "above"),
            _unrolled(3, "not far below"),
        ),
        premise=Contrast(LONG, SHORT, "beside", FINAL),
    ),
)  # fmt: skip


def judged(claim: Claim, folder: Path) -> Verdict | None:
    """The verdict; None while a run is missing or not finished."""
    contrasts = [*claim.contrasts, *([claim.premise] if claim.premise else [])]
    arms = list(dict.fromkeys(a for each in contrasts for a in (each.arm, each.less)))
    if not all(path_of(arm, folder).exists() for arm in arms):
        return None
    runs = {arm: load(path_of(arm, folder)) for arm in arms}
    span = spread(list(runs.values()))
    rows = [_row(each, runs, span) for each in contrasts]
    numbers = {"range": span}
    for row in rows:
        numbers |= {row["label"]: row["value"], f"{row['label']} low": row["low"],
                    f"{row['label']} high": row["high"]}  # fmt: skip
    sentence = "; ".join(
        f"{row['label']}: {row['value']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
        + (f" ({row['state']}, asked: {row['asked']})" if row["asked"] else "")
        for row in rows
    )
    return Verdict(
        claim.id, claim.paper, claim.criterion,
        all(row["state"] == "met" for row in rows if row["asked"])
        and (claim.premise is None or rows[-1]["value"] < -NEAR * span),
        f"{sentence}. Range of returns {span:.3g}.", numbers, pd.DataFrame(rows),
    )  # fmt: skip


def _row(contrast: Contrast, runs: dict[Arm, Training], span: float) -> dict[str, Any]:
    paired = {each.quantity: each for each in pairs(runs[contrast.less], runs[contrast.arm])}
    pair = paired[contrast.quantity]
    ends = pair.change, pair.low, pair.high
    parts = [Part(contrast.label, *ends, *asked) for asked in _asked(contrast.wanted, span)]
    states = [part.state for part in parts]
    state = next((s for s in ("missed", "undecided") if s in states), "met")
    asked = " and ".join(
        f"{'≥' if part.side == 'above' else '≤'} {part.threshold:.3g}" for part in parts
    )
    return {
        "label": contrast.label, "quantity": contrast.quantity, "value": pair.change,
        "low": pair.low, "high": pair.high, "seeds": pair.seeds, "asked": asked,
        "state": state if asked else "", "first": pair.first, "second": pair.second,
    }  # fmt: skip


def _asked(wanted: Wanted, span: float) -> Iterator[tuple[Side, float]]:
    """Sides and thresholds."""
    if wanted == "above":
        yield "above", 0.0
    if wanted == "below":
        yield "below", 0.0
    if wanted in ("within", "not far below"):
        yield "above", -NEAR * span
    if wanted == "within":
        yield "below", NEAR * span


def planned(folder: Path) -> Verdict | None:
    """MPC: what a plan adds to the return of the last policies, mean over the seeds."""
    rows, numbers = [], {}
    for world in get_args(Swing):
        path = path_of(Arm("maac", world), folder)
        if not path.exists():
            return None
        gain = read(path).groups["evaluations"]["planned_gain_mean"].values[-1]
        mean = Estimate(float(gain.mean()), (gain.sum() - gain) / (len(gain) - 1))
        bounds = difference(mean, Estimate(0.0, np.zeros(len(gain))))
        rows.append({"world": world, "value": mean.value, "low": bounds.low, "high": bounds.high})
        numbers |= {world: mean.value, f"{world} low": bounds.low, f"{world} high": bounds.high}
    gains = "; ".join(
        f"{r['world']} {r['value']:+.3g} [{r['low']:.3g}, {r['high']:.3g}]" for r in rows
    )
    return Verdict(
        "MPC", "MAAC, Table 2", "planned − policy's own return, both worlds: above 0",
        all(row["low"] > 0 for row in rows), f"What a plan of 5 model steps adds: {gains}.",
        numbers, pd.DataFrame(rows),
    )  # fmt: skip


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    verdicts = [*(judged(claim, runs) for claim in CLAIMS), planned(runs)]
    for verdict in verdicts:
        if verdict is not None:
            save(verdict, output, "python -m analyses.model_based_claims")


if __name__ == "__main__":
    tyro.cli(main)
