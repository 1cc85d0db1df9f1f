"""Realised gains as one table of a run, over cell, length of the step and group of starts."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from gradlab.runs.realised import STATUSES, Realised, Status
from gradlab.storage import records

UNIT = "discounted return"
PLAIN = ("norm", "horizon", "termination", "ended", "steps")


def realised_group(realised: Realised) -> dict[str, records.Array]:
    """As a table of a run."""
    names, horizons = zip(*realised.cells, strict=True) if realised.cells else ((), ())
    plain = {name: getattr(realised, name) for name in PLAIN}
    text = json.dumps(plain | {"norm": repr(realised.norm)})

    def labels(values: tuple[str, ...]) -> records.Array:
        return records.Array(np.array(values, dtype=object), ("cell",))

    group = {
        "cell": records.Array(np.arange(len(realised.cells)), ("cell",)),
        "estimator": labels(names),
        "at": records.Array(np.array(horizons, dtype=np.int64), ("cell",), "steps"),
        "status": labels(realised.status),
        "kept": records.Array(realised.kept, ("cell",)),
        "length": records.Array(realised.lengths, ("length",), "norm of θ"),
        "moves": records.Array(np.array(realised.moves), ("length",), "share of an action's size"),
        "group": records.Array(np.arange(len(realised.size)), ("group",)),
        "size": records.Array(realised.size, ("group",), "starts"),
        "before": records.Array(realised.before, ("group",), UNIT),
        "gain": records.Array(realised.gain, ("cell", "length", "group"), UNIT),
        "plain": records.Array(np.array([text], dtype=object), ("one",)),
        "one": records.Array(np.arange(1), ("one",)),
    }
    if len(realised.opposite):
        group["opposite"] = records.Array(realised.opposite, ("length", "group"), UNIT)
    return group


def realised_from_group(group: Mapping[str, records.Array]) -> Realised:
    """What `realised_group` wrote.

    Raises:
        KeyError, ValueError: no such status, or arrays that do not fit one another.
    """
    plain = json.loads(str(group["plain"].values[0]))
    named = zip(group["estimator"].values, group["at"].values, strict=True)
    cells = tuple((str(name), int(h)) for name, h in named)
    by_word: dict[str, Status] = {each: each for each in STATUSES}
    status = tuple(by_word[str(each)] for each in group["status"].values)
    floats = {
        name: np.asarray(group[name].values, dtype=np.float64)
        for name in ("kept", "length", "size", "before", "gain")
    }
    size, lengths = floats["size"], floats["length"]
    opposite = np.zeros((0, len(size)))
    if "opposite" in group:
        opposite = np.asarray(group["opposite"].values, dtype=np.float64)
        opposite = opposite.reshape(len(lengths), len(size))
    return Realised(
        cells=cells,
        status=status,
        gain=floats["gain"].reshape(len(cells), len(lengths), len(size)),
        opposite=opposite,
        before=floats["before"].reshape(len(size)),
        size=size,
        lengths=lengths,
        moves=tuple(float(each) for each in group["moves"].values),
        kept=floats["kept"].reshape(len(cells)),
        norm=float(plain["norm"]),
        horizon=int(plain["horizon"]),
        termination=str(plain["termination"]),
        ended=float(plain["ended"]),
        steps=int(plain["steps"]),
    )
