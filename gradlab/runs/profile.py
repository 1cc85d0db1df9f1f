"""What a measurement found: labelled arrays, one table, one file.

Reading needs neither the task nor torch: `load(path)` gives back values bit for bit.

A profile in a few lines, as `print(profile)` shows it: what helps, how much was measured, where.

The line on what helps follows `runs.competing`, as the report and `choose` do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab import validation
from gradlab.errors import imported, required
from gradlab.runs.check_results import CheckResult, failed_premises
from gradlab.runs.competing import best_shown, chosen_gain, is_data_again
from gradlab.runs.identity import Identity, by_default, competing
from gradlab.runs.jumps import Jumps
from gradlab.runs.realised import Realised
from gradlab.runs.rehearsal import Rehearsal
from gradlab.runs.substitutions import (
    SubstitutionResults,
    substitution_groups,
    substitutions_from_groups,
)
from gradlab.statistics.comparison import Number
from gradlab.statistics.grams import ActionProducts, GroupProducts, Kernels
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.quantities import QUANTITIES
from gradlab.statistics.selection import largest
from gradlab.storage import codec, records
from gradlab.storage.codec import content_of, described, header, stored
from gradlab.storage.records import Array, Record
from gradlab.wording import cosine, horizons, label

if TYPE_CHECKING:
    import xarray


_PREFIX = "kernels "
_INNER = "squared gradient norm"
_Groups = Mapping[str, codec.Group]


def kernel_groups(kernels: tuple[Kernels, ...]) -> dict[str, dict[str, Array]]:
    """One group per kind, "kernels first", say."""
    return {_PREFIX + each.kind: _labels(each) | _products(each.products) for each in kernels}


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
        "gradient": codec.counted(len(names), "gradient"),
        "other": codec.counted(len(names), "other"),
        "estimator": codec.labels(names, "gradient"),
        "horizon": Array(np.array(horizons, dtype=np.int64), ("gradient",), "steps"),
        "has_truth": Array(np.array(kernels.truth), ()),
    }


def _products(products: ActionProducts | GroupProducts) -> dict[str, Array]:
    common = {
        "group": codec.counted(len(products.fold), "group"),
        "fold": codec.counted(len(products.total), "fold"),
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
        "sample": codec.counted(n, "sample"),
        "action": codec.counted(da, "action"),
        "other_action": codec.counted(da, "other_action"),
        "group_of": Array(products.group, ("sample",)),
        "x": Array(products.x, each, "reward per action unit"),
        "total": Array(products.total, ("fold", *each), _INNER + " per x"),
        "diagonal": Array(products.diagonal, ("sample", "action", "other_action")),
    }
    if products.own is not None:
        linear["own"] = Array(products.own, each, _INNER + " per x")
    return common | linear


def _from_group(kind: str, group: codec.Group) -> Kernels:
    truth = bool(group["has_truth"].values)
    names, horizons = group["estimator"].values, group["horizon"].values
    cells = [(str(name), int(h)) for name, h in zip(names, horizons, strict=True)]
    return Kernels(kind, tuple(cells[: len(cells) - truth]), truth, _products_from(group))


def _products_from(group: codec.Group) -> ActionProducts | GroupProducts:
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
class Profile:
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
    columns: Mapping[str, _Floats]
    count: Annotated[NDArray[np.int64], stored(*_AXES, name="n", unit="samples")]
    method: Annotated[NDArray[Any], stored(*_AXES)]
    left_out: _Floats
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    truth: Mapping[str, Any]
    sanity: tuple[CheckResult, ...] | None = None
    kernels: tuple[Kernels, ...] = ()
    attribution: SubstitutionResults | None = None
    realised: Realised | None = None
    jumps: Jumps | None = None
    rehearsal: Rehearsal | None = None
    surface: Surface | None = None
    file: Path | None = None
    identities: Mapping[str, Identity] = field(default_factory=dict)

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
    def recommendation(self) -> Any:
        """What to do next, a `verdicts.recommendation.Recommendation`: at most five fields and a
        light, and the advised gradient as code (`.loss`, `.states`)."""
        return imported("gradlab.verdicts.measurement.verdict:advice")(self)

    @property
    def batch(self) -> int:
        return int(self.config["batch"])

    def table(self) -> pd.DataFrame:
        """One row per estimator, horizon and quantity that was measured: the stable interface.

        Columns and their order stay; new quantities are further rows.

        Returns:
            `estimator` (data, model, mixed, true_dynamics, …, or your own names), `horizon` (steps
            before the critic; 0 for data, the critic alone), `quantity` (a name of
            `gradlab.statistics.quantities.TABLE`, where its unit, formula and source are), `value`
            and its standard error `se` in the quantity's unit (a squared bias may be estimated
            below zero), `ci_low` and `ci_high`, the ends of the 95% interval, `n` samples, and
            `method`, that of the interval. `attrs["identities"]` has the fields of each estimator's
            `Identity`, by name, for figures.
        """
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

    def to_xarray(self) -> xarray.Dataset:
        """The same numbers over labelled axes, for xarray and ArviZ (the extra `xarray`).

        Returns:
            for each quantity a variable over (estimator, horizon), NaN where not measured, with
            `long_name` and `units`; beside it `…_se`, `…_ci` over `ci_bound` = lower, upper, and
            `…_n`.

        Raises:
            InputError: xarray is not installed.
        """
        return _dataset(self)

    def estimate(self, estimator: str, quantity: str, horizon: int) -> Estimate:
        """One value with its left-out values, for statistics across cells."""
        cell = self._place(estimator, quantity, horizon)
        strata = bool(self.config.get("pilot", {}).get("counts"))
        return Estimate(float(self.columns["value"][cell]), self.left_out[cell], stratified=strata)

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

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        path = validation.path("path", path)
        validation.instance("overwrite", overwrite, bool, "True or False")
        records.write(path, _to_record(self), overwrite)
        return path


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


def load(path: str | Path) -> Profile:
    """Load a profile from the file that `Profile.save` has written; nothing else is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or not of a measurement.
    """
    path = validation.path("path", path)
    record = records.read(path)
    with content_of(record, path, "profile", "measurement"):
        groups = record.groups
        table, jackknife = groups["profile"], groups["jackknife"]
        fields = codec.fields(Profile, table)
        shape = fields["count"].shape
        profile = Profile(
            **fields,
            **described(record, "truth"),
            columns={name: _floats(table[name], shape) for name in COLUMNS},
            left_out=_floats(jackknife["left_out"], (*shape, len(jackknife["group"].values))),
            sanity=codec.rows(CheckResult, groups["sanity"]) if "sanity" in groups else None,
            kernels=kernels_from_groups(groups),
            attribution=substitutions_from_groups(groups),
            realised=_part(groups, "realised", Realised),
            jumps=_part(groups, "jumps", Jumps),
            rehearsal=_part(groups, "rehearsal", Rehearsal),
            surface=_part(groups, "surface", Surface),
            file=path,
            identities={each.name: each for each in codec.rows(Identity, groups["identities"])},
        )
        return with_selected_gain(profile)


def _to_record(profile: Profile) -> Record:
    """One table "profile" over estimator, quantity, horizon, and the left-out values beside it."""
    table = codec.arrays(profile)
    left_out = Array(profile.left_out, (*_AXES, "group"), _UNIT)
    groups = {
        "profile": table | {name: Array(profile.columns[name], _AXES, _UNIT) for name in COLUMNS},
        "jackknife": codec.with_scales({**{a: table[a] for a in _AXES}, "left_out": left_out}),
    }
    groups["identities"] = codec.table(tuple(profile.identities.values()), Identity)
    groups |= kernel_groups(profile.kernels)
    if profile.sanity is not None:
        groups["sanity"] = codec.table(profile.sanity, CheckResult)
    if profile.attribution is not None:
        groups |= substitution_groups(profile.attribution)
    if profile.realised is not None:
        groups["realised"] = codec.arrays(profile.realised)
    if profile.jumps is not None:
        groups["jumps"] = codec.arrays(profile.jumps)
    if profile.rehearsal is not None:
        groups["rehearsal"] = codec.arrays(profile.rehearsal)
    if profile.surface is not None:
        groups["surface"] = codec.arrays(profile.surface)
    attributes = header("profile", profile.config, profile.environment, truth=profile.truth)
    return Record(attributes, groups)


def _part(groups: Mapping[str, codec.Group], name: str, of: type[T]) -> T | None:
    return codec.decoded(of, groups[name]) if name in groups else None


def _floats(array: Array, shape: tuple[int, ...]) -> _Floats:
    return np.asarray(array.values, dtype=np.float64).reshape(shape)


def _best(profile: Profile) -> str:
    if failed := failed_premises(profile.sanity):
        return f"nothing can be decided: {shorten(failed[0].result, 90, placeholder='…')}"
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


_DIMS = ("estimator", "horizon")
_INTERVAL = "95%"


def _dataset(profile: Profile) -> xarray.Dataset:
    """One variable per quantity over (estimator, horizon), with three beside it.

    gain          value; `long_name`, `units` (CF: "1" for a plain number), `formula`, `source`
    gain_se       standard error
    gain_ci       ends of the 95% interval, over `ci_bound` = "lower", "upper" as ArviZ 1 has
                  them (0.x: `hdi`; `arviz.plot_hdi(x, hdi_data=…)` draws these, too)
    gain_n        samples; 0, and NaN in the others, where nothing was measured
    """
    made = required("xarray", "xarray").Dataset
    variables: dict[str, Any] = {}
    for place, name in enumerate(profile.quantities):
        variables |= _variables(profile, name, place)
    coordinates = {
        "estimator": ("estimator", list(profile.estimators), {"long_name": "estimator"}),
        "horizon": (
            "horizon", list(profile.horizons), {"long_name": "horizon", "units": "steps"},
        ),
        "ci_bound": ("ci_bound", ["lower", "upper"], {"long_name": f"ends of the {_INTERVAL}"}),
    }  # fmt: skip
    config, environment = profile.config, profile.environment
    attributes = {  # what was measured and by what, as text and numbers, which netCDF takes
        "title": f"policy gradients on {config.get('task', 'a task')}",
        "inference_library": "gradlab",
        "inference_library_version": environment.get("gradlab", ""),
        "created_at": environment.get("created", ""),
        "batch": profile.batch,
        "seed": int(config.get("seed", 0)),
        "command": str(config.get("command", "")),
        "config": json.dumps(dict(config), default=str),
        "truth": json.dumps(dict(profile.truth), default=str),
    }
    found: xarray.Dataset = made(variables, coordinates, attributes)
    return found


def _variables(profile: Profile, name: str, place: int) -> dict[str, Any]:
    """A quantity with its standard error, interval and number of samples."""
    value, se, low, high = (
        profile.columns[column][:, place] for column in ("value", "se", "ci_low", "ci_high")
    )
    quantity = QUANTITIES[name]
    title, units = quantity.title, {"units": quantity.unit or "1"}
    about = {"formula": quantity.formula, "source": quantity.source}
    methods = sorted({str(each) for each in profile.method[:, place].ravel() if each})
    interval = {
        "long_name": f"{title}, {_INTERVAL} interval",
        **units,
        "method": ", ".join(methods),
    }
    count = {"long_name": f"{title}, samples", "units": "1"}
    return {
        name: (_DIMS, value, {"long_name": title, **units, **about}),
        f"{name}_se": (_DIMS, se, {"long_name": f"{title}, standard error", **units}),
        f"{name}_ci": ((*_DIMS, "ci_bound"), np.stack([low, high], axis=-1), interval),
        f"{name}_n": (_DIMS, profile.count[:, place], count),
    }
