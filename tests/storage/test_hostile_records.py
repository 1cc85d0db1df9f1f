"""Damaged and hostile HDF5 files end in one line.

Dataclasses as groups of a record: what a field says of its place, and what comes back.

Finished work is saved, elsewhere if need be; what cannot be saved is refused before the work.

A record with every kind of value that a file can hold.
"""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gradlab import load
from gradlab.cli.program import main
from gradlab.errors import Failure, InputError
from gradlab.reporting.output import check_page
from gradlab.storage import records, seals, untrusted, whole_files
from gradlab.storage.records import Array, Record
from gradlab.storage.whole_files import keep
from tests.own_files import LQR, OWN


def planted() -> Record:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 4))
    values[0, :3] = np.nan, -0.0, np.inf
    profile = {
        "value": Array(values, ("estimator", "horizon"), "reward / action"),
        "estimator": Array(np.array(["data", "größer ∂f/∂a"]), ("estimator",)),
        "horizon": Array(np.arange(4), ("horizon",), "step"),
        "alive": Array(values > 0, ("estimator", "horizon")),
        "total": Array(np.array(0.1), ()),
    }
    empty = {"x": Array(np.zeros(0), ("x",))}
    attributes: dict[str, records.Attribute] = {"command": "gradlab measure …", "seed": 7}
    attributes |= {"wall": 0.1 + 0.2, "ok": True} | {f"key{i:02d}": i for i in range(30, 0, -1)}
    return Record(attributes, {"zeta": profile, "alpha": empty})


def test_every_truncation_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "origin", lambda _: "own")  # sixty processes would take 10 s
    path, cut = tmp_path / "run.h5", tmp_path / "cut.h5"
    records.write(path, planted())
    content = path.read_bytes()[: -seals.SIZE]  # the seal is what `origin` reads
    for size in range(0, len(content), max(1, len(content) // 60)):
        cut.write_bytes(content[:size])
        with pytest.raises(InputError) as caught:
            records.read(cut)
        assert "cut.h5" in str(caught.value)
        assert "\n" not in str(caught.value)


Corruption = Callable[[h5py.File, h5py.Group, Path], object]


def own_dimension(dataset):
    """Makes a dataset its own coordinate, so that nothing else is wrong with it."""
    dataset.dims[0].label = dataset.name.rpartition("/")[2]


def array(**options):
    """Adds a dataset that is its own coordinate."""
    return lambda file, group, folder: own_dimension(group.create_dataset("y", **options))


def external_link(file, group, folder):
    records.write(folder / "secret.h5", planted())
    group["y"] = h5py.ExternalLink(str(folder / "secret.h5"), "/zeta/total")


def virtual(file, group, folder):
    records.write(folder / "secret.h5", planted())
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "/zeta/horizon", (4,), "i8")
    own_dimension(group.create_virtual_dataset("y", layout))


def external_storage(file, group, folder):
    (folder / "secret.bin").write_bytes(bytes(16))
    source = [(str(folder / "secret.bin"), 0, 16)]
    own_dimension(group.create_dataset("y", (2,), "f8", external=source))


def attribute(name, value):
    return lambda file, group, folder: file["run"].attrs.__setitem__(name, value)


BROKEN = np.array([b"\xff\xfe"], dtype=h5py.string_dtype("utf-8"))
CORRUPTIONS: dict[str, Corruption] = {
    "newer schema": attribute("schema_version", 99),
    "foreign HDF5": attribute("schema", "other"),
    "array attribute": attribute("z", np.arange(3)),
    "empty attribute": attribute("z", h5py.Empty("f8")),
    "no run group": lambda file, group, folder: file.__delitem__("run"),
    "external link": external_link,
    "soft link": lambda file, group, folder: group.__setitem__("y", h5py.SoftLink("/zeta/total")),
    "nested group": lambda file, group, folder: group.create_group("y"),
    "top-level array": lambda file, group, folder: file.__setitem__("y", np.zeros(2)),
    "unnamed dimension": lambda file, group, folder: group.__setitem__("y", np.zeros(2)),
    "wrong scale": lambda file, group, folder: (
        group.create_dataset("y", data=np.zeros(3)).dims[0].__setattr__("label", "x")
    ),
    "references": lambda file, group, folder: own_dimension(
        group.create_dataset("y", data=[file.ref], dtype=h5py.ref_dtype)
    ),
    "compound": array(data=np.zeros(2, dtype=[("a", "f8")])),
    "chunks": array(data=np.zeros(2), chunks=(1,)),
    "virtual": virtual,
    "external storage": external_storage,
    "announces a terabyte": array(shape=(2**37,), dtype="f8"),
    "broken text": array(data=BROKEN),
}


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, how):
    path = tmp_path / "run.h5"
    records.write(path, planted())
    with h5py.File(path, "r+", track_order=True) as file:
        CORRUPTIONS[how](file, file["alpha"], tmp_path)
    with pytest.raises(InputError) as caught:
        records.read(path)
    assert "run.h5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_long_text_named_many_times_is_not_multiplied(tmp_path):
    path = tmp_path / "run.h5"
    records.write(path, planted())
    with h5py.File(path, "r+") as file:
        texts = file["alpha"].create_dataset("y", (2000,), h5py.string_dtype("utf-8"))
        texts.dims[0].label = "y"
        texts[:] = "a" * 5000
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        start = file["alpha/y"].id.get_offset()
    reference = content[start : start + 16]
    content[start : start + 16 * 2000] = reference * 2000
    last = content.rfind(reference)
    assert last > 0
    path.write_bytes(content)
    records.read(path)  # 10 MB of text in a file of 10 MB
    with h5py.File(path, "r+") as file:
        for copy in range(3):
            texts = file["alpha"].create_dataset(f"z{copy}", (2000,), h5py.string_dtype("utf-8"))
            texts.dims[0].label = f"z{copy}"
            texts[:] = ""
            place = texts.id.get_offset()
            file.flush()
            with open(path, "r+b") as raw:
                raw.seek(place)
                raw.write(bytes(reference) * 2000)
    with pytest.raises(InputError, match="announces more data than it holds"):
        records.read(path)


@pytest.mark.parametrize("name", ["missing.h5", "text.h5", "empty.h5"])
def test_what_is_no_hdf5_file_is_refused(tmp_path, name):
    if name != "missing.h5":
        (tmp_path / name).write_text("no" if name == "text.h5" else "")
    with pytest.raises(InputError, match=name):
        records.read(tmp_path / name)


# A record comes back bit for bit, or nothing of it is written.


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
        assert value.attrs["units"] == "reward / action"
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
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        records.attributes(path)
    with pytest.raises(InputError, match="no such file"):
        records.attributes(tmp_path / "none.h5")
    network = path.rename(tmp_path / "run.critic.safetensors")
    with pytest.raises(InputError, match=r"no run: gradlab\.networks\.checkpoint\.load reads"):
        records.attributes(network)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def spare(tmp_path, monkeypatch):
    """The temporary folder, in which work is rescued."""
    place = tmp_path / "spare"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_what_has_its_place_goes_there(tmp_path, spare):
    keep({tmp_path / name: lambda path: path.write_text("done") for name in "ab"})
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "done"
    assert not list(spare.iterdir())


def test_all_parts_are_kept_together_where_one_has_no_place(tmp_path, spare):
    parts = {path: lambda path: path.write_text("done") for path in (tmp_path / "a", tmp_path)}
    with pytest.raises(Failure, match=rf"{tmp_path} cannot be written \(Is a dir.*kept in {spare}"):
        keep(parts)
    (folder,) = spare.iterdir()
    assert sorted(each.name for each in folder.iterdir()) == sorted(["a", tmp_path.name])


def test_where_no_place_takes_the_work_it_says_so(tmp_path, spare):
    with pytest.raises(Failure, match=r"No space left.*no other folder takes it"):
        keep({tmp_path / "a": full})


FEW = ("--starts", "16", "--horizon", "2", "--no-report")


def test_a_measurement_that_meets_a_full_disk_is_saved_elsewhere(
    tmp_path, spare, monkeypatch, capsys
):
    sync = whole_files.sync
    there, own = tmp_path / "runs", tmp_path / "own.py"
    own.write_text(OWN)
    given = ("--policy", f"{own}:policy", "--critic", f"{own}:critic")

    def filled(path):
        full() if there in path.parents else sync(path)

    monkeypatch.setattr(whole_files, "sync", filled)
    assert main(["measure", *LQR, *FEW, *given, "--output", str(there / "run.h5")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left" in error and str(spare) in error
    (kept,) = spare.glob("gradlab-*/*")
    assert load(kept).config["task"] == "linear_quadratic"
    assert not list(there.iterdir())


def test_a_note_about_an_older_file_is_one_line_of_the_command(tmp_path, capfd):
    path = tmp_path / "run.h5"
    records.write(path, records.Record({"kind": "x"}, {}))
    path.write_bytes(path.read_bytes()[: -seals.SIZE])
    assert main(["choose", str(path)]) == 2
    note, error = capfd.readouterr().err.strip().splitlines()
    assert note.startswith("gradlab: note: ") and "has no checksum" in note
    assert error.startswith("gradlab: error: ")


def test_a_page_that_has_no_place_is_refused_before_it_is_drawn(tmp_path):
    (tmp_path / "run.html").mkdir()
    with pytest.raises(InputError, match=r"the page run\.html has no place.*or copy the run"):
        check_page(tmp_path / "run.h5")


@pytest.mark.parametrize("name", ["ü" * 110 + ".h5", "x" * 300 + ".h5", "a/" * 2100 + "run.h5"])
def test_a_name_that_is_too_long_for_what_stands_beside_it_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"is too long.*choose a shorter one") as caught:
        records.check_output(tmp_path / name)
    assert len(str(caught.value)) < 250


def test_the_longest_name_that_is_taken_has_room_beside_it(tmp_path):
    path = tmp_path / ("x" * (records.NAME - records.BESIDE - 3) + ".h5")
    records.check_output(path)
    records.write(path, records.Record({"kind": "x"}, {}))
    assert records.attributes(path) == {"kind": "x"}


def test_a_folder_without_space_is_refused_before_the_work(tmp_path, monkeypatch):
    opened = tempfile.TemporaryFile

    def crowded(**arguments):
        file = opened(**arguments)
        os.close(file.fileno())
        os.open("/dev/full", os.O_WRONLY)  # takes the number that has become free
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", crowded)
    with pytest.raises(InputError, match=r"No space left.*choose another output folder"):
        records.check_output(tmp_path / "run.h5")
