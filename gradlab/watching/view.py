"""The numbers of a run in progress, from the tables and the first screen that its report has.

rows      return, the critic's value against it, realised gains, then all else
screen    the report's own: the recommendation, and how sure it is
events    alarms, and what the run itself reported
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.runs.probe import results as probe_results
from gradlab.runs.probe.schema import KIND as PROBE
from gradlab.runs.probe.tables import LOGARITHMIC, curves
from gradlab.runs.probe.tables import WORDS as PROBED
from gradlab.runs.training import results as training_results
from gradlab.runs.training.results import Training
from gradlab.storage.codec import content_of, shown
from gradlab.storage.records import Record
from gradlab.verdicts.probe.first_screen import screen as probe_screen
from gradlab.verdicts.probe.returns import seen
from gradlab.verdicts.screen import Screen
from gradlab.verdicts.training.first_screen import screen as training_screen

Floats = NDArray[np.float64]
_RECENT = 20  # rows from which the pace is taken
_TRAINED = {
    "return": "return",
    "value": "critic's value, scaled reward",
    "gain": "gain since the evaluation before",
    "policy_norm": "norm of the policy gradient",
    "critic_norm": "norm of the critic's gradient",
    "critic_loss": "critic loss",
    "gradient relative_mse": "error of the gradient",
    "prediction unexplained": "error of the model",
}
_ON_LOG = (*LOGARITHMIC, "policy_norm", "critic_norm", "gradient relative_mse")


@dataclass(frozen=True, eq=False)
class QuantityRow:
    """A quantity through the run: values [K] at x [K], ends of its interval NaN where it has none.

    Only what was measured is in it, so that the last entry is the latest value.
    """

    name: str
    x: Floats
    value: Floats
    low: Floats
    high: Floats
    log: bool = False


@dataclass(frozen=True)
class Event:
    """One sentence, at an iteration or update, with the kind of alarm that it is."""

    at: int
    kind: str
    text: str


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        across: what is counted; done: of them; total: None where unknown.
        rate: of the latest rows, per second, NaN where unknown; seconds: since the run began.
        beat: seconds between the latest rows, 0 where unknown.
    """

    across: str
    done: int
    total: int | None
    rate: float = nan
    seconds: float = 0.0
    beat: float = 0.0

    @property
    def share(self) -> float | None:
        return None if self.total is None else min(self.done / max(self.total, 1), 1.0)

    @property
    def left(self) -> float | None:
        """Seconds to the end at the present rate; None where unknown."""
        if self.total is None or not isfinite(self.rate) or self.rate <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate


@dataclass(frozen=True, eq=False)
class View:
    """The numbers of a run.

    Attributes:
        kind: "training", "probe", or "" before the first row.
        screen: the report's first one; None before there is anything to judge.
        lost: rows that are missing in the file, by their numbers.
    """

    kind: str = ""
    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    screen: Screen | None = None
    rows: Sequence[QuantityRow] = ()
    events: Sequence[Event] = ()
    lost: int = 0


def view(record: Record, path: Path) -> View:
    """The numbers of a run of training or of a probe.

    Raises:
        InputError: it is of another kind, damaged, or foreign.
    """
    kind = str(record.attributes.get("kind"))
    if kind not in _KINDS:
        raise InputError(f"{path} holds {kind!r}, which does not grow{shown(path, kind)}")
    with content_of(record, path, kind, f"run of {kind}"):
        lost = int(record.attributes.get("damaged_frames", 0))
        return replace(_KINDS[kind](record, path), kind=kind, lost=lost)


def _of_probe(record: Record, path: Path) -> View:
    run = probe_results.from_record(record, path)
    lately = seen(run)
    facts = {
        "return": "" if lately is None else f"{lately.text} {lately.count}".strip(),
        "budget": f"{run.budget:.2g} of the time",
        "due": run.due,
    }
    columns = (run.alarms.get(name, ()) for name in ("update", "alarm", "message"))
    return View(
        title=f"probe on {run.task}" if run.task else "probe",
        facts={name: value for name, value in facts.items() if value},
        progress=_paced("update", None, *(run.vitals.get(n, ()) for n in ("update", "elapsed"))),
        screen=probe_screen(run) if run.vitals or run.alarms else None,
        rows=list(_rows(curves({"": run}), PROBED)),
        events=[
            Event(int(at), str(kind), str(text)) for at, kind, text in zip(*columns, strict=True)
        ],
    )


def _of_training(record: Record, path: Path) -> View:
    """Of a run without an evaluation yet the progress alone."""
    config, groups = json.loads(str(record.attributes["config"])), record.groups
    settings = config["settings"]
    pace = (groups["updates"][name].values for name in ("iteration", "seconds"))
    progress = _paced("iteration", int(settings["iterations"]), *pace)
    title = f"{config['algorithm']['name']} on {config['task']}"
    if not len(groups["evaluations"]["iteration"].values):
        return View(title=title, progress=progress)
    run = training_results.from_record(record, path)
    table = training_results.table({run.name: run})
    table = table[table["seed"] == "all"].rename(columns={"iteration": "step"}).assign(place="")
    words = _TRAINED | {f"weight {h}": f"weight of horizon {h}" for h in run.horizons}
    return View(
        title=title,
        facts={
            "seeds": ", ".join(str(seed) for seed in run.seeds),
            "returns over": f"{settings['evaluation_starts']} starts of {settings['episode']} "
            "steps",
            "on": f"{settings['device']} in {settings['precision']}",
        },
        progress=progress,
        screen=training_screen({run.name: run}),
        rows=[*_rows(table, words), *_rows(curves(run.probes), PROBED)],
        events=_reported(run, groups["events"]["number"].values),
    )


def _reported(run: Training, numbers: Iterable[Any]) -> list[Event]:
    """Events of the run and alarms of its probe, in their order."""
    per = 2 * len(run.seeds)  # numbers of the events of one iteration
    found = [
        Event(int(number) // per, "", text)
        for number, text in zip(numbers, run.events, strict=True)
    ]
    alarms = {}  # what is about the whole run is in the table of every seed
    for probe in run.probes.values():
        columns = (probe.alarms.get(c, ()) for c in ("number", "step", "seed", "alarm", "message"))
        for number, at, seed, kind, text in zip(*columns, strict=True):
            whose = f"seed {int(seed)}: " if isfinite(seed) else ""
            alarms[int(number)] = Event(int(at), str(kind), f"{whose}{text}")
    return sorted([*found, *alarms.values()], key=lambda event: event.at)


def _rows(table: pd.DataFrame, words: Mapping[str, str]) -> Iterator[QuantityRow]:
    """What was measured, in the order of `words`; of several seeds the median, from the smallest
    to the largest."""
    for quantity, name in words.items():
        mine = table[(table["quantity"] == quantity) & table["value"].notna()]
        for place, rows in mine.groupby("place", sort=False):
            at, ends = rows.groupby("step")["value"], rows[["ci_low", "ci_high"]]
            if rows["step"].is_unique:
                rows = rows.sort_values("step")
                x, value = rows["step"], rows["value"]
                low, high = (rows[end] for end in ends)
            else:
                value, low, high = at.median(), at.min(), at.max()
                x = value.index.to_series()
            parts = [np.asarray(part, dtype=np.float64) for part in (x, value, low, high)]
            label = f"{name}, {place}" if str(place) else name
            yield QuantityRow(label, parts[0], parts[1], parts[2], parts[3], quantity in _ON_LOG)


def _paced(across: str, total: int | None, at: Any, seconds: Any) -> Progress | None:
    """From the rows of a table: what was counted, [R], and when, [R]; None without a row."""
    if not len(at):
        return None
    late, when = at[-_RECENT:], np.asarray(seconds[-_RECENT:], dtype=np.float64)
    took = float(when[-1] - when[0])
    rate = float(late[-1] - late[0]) / took if took > 0 else nan
    beat = float(np.median(np.diff(when))) if len(when) > 1 else 0.0
    return Progress(across, int(at[-1]), total, rate, float(when[-1]), beat)


_KINDS: Mapping[str, Callable[[Record, Path], View]] = {
    PROBE: _of_probe, training_results.KIND: _of_training,
}  # fmt: skip
