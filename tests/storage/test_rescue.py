"""Finished work is saved, elsewhere if need be; what cannot be saved is refused before the work."""

import errno
import os
import tempfile

import pytest

from gradlab import load
from gradlab.cli.program import main
from gradlab.errors import Failure, InputError
from gradlab.reporting.output import check_page
from gradlab.storage import records, seals, whole_files
from gradlab.storage.whole_files import keep
from tests.own_files import LQR, OWN


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
