"""What the substitutions of a measurement found, as plain arrays that travel with its profile.

Games hold v(S), the squared bias with the truth in the place of the parts in S, for all sets;
rows split each part's share over entries and steps; draws say what policy noise, dynamics noise
and ensemble members add to a variance. Everything with its values for each group left out, from
which any interval follows; those of the rows in float32, as deviations of at most 1 times `scale`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics.moments import Estimate
from gradlab.statistics.shapley import Game
from gradlab.storage import records

Floats = NDArray[np.float64]
Cell = tuple[str, int]
UNIT = "gradient norm squared"
GROUPS = ("attribution_games", "attribution_rows", "attribution_draws", "attribution_names")


@dataclass(frozen=True)
class Label:
    """What a row is about: an entry of a block, or a step; −1 where it is about neither.

    Attributes:
        cell: index into `Games.cells`; cause: one of `Games.players`.
        block: "" for a step; output, input: its row and column (a gradient's output is 0).
    """

    cell: int
    cause: str
    block: str
    output: int
    input: int
    step: int


@dataclass(frozen=True, eq=False)
class Games:
    """v(S) of every attributed cell: value [C, 2^k], left_out [C, 2^k, G]."""

    players: tuple[str, ...]
    cells: tuple[Cell, ...]
    value: Floats
    left_out: Floats

    def game(self, cell: int) -> Game:
        return Game(self.players, self.value[cell], self.left_out[cell])


@dataclass(frozen=True, eq=False)
class Rows:
    """Shares of entries and steps: value [R], scale [R], deviation [R, G] float32."""

    labels: tuple[Label, ...]
    value: Floats
    scale: Floats
    deviation: NDArray[np.float32]

    def estimate(self, row: int) -> Estimate:
        deviation = self.scale[row] * self.deviation[row].astype(np.float64)
        return Estimate(float(self.value[row]), self.value[row] + deviation)


@dataclass(frozen=True, eq=False)
class Draws:
    """What each source adds to the variance of each cell: value [V, S], left_out [V, S, G]."""

    sources: tuple[str, ...]
    cells: tuple[Cell, ...]
    value: Floats
    left_out: Floats


@dataclass(frozen=True, eq=False)
class Attribution:
    """See above.

    Attributes:
        state_names, action_names: the coordinates that rows count.
        skipped: estimator → why nothing was substituted ("variance of NAME": why nothing redrawn).
        rule: how the horizons were chosen.
    """

    games: Games
    rows: Rows
    draws: Draws
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    skipped: Mapping[str, str]
    rule: str


def rows_of(found: Sequence[tuple[Label, Estimate]]) -> Rows:
    """Rows of estimates; those that are exactly 0, with every group left out, are left out."""
    kept = [(label, e) for label, e in found if e.value != 0 or e.left_out.any()]
    groups = len(found[0][1].left_out) if found else 0
    value = np.array([e.value for _, e in kept], dtype=np.float64)
    deviation = np.array([e.left_out - e.value for _, e in kept]).reshape(len(kept), groups)
    scale = np.abs(deviation).max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):  # an overflow stays one
        deviation = deviation / np.where(scale > 0, scale, 1.0)[:, None]
    return Rows(tuple(label for label, _ in kept), value, scale, deviation.astype(np.float32))


def attribution_groups(found: Attribution) -> dict[str, dict[str, records.Array]]:
    """As tables of a run."""
    games, rows, draws = found.games, found.rows, found.draws
    deviation = records.Array(rows.deviation, ("row", "group"))
    table = {
        field.name: _texts([getattr(each, field.name) for each in rows.labels], "row")
        for field in fields(Label)
    }
    for name in ("value", "scale"):
        table[name] = records.Array(getattr(rows, name), ("row",), UNIT)
    names = {
        "state": _texts(found.state_names, "state"),
        "action": _texts(found.action_names, "action"),
        "note": _texts([json.dumps(dict(found.skipped)), found.rule], "note"),
    }
    whole = (
        _celled(games.cells, games.value, games.left_out, "set")
        | {"player": _texts(games.players, "player")},
        {"row": _range(len(rows.labels), "row"), "group": _range(rows.deviation.shape[1], "group")}
        | table
        | {"deviation": deviation},
        _celled(draws.cells, draws.value, draws.left_out, "draw")
        | {"source": _texts(draws.sources, "source")},
        names,
    )
    return dict(zip(GROUPS, whole, strict=True))


def attribution_from_groups(
    groups: Mapping[str, Mapping[str, records.Array]],
) -> Attribution | None:
    """None where the run holds none."""
    if GROUPS[0] not in groups:
        return None
    games, rows, draws, names = (groups[name] for name in GROUPS)
    cells, value, left_out = _from_celled(games, "set")
    skipped, rule = _strings(names["note"])
    told = json.loads(skipped)
    if not isinstance(told, dict):
        raise ValueError("what was skipped is not a JSON object")
    return Attribution(
        games=Games(_strings(games["player"]), cells, value, left_out),
        rows=_rows_from(rows, len(cells)),
        draws=Draws(_strings(draws["source"]), *_from_celled(draws, "draw")),
        state_names=_strings(names["state"]),
        action_names=_strings(names["action"]),
        skipped={str(key): str(why) for key, why in told.items()},
        rule=rule,
    )


def _rows_from(group: Mapping[str, records.Array], cells: int) -> Rows:
    columns = [group[field.name].values for field in fields(Label)]
    labels = tuple(
        Label(int(cell), str(cause), str(block), int(output), int(column), int(step))
        for cell, cause, block, output, column, step in zip(*columns, strict=True)
    )
    if any(not 0 <= each.cell < cells for each in labels):
        raise ValueError("a row belongs to no game")
    shape = len(labels), len(group["group"].values)
    value, scale = (np.asarray(group[name].values, dtype=np.float64) for name in ("value", "scale"))
    deviation = np.asarray(group["deviation"].values, dtype=np.float32).reshape(shape)
    return Rows(labels, value.reshape(shape[:1]), scale.reshape(shape[:1]), deviation)


def _celled(
    cells: Sequence[Cell], value: Floats, left_out: Floats, dim: str
) -> dict[str, records.Array]:
    """Arrays [cells, dim] and [cells, dim, group] with their coordinates."""
    return {
        "cell": _range(len(cells), "cell"),
        "estimator": _texts([name for name, _ in cells], "cell"),
        "horizon": records.Array(np.array([n for _, n in cells], dtype=int), ("cell",), "steps"),
        dim: _range(value.shape[1], dim),
        "group": _range(left_out.shape[2], "group"),
        "value": records.Array(value, ("cell", dim), UNIT),
        "left_out": records.Array(left_out, ("cell", dim, "group"), UNIT),
    }


def _from_celled(
    group: Mapping[str, records.Array], dim: str
) -> tuple[tuple[Cell, ...], Floats, Floats]:
    names, horizons = _strings(group["estimator"]), group["horizon"].values
    cells = tuple((name, int(n)) for name, n in zip(names, horizons, strict=True))
    shape = len(cells), len(group[dim].values), len(group["group"].values)
    value = np.asarray(group["value"].values, dtype=np.float64).reshape(shape[:2])
    return cells, value, np.asarray(group["left_out"].values, dtype=np.float64).reshape(shape)


def _texts(values: Sequence[object], dim: str) -> records.Array:
    """Strings or integers along one dimension."""
    kind = int if values and all(isinstance(each, int) for each in values) else object
    return records.Array(np.array(values, dtype=kind), (dim,))


def _strings(array: records.Array) -> tuple[str, ...]:
    return tuple(str(each) for each in array.values)


def _range(count: int, dim: str) -> records.Array:
    return records.Array(np.arange(count), (dim,))
