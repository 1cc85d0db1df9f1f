"""Mixtures: weights from all starts, and their error beside that of the papers' rule."""

from __future__ import annotations

from math import exp

import numpy as np

from gradlab.choice.best import Candidates, is_finite
from gradlab.choice.values import Mixing
from gradlab.runs.identity import Cell, data_of
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import Number, log_ratio
from gradlab.statistics.grams import FEWEST, Grams, only
from gradlab.statistics.mixing import (
    MpgWeights,
    direction_weights,
    fitted_shares,
    gain_weights,
    mixture_error,
    mse_weights,
)

_RAMP = 9000  # T of MPG on path tracking


def pair_cells(profile: Profile, among: Candidates) -> list[Cell]:
    """J_0 and the longest finite horizon of the judged estimator: MPG's two."""
    if among.judged is None:
        return []
    long = [h for h in _measured(profile, among, among.judged) if h > 0]
    begin = _zero(profile, among)
    return [begin, (among.judged, long[-1])] if begin and long else []


def several_cells(profile: Profile, among: Candidates, best: Cell) -> list[Cell]:
    """J_0, horizons 1, 2, 4, … and the longest one of everybody, the best cell and its neighbours:
    of all these, those whose inner products are kept."""
    begin = _zero(profile, among)
    beside = {(best[0], best[1] + step) for step in (-1, 0, 1)}
    chosen = {begin, *beside} if begin else beside
    for name in among.names:
        horizons = np.array([h for h in _measured(profile, among, name) if h > 0])
        if not len(horizons):
            continue
        doubling = 2.0 ** np.arange(np.floor(np.log2(horizons[-1])) + 1)
        chosen |= {
            (name, int(horizons[np.abs(horizons - h).argmin()])) for h in (*doubling, horizons[-1])
        }
    kept = among.kernels.cells if among.kernels is not None else ()
    return [cell for cell in among.cells if cell in chosen and cell in kept]


def mixing(profile: Profile, among: Candidates, cells: list[Cell]) -> Mixing | None:
    """Weights of MPG's two; None where they, or kernels, are missing."""
    if among.kernels is None or not cells:
        return None
    grams, batch = among.kernels.grams(cells), profile.batch
    if min(np.bincount(grams.fold, minlength=2)) < FEWEST:
        return None
    return Mixing(
        tuple(cells),
        mse_weights(grams, batch),
        direction_weights(grams, batch),
        gain_weights(grams, batch) if among.of_return else None,
        *_against_rule(profile, cells, grams),
    )


def _against_rule(profile: Profile, cells: list[Cell], grams: Grams) -> tuple[Number | None, str]:
    """Weights fitted on the first half of the starts against MPG's rule at the start, the middle
    and the end of its ramp, on the other half.

    MPG-J's is the same function of k/T, where T is the length of the whole run.
    """
    horizons = [h for _, h in cells]
    seen, unseen = (only(grams, [half]) for half in (0, 1))
    own = mixture_error(unseen, fitted_shares(seen, profile.batch), profile.batch)
    compared = []
    for k in (0, _RAMP // 2, _RAMP):
        rule = mixture_error(unseen, MpgWeights(ramp=_RAMP)(k, horizons), profile.batch)
        ratio = log_ratio(own, rule)
        if ratio is not None:
            compared.append((rule.value, f"MPG rule, iteration {k} of {_RAMP}", ratio))
    if not compared:
        return None, ""
    least, name, ratio = min(compared, key=lambda each: each[0])
    judges = round(float(unseen.size.sum() / grams.size.sum()) * profile.config["starts"])
    return Number(own.value / least, exp(ratio.low), exp(ratio.high), judges), name


def _zero(profile: Profile, among: Candidates) -> Cell | None:
    """J_0: the data's, or horizon 0 of the judged estimator."""
    kept = among.kernels.cells if among.kernels is not None else ()
    data = data_of({name: profile.identities[name] for name in among.names})
    for name in (data, among.judged):
        cell = (str(name), 0)
        if cell in among.cells and cell in kept and is_finite(profile, cell):
            return cell
    return None


def _measured(profile: Profile, among: Candidates, name: str) -> list[int]:
    """Horizons of an estimator with finite errors and with kernels."""
    kept = among.kernels.cells if among.kernels is not None else ()
    return [h for h in among.finite(profile, name) if (name, h) in kept]
