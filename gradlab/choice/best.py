"""The best estimator and horizon by one criterion, and all that the samples cannot rule out.

The same samples at another batch size N′: MSE = bias² + variance / N′, exactly.

The expected cosine of one batch needs the variance along the truth, too, which kernels have. A cell
without a kernel is led from its measured cosine by how noise lengthens the mean of a batch,

    E cos(N′) ≈ E cos(N) √((1 + 1/(N snr)) / (1 + 1/(N′ snr))),     snr = |E G|² / tr Cov G,

exact at N′ = N, and where the noise across the truth is nearly all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradlab.choice.values import QUANTITY, Best, Criterion, Excluded
from gradlab.errors import InputError
from gradlab.runs.decision_rules import horizons_of, judged_estimator
from gradlab.runs.identity import Cell, competing, needs_states
from gradlab.runs.profile import Profile, is_data_again
from gradlab.statistics.comparison import Number, difference
from gradlab.statistics.grams import Kernels, mixture_moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, combine, estimates
from gradlab.statistics.selection import chosen_level, largest, separations, smallest

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
_ALIKE = 0.01  # of the best possible gain, or cosine: not worth further starts
_NOTABLE = 0.03  # of the possible gain, from which on a difference is shown
_FEWEST = 3  # groups of starts that a set of cells needs
_SELECTED = "selected"  # in the configuration: whose gain has an interval that knows the choice


def best(profile: Profile, cells: Iterable[Cell], criterion: Criterion) -> Best | None:
    """The one ranking behind pages, advice and choices: the best cell, its interval, all that may
    be best.

    None where no cell has a finite value, or too few groups of starts are there.
    """
    quantity = QUANTITY[criterion]
    numbers = profile.numbers(quantity)
    cells = [cell for cell in cells if cell in numbers]
    if not cells or profile.left_out.shape[-1] < _FEWEST:
        return None
    estimates = [profile.estimate(name, quantity, h) for name, h in cells]
    ranks = smallest(estimates) if criterion == "mse" else largest(estimates)
    winner = best_shown(numbers, cells) if criterion == "gain" else cells[ranks.best]
    place = cells.index(winner)
    kept = ranks.kept | (np.arange(len(cells)) == place)
    number = numbers[winner]
    if criterion != "gain" or list(winner) != profile.config.get(_SELECTED):
        number = _as_chosen(number, quantity, estimates[place], chosen_level(estimates, kept))
    apart = {
        k: further
        for k, further in separations(ranks, int(profile.config["starts"])).items()
        if ranks.gap[k] > _SAME * abs(ranks.value[k])  # else of rounding
    }
    worth = [apart[k] for k in apart if criterion == "mse" or ranks.gap[k] >= _ALIKE]
    more = worth[0] if worth else 0 if apart else None
    among = tuple(cell for cell, here in zip(cells, kept, strict=True) if here)
    return Best(criterion, winner, number, among, more)


def best_shown(gains: Mapping[Cell, Number], cells: Sequence[Cell]) -> Cell:
    """The largest gain that is shown to be one, else the largest."""
    shown = [cell for cell in cells if gains[cell].low > 0]
    return max(shown or cells, key=lambda cell: gains[cell].value)


def _as_chosen(number: Number, quantity: str, estimate: Estimate, level: float) -> Number:
    """With an interval that holds in 95% although the cell was chosen for its estimate."""
    wider = interval(quantity, estimate, level)
    if quantity != "gain":
        return replace(number, low=wider.low, high=wider.high)
    # A file has no parts of cosines: what the level adds is that of the interval without them.
    plain = interval(quantity, estimate)
    low, high = number.low + wider.low - plain.low, number.high + wider.high - plain.high
    return replace(number, low=max(low, -1.0), high=min(high, 1.0))


def leading(profile: Profile) -> Best | None:
    """The largest gain of the gradients that compete for a recommendation, each once; None without
    a truth that tells gains."""
    own = competing(profile.identities)
    cells = (
        cell
        for cell in profile.numbers("gain")
        if cell[0] in own and not is_data_again(profile.identities, cell)
    )
    return best(profile, cells, "gain") if profile.truth.get("admissible") else None


def with_selected_gain(profile: Profile) -> Profile:
    """With the interval of the leading gain that knows the choice: the same one stands in every
    table, page and sentence."""
    found = None if _SELECTED in profile.config else leading(profile)
    if found is None:
        return profile
    (name, h), number = found.cell, found.number
    cell = (
        profile.estimators.index(name),
        profile.quantities.index("gain"),
        profile.horizons.index(h),
    )
    columns = {name: values.copy() for name, values in profile.columns.items()}
    columns["ci_low"][cell], columns["ci_high"][cell] = number.low, number.high
    method = profile.method.copy()
    method[cell] = f"{method[cell]}, chosen"
    config = {**profile.config, _SELECTED: [name, h]}
    return replace(profile, columns=columns, method=method, config=config)


def beyond(profile: Profile, own: Collection[str], cell: Cell) -> dict[Cell, Number]:
    """The gain of the gradient that needs the simulator's states and is shown to gain notably more
    than `cell`, an own one. The simulator's own gradients never are it, good by construction."""
    names = [name for name in needs_states(profile.identities) if name not in own]
    gains = {each: gain for each, gain in profile.numbers("gain").items() if each[0] in names}
    found = better_beyond(
        cell, list(gains), lambda each: profile.estimate(each[0], "gain", each[1])
    )
    return {} if found is None else {found: gains[found]}


def better_beyond(
    best: Cell, beyond: Sequence[Cell], gain: Callable[[Cell], Estimate]
) -> Cell | None:
    """The cell of largest gain beyond the competition, where it is shown to gain, and notably more.

    Args:
        beyond: cells with a finite gain; gain: the estimate of a cell.
    """
    # At h = 0 no gradient needs the simulator's states: it is the critic alone.
    among = [cell for cell in beyond if cell[1]]
    top = max(among, key=lambda cell: gain(cell).value, default=None)
    if top is None:
        return None
    ahead = difference(gain(top), gain(best))
    notable = gain(top).value > max(gain(best).value + _NOTABLE, 0.0)
    return top if ahead.low > 0 and notable else None
