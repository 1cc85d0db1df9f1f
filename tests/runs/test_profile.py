"""A profile is a table that lasts.

What others read of a profile: the table, whose columns are promised, and the xarray Dataset.

Typed results as labelled arrays and back, and what every result can do.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import h5py
import numpy as np
import pytest
import torch
import xarray
from numpy.typing import NDArray
from torch import nn

import gradlab
from gradlab import load
from gradlab.errors import InputError
from gradlab.measurement.visited import SAMPLES
from gradlab.runs import layout
from gradlab.runs.layout import stored
from gradlab.runs.profile import Profile
from gradlab.runs.run import content_of, described, header
from gradlab.statistics.quantities import QUANTITIES
from gradlab.storage import journal, records
from gradlab.storage.records import Array, Record


@pytest.fixture(scope="module")
def profile():
    task = gradlab.tasks.linear_quadratic()
    policy = nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()

    class Critic(nn.Module):
        def forward(self, s, a):
            return -(s**2).sum(1) - (a**2).sum(1)

    return gradlab.measure(task, policy, Critic(), horizon=3, starts=32, command="gradlab measure")


def test_a_saved_profile_comes_back_bit_for_bit(profile, tmp_path):
    path = profile.save(tmp_path / "run.h5")
    again = gradlab.load(path)
    assert again.table().equals(profile.table())
    np.testing.assert_array_equal(again.left_out, profile.left_out)
    assert again.config == profile.config
    assert dict(again.truth) == pytest.approx(dict(profile.truth), nan_ok=True)


def test_the_table_has_a_row_per_measured_cell(profile):
    table = profile.table()
    assert list(table.columns) == [
        "estimator", "horizon", "quantity", "value", "se", "ci_low", "ci_high", "n", "method"
    ]  # fmt: skip
    each = len(QUANTITIES) - 1  # the variance across critics needs several
    assert len(table.query("estimator == 'data'")) == each
    for name in ("model", "mixed", "true_dynamics"):
        assert len(table.query("estimator == @name")) == each * 4
        assert len(table.query(f"estimator == '{name}_all'")) == each * 4
    everywhere = table.estimator.str.endswith("_all")
    assert (table.n[everywhere] == 32).all()
    assert (table.n[~everywhere] == 32 * SAMPLES).all()  # visited states of each start
    assert table.method.str.len().min() > 0


def test_the_file_explains_itself(profile, tmp_path):
    path = profile.save(tmp_path / "run.h5")
    with h5py.File(path) as file:
        run = dict(file["run"].attrs)
        assert run["command"] == "gradlab measure"
        assert run["schema_version"] == 3
        assert {"config", "environment", "seed", "commit"} <= set(run)
        value = file["profile/value"]
        assert [dim.label for dim in value.dims] == ["estimator", "quantity", "horizon"]
        assert file["profile/horizon"].attrs["units"] == "steps"
        assert list(value.dims[2][0][()]) == [0, 1, 2, 3]


def test_a_file_of_another_layout_is_refused(profile, tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    with monkeypatch.context() as earlier:
        earlier.setattr("gradlab.storage.hdf5._SCHEMA_VERSION", 1)
        profile.save(path)
    own, said = path.read_bytes(), f"{path} has schema 1, this gradlab reads 3: "
    for door in (
        gradlab.load,
        gradlab.report,
        journal.read,
        lambda to: journal.Journal(to, {}, {}),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(said)}"):
            door(path)
    with h5py.File(path, "r+") as file:  # without its seal it is read by a child process
        file["run"].attrs["seed"] = 7
    with pytest.raises(InputError, match=f"^{re.escape(said)}"):
        gradlab.load(path)
    assert path.read_bytes() != own


def test_an_existing_file_is_refused_and_left_alone(profile, tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("precious")
    with pytest.raises(InputError, match="overwrite=True"):
        profile.save(path)
    assert path.read_text() == "precious"
    profile.save(path, overwrite=True)
    assert gradlab.load(path).batch == 256


@pytest.fixture
def grid() -> Profile:
    """Four quantities of two estimators; data was measured at horizon 0 alone."""
    quantities, shape = ("gain", "bias2", "variance", "snr"), (2, 4, 3)
    count = np.full(shape, 64)
    count[0, :, 1:] = 0
    numbers = np.random.default_rng(0).normal(size=(4, *shape))
    names = ("value", "se", "ci_low", "ci_high")
    columns = {
        name: np.where(count > 0, each, np.nan) for name, each in zip(names, numbers, strict=True)
    }
    config = {"task": "mine", "batch": 32, "seed": 7, "command": "gradlab measure mine.py:task"}
    environment = {"gradlab": "0.1.0", "created": "2026-01-01T00:00:00+00:00"}
    method = np.where(count > 0, "jackknife", "").astype(object)
    left_out = np.zeros((*shape, 1))
    return Profile(
        ("data", "model"), quantities, (0, 1, 2), columns, count, method, left_out, config,
        environment, {"kind": "objective"},
    )  # fmt: skip


def test_the_tree_has_every_number_of_the_table_under_its_labels(grid):
    tree, table = grid.tree["profile"], grid.table()
    labels = ["estimator", "quantity", "horizon"]
    data = tree.to_dataset().set_coords(labels)
    for row in table.to_dict("records"):
        e, q, h = (list(data[name].values).index(row[name]) for name in labels)
        for column in ("value", "se", "ci_low", "ci_high", "n"):
            np.testing.assert_array_equal(data[column].values[e, q, h], row[column])
    assert data["value"].dims == ("estimator", "quantity", "horizon")
    assert data["horizon"].attrs["units"] == "steps"


def test_without_xarray_the_error_is_one_line(grid, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r"xarray is not installed: .*xarray'"):
        _ = grid.tree


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Point:
    name: str
    good: bool
    curve: Annotated[Floats, stored("time", name="height", unit="m")]
    kind: str = "old"


@dataclass(frozen=True, eq=False)
class Flight:
    """
    Attributes:
        cells: who flew, and when; words, values: which way, and how high
            above the ground.
        lost: what fell off: bags, say; steps: of the stairs.
    """

    cells: Annotated[
        tuple[tuple[str, int], ...], stored("cell", name=("who", "at"), unit=("", "s"))
    ]
    words: Annotated[tuple[Literal["up", "down"], ...], stored("cell")]
    values: Annotated[Floats, stored("cell", "time", unit="m")]
    extra: Annotated[Floats, stored("time", optional=True)]
    points: Annotated[tuple[Point, ...], stored("point")]
    sizes: Annotated[
        Mapping[str, float], stored("size", name=("constant", "size"), unit=("", "kg"))
    ]
    lost: Annotated[float, stored(unit="kg")]
    steps: Annotated[int, stored()]
    note: str = "the caller's"


def flight():
    return Flight(
        cells=(("a", 0), ("b", 5)), words=("up", "down"),
        values=np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]]), extra=np.arange(3.0),
        points=(Point("p", True, np.arange(3.0)), Point("q", False, np.ones(3), "new")),
        sizes={"m": 2.5}, lost=float("nan"), steps=7,
    )  # fmt: skip


def on_disk(value, folder):
    path = folder / "run.h5"
    records.write(path, Record({}, layout.groups_of(value, "flight")), overwrite=True)
    return records.read(path).groups["flight"]


def test_every_value_comes_back_through_a_file(tmp_path):
    found = flight()
    again = layout.value_of(Flight, {"flight": on_disk(found, tmp_path)}, "flight")
    for name in ("cells", "words", "sizes", "steps", "note"):
        assert getattr(again, name) == getattr(found, name)
    for name in ("values", "extra", "lost"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)
    for one, other in zip(again.points, found.points, strict=True):
        assert (one.name, one.good, one.kind) == (other.name, other.good, other.kind)
        assert np.array_equal(one.curve, other.curve)


def test_a_group_names_its_arrays_dimensions_and_units(tmp_path):
    group = on_disk(flight(), tmp_path)
    assert {name: (array.dims, array.unit) for name, array in group.items()} == {
        "cell": (("cell",), ""), "who": (("cell",), ""), "at": (("cell",), "s"),
        "words": (("cell",), ""), "time": (("time",), ""), "values": (("cell", "time"), "m"),
        "extra": (("time",), ""), "point": (("point",), ""), "name": (("point",), ""),
        "good": (("point",), ""), "height": (("point", "time"), "m"), "kind": (("point",), ""),
        "size": (("size",), "kg"), "constant": (("size",), ""),
        "lost": ((), "kg"), "steps": ((), ""),
    }  # fmt: skip
    assert group["cell"].values.tolist() == [0, 1] and group["at"].values.tolist() == [0, 5]
    assert group["size"].values.tolist() == [2.5]


def test_an_optional_array_without_entries_is_left_out(tmp_path):
    group = on_disk(replace(flight(), extra=np.zeros(0)), tmp_path)
    assert "extra" not in group and layout.value_of(
        Flight, {"flight": group}, "flight"
    ).extra.shape == (0,)


def _texts(values, dim):
    return Array(np.array(values, dtype=object), (dim,))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("values", Array(np.zeros((3, 2)), ("time", "cell"))),
        ("words", _texts(["up", "sideways"], "cell")),
        ("at", _texts(["a", "b"], "cell")),
        ("steps", _texts(["[1]"], "one")),
    ],
)
def test_another_group_is_refused(name, array, tmp_path):
    with pytest.raises((KeyError, ValueError)):
        group = {**on_disk(flight(), tmp_path), name: array}
        layout.value_of(Flight, {"flight": group}, "flight")


def test_rows_and_columns_of_a_table_come_back():
    points = (Point("p", True, np.arange(3.0)),)
    (again,) = layout.rows(Point, layout.table(points, Point))
    assert again.name == "p" and np.array_equal(again.curve, points[0].curve)
    columns = {"x": np.arange(3), "y": np.ones(3)}
    assert layout.by_column(columns).keys() == {"row", *columns}


def test_a_header_names_the_run_and_what_is_wrong_with_a_file():
    config = {"seed": 3, "command": "gradlab x"}
    record = Record(header("flight", config, {"commit": "abc"}, notes={"a": [1]}), {})
    assert [record.attributes[k] for k in ("kind", "command", "seed", "commit")] == [
        "flight", "gradlab x", 3, "abc",
    ]  # fmt: skip
    told = described(record, "config", "environment", "notes")
    assert told == {"config": config, "environment": {"commit": "abc"}, "notes": {"a": [1]}}
    path = Path("run.h5")
    other = content_of(record, path, "journey", "journey")
    with (
        pytest.raises(InputError, match=r"expected a journey: see `gradlab report run\.h5`"),
        other,
    ):
        pass
    nothing = content_of(Record({"kind": "states"}, {}), path, "flight", "flight")
    with pytest.raises(InputError, match="holds 'states', expected a flight: it is no"), nothing:
        pass
    own = content_of(record, path, "flight", "flight")
    with pytest.raises(InputError, match="is not a complete flight"), own:
        record.groups["nothing"]


def measured():
    task = gradlab.tasks.linear_quadratic()
    policy = torch.nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    return gradlab.measure(task, policy, lambda s, a: -(s**2).sum(1), horizon=3, starts=32)


def test_the_file_of_a_measurement_is_its_tree(tmp_path):
    """xarray alone reads what `load` gives, and every array says what it is."""
    profile = measured()
    path = profile.save(tmp_path / "run.h5")
    run = load(path)
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert set(tree.children) == set(run.tree.children)
        for node in run.tree.subtree:
            for name, variable in node.data_vars.items():
                assert variable.attrs["description"] and "units" in variable.attrs
                there = tree[node.path][name]
                assert there.dims == variable.dims and there.shape == variable.shape
    assert run.table().equals(profile.table()) and run.config == profile.config
    assert len(repr(run).splitlines()) <= 30 and "jackknife" in run.tree.children
    with pytest.raises(InputError, match="name is 'nothing', expected a table: profile"):
        run.table("nothing")
    cells = run.table("jackknife")
    first = run.estimate("data", "gain", 0).left_out
    here = cells.query("estimator == 'data' and quantity == 'gain' and horizon == 0")
    assert np.array_equal(here["left_out"], first, equal_nan=True)


def test_one_door_reads_every_kind_and_refuses_what_is_none(tmp_path):
    trained = Path(__file__).parents[1] / "tools" / "runs" / "td3-path_tracking.h5"
    run = load(trained)
    assert run.kind == "training" and "updates" in run.tree.children
    assert list(run.table("evaluations")["iteration"].unique()) == list(run.iteration)
    assert run.findings and run.recommendation.fields[0].name == "return"
    records.write(tmp_path / "x.h5", Record({"kind": "flight"}, {}))
    with pytest.raises(InputError, match="holds 'flight', expected a run of profile, training"):
        load(tmp_path / "x.h5")
    records.write(tmp_path / "y.h5", Record({"kind": "race"}, {}))
    with pytest.raises(InputError, match="is not a complete race"):
        load(tmp_path / "y.h5")
