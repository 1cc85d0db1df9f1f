"""A journal survives folds, full disks, folders that vanish, and kills."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time

import pytest

from gradlab.errors import Failure
from gradlab.storage import journal, journal_frames
from gradlab.storage.journal import Journal, journal_of, read
from tests.storage.planted_journals import ABOUT, TABLES, check, closed_and_going_on, row, writing


@pytest.mark.slow
def test_folding_on_the_way_loses_and_doubles_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SMALLEST", 2000)
    monkeypatch.setattr(journal, "SYNC", 0.0)
    path, folded = tmp_path / "run.h5", 0
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(1200):
            writer.append("updates", row(k))
            if k % 300 == 299:
                time.sleep(0.7)
                check(path, k + 1)
                folded += path.exists()
    assert folded > 1
    assert len(check(path, 1200)["iteration"].values) == 1200


def test_what_killed_folds_left_is_removed_and_what_is_being_written_stays(tmp_path):
    path, used = tmp_path / "run.h5", tmp_path / ".run.h5.0123abcd.tmp"
    left = [tmp_path / ".run.h5.89abcdef.tmp", tmp_path / ".run.h5.journal.tmp"]
    others = [tmp_path / ".mine.h5.89abcdef.tmp", tmp_path / ".run.h5.mine.tmp"]
    for each in [*left, *others, used]:
        each.write_bytes(b"half a file")
    with used.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = Journal(path, TABLES, ABOUT)
        assert not any(each.exists() for each in left)
        assert all(each.exists() for each in [*others, used])
    left[0].write_bytes(b"of a fold killed in between")
    writer.close()
    assert not left[0].exists() and not used.exists()


def test_a_deleted_folder_is_noticed_by_the_next_row_and_every_row_is_kept(tmp_path, monkeypatch):
    (tmp_path / "rescued").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "rescued"))
    folder = tmp_path / "runs"
    closed_and_going_on(folder / "run.h5")
    writer = Journal(folder / "run.h5", TABLES, ABOUT)
    shutil.rmtree(folder)
    with pytest.raises(Failure, match=r"removed.*kept in .*gradlab-"):
        writer.append("updates", row(20))
    with pytest.raises(Failure, match="kept in"):
        writer.append("updates", row(21))
    writer.close()
    (kept,) = (tmp_path / "rescued").glob("gradlab-*/run.h5")
    assert len(check(kept, 20)["iteration"].values) == 20
    assert not folder.exists()


def test_a_folder_moved_away_is_noticed_by_the_next_row(tmp_path):
    (tmp_path / "runs").mkdir()
    writer = Journal(tmp_path / "runs" / "run.h5", TABLES, ABOUT)
    writer.append("updates", row(0))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="where it was moved"):
        writer.append("updates", row(1))
    writer.close()
    assert len(check(tmp_path / "elsewhere" / "run.h5", 1)["iteration"].values) == 1


def test_a_full_disk_costs_the_row_that_did_not_fit(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    writer = writing(path, 5)
    write = os.write

    def full(descriptor, data):
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(Failure, match="No space left"):
            writer.append("updates", row(5))
    check(path, 5)
    writer.append("updates", row(5))
    writer.close()
    assert len(check(path, 6)["iteration"].values) == 6


class Finished:
    """A fold that has ended well."""

    def wait(self):
        return 0


def half_folded(path):
    """A writer of twenty rows of which a child has folded ten, and the number of the tenth."""
    writer = writing(path, 10)
    writer._folding, tenth = journal_of(path).stat().st_size, writer._sequence
    writer._through = tenth
    writer._child = Finished()
    for k in range(10, 20):
        writer.append("updates", row(k))
    journal.fold(path, tenth)
    return writer, tenth


def test_a_fold_that_outlives_its_journal_loses_nothing(tmp_path):
    path = tmp_path / "run.h5"
    writer, tenth = half_folded(path)
    writer._finish_fold()
    assert len(list(journal_frames.decode(journal_of(path).read_bytes()))) == 11
    for late in (tenth - 3, tenth, tenth + 4):  # asked for before the journal was shortened
        journal.fold(path, late)
        found = read(path)
        assert len(check(path, 20)["iteration"].values) == 20
        assert "damaged_frames" not in found.attributes
    writer.append("updates", row(20))
    writer.close()
    assert len(check(path, 21)["iteration"].values) == 21


def test_a_disk_full_while_the_journal_is_shortened_costs_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    writer, _ = half_folded(path)

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        writer._finish_fold()
    writer.append("updates", row(20))
    assert len(check(path, 21)["iteration"].values) == 21
    assert "damaged_frames" not in read(path).attributes
    writer.close()
    assert len(check(path, 21)["iteration"].values) == 21


def test_without_space_the_journal_stays(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(journal.shutil, "disk_usage", lambda _: usage)
    writing(path, 5).close()
    assert journal_of(path).exists() and not path.exists()
    check(path, 5)


@pytest.mark.parametrize("processes", [0, 1])
def test_the_only_fold_of_a_short_run_needs_no_process(tmp_path, monkeypatch, processes):
    begun, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **b: begun.append(a) or popen(*a, **b))
    if processes:
        monkeypatch.setattr(journal, "SMALLEST", 1000)
    with writing(tmp_path / "run.h5", 20) as writer:
        pass
    assert len(begun) == processes and not journal_of(writer.path).exists()
    assert len(check(writer.path, 20)["iteration"].values) == 20


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("HDF5"), MemoryError()]
)
def test_where_the_last_fold_fails_the_journal_stays(tmp_path, monkeypatch, error):
    def fails(*given, **named):
        raise error

    path = tmp_path / "run.h5"
    with monkeypatch.context() as patched, Journal(path, TABLES, ABOUT) as writer:
        patched.setattr(journal.records, "write", fails)
        for k in range(5):
            writer.append("updates", row(k))
        writer.close()
    assert journal_of(path).exists() and not path.exists()
    check(path, 5)
    with Journal(path, TABLES, ABOUT) as writer:
        writer.append("updates", row(5))
    assert not journal_of(path).exists()
    assert len(check(path, 6)["iteration"].values) == 6
