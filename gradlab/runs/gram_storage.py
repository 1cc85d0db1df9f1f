"""Gram matrices of gradients (kernels) as tables of a run.

A run has one group of arrays per truth; gradients of the first action keep what is linear in cells
and samples, all others their inner products (`statistics.grams`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradlab.statistics.grams import ActionProducts, GroupProducts, Kernels
from gradlab.storage import codec
from gradlab.storage.records import Array

_PREFIX = "kernels "
_INNER = "squared gradient norm"
_Groups = Mapping[str, codec.Group]


def kernel_groups(kernels: tuple[Kernels, ...]) -> dict[str, dict[str, Array]]:
    """One group per kind, "kernels first", say."""
    return {_PREFIX + each.kind: _labels(each) | _products(each.products) for each in kernels}


def kernels_from_groups(groups: _Groups) -> tuple[Kernels, ...]:
    """All kernels of a run; none in files of older versions."""
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
    fold = Array(products.fold, ("group",))
    common = {
        "group": codec.counted(len(products.fold), "group"),
        "fold": codec.counted(len(products.total), "fold"),
        "fold_of": fold,
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
