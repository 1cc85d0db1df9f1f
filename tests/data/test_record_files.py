"""A record is the same in whichever file it is; what is no record says what it lacks and has."""

import re

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from gradlab.data import record_files
from gradlab.data.trajectories import DIMS
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.storage import records
from gradlab.tasks import inverted_pendulum, pendulum
from tests.data.written import FORMATS, columns, write
from tests.pages.blocks import python_blocks


@pytest.fixture(scope="module")
def record():
    """Episodes that end in a terminal state, and one that the end of the record cuts off."""
    found = collect(inverted_pendulum(), 90, length=20)
    assert found.terminated.any() and found.truncated.any()
    return found


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_back_every_bit(record, ending, tmp_path):
    found = record_files.read(write(record, tmp_path / f"data.{ending}"))
    for name in DIMS:
        assert torch.equal(getattr(found, name), getattr(record, name)), name
        assert getattr(found, name).dtype == getattr(record, name).dtype, name


def test_the_examples_of_the_page_write_records_of_every_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = collect(pendulum(), 60)
    arrays = columns(record, truncated=False)
    given = {"s": "state", "a": "action", "r": "reward", "s_next": "next_state"}
    given |= {"ended": "terminated", "episode": "episode"}
    names = {short: arrays[name] for short, name in given.items()}
    found = {page: block for page, block in python_blocks().items() if "docs/records" in page}
    assert len(found) == len(FORMATS)
    for block in found.values():
        exec(block, names)
    for ending in FORMATS:
        read = record_files.read(tmp_path / f"record.{ending}")
        assert all(torch.equal(getattr(read, name), getattr(record, name)) for name in DIMS)


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_without_truncated_an_episode_that_does_not_terminate_is_cut_off(record, ending, tmp_path):
    found = record_files.read(write(record, tmp_path / f"data.{ending}", truncated=False))
    last = torch.ones(len(record), dtype=torch.bool)
    last[:-1] = record.trajectory[1:] != record.trajectory[:-1]
    assert torch.equal(found.truncated, last & ~record.terminated)


def test_single_precision_stays(record, tmp_path):
    arrays = {
        name: values.astype(np.float32) if values.dtype == np.float64 else values
        for name, values in columns(record).items()
    }
    np.savez(tmp_path / "single.npz", **arrays)
    found = record_files.read(tmp_path / "single.npz")
    assert found.state.dtype == found.reward.dtype == torch.float32
    np.savez(tmp_path / "mixed.npz", **arrays | {"reward": columns(record)["reward"]})
    assert record_files.read(tmp_path / "mixed.npz").state.dtype == torch.float64


def test_one_coordinate_may_be_a_plain_array_and_coordinates_may_be_apart(record, tmp_path):
    arrays = columns(record)
    state = arrays.pop("state")
    apart = {f"state_{k}": column for k, column in enumerate(state.T)}
    np.savez(tmp_path / "apart.npz", **arrays | apart | {"action": arrays["action"][:, 0]})
    assert torch.equal(record_files.read(tmp_path / "apart.npz").state, record.state)
    assert torch.equal(record_files.read(tmp_path / "apart.npz").action, record.action)
    flat = {"action": arrays["action"][:, 0], "reward": arrays["reward"], **apart}
    flat |= {f"next_state_{k}": column for k, column in enumerate(arrays["next_state"].T)}
    frame = pd.DataFrame(flat | {name: arrays[name] for name in ("terminated", "episode")})
    frame.assign(robot="Zoë").to_csv(tmp_path / "pandas.csv", index=False)
    assert torch.equal(record_files.read(tmp_path / "pandas.csv").action, record.action)
    assert torch.equal(record_files.read(tmp_path / "pandas.csv").terminated, record.terminated)


def theirs(path):
    """The arrays of another program."""
    arrays = {"observations": np.zeros((3, 2)), "reward": np.zeros(3)}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".csv":
        pd.DataFrame({"observations": [0.0], "reward": [1.0]}).to_csv(path, index=False)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, compression="gzip")
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_another_programs_file_says_what_is_missing_and_what_it_has(ending, tmp_path):
    with pytest.raises(InputError) as caught:
        record_files.read(theirs(tmp_path / f"theirs.{ending}"))
    first = "_0" if ending == "csv" else ""
    missing = f"missing state{first}, action{first}, next_state{first}, terminated, episode"
    assert f"{missing}; it has observations, reward" in str(caught.value)
    assert "damaged" not in str(caught.value) and f"theirs.{ending}" in str(caught.value)


def test_a_column_between_others_is_missing_by_its_name(record, tmp_path):
    frame = pd.read_csv(write(record, tmp_path / "data.csv"))
    frame.drop(columns="next_state_1").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InputError, match="missing next_state_1; it has state_0"):
        record_files.read(tmp_path / "less.csv")


WRONG = {
    "NaN": ({"reward": np.full(90, np.nan)}, "reward is not finite in 90 rows"),
    "half episodes": ({"episode": np.arange(90) * 0.5}, "episode has 0.5, expected integers"),
    "no ends": ({"terminated": np.full(90, 2)}, "terminated has 2, expected 0 or 1"),
    "text": ({"reward": np.array(["much"] * 90)}, "reward is <U4, expected numbers"),
    "pickles": ({"state": np.array([object()])}, "cannot be read"),
    "cubes": ({"state": np.zeros((90, 2, 2))}, r"state is .* of shape \(90, 2, 2\)"),
    "a row too few": ({"reward": np.zeros(89)}, "reward has 89 entries along row, expected 90"),
    "another width": ({"next_state": np.zeros((90, 3))}, "next_state has 3 entries"),
    "apart": ({"episode": np.arange(90) % 2}, "several places: sort the rows"),
}


@pytest.mark.parametrize("how", WRONG)
def test_arrays_that_are_no_record_are_named(record, how, tmp_path):
    changed, says = WRONG[how]
    np.savez(tmp_path / "wrong.npz", **columns(record) | changed)
    with pytest.raises(InputError, match=rf"wrong\.npz.*{says}"):
        record_files.read(tmp_path / "wrong.npz")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "no such file"),
        ("data.pkl", b"\x80", "give an .h5, .npz or .csv file"),
        ("text.npz", b"no archive", "cannot be read"),
        ("empty.csv", b"", "it has nothing"),
        ("text.csv", b"reward,terminated\nmuch,0\n", "could not convert string 'much'"),
        ("bytes.csv", b"state_0\n\xff\xfe", "cannot be read"),
        ("rows.csv", b"state_0,action_0,reward,next_state_0,terminated,episode\n", "no entries"),
        ("text.h5", b"state, action", "not a readable HDF5 file"),
    ],
)
def test_what_cannot_be_read_is_called_so(name, content, says, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        record_files.read(tmp_path / name)
    assert name in str(caught.value) and "damaged" not in str(caught.value)


def test_a_run_of_another_kind_is_called_by_its_kind(tmp_path):
    records.write(tmp_path / "run.h5", records.Record({"kind": "profile"}, {}))
    with pytest.raises(InputError, match="holds 'profile', expected 'trajectories'"):
        record_files.read(tmp_path / "run.h5")
