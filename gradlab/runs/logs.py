"""What logs and a model said without a simulator: one long table, in one file.

Reading needs neither the data nor torch. `block` names whose number it is, `step` a horizon or a
step, `output` a coordinate. The sections:

    policy      are the actions the policy's own? Standardised residuals, per action
    gradient    of "score" and "model" at every horizon: mean_norm, variance, cosine_self (of the
                mean with its own expectation); of the model also variance_critics and, where it
                sets in, variance_slope per step; of "whole" the score of the whole recorded return
    agreement   the model's gradient less the score's, of one and the same return ("same"), and of
                the whole recorded return ("whole"): bias2, relative_bias2, excess over what is
                called agreement, cosine, variance_ratio; none where the model's is exactly 0
    critic      per critic: Bellman residual, calibration against observed returns, values beyond
                the return bound
    direction   the model's directional derivatives against held-out neighbours, per output
    prediction  the model's error after k steps under the recorded actions
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

KIND = "logs"
UNITS = {"step": "steps", "n": "samples"}


@dataclass(frozen=True, eq=False)
class LogsRun:
    """What `measure_logs` found.

    Attributes:
        columns: the table by column, each [rows] (see the module for its sections).
        state_names, action_names: the coordinates.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know: what was left out and why, laws of growth.
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


def load(path: str | Path) -> LogsRun:
    """The run in a file written by `LogsRun.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    return LogsRun(**long_table.fields(Path(path), KIND, "comparison of logs with a model"))
