"""Tables of a training run's probe: those of `gradlab.runs.probe.schema` for several seeds.

    probe_vitals, probe_successive, probe_measured      as there, every estimate with an axis "seed"
    probe_horizons      which horizons of the mixture were rolled out, and how many paths got there
    probe_alarms        as there, with the seed that an alarm is about

"update" and "step" both count iterations, as all tables of a run do; "looked" and the like
count updates of the policy. What belongs to the whole program (seconds, shares of the time) has no
seed. A row of `probe_measured` measures one seed, which leaves NaN for the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gradlab.runs.probe import schema
from gradlab.runs.probe.columns import SEED
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute

PREFIX = "probe_"
UNMEASURED = "unmeasured"  # attribute: why gradients by horizon stay empty
_HORIZON = ("horizon",)


def tables(
    seeds: Sequence[int], parameters: int, actions: int, measured: int, horizons: Sequence[int]
) -> dict[str, Table]:
    """The schema, to be added to a run's own.

    Args:
        seeds: numbers of the seeds; parameters: tensors of the policy.
        measured: longest horizon of the profile; horizons: of the mixture.
    """
    by_name = schema.tables(parameters, actions, measured, seeds)
    by_name["horizons"] = Table(
        "update", _HORIZONS, {"seed": tuple(seeds), "horizon": tuple(horizons)}
    )
    order = ("vitals", "successive", "measured", "horizons", "alarms")
    return {f"{PREFIX}{name}": by_name[name] for name in order}


_HORIZONS = {
    "step": Column(unit="iterations"),
    "made": Column(_HORIZON, "share of policy updates that rolled the horizon out"),
    "updates": Column(unit="policy updates so far"),
    "reached": Column(("seed", "horizon"), "share of model paths that do not end before"),
    "lasted": Column(SEED, "model steps, mean over paths, at most the longest horizon"),
    "starts": Column(unit="paths, of the batch"),
    "seconds": Column(unit="s"),
}


def attributes(names: Sequence[str], unmeasured: str = "") -> dict[str, Attribute]:
    """What readers of these tables need to know, to be added to a run's own.

    Args:
        names: of the policy's tensors.
        unmeasured: why the gradients of the table "measured" stay empty, where they do.
    """
    found: dict[str, Attribute] = {
        "parameters": json.dumps(list(names)),
        "estimators": json.dumps(list(schema.ESTIMATORS)),
    }
    return found | ({UNMEASURED: unmeasured} if unmeasured else {})
