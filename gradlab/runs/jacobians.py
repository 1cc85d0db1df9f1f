"""What a comparison of Jacobians found: one long table, in one file.

Reading needs neither the task nor torch. The sections of the table:

    block        errors at the simulator's states: A, B, r_s, r_a, and of next_state and reward
    certificate  the estimated error of the simulator's own blocks, and the share that failed
    entry        output × input: error and size, standardised by what the path varies, and effect
                 of the error on the gradient in the first action, relative to that gradient
    time         errors, flagged and terminated share along the rollout
    distance     errors by distance from the nearest data (x)
    growth       mean ln σ_k of the chained Jacobians, k in `output`, loop in `block`
    exponent     finite-time Lyapunov exponents
    product      relative error of the model's chained product
    model_error  error of the model's own rollout
    horizon      what follows: steps and exponents that a reader decides from
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from gradlab.runs import long_table
from gradlab.storage import records

KIND = "jacobians"
UNITS = {"step": "steps", "x": "standard deviations of the data", "n": "samples"}


@dataclass(frozen=True, eq=False)
class JacobianRun:
    """What `compare_jacobians` found.

    Attributes:
        columns: the table by column, each [rows] (see the module for its sections).
        state_names, action_names: the coordinates.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know: counts of masked samples, first losses, laws.
    """

    columns: Mapping[str, NDArray[Any]]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: Mapping[str, Any]

    def table(self) -> pd.DataFrame:
        """One row per number; see the module for the sections."""
        return long_table.frame(self.columns)

    def rows(self, section: str, **where: object) -> pd.DataFrame:
        """The rows of one section, where columns have given values."""
        return long_table.rows(self.columns, section, where)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        records.write(path, long_table.to_record(self, KIND, UNITS), overwrite)
        return Path(path)


def load(path: str | Path) -> JacobianRun:
    """The run in a file written by `JacobianRun.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    return JacobianRun(**long_table.fields(Path(path), KIND, "comparison of Jacobians"))
