"""What a measurement found: labelled arrays, one table, one file.

Reading needs neither the task nor torch: `load(path)` gives back values bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
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
from gradlab.runs.identity import Cell, Identity, by_default, data_of
from gradlab.runs.jumps import Jumps
from gradlab.runs.layout import attribute, by, nested, stored
from gradlab.runs.realised import Realised
from gradlab.runs.rehearsal import Rehearsal
from gradlab.runs.run import Run
from gradlab.runs.substitutions import SubstitutionResults
from gradlab.statistics.comparison import Number
from gradlab.statistics.grams import Kernels
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.storage.records import Array

CLOSE = 0.9  # share of the best gain that counts as the same in practice


def is_data_again(identities: Mapping[str, Identity], cell: Cell) -> bool:
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


_Floats = NDArray[np.float64]
_Groups = layout.Groups
_Integers = NDArray[np.int64]
_PREFIX, _INNER = "kernels ", "squared gradient norm"
_SQUARE = ("group", "gradient", "other")
_TRUTH: Cell = ("", -1)  # in the place of an estimator and a horizon


@dataclass(frozen=True)
class _Gradients:
    """
    Attributes:
        cells: whose gradient, and steps before the critic; empty and −1: the truth, as the last.
        has_truth: is the truth the last gradient?
    """

    cells: Annotated[
        tuple[Cell, ...], stored("gradient", name=("estimator", "horizon"), unit=("", "steps"))
    ]
    has_truth: Annotated[bool, stored()]


@dataclass(frozen=True, eq=False)
class _Grouped:
    """Of `Kernels`.

    Attributes:
        size: samples of each group; fold: of each group.
        own: products with the sum over one's own group; None: as within.
        within: products of a sample with itself, summed over each group.
        total: products with the sum over each fold.
    """

    size: Annotated[_Floats, stored("group", unit="samples")]
    own: Annotated[_Floats | None, stored(*_SQUARE, unit=_INNER)]
    within: Annotated[_Floats, stored(*_SQUARE, unit=_INNER)]
    total: Annotated[_Floats, stored("fold", *_SQUARE, unit=_INNER)]
    fold: Annotated[_Integers, stored("group", name="fold_of")]


def _kernel_groups(kernels: tuple[Kernels, ...]) -> dict[str, dict[str, Array]]:
    """One group per kind, "kernels first", say."""
    groups: dict[str, dict[str, Array]] = {}
    for each in kernels:
        arrays = {name: getattr(each, name) for name in ("size", "own", "within", "total", "fold")}
        if arrays["own"] is arrays["within"]:
            arrays["own"] = None
        whose = _Gradients((*each.cells, *[_TRUTH] * each.truth), each.truth)
        for part in (whose, _Grouped(**arrays)):
            name = _PREFIX + each.kind
            groups[name] = groups.get(name, {}) | layout.groups_of(part, name)[name]
    return groups


def _kernels(groups: _Groups) -> tuple[Kernels, ...]:
    """All kernels of a run."""
    found = []
    for name in (name for name in groups if name.startswith(_PREFIX)):
        whose = layout.value_of(_Gradients, groups, name)
        arrays = vars(layout.value_of(_Grouped, groups, name))
        own = arrays["within"] if arrays["own"] is None else arrays["own"]
        cells = whose.cells[: len(whose.cells) - whose.has_truth]
        kind = name.removeprefix(_PREFIX)
        found.append(Kernels(kind, cells, whose.has_truth, **arrays | {"own": own}))
    return tuple(found)


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
        """What it supports beyond its table, a `verdicts.measurement.verdict.Basis`."""
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
        e, h, q = np.nonzero(self.count.transpose(0, 2, 1))
        names, quantities = (np.array(x, dtype=object) for x in (self.estimators, self.quantities))
        table = pd.DataFrame(
            {
                "estimator": names[e],
                "horizon": np.array(self.horizons)[h],
                "quantity": quantities[q],
                **{name: self.columns[name][e, q, h] for name in COLUMNS},
                "n": self.count[e, q, h],
                "method": self.method[e, q, h].astype(str).astype(object),
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

    def numbers(self, quantity: str) -> dict[Cell, Number]:
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

    def _place(self, estimator: str, quantity: str, horizon: int) -> tuple[int, int, int]:
        return (
            self.estimators.index(estimator),
            self.quantities.index(quantity),
            self.horizons.index(horizon),
        )


def check_profile(profile: object) -> None:
    """
    Raises:
        InputError: it is no Profile.
    """
    validation.instance(
        "profile", profile, Profile, "a Profile, of gradlab.measure or gradlab.load"
    )


load = Profile.load
