"""A journal keeps what it acknowledged, of one run and one writer.

It survives folds, full disks and kills. A run of two tables, its rows, and a check that they are
there. A finished file ends in a checksum that HDF5 does not see; files of others are tried first.
"""

import contextlib
import fcntl
import io
import os
import shutil
import stat
import struct
import sys
import warnings
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradlab.errors import Doubtful, Failure, InputError
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy
from gradlab.storage import journal, journal_frames, records, seals, untrusted, whole_files
from gradlab.storage.journal import Journal, journal_of, read
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Array, Record

TABLES = {
    "updates": Table(
        "iteration", {"loss": Column(("seed",), "reward²"), "rate": Column()}, {"seed": (0, 1, 2)}
    ),
    "events": Table("number", {"message": Column(text=True)}),
}
ABOUT = {"kind": "training", "seed": 0}


def row(k):
    return {"iteration": k, "loss": np.array([k, k + 0.25, -k]), "rate": 1 / (k + 1)}


def writing(path, *span):
    """The journal of a run, open behind the rows of a range."""
    writer = Journal(path, TABLES, ABOUT)
    for k in range(*span):
        writer.append("updates", row(k))
    return writer


def check(path, count):
    """Rows 0 … count − 1 are there, each as it was written."""
    found = read(path).groups["updates"]
    assert found["iteration"].values[:count].tolist() == list(range(count))
    for k in (0, count // 2, count - 1):
        np.testing.assert_array_equal(found["loss"].values[k], row(k)["loss"])
    return found


def closed_and_going_on(path, begin=0):
    """A run whose file holds ten rows, and its journal, of a killed writer, ten more."""
    writing(path, begin, begin + 10).close()
    writing(path, begin + 10, begin + 20)._file.close()


def test_rows_come_back_before_and_after_closing(tmp_path):
    path = tmp_path / "run.h5"
    with writing(path, 50) as writer:
        for k in range(50):
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
    writing(path, 10).close()
    with Journal(path, TABLES, ABOUT) as writer:
        for k in range(7, 12):
            writer.append("updates", row(k) | {"rate": -1.0})
    found = check(path, 12)
    assert found["rate"].values.tolist() == [row(k)["rate"] for k in range(7)] + [-1.0] * 5


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
        read(path)
    assert (path.read_bytes(), journal_of(path).read_bytes()) == before
    journal_of(path).unlink()
    assert read(path).groups["updates"]["iteration"].values[0] == 100


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


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "run.h5"
    writer = Journal(path, TABLES, ABOUT)
    writer.append("updates", row(0))
    writer._file.close()
    with pytest.raises(InputError, match="other tables"):
        Journal(path, {"events": TABLES["events"]}, ABOUT)
    check(path, 1)


@pytest.mark.parametrize("folded", [True, False])
def test_a_column_of_another_shape_is_refused(tmp_path, folded):
    path, table = tmp_path / "run.h5", TABLES["updates"]
    writer = Journal(path, TABLES, ABOUT)
    writer.append("updates", row(0))
    writer.close() if folded else writer._file.close()
    other = replace(
        table, columns={**table.columns, "loss": Column(("step",))}, scales={"step": [0]}
    )
    with pytest.raises(InputError, match="other tables"):
        Journal(path, TABLES | {"updates": other}, ABOUT)
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
    with writing(tmp_path / "run.h5", 0) as writer, pytest.raises(InputError, match=message):
        writer.append(table, bad)


def test_a_missing_or_foreign_run_says_so(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.h5")
    journal_of(tmp_path / "x.h5").write_bytes(b"GLJ\x01 something else " * 9)
    with pytest.raises(InputError, match="holds no whole frame"):
        read(tmp_path / "x.h5")


def test_a_module_beside_a_run_is_not_executed(tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("open('executed', 'w'); raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    writing("run.h5", 10).close()
    foreign = tmp_path / "foreign.h5"  # a run of others is read in a child process
    foreign.write_bytes((tmp_path / "run.h5").read_bytes()[: -seals.SIZE])
    with pytest.warns(Doubtful):
        check("foreign.h5", 10)
    assert not (tmp_path / "executed").exists()


def test_what_a_killed_writer_left_is_folded_by_the_next_one(tmp_path):
    path = tmp_path / "run.h5"
    for k in range(4):
        writer = writing(path, 10 * k, 10 * k + 10)
        assert len(list(journal_frames.decode(journal_of(path).read_bytes()))) == 11
        assert len(check(path, 10 * k + 10)["iteration"].values) == 10 * k + 10
        writer._file.close()
    assert len(records.read(path).groups["updates"]["iteration"].values) == 30
    found = read(path)
    assert "damaged_frames" not in found.attributes
    writing(path, 0).close()
    assert not journal_of(path).exists()
    assert len(check(path, 40)["iteration"].values) == 40


def test_a_fold_that_is_killed_before_its_journal_goes_doubles_nothing(tmp_path, monkeypatch):
    path, whole = tmp_path / "run.h5", []
    writer = writing(path, 20)
    fold = journal.fold
    monkeypatch.setattr(
        journal, "fold", lambda p: whole.append(journal_of(p).read_bytes()) or fold(p)
    )
    writer.close()
    journal_of(path).write_bytes(whole[0])
    for again in (False, True):
        found = read(path)
        assert len(check(path, 20)["iteration"].values) == 20
        assert "damaged_frames" not in found.attributes
        if not again:
            writing(path, 0)._file.close()


# Torn tails, flipped bytes and foreign frames cost a journal only what they hit.


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_tail_costs_one_row(tmp_path, cut):
    path = tmp_path / "run.h5"
    writing(path, 20)._file.close()
    place = journal_of(path)
    place.write_bytes(place.read_bytes()[:-cut])
    assert len(check(path, 19)["iteration"].values) == 19
    with Journal(path, TABLES, ABOUT) as again:
        again.append("updates", row(19))
    assert len(check(path, 20)["iteration"].values) == 20


def test_a_flipped_byte_costs_the_frame_it_is_in(tmp_path):
    path = tmp_path / "run.h5"
    writing(path, 20)._file.close()
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
    writing(path, 20)._file.close()
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


def test_what_killed_folds_left_is_removed_and_what_is_being_written_stays(tmp_path):
    path, used = tmp_path / "run.h5", tmp_path / ".run.h5.0123abcd.tmp"
    left = [tmp_path / ".run.h5.89abcdef.tmp"]
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


def test_a_deleted_folder_is_noticed_by_the_next_row(tmp_path):
    folder = tmp_path / "runs"
    writer = writing(folder / "run.h5", 10)
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(Failure, match=r"run\.h5\.journal was moved or removed.*start again"):
            writer.append("updates", row(10))
    writer.close()
    assert not folder.exists()


def test_a_folder_moved_away_is_noticed_by_the_next_row(tmp_path):
    (tmp_path / "runs").mkdir()
    writer = Journal(tmp_path / "runs" / "run.h5", TABLES, ABOUT)
    writer.append("updates", row(0))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="move it back and resume"):
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


def test_without_space_the_journal_stays(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(journal.shutil, "disk_usage", lambda _: usage)
    writing(path, 5).close()
    assert journal_of(path).exists() and not path.exists()
    check(path, 5)


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


def written(path):
    rows = {"row": Array(np.arange(50), ("row",)), "x": Array(np.linspace(0, 1, 50), ("row",))}
    record = Record({"kind": "planted"}, {"table": rows})
    records.write(path, record, overwrite=True)
    return record


def values(path):
    return list(records.read(path).groups["table"]["x"].values)


def test_a_file_of_ones_own_is_read_without_a_word_and_without_a_process(tmp_path, monkeypatch):
    written(tmp_path / "run.h5")
    monkeypatch.setattr(untrusted, "record", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(values(tmp_path / "run.h5")) == 50


def test_one_changed_byte_is_refused_before_hdf5_sees_it(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    written(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(h5py, "File", None)
    for reader in (records.read, records.attributes):
        with pytest.raises(InputError, match=r"run\.h5 is damaged \(its checksum is wrong\)"):
            reader(path)


def checked(content):
    return seals.check(io.BytesIO(content), len(content))


def test_changes_that_a_plain_sum_would_miss_change_the_check():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, 70_000, dtype=np.uint64)
    known = checked(words.tobytes())
    for _ in range(40):
        for change in ("swap", "signs", "exchange", "cut"):
            other = words.copy()
            i, j = rng.choice(len(words), 2, replace=False)
            if change == "swap":
                other[[i, j]] = words[[j, i]]
            elif change == "signs":
                other[[i, j]] ^= np.uint64(1 << 63)
            elif change == "exchange":
                other[i], other[j] = words[i] + np.uint64(1), words[j] - np.uint64(1)
            assert checked(other[: -1 if change == "cut" else None].tobytes()) != known
    sectors = words[:65_536].reshape(-1, 64)
    assert checked(sectors[::-1].tobytes()) != checked(sectors.tobytes())


def test_an_older_file_and_one_that_others_changed_are_read_with_a_word(tmp_path):
    path = tmp_path / "run.h5"
    record = written(path)
    path.write_bytes(path.read_bytes()[: -seals.SIZE])
    with pytest.warns(Doubtful, match=r"run\.h5 has no checksum"):
        found = values(path)
    assert found == list(record.groups["table"]["x"].values)
    written(path)
    with h5py.File(path, "r+") as file:
        file["table/x"][0] = 7.0
    with pytest.warns(Doubtful, match="changed since"):
        assert values(path)[0] == 7.0


def deadly(tmp_path):
    """A program in the place of Python that dies as HDF5 does."""
    program = tmp_path / "deadly"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(stat.S_IRWXU)
    return str(program)


def test_a_file_from_elsewhere_that_crashes_its_reader_costs_one_line(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    with monkeypatch.context() as theirs:
        theirs.setattr(seals, "_own_key", lambda: b"of another machine")
        written(path)
    assert seals.origin(path) == "foreign"
    with monkeypatch.context() as here:
        here.setattr(sys, "executable", deadly(tmp_path))
        with pytest.raises(InputError, match=r"run\.h5 crashes HDF5: damaged or forged"):
            records.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(values(path)) == 50


def test_a_file_that_is_never_read_to_its_end_is_given_up(tmp_path, monkeypatch):
    path, program = tmp_path / "run.h5", tmp_path / "endless"
    written(path)
    path.write_bytes(path.read_bytes()[: -seals.SIZE])
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(untrusted, "PATIENCE", 0.2)
    with pytest.raises(InputError, match="cannot be read to its end"):
        records.read(path)


def test_older_networks_and_plans_are_read_with_a_word(tmp_path):
    policy, path = Policy(3, 1, (4,)), tmp_path / "policy.safetensors"
    checkpoint.save(policy, path)
    again = checkpoint.load(path)
    architecture = '{"kind": "policy", "state_dim": 3, "action_dim": 1, "hidden": [4]}'
    save_file(policy.state_dict(), path, {checkpoint.KEY: architecture})
    with pytest.warns(Doubtful, match="has no checksum"):
        older = checkpoint.load(path)
    state = torch.ones(2, 3)
    assert torch.equal(older(state), again(state))
    (tmp_path / "plan.json").write_text('{"steps": 3}')
    with pytest.warns(Doubtful, match="has no checksum"):
        assert whole_files.read(tmp_path / "plan.json") == {"steps": 3}
