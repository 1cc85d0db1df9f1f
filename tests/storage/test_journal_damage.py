"""Torn tails, flipped bytes and foreign frames cost a journal only what they hit."""

import contextlib
import struct
import zlib

import numpy as np
import pytest

from gradlab.errors import Doubtful, InputError
from gradlab.storage import journal_frames
from gradlab.storage.journal import Journal, journal_of, read
from tests.storage.planted_journals import ABOUT, TABLES, check, row, writing


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
