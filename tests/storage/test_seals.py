"""A finished file ends in a checksum that HDF5 does not see; files of others are tried first."""

import io
import stat
import sys
import warnings

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradlab.errors import Doubtful, InputError
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy
from gradlab.storage import records, seals, untrusted, whole_files
from gradlab.storage.records import Array, Record


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
    for read in (records.read, records.attributes):
        with pytest.raises(InputError, match=r"run\.h5 is damaged \(its checksum is wrong\)"):
            read(path)


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
