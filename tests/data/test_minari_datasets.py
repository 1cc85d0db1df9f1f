"""Minari datasets and records: what goes there comes back, and hostile ones are refused."""

import json
import os
import sys
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Space
from minari.data_collector.episode_buffer import EpisodeBuffer

from gradlab.data import record_files, trajectories
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.tasks import mujoco

LENGTHS = (4, 1, 3)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def database(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "database"))
    return tmp_path / "database"


def recorded():
    """Episode 0 terminates, 1 is truncated, 2 is both at once."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for k, length in enumerate(LENGTHS):
        seen = torch.randn(length + 1, 2, generator=generator, dtype=torch.float64)
        last = torch.arange(length) == length - 1
        parts.append({
            "trajectory": torch.full((length,), k), "step": torch.arange(length),
            "state": seen[:-1], "next_state": seen[1:],
            "action": torch.randn(length, 1, generator=generator, dtype=torch.float64),
            "reward": torch.randn(length, generator=generator, dtype=torch.float64),
            "terminated": last & (k != 1), "truncated": last & (k != 0),
        })  # fmt: skip
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Trajectories(**columns, state_names=("x [m]", "θ [rad]"))


@pytest.mark.parametrize("name", ["minari:robots/arm-v2", "folder", "relative/folder"])
def test_a_record_comes_back_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = str(tmp_path / name) if name == "folder" else name
    record = recorded()
    record_files.write_minari(record, name)
    again = record_files.read_minari(name)
    for column in trajectories.DIMS:
        assert torch.equal(getattr(again, column), getattr(record, column))
    assert again.state_names == record.state_names and again.action_names == ("a0",)
    with pytest.raises(InputError, match="exists"):
        record_files.write_minari(record, name)


def test_minari_reads_what_gradlab_wrote():
    record = recorded()
    record_files.write_minari(record, "minari:robots/arm-v2")
    assert list(minari.list_local_datasets()) == ["robots/arm-v2"]
    dataset = minari.load_dataset("robots/arm-v2")
    assert dataset.total_steps == 8 and dataset.total_episodes == 3
    first = next(iter(dataset.iterate_episodes()))
    wanted = torch.cat([record.state[:4], record.next_state[3:4]])
    np.testing.assert_array_equal(first.observations, wanted)
    np.testing.assert_array_equal(first.rewards, record.reward[:4])
    assert first.terminations.tolist() == [False] * 3 + [True]
    assert not first.truncations.any()


def made(identifier, buffers, *spaces):
    minari.create_dataset_from_buffers(
        identifier, buffers, observation_space=spaces[0], action_space=spaces[1],
        algorithm_name="none", author="nobody", author_email="nobody", code_permalink="none",
    )  # fmt: skip


def walked(steps):
    """Gymnasium's Hopper under random actions; the record breaks off."""
    env = gymnasium.make("Hopper-v5")
    env.action_space.seed(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("action", "reward", "over", "cut")}
    seen = [env.reset(seed=0)[0]]
    for _ in range(steps):
        action = env.action_space.sample()
        observation, reward, over, cut, _ = env.step(action)
        seen.append(observation)
        for name, value in zip(columns, (action, reward, over, cut), strict=True):
            columns[name].append(value)
    return EpisodeBuffer(
        observations=np.array(seen),
        actions=np.array(columns["action"]),
        rewards=columns["reward"],
        terminations=columns["over"],
        truncations=columns["cut"],
    )


def test_observations_of_gymnasiums_hopper_are_states_of_gradlabs():
    made("hopper/random-v0", [walked(12)], Box(-np.inf, np.inf, (11,)), Box(-1, 1, (3,)))
    record = record_files.read_minari("minari:hopper/random-v0")
    out = mujoco("Hopper-v5").simulator.step(record.state, record.action)
    near = 1e-12
    torch.testing.assert_close(out.state, record.next_state, rtol=0, atol=near)
    # The reward is the difference of two positions over 0.008 s.
    torch.testing.assert_close(out.reward, record.reward, rtol=0, atol=2 * near / 0.008)
    assert record.truncated.tolist() == [False] * 11 + [True]
    assert not record.terminated.any()


def buffer(observations, actions):
    return EpisodeBuffer(
        observations=observations,
        actions=actions,
        rewards=[0.0, 0.0],
        terminations=[False, False],
        truncations=[False, True],
    )


VECTORS, NUMBERS = np.zeros((3, 2)), Box(-1, 1, (2,), np.float64)
IMAGES, PIXELS = np.zeros((3, 8, 8, 3), np.uint8), Box(0, 255, (8, 8, 3), np.uint8)
FOREIGN: dict[str, tuple[EpisodeBuffer, Space[Any], Space[Any], str]] = {
    "dictionaries": (
        buffer({"goal": VECTORS}, VECTORS[:2]),
        Dict({"goal": NUMBERS}),
        NUMBERS,
        "observation_space is Dict",
    ),
    "images": (
        buffer(IMAGES, VECTORS[:2]),
        PIXELS,
        NUMBERS,
        r"observation_space is Box\(.*\(8, 8, 3\)",
    ),
    "discrete": (
        buffer(VECTORS, np.zeros(2, np.int64)),
        NUMBERS,
        Discrete(3),
        "action_space is Discrete",
    ),
    "too few": (
        buffer(VECTORS[:2], VECTORS[:2]),
        NUMBERS,
        NUMBERS,
        "2 observations and 2 rewards",
    ),
    "NaN": (buffer(VECTORS * np.nan, VECTORS[:2]), NUMBERS, NUMBERS, "state is not finite in 2"),
}


@pytest.mark.parametrize("how", FOREIGN)
def test_what_is_no_record_of_vectors_is_refused(how):
    *given, message = FOREIGN[how]
    made("xx/foreign-v0", [given[0]], *given[1:])
    with pytest.raises(InputError, match=message):
        record_files.read_minari("minari:xx/foreign-v0")


def truncate(place):
    file = place / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:-200])


def no_rewards(place):
    with h5py.File(place / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]


def told(**changes):
    """Changes the metadata; what is None is left out."""

    def change(place):
        file = place / "metadata.json"
        metadata = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))

    return change


# Minari would make the environment, from whatever module the file names.
SPEC = {"id": "X-v0", "entry_point": "hostile:X", "kwargs": {}, "additional_wrappers": []}
DAMAGES = {
    "truncated": truncate, "no rewards": no_rewards,
    "no JSON": lambda place: (place / "metadata.json").write_text("{"),
    "an environment": told(observation_space=None, env_spec=json.dumps(SPEC)),
    "another format": told(data_format="stone"), "another version": told(minari_version="9.0.0"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dataset_is_refused_in_one_line(damage, tmp_path, monkeypatch):
    folder = record_files.write_minari(recorded(), tmp_path / "made")
    (folder / "data" / "hostile.py").write_text("import os\nos.environ['HOSTILE'] = 'ran'\n")
    monkeypatch.syspath_prepend(str(folder / "data"))
    DAMAGES[damage](folder / "data")
    with pytest.raises(InputError) as caught:
        record_files.read_minari(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert "HOSTILE" not in os.environ


def test_a_dataset_that_is_not_there_and_a_name_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InputError, match="minari:mujoco/hopper-v0: no such"):
        record_files.read_minari("minari:mujoco/hopper-v0")
    with pytest.raises(InputError, match="expected minari:NAME-vVERSION"):
        record_files.write_minari(recorded(), "minari:mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exists"):
        record_files.write_minari(recorded(), tmp_path / "file")


def test_without_the_extra_its_name_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(InputError, match=r"'\.\[minari\]'"):
        record_files.read_minari(tmp_path)
    with pytest.raises(InputError, match=r"'\.\[minari\]'"):
        record_files.write_minari(recorded(), tmp_path / "new")
