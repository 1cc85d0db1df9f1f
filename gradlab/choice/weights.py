"""Mixtures of all measured gradients: their weights from all starts, and what they add to the best
single one and to the papers' rule, each chosen on one half of the starts and judged on the other.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, isfinite

import numpy as np

from gradlab.choice.best import Candidates, is_finite
from gradlab.choice.values import Best
from gradlab.runs.identity import Cell, data_of
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import Number, difference, log_ratio
from gradlab.statistics.grams import FEWEST, Grams, mixture_moments, only
from gradlab.statistics.mixing import MpgWeights, fitted_shares, mixture_weights
from gradlab.statistics.moments import Array, Estimate, estimates

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
    return [
        cell for cell in among.cells if cell in chosen and cell in kept and is_finite(profile, cell)
    ]


def mixed(profile: Profile, among: Candidates, found: Best) -> Best:
    """With weights of all measured gradients by its criterion, and what they add on other starts;
    as it is where kernels, or enough groups of starts, are missing."""
    cells = several_cells(profile, among, found.cell)
    grams = _grams(among, cells)
    if grams is None or found.criterion == "return":
        return found
    batch, by = profile.batch, found.criterion
    seen, unseen = (only(grams, [half]) for half in (0, 1))
    quantity = "mse" if by == "mse" else "cosine_batch"
    one = np.eye(len(cells))
    alone = np.array([_judged(seen, each, batch, quantity).value for each in one])
    worse = np.where(np.isfinite(alone), alone if by == "mse" else -alone, np.inf)
    single = one[int(worse.argmin())]
    shares = fitted_shares(seen, batch, by)
    ours, theirs = (_judged(unseen, each, batch, quantity) for each in (shares, single))
    judges = _judges(profile, grams, unseen)
    held_out = _ratio(ours, theirs, judges) if by == "mse" else _gap(ours, theirs, judges)
    weights = mixture_weights(grams, batch, by)
    return replace(found, mixed=tuple(cells), weights=weights, held_out=held_out)


def against_rule(profile: Profile, among: Candidates, found: Best) -> tuple[Number | None, str]:
    """The error of weights fitted on the first half of the starts, as a ratio to that of MPG's rule
    at the start, the middle or the end of its ramp, whichever is best; on the other half.

    MPG-J's is the same function of k/T, where T is the length of the whole run.
    """
    pair, cells = pair_cells(profile, among), several_cells(profile, among, found.cell)
    cells += [cell for cell in pair if cell not in cells]
    grams = _grams(among, cells)
    if grams is None or not pair:
        return None, ""
    seen, unseen = (only(grams, [half]) for half in (0, 1))
    own = _judged(unseen, fitted_shares(seen, profile.batch, "mse"), profile.batch, "mse")
    judges = _judges(profile, grams, unseen)
    compared = []
    for k in (0, _RAMP // 2, _RAMP):
        weights = np.zeros(len(cells))
        weights[[cells.index(cell) for cell in pair]] = MpgWeights(ramp=_RAMP)(
            k, [h for _, h in pair]
        )
        rule = _judged(unseen, weights, profile.batch, "mse")
        if (ratio := _ratio(own, rule, judges)) is not None:
            compared.append((rule.value, f"MPG rule, iteration {k} of {_RAMP}", ratio))
    if not compared:
        return None, ""
    _, name, ratio = min(compared, key=lambda each: each[0])
    return ratio, name


def _grams(among: Candidates, cells: list[Cell]) -> Grams | None:
    """Inner products of these cells; None where they, or groups for two halves, are missing."""
    if among.kernels is None or not cells:
        return None
    grams = among.kernels.grams(cells)
    return None if min(np.bincount(grams.fold, minlength=2)) < FEWEST else grams


def _judged(grams: Grams, weights: Array, batch: int, quantity: str) -> Estimate:
    """A mixture at batch size N′, by the groups of `grams`."""
    return estimates(mixture_moments(grams, weights), batch)[quantity]


def _judges(profile: Profile, grams: Grams, unseen: Grams) -> int:
    """Starts of the half that judges."""
    return round(float(unseen.size.sum() / grams.size.sum()) * int(profile.config["starts"]))


def _ratio(ours: Estimate, theirs: Estimate, judges: int) -> Number | None:
    """None where one of them is lost in noise."""
    if (ratio := log_ratio(ours, theirs)) is None:
        return None
    return Number(ours.value / theirs.value, exp(ratio.low), exp(ratio.high), judges)


def _gap(ours: Estimate, theirs: Estimate, judges: int) -> Number | None:
    """None where one of them is lost in noise."""
    gap, ends = ours.value - theirs.value, difference(ours, theirs)
    return Number(gap, ends.low, ends.high, judges, ends.se) if isfinite(gap) else None


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
