"""What a measurement found: labelled arrays, one table, one file.

Reading needs neither the task nor torch: `load(path)` gives back values bit for bit.

A profile in a few lines, as `print(profile)` shows it: what helps, how much was measured, where.

The line on what helps follows `runs.identity`, as the report and `choose` do.

Comparisons among the gradients that compete for a recommendation (`identity.competing`).

A better gradient that needs the simulator's states is named beside the recommendation; the
simulator's own gradients never are, which are good by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab import validation
from gradlab.findings import Finding
from gradlab.findings.checks import failed_premises
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
from gradlab.wording import cosine, horizons, label

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


_PREFIX = "kernels "
_INNER = "squared gradient norm"
_Groups = layout.Groups


def kernel_groups(kernels: tuple[Kernels, ...]) -> dict[str, dict[str, Array]]:
    """One group per kind, "kernels first", say."""
    groups = {_PREFIX + each.kind: _labels(each) | _products(each.products) for each in kernels}
    return {
        kind: {
            name: replace(array, description=_SAID.get(name) or array.description)
            for name, array in arrays.items()
        }
        for kind, arrays in groups.items()
    }


_SAID = {
    "estimator": "whose gradient; empty: the truth",
    "horizon": "steps before the critic; −1: the truth",
    "has_truth": "is the truth the last gradient?",
    "fold_of": "fold of each group",
    "group_of": "group of each sample",
    "size": "samples of each group",
    "total": "products with the sum over each fold",
    "within": "products of a sample with itself, summed over each group",
    "own": "products with the sum over one's own group",
    "x": "gradients in the actions, weights included",
    "diagonal": "Θ of each sample with itself",
}


def kernels_from_groups(groups: _Groups) -> tuple[Kernels, ...]:
    """All kernels of a run."""
    return tuple(
        _from_group(name.removeprefix(_PREFIX), group)
        for name, group in groups.items()
        if name.startswith(_PREFIX)
    )


def _labels(kernels: Kernels) -> dict[str, Array]:
    """The gradients by name and horizon; the truth, which has neither, as the last one."""
    names = [name for name, _ in kernels.cells] + [""] * kernels.truth
    horizons = [horizon for _, horizon in kernels.cells] + [-1] * kernels.truth
    return {
        "gradient": layout.counted(len(names), "gradient"),
        "other": layout.counted(len(names), "other"),
        "estimator": layout.labels(names, "gradient"),
        "horizon": Array(np.array(horizons, dtype=np.int64), ("gradient",), "steps"),
        "has_truth": Array(np.array(kernels.truth), ()),
    }


def _products(products: ActionProducts | GroupProducts) -> dict[str, Array]:
    common = {
        "group": layout.counted(len(products.fold), "group"),
        "fold": layout.counted(len(products.total), "fold"),
        "fold_of": Array(products.fold, ("group",)),
    }
    if isinstance(products, GroupProducts):
        square = ("group", "gradient", "other")
        inner = {
            "size": Array(products.size, ("group",), "samples"),
            "total": Array(products.total, ("fold", *square), _INNER),
            "within": Array(products.within, square, _INNER),
        }
        if products.own is not products.within:
            inner["own"] = Array(products.own, square, _INNER)
        return common | inner
    n, da = products.x.shape[1:]
    each = ("gradient", "sample", "action")
    linear = {
        "sample": layout.counted(n, "sample"),
        "action": layout.counted(da, "action"),
        "other_action": layout.counted(da, "other_action"),
        "group_of": Array(products.group, ("sample",)),
        "x": Array(products.x, each, "reward per action unit"),
        "total": Array(products.total, ("fold", *each), _INNER + " per x"),
        "diagonal": Array(products.diagonal, ("sample", "action", "other_action")),
    }
    if products.own is not None:
        linear["own"] = Array(products.own, each, _INNER + " per x")
    return common | linear


def _from_group(kind: str, group: layout.Group) -> Kernels:
    truth = bool(group["has_truth"].values)
    names, horizons = group["estimator"].values, group["horizon"].values
    cells = [(str(name), int(h)) for name, h in zip(names, horizons, strict=True)]
    return Kernels(kind, tuple(cells[: len(cells) - truth]), truth, _products_from(group))


def _products_from(group: layout.Group) -> ActionProducts | GroupProducts:
    arrays = {
        name: np.asarray(group[name].values, dtype=np.float64)
        for name in ("x", "total", "own", "within", "diagonal", "size")
        if name in group
    }
    fold = np.asarray(group["fold_of"].values, dtype=np.int64)
    if "x" not in group:
        within = arrays["within"]
        own = arrays.get("own", within)
        return GroupProducts(arrays["size"], own, within, arrays["total"], fold)
    label = np.asarray(group["group_of"].values, dtype=np.int64)
    if len(label) and not 0 <= label.min() <= label.max() < len(fold):
        raise ValueError(f"samples belong to groups {label.min()} … {label.max()}")
    return ActionProducts(
        arrays["x"], arrays["total"], arrays.get("own"), arrays["diagonal"], label, fold
    )


T = TypeVar("T")
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
    kernels: Annotated[tuple[Kernels, ...], by(kernel_groups, kernels_from_groups)] = ()
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

    def __repr__(self) -> str:
        """What helps, what was measured and where it is, in a few lines."""
        config = self.config
        sizes = (
            f"{len(self.estimators)} gradients, h = {horizons(self.horizons)}, "
            f"{len(self.quantities)} quantities, {config.get('starts')} starts"
        )
        gradients = "; ".join(label(name, self.identities) for name in self.estimators)
        return "\n".join(
            [
                f"<Profile of {config.get('task', 'a task')}: {sizes}",
                f"  gradients: {gradients}",
                f"  {_best(self)}",
                f"  file: {self.file or 'not saved: profile.save(path)'}",
                "  every number: .table(); a page to decide from: gradlab.report(path)>",
            ]
        )

    @property
    def batch(self) -> int:
        return int(self.config["batch"])

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
    gains = _gains(profile)
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


def _best(profile: Profile) -> str:
    if failed := failed_premises(profile.sanity):
        return f"nothing can be decided: {shorten(failed[0].sentence, 90, placeholder='…')}"
    if not profile.truth["admissible"]:
        return "no truth, so no gain: variances and agreement only"
    gains = _gains(profile)
    best = best_shown(gains, list(gains))
    if best is None:
        return "no gain: judged against another truth than the gradient of the return"
    name, h, gain = label(best[0], profile.identities), best[1], gains[best]
    ends = f"{cosine(gain.value)} (95% {cosine(gain.low)} to {cosine(gain.high)})"
    if not gain.low > 0:
        return f"no gradient is shown to raise the return; best guess: {name} at h = {h}, {ends}"
    among = len(competing(profile.identities))
    return f"largest gain of the {among} that compete: {name} at h = {h}, {ends}"


def _gains(profile: Profile) -> dict[tuple[str, int], Number]:
    """Of all that competes, where they are numbers, whichever group of starts is left out."""
    if "gain" not in profile.quantities:
        return {}
    q, found = profile.quantities.index("gain"), {}
    for name in competing(profile.identities):
        e = profile.estimators.index(name)
        for k, h in enumerate(profile.horizons):
            value, low, high = (
                float(profile.columns[c][e, q, k]) for c in ("value", "ci_low", "ci_high")
            )
            finite = np.isfinite([value, low, high]).all()
            finite = finite and np.isfinite(profile.left_out[e, q, k]).all()
            if profile.count[e, q, k] and finite:
                found[name, h] = Number(value, low, high, int(profile.count[e, q, k]))
    return {cell: g for cell, g in found.items() if not is_data_again(profile.identities, cell)}
