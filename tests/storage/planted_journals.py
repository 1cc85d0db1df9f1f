"""A run of two tables, its rows, and a check that they are there."""

import numpy as np

from gradlab.storage.journal import Journal, read
from gradlab.storage.journal_tables import Column, Table

TABLES = {
    "updates": Table(
        "iteration", {"loss": Column(("seed",), "reward²"), "rate": Column()}, {"seed": (0, 1, 2)}
    ),
    "events": Table("number", {"message": Column(text=True)}),
}
ABOUT = {"kind": "training", "seed": 0}


def row(k):
    return {"iteration": k, "loss": np.array([k, k + 0.25, -k]), "rate": 1 / (k + 1)}


def writing(path, *span):
    """The journal of a run, open behind the rows of a range."""
    writer = Journal(path, TABLES, ABOUT)
    for k in range(*span):
        writer.append("updates", row(k))
    return writer


def check(path, count):
    """Rows 0 … count − 1 are there, each as it was written."""
    found = read(path).groups["updates"]
    assert found["iteration"].values[:count].tolist() == list(range(count))
    for k in (0, count // 2, count - 1):
        np.testing.assert_array_equal(found["loss"].values[k], row(k)["loss"])
    return found


def closed_and_going_on(path, begin=0):
    """A run whose file holds ten rows, and its journal, of a killed writer, ten more."""
    writing(path, begin, begin + 10).close()
    writing(path, begin + 10, begin + 20)._file.close()
