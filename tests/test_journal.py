"""A journal keeps what it acknowledged: through kills, torn tails, flipped bytes and full disks."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from gradlab import frames, journal
from gradlab.errors import Failure, InputError
from gradlab.journal import Journal, journal_of, read
from gradlab.journal_tables import Column, Table

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
    opening = next(frames.decode(whole))[0]
    generator = np.random.default_rng(0)
    for at in generator.integers(opening, len(whole), 60):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << int(generator.integers(8))
        place.write_bytes(bytes(spoiled))
        run = read(path)
        found = run.groups["updates"]
        assert len(found["iteration"].values) == 19
        missing = set(range(20)) - set(found["iteration"].values.tolist())
        # Of the last frame nobody can know that it was there.
        assert run.attributes.get("damaged_frames", 0) == (0 if missing == {19} else 1)
        for k, values in zip(found["iteration"].values, found["loss"].values, strict=True):
            np.testing.assert_array_equal(values, row(int(k))["loss"])


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
    assert len(list(frames.decode(journal_of(path).read_bytes()))) == 11
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
    payload = frames.LENGTH.pack(len(text)) + text.encode() + bytes(32)
    head = struct.pack("<4sII", frames.MAGIC, len(payload), zlib.crc32(payload))
    return head + frames.LENGTH.pack(zlib.crc32(head)) + payload


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
    with pytest.raises(InputError, match="no such run"):
        read(tmp_path / "x.h5")


WRITER = """
import sys, numpy as np
from gradlab import journal
from gradlab.journal_tables import Column, Table
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
