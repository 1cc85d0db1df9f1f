"""Damaged and hostile HDF5 files end in one line."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.storage import records, untrusted
from tests.storage.planted_records import planted


def test_every_truncation_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "origin", lambda _: "own")  # sixty processes would take 10 s
    path, cut = tmp_path / "run.h5", tmp_path / "cut.h5"
    records.write(path, planted())
    content = path.read_bytes()
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
