"""What the probe writes: the tables of its log, and where the rows go.

vitals       every so many updates: norms, update ratios, non-finite counts, saturation, cost
successive   products of successive gradients: is there a signal in the noise?
measured     with a task: bias and variance by horizon, choice, Jacobians, growth, critic
alarms       what was told, in words
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from gradlab.errors import InputError
from gradlab.journal import Journal, journal_of
from gradlab.journal_tables import Column, Table
from gradlab.probe.measured_columns import CELLS, ENDS, MEASURED, STEPS
from gradlab.records import Attribute, check_output

KIND = "probe"
ESTIMATORS = ("data", "model", "mixed", "true_dynamics")
Row = Mapping[str, Any]
Log = Callable[[dict[str, Any]], object]


def tables(parameters: int, actions: int, horizon: int | None) -> dict[str, Table]:
    """The schema of a probe's file; `horizon` None: nothing is measured on a task."""
    layer, action = ("parameter",), ("action",)
    vitals = {
        "step": Column(unit="as the loop counts"),
        "looked": Column(unit="updates"),
        "grad_norm": Column(unit="loss per parameter unit, before clipping, window mean"),
        "grad_norm_max": Column(unit="loss per parameter unit"),
        "marked": Column(unit="1: gradients are those of `with probe(step)`, 0: the optimiser's"),
        "update_ratio": Column(unit="|Δθ| / |θ|, mean over a quarter of the window"),
        "layer_norm": Column(layer, "loss per parameter unit, window mean"),
        "layer_ratio": Column(layer, "|Δθ| / |θ|, mean over a quarter of the window"),
        "nonfinite": Column(layer, "updates"),
        "nonfinite_updates": Column(unit="updates"),
        "zero": Column(layer, "updates with a gradient of exactly 0"),
        "saturation": Column(action, "share of actions at their limit"),
        "attenuation": Column(action, "mean 1 − (a/limit)²: what a tanh at the end lets through"),
        "watched": Column(unit="forward passes"),
        "model_gradients": Column(unit="marked passes that left gradients on the prior model"),
        "model_shared": Column(unit="tensors of the policy that the prior model holds, too"),
        "reaches": Column(text=True),
        "own_seconds": Column(unit="s spent by the probe so far"),
        "elapsed": Column(unit="s since the first update"),
        "spent": Column(unit="share of the time"),
    }
    found = {
        "vitals": Table(
            "update",
            vitals if actions else {k: v for k, v in vitals.items() if v.dims != action},
            {"parameter": tuple(range(parameters))}
            | ({"action": tuple(range(actions))} if actions else {}),
        ),
        "successive": Table("update", SUCCESSIVE),
        "alarms": Table("number", ALARMS),
    }
    if horizon is not None:
        found["measured"] = measured_table(actions, horizon)
    return found


SUCCESSIVE = {
    "step": Column(unit="as the loop counts"),
    "pairs": Column(unit="pairs of successive gradients"),
    "fresh": Column(unit="of these: whose batches share the fewest samples, and which count"),
    "overlap": Column(unit="share of samples that the batches of a pair share; NaN: not seen"),
    "distinct": Column(unit="share of all samples of the burst that were seen once"),
    "energy": Column(unit="mean |g|², (loss per parameter unit)²"),
    "signal": Column(unit="mean g·g′, estimates |E g|²"),
    "root_squares": Column(unit="√Σ (g·g′)², the size of Σ g·g′ where there is no signal"),
    "signal_share": Column(unit="|E g|² / E |g|²"),
    "share_se": Column(unit="standard error of signal_share"),
    "snr": Column(unit="|E g|² / tr Cov(g), of one batch"),
    "noise_scale": Column(unit="batches after which noise and signal are equal"),
    "cosine": Column(unit="of one batch's gradient with the mean gradient"),
    "dead_columns": Column(unit="columns of weights, exactly 0 at both ends"),
    "columns": Column(unit="columns of weights"),
    "dead_inputs": Column(unit="columns of the first layer's weights"),
    "dead_where": Column(text=True),
    "seconds": Column(unit="s"),
}
ENDS_OF_CELLS = {f"{name}_{end}" for name in CELLS for end in ENDS}
BY_PARAMETER = ("layer_norm", "layer_ratio", "nonfinite", "zero")
ALARMS = {
    "update": Column(unit="updates"),
    "step": Column(unit="as the loop counts"),
    "alarm": Column(text=True),
    "message": Column(text=True),
}


def measured_table(actions: int, horizon: int) -> Table:
    """Bias and variance on the task, and what follows from them."""
    scales = {
        "estimator": range(len(ESTIMATORS)),
        "horizon": range(horizon + 1),
        "action": range(actions),
        "chain": range(STEPS + 1),
    }
    return Table("update", MEASURED, {name: tuple(each) for name, each in scales.items()})


class Book(Protocol):
    """Where rows go."""

    def write(self, table: str, row: Row) -> None: ...

    def close(self) -> None: ...


@final
class Nowhere:
    """No log."""

    def write(self, table: str, row: Row) -> None:
        pass

    def close(self) -> None:
        pass


@final
class Together:
    """Rows go to several logs."""

    def __init__(self, books: Sequence[Book]) -> None:
        self.books = tuple(books)

    def write(self, table: str, row: Row) -> None:
        for book in self.books:
            book.write(table, row)

    def close(self) -> None:
        """All of them, whichever fails."""
        with ExitStack() as all_of_them:
            for book in reversed(self.books):
                all_of_them.callback(book.close)


@final
class Told:
    """Rows go to the user's function, as plain numbers by name."""

    def __init__(self, log: Log, names: Sequence[str]) -> None:
        self.log, self.names = log, tuple(names)

    def write(self, table: str, row: Row) -> None:
        self.log(flat(table, row, self.names))

    def close(self) -> None:
        pass


@final
class Written:
    """Rows go to a run's journal, opened with the first of them.

    Args:
        parameters: how many; horizon: of measurements, None without a task.
        actions: tells how many there are, which a policy shows by its first answer only.
    """

    def __init__(
        self, path: str | Path, attributes: Mapping[str, Attribute], parameters: int,
        horizon: int | None, actions: Callable[[], int],
    ) -> None:  # fmt: skip
        self.path, self.attributes = Path(path), dict(attributes)
        self.shape = parameters, horizon, actions
        self._journal: Journal | None = None
        check_output(self.path)
        if journal_of(self.path).exists():
            raise InputError(f"log is {path}, which holds a run already: choose another name")

    def write(self, table: str, row: Row) -> None:
        if self._journal is None:
            self._journal = self._opened()
        known = self._journal.tables[table]
        kept = {k: v for k, v in row.items() if k in known.columns or k == known.index}
        self._journal.append(table, kept)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _opened(self) -> Journal:
        parameters, horizon, actions = self.shape
        return Journal(self.path, tables(parameters, actions(), horizon), self.attributes)


def attributes(
    names: Sequence[str], task: str, config: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Attribute]:
    return {
        "kind": KIND,
        "task": task,
        "command": "gradlab.Probe",
        "seed": int(config["seed"]),
        "commit": environment.get("commit", ""),
        "config": json.dumps(config),
        "environment": json.dumps(environment),
        "parameters": json.dumps(list(names)),
        "estimators": json.dumps(list(ESTIMATORS)),
    }


def flat(table: str, row: Row, names: Sequence[str]) -> dict[str, Any]:
    """Arrays by element, named after parameter, action, or estimator and horizon.

    Ends of the intervals of cells, hundreds of numbers, are left to a run's file.
    """
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = key if key in ("step", "update") else f"{table}/{key}"
        if key in ENDS_OF_CELLS:
            continue
        if isinstance(value, str):
            found[name] = value
            continue
        array = np.asarray(value)
        if array.ndim == 0:
            found[name] = array.item()
        elif array.ndim == 1:
            labels = names if key in BY_PARAMETER else range(len(array))
            found |= {f"{name}/{k}": float(v) for k, v in zip(labels, array, strict=True)}
        else:
            found |= {
                f"{name}/{ESTIMATORS[e]}/{h}": float(array[e, h])
                for e, h in np.ndindex(array.shape)
            }
    return found
