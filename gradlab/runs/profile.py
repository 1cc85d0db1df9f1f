"""What a measurement found: labelled arrays, one table, one file.

Reading needs neither the task nor torch: `load(path)` gives back values bit for bit.

Gains are compared among the gradients that compete for a recommendation (`identity.competing`). A
better gradient that needs the simulator's states is named beside the recommendation; the
simulator's own gradients never are, which are good by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab import validation
from gradlab.errors import imported
from gradlab.findings import Finding
from gradlab.runs import layout
from gradlab.runs.identity import Identity, by_default, competing, data_of
from gradlab.runs.jumps import Jumps
from gradlab.runs.layout import attribute, by, nested, stored
from gradlab.runs.realised import Realised
from gradlab.runs.rehearsal import Rehearsal
from gradlab.runs.run import Run
from gradlab.runs.substitutions import SubstitutionResults
from gradlab.statistics.comparison import Number, difference
from gradlab.statistics.grams import ActionProducts, GroupProducts, Kernels
from gradlab.statistics.intervals import LEVEL, Interval, interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.selection import chosen_level, largest
from gradlab.storage.records import Array

_Cell = tuple[str, int]
CLOSE = 0.9  # share of the best gain that counts as the same in practice
_NOTABLE = 0.03  # of the possible gain, from which on a difference is shown


def is_data_again(identities: Mapping[str, Identity], cell: _Cell) -> bool:
    """Horizon 0 of a gradient with θ in the first action is the data gradient once more."""
    data = data_of(identities)
    return cell[1] == 0 and data not in (None, cell[0]) and identities[cell[0]].actions == "first"


def run_around(at: int, good: Collection[int]) -> list[int]:
    """The unbroken run of good horizons around one; itself where its neighbours are not."""
    low = high = at
    while low - 1 in good:
        low -= 1
    while high + 1 in good:
        high += 1
    return list(range(low, high + 1))


def best_shown(gains: Mapping[_Cell, Number], cells: Sequence[_Cell]) -> _Cell | None:
    """The largest gain that is shown to be one, else the largest."""
    shown = [cell for cell in cells if gains[cell].low > 0]
    return max(shown or cells, key=lambda cell: gains[cell].value, default=None)


def chosen_gain(
    gain: Number, estimates: Sequence[Estimate], kept: NDArray[np.bool_], place: int
) -> Number:
    """A gain with an interval that holds in 95% although it was chosen for its estimate.

    A file has no parts of cosines: what the level adds is that of the interval without them.

    `estimates`: of all that competed; `kept`: which may be the best; `place`: of the gain.
    """
    among = kept | (np.arange(len(estimates)) == place)
    level = chosen_level(estimates, among)
    plain, wider = (interval("gain", estimates[place], at) for at in (LEVEL, level))
    low, high = gain.low + wider.low - plain.low, gain.high + wider.high - plain.high
    return replace(gain, low=max(low, -1.0), high=min(high, 1.0))


def better_beyond(
    best: _Cell, beyond: Sequence[_Cell], gain: Callable[[_Cell], Estimate]
) -> _Cell | None:
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


_PREFIX, _INNER = "kernels ", "squared gradient norm"
_SQUARE, _EACH = ("group", "gradient", "other"), ("gradient", "sample", "action")
_Rows = Mapping[str, tuple[str, tuple[str, ...], str, str]]
# Field of the products → its array, dimensions, unit and description.
_GROUPED: _Rows = {
    "size": ("size", ("group",), "samples", "samples of each group"),
    "own": ("own", _SQUARE, _INNER, "products with the sum over one's own group"),
    "within": (
        "within", _SQUARE, _INNER, "products of a sample with itself, summed over each group"
    ),
    "total": ("total", ("fold", *_SQUARE), _INNER, "products with the sum over each fold"),
    "fold": ("fold_of", ("group",), "", "fold of each group"),
}  # fmt: skip
_LINEAR: _Rows = {
    "x": ("x", _EACH, "reward per action unit", "gradients in the actions, weights included"),
    "total": (
        "total", ("fold", *_EACH), f"{_INNER} per x", "products with the sum over each fold"
    ),
    "own": ("own", _EACH, f"{_INNER} per x", "products with the sum over one's own group"),
    "diagonal": (
        "diagonal", ("sample", "action", "other_action"), "", "Θ of each sample with itself"
    ),
    "group": ("group_of", ("sample",), "", "group of each sample"),
    "fold": ("fold_of", ("group",), "", "fold of each group"),
}  # fmt: skip
_Groups = layout.Groups


def _kernel_groups(kernels: tuple[Kernels, ...]) -> dict[str, dict[str, Array]]:
    """One group per kind, "kernels first", say: the gradients by name and horizon, the truth, which
    has neither, as the last one, and their products."""
    groups = {}
    for each in kernels:
        names = [name for name, _ in each.cells] + [""] * each.truth
        horizons = np.array([h for _, h in each.cells] + [-1] * each.truth, dtype=np.int64)
        found = {
            "estimator": layout.labels(names, "gradient", "whose gradient; empty: the truth"),
            "horizon": Array(
                horizons, ("gradient",), "steps", "steps before the critic; −1: the truth"
            ),
            "has_truth": Array(np.array(each.truth), (), "", "is the truth the last gradient?"),
        }
        grouped = isinstance(each.products, GroupProducts)
        for field_name, (name, dims, unit, said) in (_GROUPED if grouped else _LINEAR).items():
            values = getattr(each.products, field_name)
            again = grouped and name == "own" and values is getattr(each.products, "within", None)
            if values is not None and not again:
                found[name] = Array(values, dims, unit, said)
        groups[_PREFIX + each.kind] = found
    return groups


def _kernels(groups: _Groups) -> tuple[Kernels, ...]:
    """All kernels of a run."""
    found = []
    for kind in (name for name in groups if name.startswith(_PREFIX)):
        group = groups[kind]
        truth, rows = bool(group["has_truth"].values), _LINEAR if "x" in group else _GROUPED
        cells = [
            (str(name), int(h))
            for name, h in zip(group["estimator"].values, group["horizon"].values, strict=True)
        ]
        arrays: dict[str, Any] = {
            name: np.asarray(group[array].values, np.int64 if array.endswith("_of") else np.float64)
            for name, (array, *_) in rows.items()
            if array in group
        }
        label = arrays.get("group", np.zeros(0, dtype=np.int64))
        if len(label) and not 0 <= label.min() <= label.max() < len(arrays["fold"]):
            raise ValueError(f"samples belong to groups {label.min()} … {label.max()}")
        products: ActionProducts | GroupProducts
        if rows is _LINEAR:
            products = ActionProducts(**{"own": None} | arrays)
        else:
            products = GroupProducts(**{"own": arrays["within"]} | arrays)
        name = kind.removeprefix(_PREFIX)
        found.append(Kernels(name, tuple(cells[: len(cells) - truth]), truth, products))
    return tuple(found)


_Floats = NDArray[np.float64]
COLUMNS = ("value", "se", "ci_low", "ci_high")
_AXES = ("estimator", "quantity", "horizon")
_UNIT = "gradient norm for mean_norm, its square for variances, bias2 and mse, else 1"


def _identity_groups(identities: Mapping[str, Identity]) -> dict[str, dict[str, Array]]:
    return {"identities": layout.table(tuple(identities.values()), Identity)}


def _identities(groups: _Groups) -> dict[str, Identity]:
    return {each.name: each for each in layout.rows(Identity, groups["identities"])}


@dataclass(frozen=True, eq=False)
class Surface:
    """A slice of the model's value estimate around θ, the loss surface of RP-PGM's Figure 3:

        −V_h(θ + α u + β v),     V_h = E[Σ_{t<h} γᵗ r_t + γʰ Q(s_h, a_h)],     α, β in [−1, 1]

    u and v are random, each parameter tensor with the norm that it has in θ; every point has the
    same starts and noise.

    Attributes:
        unrolled: [h], model steps; alpha, beta: [points], in norms of θ; loss: [h, points, points].
    """

    unrolled: Annotated[NDArray[np.int64], stored("unrolled", name="unrolled", unit="model steps")]
    alpha: Annotated[NDArray[np.float64], stored("alpha", name="alpha", unit="norm of θ")]
    beta: Annotated[NDArray[np.float64], stored("beta", name="beta", unit="norm of θ")]
    loss: Annotated[NDArray[np.float64], stored("unrolled", "alpha", "beta", unit="return")]

    def roughness(self) -> NDArray[np.float64]:
        """Mean |second difference| along both directions, in shares of the range, [h]; 0.01 for
        a parabola over 21 points."""
        bent = [np.abs(np.diff(self.loss, 2, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        return np.asarray(sum(bent) / 2 / np.ptp(self.loss, axis=(1, 2)))


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Run):
    """What `measure` found, as labelled arrays; needs no torch to be read.

    Attributes:
        estimators, quantities, horizons: the labels of the axes [E, Q, H + 1].
        columns: value, se, ci_low, ci_high, each [E, Q, H + 1]; NaN where not measured.
        count: samples behind each cell, [E, Q, H + 1]; 0 where not measured.
        method: how the interval was made, [E, Q, H + 1].
        left_out: each value with one group of starts left out, [E, Q, H + 1, G].
        config: what was asked for; environment: what it ran on; truth: `Truth` as plain values.
        sanity: what was checked beside the measurement; None: not recorded.
        kernels: what yields inner products between estimators, one for each truth.
        attribution: what substitutions of the truth found; None: `attribute` was off.
        realised: what steps along some of the mean gradients add to the return of fresh starts;
            None: starts that no law can be drawn from again, or another truth.
        jumps: what a trial at the length of an update says of the pathwise gradient; None: there
            was none to be tried, or another truth.
        rehearsal: for how many updates the gradients that compete raise the return; None as for
            `realised`, or `rehearse` was off.
        surface: slices of the model's value estimate around the policy; None: none were asked for.
        file: where it was read from; None: it was measured here.
        identities: who each estimator is, by name; from the default names where nothing but names
            is known.
    """

    estimators: Annotated[tuple[str, ...], stored("estimator", name="estimator")]
    quantities: Annotated[tuple[str, ...], stored("quantity", name="quantity")]
    horizons: Annotated[tuple[int, ...], stored("horizon", name="horizon", unit="steps")]
    columns: Annotated[Mapping[str, _Floats], stored(*_AXES, each=COLUMNS, unit=_UNIT)]
    count: Annotated[NDArray[np.int64], stored(*_AXES, name="n", unit="samples")]
    method: Annotated[NDArray[Any], stored(*_AXES)]
    left_out: Annotated[_Floats, stored(*_AXES, "group", unit=_UNIT, group="jackknife")]
    config: Annotated[Mapping[str, Any], attribute()]
    environment: Annotated[Mapping[str, str], attribute()]
    truth: Annotated[Mapping[str, Any], attribute()]
    sanity: Annotated[tuple[Finding, ...] | None, nested("findings")] = None
    kernels: Annotated[tuple[Kernels, ...], by(_kernel_groups, _kernels)] = ()
    attribution: Annotated[SubstitutionResults | None, nested("attribution_names")] = None
    realised: Annotated[Realised | None, nested("realised")] = None
    jumps: Annotated[Jumps | None, nested("jumps")] = None
    rehearsal: Annotated[Rehearsal | None, nested("rehearsal")] = None
    surface: Annotated[Surface | None, nested("surface")] = None
    file: Path | None = None
    identities: Annotated[Mapping[str, Identity], by(_identity_groups, _identities)] = field(
        default_factory=dict
    )

    kind = "profile"
    noun = "measurement"

    def __post_init__(self) -> None:
        if tuple(self.identities) != self.estimators:
            actions = self.config.get("actions")
            known = by_default(self.estimators, actions if isinstance(actions, dict) else None)
            object.__setattr__(self, "identities", known)

    @property
    def batch(self) -> int:
        return int(self.config["batch"])

    @cached_property
    def evidence(self) -> Any:
        """What it supports beyond its table, a `verdicts.measurement.verdict.Evidence`."""
        return imported("gradlab.verdicts.measurement.verdict:evidence")(self)

    def table(self, name: str | None = None) -> pd.DataFrame:
        """One row per estimator, horizon and quantity that was measured: the stable interface.

        Columns and their order stay; new quantities are further rows.

        Returns:
            `estimator` (data, model, mixed, true_dynamics, …, or your own names), `horizon` (steps
            before the critic; 0 for data, the critic alone), `quantity` (a name of
            `gradlab.statistics.quantities.TABLE`, where its unit, formula and source are), `value`
            and its standard error `se` in the quantity's unit (a squared bias may be estimated
            below zero), `ci_low` and `ci_high`, the ends of the 95% interval, `n` samples, and
            `method`, that of the interval. `attrs["identities"]` has the fields of each estimator's
            `Identity`, by name, for figures. With a name, that group of the tree.
        """
        if name is not None:
            return super().table(name)
        rows = [
            (estimator, horizon, quantity, e, q, h)
            for e, estimator in enumerate(self.estimators)
            for h, horizon in enumerate(self.horizons)
            for q, quantity in enumerate(self.quantities)
            if self.count[e, q, h]
        ]
        e, q, h = (np.array([row[k] for row in rows], dtype=int) for k in (3, 4, 5))
        table = pd.DataFrame(
            {
                "estimator": [row[0] for row in rows],
                "horizon": [row[1] for row in rows],
                "quantity": [row[2] for row in rows],
                **{name: self.columns[name][e, q, h] for name in COLUMNS},
                "n": self.count[e, q, h],
                "method": [str(each) for each in self.method[e, q, h]],
            }
        )
        # Plain values, so that every format that keeps attributes can write them.
        table.attrs["identities"] = {n: asdict(each) for n, each in self.identities.items()}
        return table

    def estimate(self, estimator: str, quantity: str, horizon: int) -> Estimate:
        """One value with its left-out values, for statistics across cells."""
        cell = self._place(estimator, quantity, horizon)
        return Estimate(float(self.columns["value"][cell]), self.left_out[cell])

    def interval(self, estimator: str, quantity: str, horizon: int) -> Interval:
        """The interval of one value, as it was made with everything known."""
        cell = self._place(estimator, quantity, horizon)
        low, high, se = (float(self.columns[name][cell]) for name in ("ci_low", "ci_high", "se"))
        return Interval(low, high, se, str(self.method[cell]))

    def numbers(self, quantity: str) -> dict[_Cell, Number]:
        """A quantity of every cell where it is finite, whichever group of starts is left out."""
        if quantity not in self.quantities:
            return {}
        q, found = self.quantities.index(quantity), {}
        finite = np.isfinite(self.columns["value"][:, q]) & np.isfinite(self.left_out[:, q]).all(-1)
        for e, h in np.argwhere(finite & (self.count[:, q] > 0)).tolist():
            value, low, high = (
                float(self.columns[each][e, q, h]) for each in ("value", "ci_low", "ci_high")
            )
            # Visited states of one start are no samples of their own.
            number = Number(value, low, high, int(self.config["starts"]))
            found[self.estimators[e], self.horizons[h]] = number
        return found

    @property
    def competing_gains(self) -> dict[_Cell, Number]:
        """Gains of all that competes for a recommendation, each gradient once."""
        own = competing(self.identities)
        return {
            cell: gain
            for cell, gain in self.numbers("gain").items()
            if cell[0] in own and not is_data_again(self.identities, cell)
        }

    def _place(self, estimator: str, quantity: str, horizon: int) -> tuple[int, int, int]:
        return (
            self.estimators.index(estimator),
            self.quantities.index(quantity),
            self.horizons.index(horizon),
        )


_SELECTED = "selected"  # in the configuration: whose gain has an interval that knows the choice
_FEWEST = 3  # groups of starts that a set of cells needs


def with_selected_gain(profile: Profile) -> Profile:
    """With an interval of the largest gain that holds in 95% although it was chosen for its
    estimate: of those that compete, under a truth that tells gains. The same one stands in every
    table, page and sentence."""
    groups = profile.left_out.shape[-1]
    if _SELECTED in profile.config or not profile.truth.get("admissible") or groups < _FEWEST:
        return profile
    gains = profile.competing_gains
    cells = list(gains)
    best = best_shown(gains, cells)
    if best is None:
        return profile
    estimates = [profile.estimate(name, "gain", h) for name, h in cells]
    kept, place = largest(estimates).kept, cells.index(best)
    gain = chosen_gain(gains[best], estimates, kept, place)
    cell = (
        profile.estimators.index(best[0]),
        profile.quantities.index("gain"),
        profile.horizons.index(best[1]),
    )
    columns = {name: values.copy() for name, values in profile.columns.items()}
    columns["ci_low"][cell], columns["ci_high"][cell] = gain.low, gain.high
    method = profile.method.copy()
    method[cell] = f"{method[cell]}, chosen"
    config = {**profile.config, _SELECTED: list(best)}
    return replace(profile, columns=columns, method=method, config=config)


def selected_gain(profile: Profile) -> tuple[str, int] | None:
    """Whose gain has such an interval."""
    found = profile.config.get(_SELECTED)
    return None if found is None else (str(found[0]), int(found[1]))


def check_profile(profile: object) -> None:
    """
    Raises:
        InputError: it is no Profile.
    """
    validation.instance(
        "profile", profile, Profile, "a Profile, of gradlab.measure or gradlab.load"
    )


load = Profile.load
