"""EARLY-LATE-ARMS judged: from what `early_late_arms` has measured to a verdict.

    python -m analyses.horizons.early_late_arms_report [--output reports/horizon-claims]

The criterion is in `early_late_arms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analyses.harness import verdicts
from analyses.harness.student import geometric_mean, half_width
from analyses.harness.verdicts import Verdict, save
from analyses.horizons.checkpoint_samples import HORIZON
from analyses.horizons.early_late import crossing, sign
from analyses.horizons.early_late_arms import (
    CHECKPOINTS,
    FOLDER,
    LAST,
    MOMENT,
    SCALES,
    SEEDS,
    Trained,
    prior_of,
)


def judge(rows: pd.DataFrame) -> Verdict:
    """The verdict from one row per arm, prior, iteration, seed, horizon and quantity."""
    table = pd.DataFrame(
        {"arm": arm, "prior": prior, "iteration": int(iteration)} | over_seeds(cell["value"])
        for (arm, prior, iteration), cell in _long(rows).groupby(["arm", "prior", "iteration"])
    )
    crossed = {arm: crossings_of(rows, arm) for arm in SCALES}
    order = {arm: (_side(table, arm, CHECKPOINTS[0]), _side(table, arm, LAST)) for arm in SCALES}
    moment = all(right_moment(each) for each in crossed.values())
    numbers = {f"crossing {arm} {k}": at for arm, each in crossed.items()
               for k, at in enumerate(each) if np.isfinite(at)}  # fmt: skip
    for row in table.to_dict("records"):
        name = f"{row['arm']}, prior {row['prior']}, {row['iteration']}"
        numbers |= {name: row["value"], f"{name} low": row["low"], f"{name} high": row["high"]}
    return Verdict(
        "EARLY-LATE-ARMS",
        "MPG, section III-B, IV-A, Table VI",
        "bias(25)/bias(0) below 1 at 1,000 and above 1 at 7,500 in the published arm, below 1 at "
        "7,500 in an arm whose part is the reason; crossings around T/2 in every arm",
        order["published"] == (-1, 1) and moment,
        sentence(table, order, crossed, moment),
        {name: value for name, value in numbers.items() if np.isfinite(value)},
        rows,
    )


def _long(rows: pd.DataFrame) -> pd.DataFrame:
    """Ratios of the longest horizon."""
    return rows[(rows["quantity"] == "bias_ratio") & (rows["horizon"] == HORIZON)]


def over_seeds(values: pd.Series) -> dict[str, float]:
    """Geometric mean and Student's 95% interval; lost where one seed is."""
    logs = np.log(values.to_numpy(float))
    if len(logs) < len(SEEDS) or not np.isfinite(logs).all():
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    value, low, high = geometric_mean(values)
    return {"value": value, "low": low, "high": high}


def crossings_of(rows: pd.DataFrame, arm: str) -> list[float]:
    """Where each seed passes 1 for good, through the arm's own prior."""
    own = _long(rows)
    own = own[(own["arm"] == arm) & (own["prior"] == prior_of(arm))]
    return [crossing(cell) for _, cell in own.groupby("seed")]


def right_moment(crossed: Sequence[float]) -> bool:
    """Every seed crosses, and Student's interval of the mean holds T/2."""
    at = np.asarray(crossed)
    if len(at) < len(SEEDS) or not np.isfinite(at).all():
        return False
    return bool(abs(at.mean() - MOMENT) <= half_width(at))


def _side(table: pd.DataFrame, arm: str, iteration: int) -> int:
    """−1: below 1 through the arm's own prior; 1: above; 0: neither, or not measured."""
    cells = (table["arm"] == arm) & (table["prior"] == prior_of(arm))
    found = table[cells & (table["iteration"] == iteration)]
    return 0 if found.empty else sign(*np.log(found[["low", "high"]].to_numpy()[0]))


def sentence(
    table: pd.DataFrame,
    order: Mapping[Trained, tuple[int, int]],
    crossed: Mapping[Trained, Sequence[float]],
    moment: bool,
) -> str:
    """The verdict in words."""
    late = [
        f'"late, n = 0 is better" is {_property(order[arm][1])} of the {part}'
        for arm, part in (("no offset", "offset"), ("factor 1", "factor"))
    ]
    early, late_side = order["published"]
    seen = '"early, then late" is undecided'
    if (early, late_side) == (-1, 1):
        seen = "early, then late"
    elif early == 1 or late_side == -1:
        seen = "not early, then late"
    when = "has the right moment" if moment else "is not shown to have the right moment"
    told = "; ".join(
        f"{arm}, prior {prior}: {_listed(cell)}"
        for (arm, prior), cell in table.groupby(["arm", "prior"])
    )
    where = "; ".join(
        f"{arm} {', '.join(f'{x:,.0f}' if np.isfinite(x) else 'never' for x in each) or '–'}"
        for arm, each in crossed.items()
    )
    return (
        f"As published {seen}; {'; '.join(late)}; the rule {when}, and drives the policies that "
        f"are measured. bias(25)/bias(0) at replayed states, {told}. Crossings by seed (T/2 = "
        f"{MOMENT:,}): {where}. {len(SEEDS)} seeds, 2×64."
    )


def _property(late: int) -> str:
    return {-1: "a property", 1: "no property", 0: "not shown to be a property"}[late]


def _listed(cell: pd.DataFrame) -> str:
    return ", ".join(
        f"{row['iteration']:,} "
        + (f"{row['value']:.2g} [{row['low']:.2g}, {row['high']:.2g}]"
           if np.isfinite(row["value"]) else "lost")
        for row in cell.sort_values("iteration").to_dict("records")
    )  # fmt: skip


def main(output: Path = FOLDER) -> None:
    """Judge what is measured.

    Args:
        output: folder of the measured rows and of the verdict.
    """
    found = sorted(output.glob("early-late-arms-*.csv"))
    rows = pd.concat([pd.read_csv(path) for path in found], ignore_index=True)
    save(judge(rows), output, "python -m analyses.horizons.early_late_arms_report")
    verdicts.main(output)


if __name__ == "__main__":
    tyro.cli(main)
