"""A record beside a simulator: planted differences are found and named, sound records are not.

`gradlab fit` on data that are wrong, poor or repeated: a clear error, or a counted remark.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab import cli, systems
from gradlab.data import record_files
from gradlab.data.trajectories import NUMBERS, from_rows
from gradlab.errors import InputError
from gradlab.fitting.collection import agreement, collect
from gradlab.storage import records
from gradlab.tasks import (
    Task,
    double_integrator,
    inverted_pendulum,
    mujoco,
    path_tracking,
    pendulum,
)

SOUND = {
    "path tracking": path_tracking, "pendulum": pendulum, "inferred noise": double_integrator,
    "terminations": inverted_pendulum, "contacts": lambda: mujoco("Hopper-v5"),
}  # fmt: skip


def single(record):
    return replace(record, **{name: getattr(record, name).float() for name in NUMBERS})


def by_name(found):
    return {each.quantity: each for each in found.differences}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_record_agrees_in_double_and_in_single_precision(name):
    task = SOUND[name]()
    record = collect(task, 500)
    for given in (record, single(record)):
        found = agreement(task, given)
        assert (found.rows, found.total) == (300, 500)
        assert all(each.rows == 0 for each in found.differences), str(found)
        assert "next states agree (" in str(found) and "terminations agree." in str(found)


def test_a_penalty_of_large_actions_is_found_and_named():
    task = pendulum()
    record = collect(task, 500)
    size = record.action[:, 0].abs()
    large = size > size.quantile(0.7)
    wrong = replace(record, reward=record.reward - 0.9 * large)
    found = by_name(agreement(task, wrong))
    assert found["rewards"].largest == pytest.approx(0.9)
    assert 60 < found["rewards"].rows < 120
    assert found["next states"].rows == found["terminations"].rows == 0
    says = f"rewards differ by up to 0.9 in {found['rewards'].rows} rows"
    assert says in str(agreement(task, wrong))


def test_what_rounding_of_stiff_states_explains_is_no_difference():
    system = systems.from_function(lambda s, a: ((1e5 * s).sin() + a, a[:, 0]), 1, 1)
    starts = lambda n, generator: torch.randn(n, 1, generator=generator, dtype=torch.float64)  # noqa: E731
    task = Task("stiff", system, None, starts, discount=0.9, horizon=1)
    record = collect(task, 400, length=1)
    rounded = single(record)
    found = by_name(agreement(task, rounded))["next states"]
    assert found.largest > 1e-3 and found.rows == 0
    moved = replace(rounded, next_state=rounded.next_state + 0.2)
    assert by_name(agreement(task, moved))["next states"].rows == 300
    moved = replace(record, next_state=record.next_state + 1e-4)
    assert by_name(agreement(task, moved))["next states"].rows == 300


def test_time_limits_that_are_called_terminations_are_found():
    task = pendulum()
    record = collect(task, 500, length=5)
    wrong = replace(record, terminated=record.truncated, truncated=record.terminated)
    found = by_name(agreement(task, wrong))["terminations"]
    assert 40 < found.rows < 80
    assert f"terminations differ in {found.rows} rows" in str(agreement(task, wrong))


def noisy():
    """x' = x + a + ξ/10, without a word on how ξ is inferred."""
    system = systems.from_function(
        lambda s, a, noise: (s + a + 0.1 * noise, -s[:, 0].square()), 1, 1, noise_dim=1
    )
    starts = lambda n, generator: torch.randn(n, 1, generator=generator, dtype=torch.float64)  # noqa: E731
    return Task("noisy", system, None, starts, discount=0.9, horizon=5)


def test_noise_is_inferred_where_it_can_be_else_the_mean_transition_is_compared():
    task = double_integrator()
    found = agreement(task, collect(task, 500))
    assert 2 < found.noise < 5
    assert f"with the noise that explains them, up to {found.noise:.2g} deviations" in str(found)
    blind = noisy()
    record = collect(blind, 500)
    found = agreement(blind, record)
    assert found.noise != found.noise and "without its noise, which cannot be inferred" in str(
        found
    )
    assert 0.2 < by_name(found)["next states"].largest < 0.5
    assert by_name(found)["rewards"].rows == 0


def test_the_same_rows_are_stepped_every_time_and_few_rows_are_all():
    task = pendulum()
    record = collect(task, 40)
    assert agreement(task, record) == agreement(task, record)
    assert agreement(task, record).rows == 40
    wrong = replace(record, reward=record.reward - 0.9 * (torch.arange(40) == 7))
    assert by_name(agreement(task, wrong))["rewards"].rows == 1


def test_a_simulator_that_refuses_the_rows_says_so():
    def step(s, a):
        raise ValueError("out of coal")

    starts = lambda n, generator: torch.zeros(n, 1, dtype=torch.float64)  # noqa: E731
    task = Task("x", systems.from_function(step, 1, 1), None, starts, discount=0.9, horizon=5)
    source = noisy()
    with pytest.raises(InputError, match="out of coal"):
        agreement(task, collect(source, 20))


WORDS = ("--members", "3", "--hidden", "8", "--epochs", "3", "--neighbours", "3", "--json")


@pytest.fixture(scope="module")
def record():
    return collect(pendulum(), 120)


def fit(data, folder, *words):
    file = data if isinstance(data, Path) else data.save(folder / "data.h5", overwrite=True)
    place = ("--data", str(file), "--output", str(folder / "m.safetensors"), "--overwrite")
    return cli.main(["fit", "pendulum", *place, *WORDS, *words])


def said(capsys):
    verdict = json.loads(capsys.readouterr().out)["findings"]
    return " ".join(each["sentence"] for each in verdict if each["decision"] != "undecided")


@pytest.mark.parametrize("column", ["state", "action", "reward"])
def test_numbers_that_are_not_finite_are_refused_with_their_row(column, record, tmp_path, capsys):
    file = record.save(tmp_path / "nan.h5")
    held = records.read(file)
    table = dict(held.groups["trajectories"])
    values = table[column].values.copy()
    values[17] = np.nan
    table[column] = records.Array(values, table[column].dims)
    changed = records.Record(held.attributes, {"trajectories": table})
    records.write(file, changed, overwrite=True)
    assert fit(file, tmp_path) == 2
    assert f"{column} is not finite in 1 rows (first: row 17)" in capsys.readouterr().err


def test_data_of_other_widths_are_refused(tmp_path, capsys):
    zeros = torch.zeros(30, dtype=torch.float64)
    wide = torch.randn(30, 3, dtype=torch.float64)
    ended = zeros.bool()
    assert fit(from_rows(wide, wide[:, :1], zeros, wide, ended), tmp_path) == 2
    assert "states of width 3, expected 2" in capsys.readouterr().err
    assert fit(from_rows(wide[:, :2], wide, zeros, wide[:, :2], ended), tmp_path) == 2
    assert "actions of width 3, expected 1" in capsys.readouterr().err
    file = record_files.write_minari(from_rows(wide, wide, zeros, wide, ended), tmp_path / "minari")
    assert fit(file, tmp_path) == 2
    assert "states of width 3, expected 2" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["nll", "dd", "multistep", "sobolev"])
def test_constant_dimensions_are_named_and_the_rest_is_learned(loss, record, tmp_path, capsys):
    flat = replace(record, action=torch.full_like(record.action, 0.5), reward=0 * record.reward)
    assert fit(flat, tmp_path, "--loss", loss, "--steps", "2") == 0
    text = said(capsys)
    assert "Constant in these data" in text and f"({record.action_names[0]}, reward" in text
    fitted = records.read(tmp_path / "m.h5")
    assert np.isfinite(fitted.groups["curves"]["held_out"].values).all()
    assert fitted.attributes["loss"] == loss


def test_too_few_points_for_the_neighbours_are_refused(record, tmp_path, capsys):
    words = ("--loss", "dd", "--neighbours", "500")
    assert fit(record, tmp_path, *words) == 2
    assert "lower it, or record more" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_numbers_beyond_the_precision_of_the_fit_are_refused(record, tmp_path, capsys):
    assert fit(replace(record, reward=record.reward * 1e100), tmp_path) == 2
    assert "beyond torch.float32: rescale it" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()
