"""A fit on disk: its curves, the result of each member, measured norms, and its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gradlab import provenance
from gradlab.fitting.fitted import Fit
from gradlab.storage import records
from gradlab.storage.records import Array, Attribute, Record

_KIND = "fit"


def save(
    fit: Fit, path: Path, about: Mapping[str, Attribute] | None = None, overwrite: bool = False
) -> None:
    """Write one HDF5 file, complete or not at all.

    Args:
        about: further attributes, such as task and command.

    Raises:
        InputError: the file exists (and `overwrite` is off) or cannot be written.
    """
    attributes: dict[str, Attribute] = {
        "kind": _KIND,
        "loss": fit.loss.name,
        "settings": json.dumps(fit.settings.plain()),
        "constant": ", ".join(fit.constant),
        "repeated": fit.repeated,
        "training_rows": fit.training_rows,
        "held_out_rows": fit.held_out_rows,
        **provenance.environment(),
        **(about or {}),
    }
    groups = {"curves": _curves(fit), "members": _members(fit), "norms": _norms(fit)}
    records.write(path, Record(attributes, groups), overwrite)


def _curves(fit: Fit) -> dict[str, Array]:
    epochs = len(fit.curves["seconds"])
    columns = ("training", "held_out", "squared_error")
    return {
        "epoch": Array(np.arange(1, epochs + 1), ("epoch",)),
        "member": Array(np.array(fit.settings.numbers), ("member",)),
        "seconds": Array(fit.curves["seconds"], ("epoch",), "s"),
        **{name: Array(fit.curves[name], ("epoch", "member")) for name in columns},
    }


def _members(fit: Fit) -> dict[str, Array]:
    outputs = fit.explained.shape[1]
    return {
        "member": Array(np.array(fit.members), ("member",)),
        "output": Array(np.arange(outputs), ("output",)),
        "best_epoch": Array(np.array(fit.best_epoch), ("member",)),
        "held_out_loss": Array(np.array(fit.held_out_loss), ("member",)),
        "explained": Array(fit.explained.numpy(), ("member", "output")),
        "explained_error": Array(fit.explained_error.numpy(), ("output",)),
        "dropped_member": Array(np.array(list(fit.dropped), dtype=int), ("dropped_member",)),
        "dropped_in_epoch": Array(
            np.array(list(fit.dropped.values()), dtype=int), ("dropped_member",), "epochs"
        ),
    }


def _norms(fit: Fit) -> dict[str, Array]:
    names = np.array([layer.name for layer in fit.norms], dtype=object)
    members = len(fit.settings.numbers)
    norms = np.array([layer.values for layer in fit.norms]).reshape(len(names), members)
    return {
        "layer": Array(names, ("layer",)),
        "member": Array(np.array(fit.settings.numbers), ("member",)),
        "norm": Array(norms, ("layer", "member")),
        "normalised": Array(np.array([layer.normalised for layer in fit.norms]), ("layer",)),
    }
