"""A run of training as a live view shows it: its columns, progress and events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.storage.records import Array, Record
from gradlab.watching import probe
from gradlab.watching.columns import Column, chart
from gradlab.watching.curves import Chart, Curve, Floats, kept
from gradlab.watching.events import Event, Progress, paced

PREFIX = "probe_"  # of the tables of a probe inside


def _unexplained(explained: Floats) -> Floats:
    return 1 - explained


FIRST = (
    Column("evaluations", "return_mean", "return", "reward", error="return_se"),
    Column("updates", "policy_norm", "policy gradient norm", "before clipping", "log"),
    Column("updates", "critic_loss", "critic loss", "scaled reward²", "log"),
    Column("updates", "value", "mean critic value", "scaled reward"),
    Column("updates", "nonfinite", "non-finite updates", "updates per row"),
    Column("updates", "weight", "weights of the mixture", "share", entry="h ="),
    Column("weights", "in_force", "measured weights in force", "share", entry="h ="),
)
MORE = (
    Column("weights", "over_rule", "measured weights: error over rule's", "MSE", "log",
             ends=("over_rule_low", "over_rule_high")),
    Column("weights", "share", "time spent by measuring weights", "share"),
    Column(
        "gradients", "relative_mse", "gradient error, longest horizon", "of the true square", "log",
        ends=("relative_mse_low", "relative_mse_high"), last=True,
    ),
    Column(
        "model", "prediction_explained", "model error", "share of held-out variance", "log",
        entry="output", convert=_unexplained,
    ),
    Column("updates", "realised_horizon", "realised horizon", "model steps"),
    Column("updates", "critic_norm", "critic gradient norm", "before clipping", "log"),
    Column("updates", "clipped", "clipped policy updates", "share"),
    Column("asynchrony", "mean_lag", "mean lag of the policy's gradients", "steps of the policy"),
    Column("asynchrony", "largest_lag", "largest lag", "steps of the policy"),
    Column("updates", "broken", "non-finite transitions", "transitions per row"),
    Column("evaluations", "ends", "terminal states", "per episode"),
)  # fmt: skip


def charts(record: Record) -> list[Chart]:
    """Charts in the order of importance: training, its probe, further columns, the pace."""
    first, more = (
        [each for wanted in group if (each := chart(record, wanted)) is not None]
        for group in (FIRST, MORE)
    )
    inside = [_counted(each) for each in probe.charts(record, PREFIX)]
    return [*first, *inside, *more, *_pace(record.groups.get("updates", {}))]


def _counted(chart: Chart) -> Chart:
    """A chart of the probe's on the axis of all others: its updates are the run's iterations."""
    return replace(chart, across="iteration") if chart.through_run else chart


def _pace(updates: Mapping[str, Array]) -> list[Chart]:
    """Iterations per second, from row to row."""
    if len(updates.get("seconds", EMPTY).values) < 3:
        return []
    x, seconds = (updates[name].values.astype(np.float64) for name in ("iteration", "seconds"))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.diff(x) / np.diff(seconds)
    rows = kept(rate, rate, rate)
    about = "training alone, without the gradients that are measured beside it"
    curve = Curve("", x[1:][rows], rate[rows])
    return [Chart("pace", "iterations per second", "1/s", [curve], about=about)]


EMPTY = Array(np.empty(0), ())


def head(record: Record) -> tuple[str, dict[str, str]]:
    """Title and facts."""
    config = json.loads(str(record.attributes["config"]))
    settings, name = config["settings"], str(config["algorithm"]["name"])
    first, count = int(settings["first_seed"]), int(settings["seeds"])
    seeds = str(first) if count == 1 else f"{first}–{first + count - 1}"
    facts = {
        "seeds": seeds,
        "returns over": f"{settings['evaluation_starts']} starts of {settings['episode']} steps",
        "on": f"{settings['device']} in {settings['precision']}",
    }
    return f"{name} on {config['task']}", facts


def progress(record: Record) -> Progress:
    config = json.loads(str(record.attributes["config"]))
    total = int(config["settings"]["iterations"])
    rows = record.groups["updates"]
    return paced("iteration", total, rows["iteration"].values, rows["seconds"].values)


def events(record: Record) -> list[Event]:
    """Events of the run and alarms of its probe, in their order."""
    config = json.loads(str(record.attributes["config"]))
    table: Mapping[str, Any] = record.groups.get("events", {})
    per = 2 * int(config["settings"]["seeds"])  # numbers of the events of one iteration
    reported = [
        Event(int(number) // per, "run", str(message))
        for number, message in (
            zip(table["number"].values, table["message"].values, strict=True) if table else ()
        )
    ]
    return sorted([*reported, *probe.events(record, PREFIX)], key=lambda event: event.at)
