"""A journal keeps what it acknowledged: through kills, torn tails, flipped bytes and full disks."""

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import numpy as np
import pytest

from gradlab.errors import Doubtful, Failure, InputError
from gradlab.storage import journal, journal_frames, records
from gradlab.storage.journal import Journal, journal_of, read
from gradlab.storage.journal_tables import RUN, Column, Table
from gradlab.watching.following import Follower

TABLES = {
    "updates": Table(
        "iteration",
        {"loss": Column(("seed",), "reward²"), "rate": Column()},
        {"seed": (0, 1, 2)},
    ),
    "events": Table("number", {"message": Column(text=True)}),
}
ABOUT = {"kind": "training", "seed": 0}


def row(k):
    return {"iteration": k, "loss": np.array([k, k + 0.25, -k]), "rate": 1 / (k + 1)}


def check(path, count):
    """Rows 0 … count − 1 are there, each as it was written."""
    found = read(path).groups["updates"]
    assert found["iteration"].values[:count].tolist() == list(range(count))
    for k in (0, count // 2, count - 1):
        np.testing.assert_array_equal(found["loss"].values[k], row(k)["loss"])
    return found


def test_rows_come_back_before_and_after_closing(tmp_path):
    path = tmp_path / "run.h5"
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(50):
            writer.append("updates", row(k))
            writer.append("events", {"number": k, "message": f"über {k}"})
        assert not path.exists()
        check(path, 50)
    assert not journal_of(path).exists()
    check(path, 50)
    run = read(path)
    assert run.groups["events"]["message"].values[7] == "über 7"
    assert run.attributes["kind"] == "training" and "damaged_frames" not in run.attributes
    assert run.groups["updates"]["loss"].unit == "reward²"


@pytest.mark.parametrize(
    "wrong", [{"loss": np.zeros(4)}, {"rate": np.zeros(3)}, {"iteration": np.arange(2)}]
)
def test_a_row_of_another_shape_is_refused_before_it_spoils_the_run(tmp_path, wrong):
    path = tmp_path / "run.h5"
    with Journal(path, TABLES, ABOUT) as writer:
        writer.append("updates", row(0))
        with pytest.raises(InputError, match=f"{next(iter(wrong))}.*shape"):
            writer.append("updates", row(1) | wrong)
        writer.append("updates", {"iteration": 1, "loss": 1.0, "rate": np.float64(0.5)})
    assert read(path).groups["updates"]["iteration"].values.tolist() == [0, 1]


def test_a_column_left_out_is_not_a_number(tmp_path):
    with Journal(tmp_path / "run.h5", TABLES, ABOUT) as writer:
        writer.append("updates", {"iteration": 0, "rate": 2.0})
    found = read(tmp_path / "run.h5").groups["updates"]
    assert np.isnan(found["loss"].values).all() and found["rate"].values.tolist() == [2.0]


def test_a_row_written_again_replaces_the_first(tmp_path):
    path = tmp_path / "run.h5"
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(10):
            writer.append("updates", row(k))
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(7, 12):
            writer.append("updates", row(k) | {"rate": -1.0})
    found = check(path, 12)
    assert found["rate"].values.tolist() == [row(k)["rate"] for k in range(7)] + [-1.0] * 5


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


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_tail_costs_one_row(tmp_path, cut):
    path = tmp_path / "run.h5"
    writer = Journal(path, TABLES, ABOUT)
    for k in range(20):
        writer.append("updates", row(k))
    writer._file.close()
    place = journal_of(path)
    place.write_bytes(place.read_bytes()[:-cut])
    assert len(check(path, 19)["iteration"].values) == 19
    with Journal(path, TABLES, ABOUT) as again:
        again.append("updates", row(19))
    assert len(check(path, 20)["iteration"].values) == 20


def test_a_flipped_byte_costs_the_frame_it_is_in(tmp_path):
    path = tmp_path / "run.h5"
    writer = Journal(path, TABLES, ABOUT)
    for k in range(20):
        writer.append("updates", row(k))
    writer._file.close()
    place, whole = journal_of(path), journal_of(path).read_bytes()
    opening = next(journal_frames.decode(whole))[0]
    generator = np.random.default_rng(0)
    for at in generator.integers(opening, len(whole), 60):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << int(generator.integers(8))
        place.write_bytes(bytes(spoiled))
        with pytest.warns(Doubtful, match="damaged in 1 of its frames"):
            run = read(path)
        found = run.groups["updates"]
        assert len(found["iteration"].values) == 19
        assert run.attributes["damaged_frames"] == 1
        for k, values in zip(found["iteration"].values, found["loss"].values, strict=True):
            np.testing.assert_array_equal(values, row(int(k))["loss"])


def test_a_damaged_last_frame_is_still_counted_when_the_run_goes_on(tmp_path):
    path = tmp_path / "run.h5"
    writer = Journal(path, TABLES, ABOUT)
    for k in range(20):
        writer.append("updates", row(k))
    writer._file.close()
    place = journal_of(path)
    spoiled = bytearray(place.read_bytes())
    spoiled[-1] ^= 1
    place.write_bytes(spoiled)
    with Journal(path, TABLES, ABOUT) as again:
        again.append("updates", row(20))
    with pytest.warns(Doubtful):
        run = read(path)
    assert run.attributes["damaged_frames"] == 1
    assert run.groups["updates"]["iteration"].values.tolist() == [*range(19), 20]


def closed_and_going_on(path, begin=0):
    """A run whose file holds ten rows, and its journal, of a killed writer, ten more."""
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(begin, begin + 10):
            writer.append("updates", row(k))
    writer = Journal(path, TABLES, ABOUT)
    for k in range(begin + 10, begin + 20):
        writer.append("updates", row(k))
    writer._file.close()


def test_a_file_and_a_journal_of_two_runs_are_refused_and_kept(tmp_path):
    path, other = tmp_path / "p.h5", tmp_path / "q.h5"
    closed_and_going_on(path)
    closed_and_going_on(other, begin=100)
    shutil.copy(other, path)
    before = path.read_bytes(), journal_of(path).read_bytes()
    with pytest.raises(InputError, match=r"p\.h5 and p\.h5\.journal are of two runs.*move"):
        read(path)
    with pytest.raises(InputError, match="two runs"):
        Journal(path, TABLES, ABOUT)
    with pytest.raises(InputError, match="two runs"):
        journal.fold(path, 10**6)
    assert "two runs" in Follower(path).read().trouble
    assert (path.read_bytes(), journal_of(path).read_bytes()) == before
    journal_of(path).unlink()
    assert read(path).groups["updates"]["iteration"].values[0] == 100


def without_id(path):
    """The run as an earlier gradlab would have folded it."""
    found = records.read(path)
    attributes = {k: v for k, v in found.attributes.items() if k != RUN}
    records.write(path, records.Record(attributes, found.groups), overwrite=True)


def test_an_older_file_goes_on_and_a_newer_journal_takes_no_other_one(tmp_path):
    path = tmp_path / "run.h5"
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(10):
            writer.append("updates", row(k))
    without_id(path)
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(10, 20):
            writer.append("updates", row(k))
        assert len(check(path, 20)["iteration"].values) == 20
    assert RUN in read(path).attributes
    closed_and_going_on(path, begin=20)
    without_id(path)
    with pytest.raises(InputError, match="two runs"):
        read(path)


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


def test_a_link_stays_a_link_and_admits_no_second_writer(tmp_path):
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "run.h5", tmp_path / "link.h5"
    link.symlink_to(path)
    with Journal(link, TABLES, ABOUT) as writer:
        writer.append("updates", row(0))
        assert journal_of(path).exists()
        with pytest.raises(InputError, match="another process"):
            Journal(path, TABLES, ABOUT)
        check(link, 1)
    assert link.is_symlink() and len(check(path, 1)["iteration"].values) == 1
    journal.discard(link)
    assert link.is_symlink() and not path.exists()


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
    writer = Journal(path, TABLES, ABOUT)
    for k in range(5):
        writer.append("updates", row(k))
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

    returncode = 0


def half_folded(path):
    """A writer of twenty rows of which a child has folded ten, and the number of the tenth."""
    writer = Journal(path, TABLES, ABOUT)
    for k in range(10):
        writer.append("updates", row(k))
    writer._folding, tenth = journal_of(path).stat().st_size, writer._sequence
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


OPENING = """{"n": 1, "kind": "open", "attributes": {}, "arrays": [], "tables": {"updates":
    {"index": "iteration", "columns": {"loss": [["seed"], "", false]}, "scales": {"seed": [0]}}}}"""
ROW = """{"n": 2, "kind": "row", "table": "updates", "text": {},
    "arrays": [["iteration", "<i8", []], ["loss", "<f8", [1]]]}"""
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"n": 2', '"n": Infinity'),
        ('"n": 2', '"n": null'),
        ('"n": 2', '"n": "two"'),
        ('"n": 2', '"n": 1' + "0" * 5000),
        ('"text": {}', f'"text": {DEEP}'),
        ('"text": {}', '"text": 3'),
        ('"updates", "text"', '["updates"], "text"'),
        ("[1]]]", "[-1]]]"),
        ("[1]]]", f"[1{'0' * 30}]]]"),
        ("[1]]]", f"[0, 1{'0' * 30}]]]"),
        ('"<f8", [1]', '"O", [1]'),
        ('"<f8", [1]', '"(", [1]'),
        ('"<f8", [1]', '"<f8,<f8", [1]'),
        ('"<i8", []', '"<i8", [2]'),
        ('["seed"]', str(["seed"] * 70).replace("'", '"')),
        ('["seed"]', '["nothing"]'),
        ('"scales": {"seed": [0]}', '"scales": {"seed": 7}'),
        ('"scales": {"seed": [0]}', '"scales": {"seed": [[1], "x"]}'),
        ('"attributes": {}', '"attributes": []'),
        ('"kind": "open"', '"kind": ["open"]'),
        ('"index": "iteration"', '"index": 5'),
    ],
)
def test_foreign_frames_are_refused_or_ignored_and_never_crash(tmp_path, old, new):
    path = tmp_path / "run.h5"
    texts = [OPENING.replace(old, new), ROW.replace(old, new)]
    assert texts != [OPENING, ROW]
    journal_of(path).write_bytes(b"".join(map(framed, texts)))
    with contextlib.suppress(InputError):
        read(path)
    with contextlib.suppress(InputError):
        Journal(path, TABLES, ABOUT)._file.close()


def framed(text):
    """A frame around any text, its checksums right."""
    payload = journal_frames.LENGTH.pack(len(text)) + text.encode() + bytes(32)
    head = struct.pack("<4sII", journal_frames.MAGIC, len(payload), zlib.crc32(payload))
    return head + journal_frames.LENGTH.pack(zlib.crc32(head)) + payload


def test_without_space_the_journal_stays(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(journal.shutil, "disk_usage", lambda _: usage)
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(5):
            writer.append("updates", row(k))
    assert journal_of(path).exists() and not path.exists()
    check(path, 5)


def test_a_run_has_one_writer(tmp_path):
    with Journal(tmp_path / "run.h5", TABLES, ABOUT), pytest.raises(InputError, match="another"):
        Journal(tmp_path / "run.h5", TABLES, ABOUT)


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "run.h5"
    writer = Journal(path, TABLES, ABOUT)
    writer.append("updates", row(0))
    writer._file.close()
    with pytest.raises(InputError, match="other tables"):
        Journal(path, {"events": TABLES["events"]}, ABOUT)
    check(path, 1)


@pytest.mark.parametrize(
    ("table", "bad", "message"),
    [
        ("updates", {"loss": 1.0}, "needs 'iteration'"),
        ("updates", {"iteration": 1, "los": 1.0}, "los"),
        ("update", {"iteration": 1}, "expected one of updates, events"),
    ],
)
def test_bad_rows_are_refused(tmp_path, table, bad, message):
    with (
        Journal(tmp_path / "run.h5", TABLES, ABOUT) as writer,
        pytest.raises(InputError, match=message),
    ):
        writer.append(table, bad)


def test_a_missing_or_foreign_run_says_so(tmp_path):
    with pytest.raises(InputError, match="no such run"):
        read(tmp_path / "none.h5")
    journal_of(tmp_path / "x.h5").write_bytes(b"GLJ\x01 something else " * 9)
    with pytest.raises(InputError, match="holds no whole frame"):
        read(tmp_path / "x.h5")


WRITER = """
import sys, numpy as np
from gradlab.storage import journal
from gradlab.storage.journal_tables import Column, Table
journal.SMALLEST, journal.SYNC = 4000, 0.01
tables = {"updates": Table(
    "iteration",
    {"loss": Column(("seed",), "reward²"), "rate": Column()},
    {"seed": (0, 1, 2)},
)}
with journal.Journal(sys.argv[1], tables, {}) as writer:
    for k in range(int(sys.argv[2]), 10**9):
        loss = np.array([k, k + 0.25, -k])
        writer.append("updates", {"iteration": k, "loss": loss, "rate": 1 / (k + 1)})
        sys.stdout.write(f"{k}\\n")
        sys.stdout.flush()
"""


@pytest.mark.slow
def test_a_hundred_kills_at_full_speed_lose_nothing(tmp_path):
    path, generator, done = tmp_path / "run.h5", np.random.default_rng(1), 0
    for _ in range(100):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(done)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(generator.uniform(0, 0.1)))
        os.kill(child.pid, signal.SIGKILL)
        lines = child.stdout.read().split("\n")
        child.wait()
        numbers = [int(line) for line in lines[:-1] if line]
        done = (numbers[-1] if numbers else done) + 1
        check(path, done)
    assert done > 1000
