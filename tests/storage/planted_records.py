"""A record with every kind of value that a file can hold."""

import numpy as np

from gradlab.storage import records
from gradlab.storage.records import Array, Record


def planted() -> Record:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 4))
    values[0, :3] = np.nan, -0.0, np.inf
    profile = {
        "value": Array(values, ("estimator", "horizon"), "reward / action"),
        "estimator": Array(np.array(["data", "größer ∂f/∂a"]), ("estimator",)),
        "horizon": Array(np.arange(4), ("horizon",), "step"),
        "alive": Array(values > 0, ("estimator", "horizon")),
        "total": Array(np.array(0.1), ()),
    }
    empty = {"x": Array(np.zeros(0), ("x",))}
    attributes: dict[str, records.Attribute] = {"command": "gradlab measure …", "seed": 7}
    attributes |= {"wall": 0.1 + 0.2, "ok": True} | {f"key{i:02d}": i for i in range(30, 0, -1)}
    return Record(attributes, {"zeta": profile, "alpha": empty})
