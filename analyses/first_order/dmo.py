"""DMO-JACOBIANS: what does a learned Jacobian cost in error, and what does it save in time?

    claim       along the simulator's states the Jacobians of a learned model do as well as those of
                a differentiable simulator, for less time
    paper       Amigo et al. 2025 (DMO)
    criterion   stated before any run. dmo beside shac, both at h = 16 and the same data, on each
                task, intervals of 95%:
                (a) error of an update (`first_order_errors`), sums over five stages: dmo / shac
                    below 2;
                (b) processor seconds of an update: dmo / shac below 1 on Hopper; the cart-pole,
                    a function in torch, stands beside

    python -m analyses.first_order.dmo [--runs runs/first-order] [--output reports/first-order]

Beside it: squared bias, the part of it that the model's Jacobians make, the critic's, noise, and
final returns. Intervals of (a) are over seeds, the runs' as pairs; of (b) over blocks of the run.

Added after a look at the truths, whose errors exceed their norms: dmo's gradient against that with
the simulator's Jacobians in the model's place, which needs no truth. Of every seed and stage, is
the cosine of the two shown at least 0.7, shown below it, or neither?
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analyses.first_order.clock import per_update
from analyses.first_order.errors import errors_of
from analyses.first_order.runs import (
    OUTPUT,
    PATHS_OF_DMO,
    RUNS,
    STUDIED,
    Arm,
    World,
    finished,
    path_of,
)
from analyses.harness.contrast_parts import in_words, met, numbers_of
from analyses.harness.pooled_gradients import ends
from analyses.harness.verdicts import Verdict, save
from gradlab.runs.decision_rules import COSINE
from gradlab.runs.training.pairs import paired_returns
from gradlab.runs.training.results import load
from gradlab.statistics.comparison import on_joint_groups, ratio_interval
from gradlab.statistics.moments import Estimate

MOST, BLOCKS = 2.0, 10
NUMBERS = ("error", "bias", "noise", "bias2_jacobians", "bias2_tail", "cosine")


def judged(runs: Path) -> Verdict | None:
    """The verdict; None while a run is missing."""
    arms = [arm for world in STUDIED for arm in _arms(world)]
    if not all(finished(arm, runs) for arm in arms):
        return None
    rows = pd.DataFrame([row for world in STUDIED for row in rows_of(world, runs)])
    own, models = profiles(runs), of_models(runs)
    worded = " ".join(
        f"{row['row']} on {row['world']}: bias² {row['bias']:.3g} of |true gradient|², of which "
        f"the model's Jacobians make {row['bias2_jacobians']:.3g} and the critic "
        f"{row['bias2_tail']:.3g}; noise {row['noise']:.3g}; cosine {row['cosine']:.2f}."
        if np.isfinite(row["bias low"])
        else f"{row['row']} on {row['world']}: the truth's noise hides the parts of the error."
        for row in own.to_dict("records")
    )
    trained = models[models["horizon"] == PATHS_OF_DMO]
    of_models_worded = " ".join(
        f"Against the simulator's Jacobians on {row['world']}, cosine of the gradient at "
        f"h = {PATHS_OF_DMO}: at least {COSINE:g} in {row['above']} of seeds and stages, below it "
        f"in {row['below']}, not told in {row['neither']}."
        for row in trained.to_dict("records")
    )
    return Verdict(
        "DMO-JACOBIANS", "DMO",
        f"dmo / shac at h = 16: error of an update, sums over five stages, below {MOST:g} on both "
        "tasks; processor seconds of an update below 1 on Hopper",
        met(rows),
        f"{'; '.join(in_words(row) for row in rows.to_dict('records'))}. {worded} "
        f"{of_models_worded}",
        numbers_of(rows), rows,
    )  # fmt: skip


def _arms(world: World) -> tuple[Arm, Arm]:
    return Arm("dmo", world, PATHS_OF_DMO), Arm("shac", world, PATHS_OF_DMO)


def rows_of(world: World, runs: Path) -> list[dict[str, object]]:
    """Ratios of error and seconds, and the difference of returns."""
    dmo, shac = _arms(world)
    first, second = (load(path_of(arm, runs)) for arm in (dmo, shac))
    one, other = (errors_of(run).estimate("error", 0, PATHS_OF_DMO) for run in (first, second))
    seconds = on_joint_groups(*(_seconds(arm, runs) for arm in (dmo, shac)))
    pair = paired_returns(second, first)
    assert pair is not None
    return [
        _ratio(f"error, dmo / shac, {world}", one, other, MOST),
        _ratio(f"seconds, dmo / shac, {world}", *seconds, 1.0 if world == "hopper" else np.nan),
        {"label": f"final return, dmo − shac, {world}", "value": pair.change, "low": pair.low,
         "high": pair.high, "least": np.nan, "most": np.nan},
    ]  # fmt: skip


def _ratio(label: str, first: Estimate, second: Estimate, most: float) -> dict[str, object]:
    bounds = ratio_interval(first, second)
    return {
        "label": label, "value": first.value / second.value, "low": bounds.low,
        "high": bounds.high, "least": np.nan, "most": most,
    }  # fmt: skip


def _seconds(arm: Arm, runs: Path) -> Estimate:
    """Mean of an update, with blocks of the run left out in turn."""
    took = per_update(path_of(arm, runs).with_suffix(".seconds.csv"), arm.evaluate_every)
    blocks = [block for block in np.array_split(took, BLOCKS) if len(block)]
    sums, sizes = (np.array([f(block) for block in blocks]) for f in (np.sum, np.size))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    return Estimate(float(took.mean()), left_out)


def profiles(runs: Path) -> pd.DataFrame:
    """What makes the error, of both rows in every world that is there, over all stages."""
    rows = []
    for world in STUDIED:
        for arm in _arms(world):
            if finished(arm, runs):
                errors = errors_of(load(path_of(arm, runs)))
                row: dict[str, object] = {"world": world, "row": arm.row}
                for name in NUMBERS:
                    value, low, high = ends(errors.estimate(name, 0, PATHS_OF_DMO))
                    row |= {name: value, f"{name} low": low, f"{name} high": high}
                rows.append(row)
    return pd.DataFrame(rows)


def of_models(runs: Path) -> pd.DataFrame:
    """At every horizon, of how many seeds and stages the cosine of dmo's gradient with that of the
    simulator's Jacobians is shown at least `COSINE`, shown below it, or neither."""
    rows = []
    for world in STUDIED:
        dmo, _ = _arms(world)
        if not finished(dmo, runs):
            continue
        table = load(path_of(dmo, runs)).gradients
        low, high = table["dynamics_cosine_low"], table["dynamics_cosine_high"]
        for j, h in enumerate(table["horizon"]):
            above, below = (low[..., j] >= COSINE).sum(), (high[..., j] < COSINE).sum()
            rows.append({
                "world": world, "horizon": int(h), "above": int(above), "below": int(below),
                "neither": low[..., j].size - int(above) - int(below),
            })  # fmt: skip
    return pd.DataFrame(rows)


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    output.mkdir(parents=True, exist_ok=True)
    profiles(runs).to_csv(output / "dmo-profiles.csv", index=False, float_format="%.4g")
    of_models(runs).to_csv(output / "dmo-models.csv", index=False)
    verdict = judged(runs)
    if verdict is not None:
        save(verdict, output, "python -m analyses.first_order.dmo")


if __name__ == "__main__":
    tyro.cli(main)
