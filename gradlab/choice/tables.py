"""A choice as long tables, for figures and for machines."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from gradlab.choice.best import at_batch, best, candidates, singles
from gradlab.choice.values import Cell, Choice, Mixing
from gradlab.errors import InputError
from gradlab.runs.decision_rules import horizons_of
from gradlab.runs.identity import Identity
from gradlab.runs.profile import Profile


def best_table(choice: Choice) -> pd.DataFrame:
    """What is best by each criterion: its value with the 95% interval, and the set that may be.

    Columns: criterion, estimator, horizon, value, ci_low, ci_high, and the 95% set as a list of
    (estimator, horizon).
    """
    return pd.DataFrame(
        [
            {
                "criterion": found.criterion,
                "estimator": found.cell[0],
                "horizon": found.cell[1],
                "value": found.value,
                "ci_low": found.interval.low,
                "ci_high": found.interval.high,
                "set": list(found.kept),
            }
            for found in (choice.gain, choice.mse, choice.direction)
            if found is not None
        ]
    )


def weight_table(mixing: Mixing) -> pd.DataFrame:
    """Shares by every chooser: estimator, horizon, chooser, value, ci_low, ci_high."""
    rows = []
    choosers = {"gain": mixing.gain, "mse": mixing.mse, "direction": mixing.direction}
    for chooser, found in choosers.items():
        if found is None:
            continue
        for cell, *numbers in zip(mixing.cells, found.share, found.low, found.high, strict=True):
            rows.append((*cell, chooser, *map(float, numbers)))
    for each in mixing.contenders:
        if "rule" in each.name:
            for cell, w in zip(mixing.cells, each.weights, strict=True):
                rows.append((*cell, each.name, float(w), float(w), float(w)))
    columns = ["estimator", "horizon", "chooser", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


FEWEST = 3  # α's of a curve
_QUANTITIES = ("bias2", "variance", "mse")


def decays_of(profile: Profile) -> dict[str, float]:
    """α by estimator: the decays that were measured, and the full gradient beside them."""
    cuts = {name: each.cut for name, each in profile.identities.items()}
    alphas = {name: 0.0 if cut == "transition" else float(cut[6:]) for name, cut in cuts.items()
              if cut == "transition" or cut.startswith("decay ")}  # fmt: skip
    like = {_plain(profile.identities[name]) for name in alphas}
    whole = {name: 1.0 for name, each in profile.identities.items()
             if not each.cut and _plain(each) in like}  # fmt: skip
    return dict(sorted((alphas | whole).items(), key=lambda item: item[1]))


def decay_table(
    profile: Profile, horizon: int | None = None, batch: int | None = None
) -> pd.DataFrame:
    """Error over α: a row for every α and quantity.

    Args:
        horizon: steps of the gradients; None: the most that all were measured with.
        batch: N′; None: as the profile was measured for.

    Returns:
        Columns alpha, estimator, horizon, quantity ("bias2", "variance", that of N′ samples'
        mean, "mse"), value, ci_low, ci_high, kept: whether this α may have the smallest MSE (95%,
        jointly), batch.

    Raises:
        InputError: fewer than three α's, or a horizon at which one was not measured.
    """
    alphas = decays_of(profile)
    if len(alphas) < FEWEST:
        raise InputError(
            f"the profile has {len(alphas)} temporal decays, expected {FEWEST} at least: measure "
            f"them with also=('decay',)"
        )
    common = set.intersection(*(set(horizons_of(profile, name)) for name in alphas))
    if not common or (horizon is not None and horizon not in common):
        raise InputError(f"horizon is {horizon}, expected one of {sorted(common)}")
    at = max(common) if horizon is None else horizon
    cells: tuple[Cell, ...] = tuple((name, at) for name in alphas)
    if batch is not None and batch != profile.batch:
        profile = at_batch(profile, batch, singles(profile, cells))
    among = replace(candidates(profile, list(alphas)), cells=cells)
    found = best(profile, among, "mse")
    kept = {name for name, _ in (() if found is None else found.kept)}
    rows = []
    for (name, h), quantity in ((cell, q) for cell in cells for q in _QUANTITIES):
        share = 1 / profile.batch if quantity == "variance" else 1.0
        ends = profile.interval(name, quantity, h)
        rows.append({
            "alpha": alphas[name], "estimator": name, "horizon": h, "quantity": quantity,
            "value": share * profile.estimate(name, quantity, h).value,
            "ci_low": share * ends.low, "ci_high": share * ends.high, "kept": name in kept,
            "batch": profile.batch,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _plain(identity: Identity) -> Identity:
    return replace(identity, name="", cut="", ambiguous=False, control=False)
