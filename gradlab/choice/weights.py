"""Mixtures: weights from all starts, and what they are worth on starts that did not choose them.

Contenders are fitted on one half of the starts and judged on the other, against the best single
estimator at its best scale: much of what mixing gains is shrinkage, which one estimator can have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlab.choice.best import Candidates, is_finite
from gradlab.choice.values import Cell, Contender, Mixing
from gradlab.errors import InputError
from gradlab.runs.identity import data_of
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.grams import FEWEST, only
from gradlab.statistics.intervals import Interval, interval
from gradlab.statistics.mixing import (
    Contestant,
    JudgedMixtures,
    MpgWeights,
    contestant,
    direction_weights,
    gain_weights,
    judged,
    mse_weights,
)
from gradlab.statistics.moments import Array, Estimate

_RAMP = 9000  # T of MPG on path tracking
_UNSEEN = 1  # the fold that judges
_SCALED = "best scaled single"
Times = Sequence[tuple[int, int]]  # iteration and T


def rule_times(iteration: int | None, ramp: int | None) -> list[tuple[int, int]]:
    """When the papers' rules are shown: (iteration, T).

    Raises:
        InputError: negative iterations, or a ramp below 1.
    """
    T = _RAMP if ramp is None else ramp
    if T < 1:
        raise InputError(f"ramp is {T}, expected a number of iterations of at least 1")
    if iteration is not None and iteration < 0:
        raise InputError(f"iteration is {iteration}, expected an integer from 0")
    return [(k, T) for k in ((0, T // 2, T) if iteration is None else (iteration,))]


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


def mixing(profile: Profile, among: Candidates, cells: list[Cell], times: Times) -> Mixing | None:
    """Weights of some cells; None where fewer than two of them, or no kernels, are there."""
    if among.kernels is None or len(cells) < 2:
        return None
    grams, batch = among.kernels.grams(cells), profile.batch
    if min(np.bincount(grams.fold, minlength=2)) < FEWEST:
        return None
    unseen = only(grams, [_UNSEEN])
    found = judged(grams, batch, _UNSEEN)
    everyone = {
        "best single": found.single,
        _SCALED: found.scaled_single,
        "mse": found.mixture,
        "direction": found.scaled_mixture,
    }
    if among.of_return:
        everyone |= {"best single by gain": found.gain_single, "gain": found.gain_mixture}
    rules = _rules(among, cells, times)
    everyone |= {name: contestant(unseen, w, batch) for name, w in rules.items()}
    return Mixing(
        cells=tuple(cells),
        mse=mse_weights(grams, batch),
        direction=direction_weights(grams, batch),
        contenders=tuple(
            _contender(name, each, found, among.of_return) for name, each in everyone.items()
        ),
        unseen=round(float(unseen.size.sum() / grams.size.sum()) * int(profile.config["starts"])),
        gain=gain_weights(grams, batch) if among.of_return else None,
    )


def _contender(name: str, each: Contestant, among: JudgedMixtures, of_return: bool) -> Contender:
    mse, cosine = each.found["mse"], each.found["cosine_batch"]
    best_single, mixture = among.scaled_single, among.mixture.found["mse"]
    gap = _gap(cosine, best_single.found["cosine_batch"])
    single = among.gain_single.found["cosine_batch"]
    return Contender(
        name=name,
        weights=each.weights,
        mse=mse.value,
        mse_interval=interval("mse", mse),
        cosine=cosine.value,
        cosine_interval=interval("cosine_batch", cosine),
        against=None if name == _SCALED else log_ratio(mse, best_single.found["mse"]),
        gap=gap,
        saved=None if name == "mse" else log_ratio(mixture, mse),
        gain=each.found["gain"].value if of_return else None,
        gain_interval=interval("gain", each.found["gain"]) if of_return else None,
        ahead=_gap(cosine, single) if of_return else None,
    )


def _gap(first: Estimate, second: Estimate) -> Interval:
    if all(np.isfinite(each.left_out).all() for each in (first, second)):
        return difference(first, second)
    return Interval(np.nan, np.nan, np.nan, "undefined: lost in noise")


def _rules(among: Candidates, cells: list[Cell], times: Times) -> dict[str, Array]:
    """Weights of MPG's rule on the horizons of the judged estimator, J_0 among them.

    MPG-J's is the same function of k/T; there T is the length of the whole run.
    """
    own = [k for k, (name, h) in enumerate(cells) if name == among.judged or h == 0]
    horizons = [cells[k][1] for k in own]
    if len(own) < 2 or len(set(horizons)) < len(horizons):
        return {}
    found = {}
    for k, T in times:
        w = np.zeros(len(cells))
        w[own] = MpgWeights(ramp=T)(k, horizons)
        found[f"MPG rule, iteration {k} of {T}"] = w
    return found


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
