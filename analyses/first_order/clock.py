"""Processor seconds of training, evaluations and measurements left out.

A training run reports its progress every `log_every` updates; evaluations, measurements and saved
states fall between two reports. An interval that holds one of them counts as the median of all.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@final
class Clock:
    """A `gradlab.progress.Progress` that appends to a file what each interval took.

    Args:
        resume: the run goes on; else the file begins anew.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        if not (resume and path.exists()):
            path.write_text("update,seconds\n")
        self.before = time.process_time()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.process_time()
        with self.path.open("a") as file:
            file.write(f"{done},{now - self.before:.6g}\n")
        self.before = now


def intervals(path: Path) -> pd.DataFrame:
    """Columns update and seconds, the last entry of each update: a resumed run repeats some."""
    table = pd.read_csv(path).drop_duplicates("update", keep="last").sort_values("update")
    return table[table["update"] > 0].reset_index(drop=True)


def per_update(path: Path, others: int) -> Floats:
    """Seconds of an update in every interval that holds nothing else.

    Args:
        others: updates between two evaluations; measurements are at multiples of it.
    """
    table = intervals(path)
    size = np.diff(table["update"], prepend=0)
    begun = table["update"].to_numpy() - size
    return np.asarray((table["seconds"] / size)[begun % others != 0], dtype=np.float64)


def seconds_at(path: Path, updates: NDArray[np.int64], others: int) -> Floats:
    """Processor seconds of training before each of these updates."""
    table = intervals(path)
    size = np.diff(table["update"], prepend=0)
    begun = table["update"].to_numpy() - size
    plain = np.median(per_update(path, others))
    took = np.where(begun % others == 0, plain * size, table["seconds"])
    ends = np.concatenate([[0], table["update"]])
    return np.interp(updates, ends, np.concatenate([[0.0], np.cumsum(took)]))
