"""Records come back as they were, windows hold what was recorded, and nothing else gets in.

A record is the same in whichever file it is; what is no record says what it lacks and has.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from gradlab.data import record_files, trajectories
from gradlab.data.trajectories import DIMS, Trajectories, segments
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.storage import records
from gradlab.tasks import inverted_pendulum, pendulum
from tests.data.written import FORMATS, columns, write
from tests.pages.blocks import python_blocks

LENGTHS = {7: 4, 3: 1, 5: 3}  # trajectory id → transitions
DS, DA = 2, 1


def recorded(dtype=torch.float64, **changes):
    """Counted states: row t of trajectory k moves from (k, t) to (k, t + 1). 7 ends terminated."""
    rows = [(k, t) for k, length in LENGTHS.items() for t in range(length)]
    last = [t == LENGTHS[k] - 1 for k, t in rows]
    columns = {
        "trajectory": [k for k, _ in rows], "step": [t for _, t in rows],
        "state": rows, "action": [[10 * k + t] for k, t in rows],
        "reward": [0.1 * t for _, t in rows], "next_state": [(k, t + 1) for k, t in rows],
        "terminated": [end and k == 7 for end, (k, _) in zip(last, rows, strict=True)],
        "truncated": [end and k != 7 for end, (k, _) in zip(last, rows, strict=True)],
    }  # fmt: skip
    values = {name: torch.tensor(column) for name, column in columns.items()}
    for name in trajectories.NUMBERS:
        values[name] = values[name].to(dtype)
    return Trajectories(**(values | changes))


def same(left, right):
    fields = [field.name for field in dataclasses.fields(left)]
    pairs = [(getattr(left, name), getattr(right, name)) for name in fields]
    return all(
        a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in pairs
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_record_comes_back_bit_for_bit(tmp_path, dtype):
    record = recorded(dtype, state_names=("x [m]", "θ [rad]"))
    record.save(tmp_path / "data.h5")
    again = record_files.read(tmp_path / "data.h5")
    assert same(again, record)
    assert again.state_names == ("x [m]", "θ [rad]")
    assert again.action_names == ("a0",)
    with pytest.raises(InputError, match="exists"):
        record.save(tmp_path / "data.h5")


def test_the_file_explains_itself_to_any_reader(tmp_path):
    recorded().save(tmp_path / "data.h5")
    with h5py.File(tmp_path / "data.h5") as file:
        state = file["trajectories/state"]
        assert [dim.label for dim in state.dims] == ["row", "state_name"]
        assert file["trajectories/step"].attrs["units"] == "steps"
        assert file["run"].attrs["kind"] == "trajectories"


@pytest.mark.parametrize("horizon", [0, 1, 2, 3, 4])
def test_windows_are_those_that_a_loop_finds(horizon):
    path = segments(recorded(), horizon)
    expected = [
        (k, first)
        for k, length in LENGTHS.items()
        for first in range(length)
        if first + max(horizon, 1) <= length
    ]
    assert path.states.shape == (horizon + 1, len(expected), DS)
    for column, (k, first) in enumerate(expected):
        length = LENGTHS[k]
        steps = [first + t for t in range(horizon + 1)]
        assert path.states[:, column].tolist() == [[k, t] for t in steps]
        actions = path.actions[:, column, 0].tolist()
        assert actions[:horizon] == [10 * k + t for t in steps[:-1]]
        assert actions[-1] == 10 * k + steps[-1] if steps[-1] < length else math.isnan(actions[-1])
        assert path.rewards[:, column].tolist() == pytest.approx([0.1 * t for t in steps[:-1]])
        assert path.alive[:, column].tolist() == [not (k == 7 and t == length) for t in steps]
        assert int(path.group[column]) == k
    assert bool((path.weight == 1).all())
    assert path.policy_noise.shape == (horizon + 1, len(expected), 0)
    assert path.dynamics_noise.shape == (horizon, len(expected), 0)


def test_a_horizon_beyond_every_trajectory_says_how_long_they_are():
    with pytest.raises(InputError, match="longest trajectory has 4 transitions"):
        segments(recorded(), 5)
    for horizon in (-1, 1.0, "2"):
        with pytest.raises(InputError, match="horizon is"):
            segments(recorded(), horizon)


def changed(name, row, value):
    column: Tensor = getattr(recorded(), name).clone()
    column[row] = value
    return column


# rows: 7 has 0–3, 3 has 4, 5 has 5–7
BROKEN: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "NaN state": (lambda: {"state": changed("state", 2, math.nan)}, "state is not finite in 1 row"),
    "infinite reward": (
        lambda: {"reward": changed("reward", 5, math.inf)},
        r"reward is not finite .*first: row 5",
    ),
    "a step is missing": (lambda: {"step": changed("step", 6, 5)}, "trajectory 5 after step 0"),
    "steps run backwards": (lambda: {"step": recorded().step.flip(0)}, "one step"),
    "a negative step": (lambda: {"step": recorded().step - 1}, "expected integers from 0"),
    "an id in two places": (lambda: {"trajectory": changed("trajectory", 7, 7)}, "several places"),
    "goes on after termination": (
        lambda: {"terminated": changed("terminated", 1, True)},
        "trajectory 7 after step 1 .* goes on after its end",
    ),
    "goes on after truncation": (
        lambda: {"truncated": changed("truncated", 5, True)},
        "goes on after its end",
    ),
    "another state follows": (
        lambda: {"next_state": changed("next_state", 1, torch.tensor([7.0, 9.0]))},
        "trajectory 7 after step 1 .* jumps",
    ),
    "a row too few": (lambda: {"reward": recorded().reward[:-1]}, "reward has 7 entries along row"),
    "a reward column": (lambda: {"reward": recorded().reward[:, None]}, "reward has shape"),
    "another width": (
        lambda: {"next_state": recorded().next_state[:, :1]},
        "next_state has 1 entries along state_name, expected 2",
    ),
    "mixed precision": (lambda: {"action": recorded().action.float()}, "action is torch.float32"),
    "integer states": (lambda: {"state": recorded().state.long()}, "state is torch.int64"),
    "numbers for booleans": (
        lambda: {"terminated": recorded().terminated.double()},
        "expected torch.bool",
    ),
    "an array": (lambda: {"state": np.zeros((8, 2))}, "state is a ndarray .* expected a tensor"),
    "names": (lambda: {"state_names": ("x",)}, "state_names has 1 entries, expected 2"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_inconsistent_record_is_named(how):
    changes, message = BROKEN[how]
    with pytest.raises(InputError, match=message):
        recorded(**changes())


def test_an_empty_record_is_refused():
    whole = recorded()
    empty = {name: getattr(whole, name)[:0] for name in trajectories.DIMS}
    with pytest.raises(InputError, match="row has no entries"):
        Trajectories(**empty)


def test_states_that_agree_to_float32_rounding_are_one_state():
    moved = changed("next_state", 1, torch.tensor([7.0 * (1 + 1e-7), 2.0]))
    assert len(recorded(next_state=moved)) == 8


def test_a_path_becomes_a_record_that_ends_where_it_died():
    record = recorded()
    whole = segments(dataclasses.replace(record), 3)  # two windows of 7 (the second dies), one of 5
    again = trajectories.from_path(whole)
    assert again.trajectory.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert again.terminated.tolist() == [False] * 5 + [True] + [False] * 3
    assert again.truncated.tolist() == [False, False, True] + [False] * 5 + [True]
    dead = dataclasses.replace(whole, alive=whole.alive.clone())
    dead.alive[1:, 0] = False
    shorter = trajectories.from_path(dead)
    assert shorter.trajectory.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert bool(shorter.terminated[0])


def put(table, name, values):
    table[name] = records.Array(values, table[name].dims)


def swapped(table):
    """Two rows, so that the states are square."""
    for name, array in table.items():
        if "row" in array.dims:
            put(table, name, array.values[:2])
    table["state"] = records.Array(table["state"].values, ("state_name", "row"))


DAMAGES = {  # what is done to the attributes and columns of a record
    "another kind": lambda told, table: told.update(kind="profile"),
    "no kind": lambda told, table: told.pop("kind"),
    "no reward": lambda told, table: table.pop("reward"),
    "swapped dims": lambda told, table: swapped(table),
    "text rewards": lambda told, table: put(table, "reward", np.array(["much"] * 8, dtype=object)),
    "half precision": lambda told, table: put(
        table, "state", table["state"].values.astype(np.float16)
    ),
    "wrapping steps": lambda told, table: put(
        table, "step", np.array([2**64 - 1, 0, 1, 2, 0, 0, 1, 2], dtype=np.uint64)
    ),
    "NaN": lambda told, table: put(
        table, "action", np.where(np.arange(8)[:, None] == 3, np.nan, table["action"].values)
    ),
}


@pytest.mark.parametrize("how", [*DAMAGES, "another group", "truncated", "text"])
def test_a_hostile_file_is_refused_in_one_line(tmp_path, how):
    path = tmp_path / "data.h5"
    recorded().save(path)
    record = records.read(path)
    told, table = dict(record.attributes), dict(record.groups["trajectories"])
    DAMAGES.get(how, lambda *_: None)(told, table)
    group = "profile" if how == "another group" else "trajectories"
    records.write(path, records.Record(told, {group: table}), overwrite=True)
    if how in ("truncated", "text"):
        path.write_bytes(path.read_bytes()[:-100] if how == "truncated" else b"state, action")
    with pytest.raises(InputError) as caught:
        record_files.read(path)
    assert "data.h5" in str(caught.value) and "\n" not in str(caught.value)


# Rows of experience, with and without episodes

STATE = torch.arange(12.0).reshape(6, 2)
NEXT = STATE + 2
ACTION, REWARD = torch.ones(6, 1), torch.arange(6.0)
ENDED = torch.tensor([False, False, True, False, False, False])


def test_rows_follow_one_another_within_an_episode_alone():
    record = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED)
    assert record.step.tolist() == [0] * 6
    assert torch.equal(record.truncated, ~ENDED)
    with pytest.raises(InputError, match="longest trajectory has 1"):
        trajectories.segments(record, 2)
    record = trajectories.from_rows(
        STATE, ACTION, REWARD, NEXT, ENDED, torch.tensor([4, 4, 4, 9, 9, 9])
    )
    assert record.step.tolist() == [0, 1, 2, 0, 1, 2]
    assert record.truncated.tolist() == [False] * 5 + [True]
    assert trajectories.segments(record, 3).states.shape == (4, 2, 2)


def test_joined_records_keep_their_trajectories_apart():
    episode = torch.tensor([0, 0, 0, 1, 1, 1])
    one = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED, episode)
    both = trajectories.joined([one, one])
    assert both.trajectory.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    cut = trajectories.first(both, 5)
    assert len(cut) == 5 and bool(cut.truncated[-1]) and not bool(cut.terminated[-1])


def test_rows_that_are_no_record_are_named():
    with pytest.raises(InputError, match="jumps"):
        trajectories.from_rows(
            STATE.flip(0), ACTION, REWARD, NEXT, ~ENDED & False, torch.zeros(6).long()
        )
    with pytest.raises(InputError, match=r"terminated is a Tensor .*float32"):
        trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED.float())
    with pytest.raises(InputError, match="expected integers"):
        trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED, REWARD)
    record = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED)
    with pytest.raises(InputError, match="actions of width 1, expected 2"):
        trajectories.check_widths(record, 2, 2)


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
    _, *found = (block for page, block in python_blocks().items() if "docs/files" in page)
    assert len(found) == len(FORMATS)
    for block in found:
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
