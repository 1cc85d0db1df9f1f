"""`gradlab fit` on data that are wrong, poor or repeated: a clear error, or a counted remark."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab import cli
from gradlab.data import record_files
from gradlab.data.trajectories import from_rows
from gradlab.fitting.collection import collect
from gradlab.storage import records
from gradlab.tasks import pendulum

WORDS = ("--members", "3", "--hidden", "8", "--epochs", "3", "--neighbours", "3", "--json")


@pytest.fixture(scope="module")
def record():
    return collect(pendulum(), 120)


def fit(data, folder, *words):
    file = data if isinstance(data, Path) else data.save(folder / "data.h5", overwrite=True)
    place = ("--data", str(file), "--output", str(folder / "m.safetensors"), "--overwrite")
    return cli.main(["fit", "pendulum", *place, *WORDS, *words])


def said(capsys):
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    return " ".join(each["text"] for each in verdict if each["decided"])


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
    assert "Constant" in text and f": {record.action_names[0]}, reward." in text
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
