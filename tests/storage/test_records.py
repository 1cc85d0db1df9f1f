"""A record comes back bit for bit, or nothing of it is written."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from gradlab.errors import Failure, InputError
from gradlab.storage import records, seals
from gradlab.storage.records import Array, Record
from tests.storage.planted_records import planted


@pytest.mark.parametrize("whose", ["own", "foreign"])
def test_a_record_comes_back_bit_for_bit_and_in_order(tmp_path, monkeypatch, whose):
    """One from elsewhere by a child process, never by this one."""
    record, path = planted(), tmp_path / "run.h5"
    with monkeypatch.context() as writer:
        if whose == "foreign":
            writer.setattr(seals, "_own_key", lambda: b"of another machine")
        records.write(path, record)
    if whose == "foreign":
        monkeypatch.setattr(h5py, "File", None)
    again = records.read(path)
    assert records.attributes(path) == again.attributes
    assert list(again.attributes.items()) == list(record.attributes.items())
    kinds = [[type(v) for v in one.attributes.values()] for one in (again, record)]
    assert kinds[0] == kinds[1] and list(again.groups) == ["zeta", "alpha"]
    for name, arrays in record.groups.items():
        assert list(again.groups[name]) == list(arrays)
        for key, array in arrays.items():
            got = again.groups[name][key]
            assert (got.dims, got.unit) == (array.dims, array.unit)
            assert got.values.shape == array.values.shape
            if array.values.dtype.kind == "U":
                assert got.values.tolist() == array.values.tolist()
            else:
                assert got.values.dtype == array.values.dtype
                assert got.values.tobytes() == array.values.tobytes()


def test_other_readers_find_named_scales_and_units(tmp_path):
    records.write(tmp_path / "run.h5", planted())
    with h5py.File(tmp_path / "run.h5") as file:
        value = file["zeta/value"]
        assert value.attrs["unit"] == "reward / action"
        assert [dimension.label for dimension in value.dims] == ["estimator", "horizon"]
        assert value.dims[0][0].asstr()[1] == "größer ∂f/∂a"
        assert value.dims[1][0][:].tolist() == [0, 1, 2, 3]
        assert file["run"].attrs["schema"] == "gradlab"


def test_an_output_that_exists_is_kept_unless_overwriting_is_allowed(tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("mine")
    for refused in (lambda: records.check_output(path), lambda: records.write(path, planted())):
        with pytest.raises(InputError, match=r"run\.h5 exists.*overwrite=True"):
            refused()
    assert path.read_text() == "mine"
    records.write(path, planted(), overwrite=True)
    assert records.read(path).attributes["seed"] == 7


def test_missing_folders_are_made_and_impossible_ones_named(tmp_path):
    records.write(tmp_path / "a/b/run.h5", planted())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*choose another output folder"):
        records.check_output(tmp_path / "file/run.h5")
    with pytest.raises(InputError, match="is a folder"):
        records.check_output(tmp_path)
    tmp_path.chmod(0o500)
    closed = Path("/proc") if os.getuid() == 0 else tmp_path  # root may write in any other folder
    with pytest.raises(InputError, match="cannot be written"):
        records.check_output(closed / "run.h5")


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    records.write(path, planted())
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Failure, match=r"cannot be written .disk full"):
        records.write(path, planted(), overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.h5"]


def test_a_file_respects_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        records.write(tmp_path / "run.h5", planted())
    finally:
        os.umask(old)
    assert (tmp_path / "run.h5").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": Array(np.zeros(2), ("x",))}, "needs a coordinate array 'x'"),
        ({"y": Array(np.zeros((2, 2)), ("y",))}, "has shape"),
        ({"y": Array(np.array([object()]), ("y",))}, "objects"),
        ({"y": Array(np.zeros(1, dtype=complex), ("y",))}, "complex"),
        ({"y": Array(np.array(["a\0b"], dtype=object), ("y",))}, "UTF-8"),
        ({"a/b": Array(np.zeros(()), ())}, "plain"),
        (
            {"x": Array(np.zeros(3), ("x",)), "y": Array(np.zeros(2), ("x",))},
            "2 entries along 'x', not 3",
        ),
    ],
)
def test_an_inconsistent_record_is_not_written(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        records.write(tmp_path / "run.h5", Record({}, {"g": arrays}))
    assert not list(tmp_path.iterdir())


def test_attributes_alone_are_those_of_the_whole_and_refuse_alike(tmp_path):
    path = tmp_path / "run.h5"
    array = Array(np.arange(3), ("row",))
    records.write(path, Record({"kind": "training", "seed": 3}, {"table": {"row": array}}))
    assert records.attributes(path) == records.read(path).attributes
    path.write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="damaged or foreign"):
        records.attributes(path)
    with pytest.raises(InputError, match="no such file"):
        records.attributes(tmp_path / "none.h5")
