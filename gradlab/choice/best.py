"""The best estimator and horizon by one criterion, and all that the samples cannot rule out.

The same samples at another batch size N′: MSE = bias² + variance / N′, exactly.

The expected cosine of one batch needs the variance along the truth, too, which kernels have. A cell
without a kernel is led from its measured cosine by how noise lengthens the mean of a batch,

    E cos(N′) ≈ E cos(N) √((1 + 1/(N snr)) / (1 + 1/(N′ snr))),     snr = |E G|² / tr Cov G,

exact at N′ = N, and where the noise across the truth is nearly all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradlab.choice.values import QUANTITY, Best, Cell, Criterion, Excluded, Parting, Steps
from gradlab.errors import InputError
from gradlab.runs.decision_rules import horizons_of, judged_estimator
from gradlab.runs.identity import competing, needs_states
from gradlab.runs.profile import (
    Profile,
    best_shown,
    better_beyond,
    chosen_gain,
    is_data_again,
    selected_gain,
)
from gradlab.statistics.comparison import Number
from gradlab.statistics.grams import Kernels, mixture_moments
from gradlab.statistics.intervals import Interval, interval
from gradlab.statistics.moments import Estimate, Moments, combine, estimates
from gradlab.statistics.selection import (
    chosen_level,
    largest,
    separations,
    signs,
    smallest,
)

TRUTHS = {
    "first": "the gradient of the first action",
    "all": "the gradient of all actions",
    "objective": "the gradient of the objective",
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a choice is made among.

    Attributes:
        kind: whose truth: "first", "all" or "objective".
        names: estimators that are candidates; excluded: those that are not, and why.
        judged: the estimator of rules, pairs and the usable horizon; None: only data.
        cells: every candidate gradient once: horizon 0 of a model that is J_0 itself is left
            out beside the data's.
        kernels: of this truth; None: they were not kept.
    """

    kind: str
    names: tuple[str, ...]
    excluded: Mapping[str, Excluded]
    judged: str | None
    cells: tuple[Cell, ...]
    kernels: Kernels | None

    @property
    def of_return(self) -> bool:
        """Is the truth the gradient of the return, so that gains have their meaning?"""
        return self.kind == "objective"

    def finite(self, profile: Profile, name: str) -> list[int]:
        """Horizons of one estimator at which its error is a number."""
        return [h for each, h in self.cells if each == name and is_finite(profile, (each, h))]


def candidates(profile: Profile, estimators: Collection[str] | None) -> Candidates:
    """The named estimators, or those that compete under the truth of the judged one.

    Raises:
        InputError: unknown estimators, none, or some under different truths.
    """
    if estimators is None:
        names, excluded = _everybody(profile)
    else:
        names, excluded = _asked(profile, estimators), {}
    kind = kind_of(profile, names[0])
    judged = judged_estimator(profile)
    if judged not in names:
        long = [name for name in names if max(horizons_of(profile, name), default=0) > 0]
        judged = long[0] if long else None
    kernels = [each for each in profile.kernels if each.kind == kind]
    among = {name: profile.identities[name] for name in names}
    cells = ((name, h) for name in names for h in horizons_of(profile, name))
    return Candidates(
        kind,
        tuple(names),
        excluded,
        judged,
        tuple(cell for cell in cells if not is_data_again(among, cell)),  # each gradient once
        kernels[0] if kernels else None,
    )


def kind_of(profile: Profile, name: str) -> str:
    """Whose truth an estimator is measured against."""
    if profile.config.get("truth") == "objective":
        return "objective"
    return "first" if profile.config.get("actions", {}).get(name, "first") == "first" else "all"


def is_finite(profile: Profile, cell: Cell, quantity: str = "mse") -> bool:
    """Is a quantity a number there, whichever group of starts is left out?"""
    estimate = profile.estimate(cell[0], quantity, cell[1])
    return bool(np.isfinite(estimate.value) and np.isfinite(estimate.left_out).all())


def _asked(profile: Profile, estimators: Collection[str]) -> list[str]:
    unknown = sorted(set(estimators) - set(profile.estimators))
    if unknown or not estimators:
        raise InputError(
            f"estimators is {sorted(estimators)}, expected some of {list(profile.estimators)}"
        )
    names = [name for name in profile.estimators if name in estimators]
    kinds = {name: TRUTHS[kind_of(profile, name)] for name in names}
    if len(set(kinds.values())) > 1:
        raise InputError(
            f"estimators have different truths, {kinds}: choose among those of one truth, or "
            f"measure with truth='objective', one truth for all"
        )
    return names


def _everybody(profile: Profile) -> tuple[list[str], dict[str, Excluded]]:
    kind = kind_of(profile, judged_estimator(profile) or profile.estimators[0])
    same = [name for name in profile.estimators if kind_of(profile, name) == kind]
    among = competing({name: profile.identities[name] for name in same})
    excluded: dict[str, Excluded] = {}
    for name, identity in profile.identities.items():
        if name not in among:
            apart: Excluded = "control" if identity.control else "states"
            excluded[name] = apart if name in same else "truth"
    return list(among), excluded


Singles = Mapping[Cell, Moments]


def singles(profile: Profile, cells: Iterable[Cell]) -> Singles:
    """Moments of single estimators, where kernels have them."""
    kernels = {each.kind: each for each in profile.kernels if each.truth}
    found = {}
    for cell in cells:
        kernel = kernels.get(kind_of(profile, cell[0]))
        if kernel is not None and cell in kernel.cells:
            try:
                found[cell] = mixture_moments(kernel.grams([cell]), np.ones(1))
            except InputError:  # gradients that are not finite have no moments
                continue
    return found


def at_batch(profile: Profile, batch: int, measured: Singles) -> Profile:
    """The profile as if it had been measured for batches of N′ = `batch`.

    Args:
        measured: moments of single cells (`singles`); where there are none at all, cosines of one
            batch are lost (not finite).
    """
    if batch == profile.batch or "mse" not in profile.quantities:
        return replace(profile, config={**profile.config, "batch": batch})
    columns = {name: values.copy() for name, values in profile.columns.items()}
    left_out = profile.left_out.copy()
    q = profile.quantities.index("mse")
    for e, h in np.argwhere(profile.count[:, q] > 0):
        cell = profile.estimators[e], profile.horizons[h]
        for quantity, estimate in _anew(profile, cell, batch, measured).items():
            at = e, profile.quantities.index(quantity), h
            ends = interval(quantity, estimate)
            numbers = estimate.value, ends.se, ends.low, ends.high
            for name, number in zip(("value", "se", "ci_low", "ci_high"), numbers, strict=True):
                columns[name][at] = number
            left_out[at] = estimate.left_out
    config = {**profile.config, "batch": batch}
    return replace(profile, columns=columns, left_out=left_out, config=config)


def _anew(profile: Profile, cell: Cell, batch: int, measured: Singles) -> dict[str, Estimate]:
    """What depends on N′."""
    bias2, variance, mse, relative = (
        profile.estimate(cell[0], name, cell[1])
        for name in ("bias2", "variance", "mse", "relative_mse")
    )
    error = combine(lambda b, v: b + v / batch, bias2, variance)
    if cell in measured:
        cosine = estimates(measured[cell], batch)["cosine_batch"]
    elif measured:
        # Of one batch at another size, without the variance along the truth.
        now, snr = (profile.estimate(cell[0], name, cell[1]) for name in ("cosine_batch", "snr"))
        N = profile.batch
        cosine = combine(
            lambda c, s: c * np.sqrt((1 + 1 / (N * s)) / (1 + 1 / (batch * s))), now, snr
        )
    else:
        cosine = Estimate(np.nan, np.full_like(mse.left_out, np.nan))
    scaled = combine(lambda e, m, r: e * r / m, error, mse, relative)
    return {"mse": error, "relative_mse": scaled, "cosine_batch": cosine}


_SAME = 1e-9  # share of a value below which a difference is rounding


def best(profile: Profile, among: Candidates, criterion: Criterion) -> Best | None:
    """None where no candidate has a finite value."""
    cells, quantity = among.cells, QUANTITY[criterion]
    if not any(is_finite(profile, cell, quantity) for cell in cells):
        return None
    estimates = [profile.estimate(name, quantity, h) for name, h in cells]
    ranks = smallest(estimates) if criterion == "mse" else largest(estimates)
    winner = cells[ranks.best]
    if criterion == "gain":  # one that is shown to be one, where there is such
        gains = _gains_of(profile, cells)
        winner = best_shown(gains, list(gains)) or winner
    place = cells.index(winner)
    return Best(
        criterion=criterion,
        cell=winner,
        value=estimates[place].value,
        interval=_interval(profile, winner, criterion, estimates, ranks.kept, place),
        kept=tuple(cell for k, cell in enumerate(cells) if k == place or ranks.kept[k]),
        partings=tuple(
            Parting(cells[each.member], cells[each.contender], each.more, ranks.gap[each.member])
            for each in separations(ranks, int(profile.config["starts"]))
            if ranks.gap[each.member] > _SAME * abs(ranks.value[each.member])  # else of rounding
        ),
    )


def _gains_of(profile: Profile, cells: Iterable[Cell]) -> dict[Cell, Number]:
    every = profile.numbers("gain")
    return {cell: every[cell] for cell in cells if cell in every}


def beyond(profile: Profile, best: Best | None, among: Candidates) -> dict[Cell, Number]:
    """The gain of the gradient that needs the simulator's states and is shown to gain more."""
    if best is None:
        return {}
    names = [name for name in needs_states(profile.identities) if name not in among.names]
    gains = {cell: gain for cell, gain in profile.numbers("gain").items() if cell[0] in names}
    cell = better_beyond(
        best.cell, list(gains), lambda cell: profile.estimate(cell[0], "gain", cell[1])
    )
    return {} if cell is None else {cell: gains[cell]}


def _interval(
    profile: Profile,
    winner: Cell,
    criterion: Criterion,
    every: Sequence[Estimate],
    kept: NDArray[np.bool_],
    place: int,
) -> Interval:
    """Of the chosen cell, which is chosen for its estimate."""
    quantity = QUANTITY[criterion]
    gains = _gains_of(profile, [winner]) if criterion == "gain" else {}
    if winner not in gains:
        return interval(quantity, every[place], chosen_level(every, kept))
    stored = profile.interval(winner[0], quantity, winner[1])
    if winner == selected_gain(profile):
        return stored
    gain = chosen_gain(gains[winner], every, kept, place)
    return replace(stored, low=gain.low, high=gain.high)


def steps(profile: Profile, among: Candidates) -> Steps:
    """Which cells raise the return and which lower it, to first order."""
    gains = [profile.estimate(name, QUANTITY["gain"], h) for name, h in among.cells]
    sign = signs(gains)
    up, down = (
        tuple(cell for cell, s in zip(among.cells, sign, strict=True) if s == wanted)
        for wanted in (1, -1)
    )
    return Steps(up, down, realised=False)
