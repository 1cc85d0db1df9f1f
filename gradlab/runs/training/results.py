"""The results of a training run: returns with their errors, updates, and goals reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.runs.run import StoredRun, described
from gradlab.statistics.over_groups import aggregate
from gradlab.storage.records import Record

Floats = NDArray[np.float64]

KIND = "training"
# Returns that MPG counts the iterations to (Table I).
GOALS: Mapping[str, tuple[float, ...]] = {
    "path_tracking": (-100.0, -30.0, -10.0, -5.0),
    "inverted_pendulum": (-20.0, -2.0, -0.1, -0.01),
}
# Fields of a run: columns of its evaluations, and tables that not every run has.
_EVALUATED = {
    "seeds": "seed", "iteration": "iteration", "seconds": "seconds", "returns": "return_mean",
    "errors": "return_se", "ends": "ends", "rms": "rms",
}  # fmt: skip
_TABLES = ("model", "gradients", "weights", "asynchrony", "evaluations", "rollouts")
_PARTS = ("bias2", "variance", "mse", "relative_mse")
_GRADIENTS = (*_PARTS, *(f"dynamics_{name}" for name in _PARTS))


@dataclass(frozen=True, eq=False, repr=False)
class Training(StoredRun):
    """A run as arrays: K evaluations of E seeds, R rows of updates.

    Attributes:
        config: what was asked for; environment: what it ran on; stored: its file.
        seeds: [E]; iteration: [K]; seconds: [K]; returns, errors: mean and its standard error
            over the evaluation starts, [K, E]; ends: terminal states met per episode, [K, E].
        rms: root mean square of every state coordinate, [K, E, ds].
        updates: column → [R] or [R, E] or [R, horizons], with "iteration" [R].
        events: messages.
        model: fits of a learned model: column → [F], [F, E] or [F, E, output] with "iteration" [F];
            empty where none was learned.
        gradients: measurements of the gradient: column → [G, E, horizon], with "iteration" [G] and
            "horizon"; empty where there are none.
        weights: measurements that drive the mixture (`training.measured_weights`): column → [M],
            [M, E] or [M, E, horizon], with "iteration" [M]; empty where the rule does.
        asynchrony: of a run in several processes, lags of its gradients (`training.asynchrony`):
            column → [R], [R, lag], [R, learner] or [R, actor]; empty of one process.
        evaluations, rollouts: columns of these tables that the others have not, such as
            "transitions" [K] of a seed; rollouts are empty where no second replay is filled.
    """

    config: Mapping[str, Any]
    environment: Mapping[str, str]
    stored: Record
    seeds: NDArray[np.int64]
    iteration: NDArray[np.int64]
    seconds: Floats
    returns: Floats
    errors: Floats
    ends: Floats
    rms: Floats
    updates: Mapping[str, NDArray[Any]]
    horizons: tuple[int, ...]
    events: tuple[str, ...]
    model: Mapping[str, NDArray[Any]]
    gradients: Mapping[str, NDArray[Any]]
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    asynchrony: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    evaluations: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    rollouts: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    kind = KIND
    noun = "training run"

    def table(self, name: str | None = None) -> pd.DataFrame:
        """See `table`; with a name, that group of the tree."""
        return table({self.name: self}) if name is None else super().table(name)

    @property
    def name(self) -> str:
        return str(self.config["algorithm"]["name"])

    @property
    def task(self) -> str:
        return str(self.config["task"])

    @property
    def samples(self) -> int:
        """N′, independent samples of the gradient at the longest horizon in an update: paths where
        the row follows them, else rows."""
        if "samples" in self.gradients:
            return int(self.gradients["samples"][-1, -1])
        return int(self.config["algorithm"]["batch"])

    @classmethod
    def _from(cls, record: Record, path: Path) -> Training:
        evaluations, updates = record.groups["evaluations"], record.groups["updates"]
        if len(evaluations["iteration"].values) == 0:
            raise InputError(f"{path} has no evaluation yet: wait, or go on with resume=True")
        fields: dict[str, Any] = {
            **{field: evaluations[name].values for field, name in _EVALUATED.items()},
            **{name: _values(record, name) for name in _TABLES},
        }
        return cls(
            **described(record),
            stored=record,
            updates={name: array.values for name, array in updates.items()},
            horizons=tuple(int(each) for each in updates["horizon"].values),
            events=tuple(str(text) for text in record.groups["events"]["message"].values),
            **fields,
        )


load = Training.load


def loaded(paths: Sequence[str | Path]) -> dict[str, Training]:
    """Several runs by name: the algorithm's, or the file's where two share one."""
    if len(paths) < 2:
        raise InputError(f"compare got {len(paths)} run, expected two or more")
    runs = [load(path) for path in paths]
    tasks = sorted({run.task for run in runs})
    if len(tasks) > 1:
        raise InputError(f"runs are of different tasks, {' and '.join(tasks)}: compare one task")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [Path(path).stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return dict(zip(names, runs, strict=True))


def _values(record: Record, group: str) -> dict[str, NDArray[Any]]:
    """A table that not every run has, or nothing; without its rows nothing, too."""
    columns = {name: array.values for name, array in record.groups.get(group, {}).items()}
    return columns if len(columns.get("iteration", ())) else {}


def first_reached(run: Training, goal: float) -> Floats:
    """Iteration at which each seed's mean return first reaches `goal`, [E]; NaN: never."""
    met = run.returns >= goal
    first = run.iteration[met.argmax(axis=0)].astype(np.float64)
    return np.where(met.any(axis=0), first, np.nan)


def table(runs: Mapping[str, Training]) -> pd.DataFrame:
    """One row per run, iteration, seed and quantity, for the figures.

    Quantities: return; gain (of the return since the evaluation before); rms of every state
    coordinate ("rms 0", …); critic_loss, value, critic_norm and policy_norm; "weight n" of every
    horizon n; of a learned model "prediction unexplained" (and "gradient unexplained" of a second
    one), the mean over outputs; "gradient bias2", "gradient variance" (of a batch), "gradient mse",
    "gradient relative_mse" at the longest horizon, and the same with "dynamics_", the model's own
    part. The seed "all" is the median over all seeds, those that are lost (NaN) counted as the
    worst, with ci_low and ci_high the order statistics around it (`statistics.over_groups`: 94% for
    five seeds) and the number that is `lost`; for one seed there is no interval but that of a
    gradient.
    """
    return pd.concat([_rows(name, run) for name, run in runs.items()], ignore_index=True)


def times(runs: Mapping[str, Training]) -> pd.DataFrame:
    """What an update took, one row per run, row of the record and part: "policy" (one update of the
    policy), "critic" (one of the critic with its target) and "iteration" (all of it, with
    environments, records and what else went on), in milliseconds for all seeds together; with the
    longest model rollout made there. Rows in which the rollout changed are left out.
    """
    return pd.concat([_times(name, run) for name, run in runs.items()], ignore_index=True)


def _times(name: str, run: Training) -> pd.DataFrame:
    updates = run.updates
    took = {"iteration": np.diff(updates["seconds"]) / np.diff(updates["iteration"])}
    took |= {part: updates[f"{part}_seconds"][1:] for part in ("policy", "critic")}
    horizon = updates["realised_horizon"][1:]
    whole = horizon == np.round(horizon)
    parts = [
        pd.DataFrame({"part": part, "horizon": horizon[whole], "milliseconds": 1e3 * values[whole]})
        for part, values in took.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(run=name)


_HIGHER_IS_BETTER = ("return", "gain", "value")  # a lost seed counts as the worst there is


def _rows(name: str, run: Training) -> pd.DataFrame:
    found = {"return": (run.iteration, run.seconds, run.returns)}
    if len(run.iteration) > 1:
        found["gain"] = run.iteration[1:], run.seconds[1:], np.diff(run.returns, axis=0)
    found |= {
        f"rms {k}": (run.iteration, run.seconds, run.rms[:, :, k]) for k in range(run.rms.shape[2])
    }
    at, seconds = run.updates["iteration"], run.updates["seconds"]
    for quantity in ("critic_loss", "value", "critic_norm", "policy_norm"):
        found[quantity] = at, seconds, run.updates[quantity]
    for k, horizon in enumerate(run.horizons):
        found[f"weight {horizon}"] = at, seconds, run.updates["weight"][:, k : k + 1]
    parts = [_long(quantity, *columns, run.seeds) for quantity, columns in found.items()]
    for role in run.config.get("model_losses", {}) if run.model else ():
        unexplained = 1 - run.model[f"{role}_explained"].mean(axis=2)
        at = run.model["iteration"]
        nowhen = np.full(len(at), np.nan)
        parts.append(_long(f"{role} unexplained", at, nowhen, unexplained, run.seeds))
    parts += _gradient_rows(run)
    return pd.concat(parts, ignore_index=True).assign(run=name)


def _gradient_rows(run: Training) -> Iterator[pd.DataFrame]:
    """At the longest horizon; variances of a batch."""
    gradients = run.gradients
    for name in _GRADIENTS if gradients else ():
        scale = run.samples if name.endswith("variance") else 1
        value, low, high = (
            gradients[f"{name}{end}"][:, :, -1] / scale for end in ("", "_low", "_high")
        )
        at = gradients["iteration"]
        rows = _long(f"gradient {name}", at, np.full(len(at), np.nan), value, run.seeds)
        yield rows if len(run.seeds) > 1 else rows.assign(ci_low=low[:, 0], ci_high=high[:, 0])


def _long(
    quantity: str, iteration: NDArray[Any], seconds: Floats, values: Floats, seeds: NDArray[Any]
) -> pd.DataFrame:
    """The seeds' values [K, E], and what they say together."""
    together = aggregate(values, "low" if quantity in _HIGHER_IS_BETTER else "high")
    columns = {"iteration": iteration, "seconds": seconds, "quantity": quantity}
    every = pd.DataFrame(
        {**columns, "seed": "all", "value": together.value, "ci_low": together.low,
         "ci_high": together.high, "lost": together.lost}
    )  # fmt: skip
    if values.shape[1] < 2:
        return every
    own = [
        pd.DataFrame({**columns, "seed": str(seed), "value": values[:, k]})
        for k, seed in enumerate(seeds)
    ]
    return pd.concat([every, *own], ignore_index=True)


def lags(run: Training) -> tuple[float, int, int] | None:
    """Mean and largest lag of the policy's gradients, in steps of the policy, and the number of all
    gradients; None where the run was in one process, or has no row yet."""
    rows = run.asynchrony
    if not rows:
        return None
    counts = rows["policy_lag"].sum(axis=1)
    mean = float(np.nansum(rows["mean_lag"] * counts) / max(counts.sum(), 1))
    largest = int(np.nanmax(np.append(rows["largest_lag"], 0)))
    return mean, largest, int(rows["learner_gradients"].sum())
