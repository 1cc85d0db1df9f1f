"""What a test of remedies found: one value per model, trial and quantity, in one file.

Reading needs neither the task nor torch. The quantities, per model and trial:

    prediction_error   at steps 1 … H along the simulator's path under its actions, relative to that
                       of predicting no change
    no_change          that error in standard deviations (model "simulator")
    jacobian_error     block A, B, r_s, r_a along the path: region all, smooth, contact or clip
    bias2, variance, mse, relative_mse, cosine      of the policy gradient, at horizons 1 … H
    least_mse          the smallest of them over the horizons
    usable_horizon, best_horizon    the prefix of usable horizons, and where the error is least
    lyapunov                        of the closed loop
    held_out_nll, held_out_mse, fit_seconds, step_cost      the price; costs relative to "nll"

A trial is one fit (and one record, where data is not given). Intervals are over trials, paired;
those of a single trial are over its starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.storage import codec, records
from gradlab.storage.codec import content_of, described, header
from gradlab.storage.records import Array, Record
from gradlab.tools.remedies import tables
from gradlab.tools.remedies.values import LABELS, NUMBERS, Cells, ModelPair

KIND = "remedies"
COLUMNS = (*LABELS, *NUMBERS, "trial")


@dataclass(frozen=True, eq=False)
class Remedies:
    """What `compare_remedies` found.

    Attributes:
        cells: the values, and what is compared with what.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know, by topic: dropped members, masked samples, epochs.
    """

    cells: Cells
    pairs: tuple[ModelPair, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: Mapping[str, Any]

    @property
    def trials(self) -> int:
        """How many are finished."""
        return self.cells.trials

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.arm for pair in self.pairs))

    def table(self) -> pd.DataFrame:
        """One row per arm, budget, quantity, block, at and region: first (without), second (with
        the remedy), difference with ci_low and ci_high, ratio with ratio_low and ratio_high (over
        trials: geometric means), n (trials, or starts of a single one) and method."""
        return tables.pairs(self.cells, self.pairs)

    def levels(self) -> pd.DataFrame:
        """One row per model, quantity, block, at and region: value, ci_low, ci_high, n, method.

        Models are "nll", the arms, "nll as long as ARM" and "simulator".
        """
        return tables.levels(self.cells)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        records.write(path, _to_record(self), overwrite)
        return Path(path)


def load(path: str | Path) -> Remedies:
    """The run in a file written by `Remedies.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    return _from_record(records.read(path), Path(path))


def _to_record(run: Remedies) -> Record:
    left_out = codec.with_scales({"left_out": Array(run.cells.left_out, ("first_row", "group"))})
    groups = {
        "cells": codec.by_column({name: run.cells.columns[name] for name in COLUMNS}),
        "starts": left_out,
        "pairs": codec.table(run.pairs, ModelPair),
    }
    return Record(header(KIND, run.config, run.environment, notes=run.notes), groups)


def _from_record(record: Record, path: Path) -> Remedies:
    with content_of(record, path, KIND, "test of remedies"):
        groups = record.groups
        columns = codec.columns(groups["cells"])
        left_out = np.asarray(groups["starts"]["left_out"].values, dtype=np.float64)
        return Remedies(
            cells=Cells({name: columns[name] for name in COLUMNS}, left_out),
            pairs=codec.rows(ModelPair, groups["pairs"]),
            **described(record, "notes"),
        )
