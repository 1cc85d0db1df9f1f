"""`benchmarks.unchanged compare`: what moved or went is a difference, what was added is none."""

import json

import numpy as np
import pytest

from benchmarks.unchanged import compare, removed

TEXTS = {"decisions/light": "act", "decisions/advised": ["model", "5"], "json/rate": 0.3}
ARRAYS = {
    "table/value bias2": np.array([1.0, 2e-17, np.nan, np.inf, 0.0]),
    "table/n bias2": np.array([64, 64]),
}


def written(folder, texts, arrays):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(texts))
    np.savez(folder / "run.npz", **arrays)
    return folder


def differences(tmp_path, texts, arrays, *given):
    before = written(tmp_path / "before", TEXTS, ARRAYS)
    return compare(before, written(tmp_path / "after", texts, arrays), *given)


def value(*entries):
    return ARRAYS | {"table/value bias2": np.array(entries)}


def off(factor):
    return TEXTS | {"json/rate": 0.3 * factor}, value(factor, 2e-17, np.nan, np.inf, 0.0)


@pytest.mark.parametrize(
    ("after", "exactly", "closely"),
    [
        ((TEXTS, ARRAYS), 0, 0),
        (off(1 + 1e-12), 2, 0),
        (off(1 + 1e-8), 2, 2),
        ((TEXTS, value(1.0, -3e-17, np.nan, np.inf, 1e-16)), 1, 0),  # rounding beside 1
        ((TEXTS, value(1.0, 1e-12, np.nan, np.inf, 0.0)), 1, 1),
        ((TEXTS, value(1.0, 2e-17, 0.0, np.inf, 0.0)), 1, 1),
        ((TEXTS, value(1.0, 2e-17, np.nan, -np.inf, 0.0)), 1, 1),
        ((TEXTS, value(1.0, 2e-17, np.nan, np.inf)), 1, 1),
        ((TEXTS, ARRAYS | {"table/n bias2": np.array([64, 65])}), 1, 1),
        ((TEXTS | {"decisions/light": "choose"}, ARRAYS), 1, 1),
        ((TEXTS | {"decisions/advised": ["model", "4"]}, ARRAYS), 1, 1),
        ((TEXTS | {"json/added": 1.0}, ARRAYS | {"table/value gain": np.zeros(2)}), 0, 0),
    ],
    ids=[
        "same", "1e-12", "1e-8", "rounding of zero", "beyond rounding", "no NaN", "other infinity",
        "a row less", "whole number", "light", "decision", "added",
    ],
)  # fmt: skip
def test_floats_are_compared_to_their_scale_and_all_else_exactly(tmp_path, after, exactly, closely):
    before, later = (
        written(tmp_path / name, *each)
        for name, each in (("before", (TEXTS, ARRAYS)), ("after", after))
    )
    assert compare(before, later) == exactly
    assert compare(before, later, 1e-10) == closely


def test_a_number_that_moves_is_named_with_its_relative_size(tmp_path, capsys):
    differences(tmp_path, *off(1 + 1e-8), 1e-10)
    told = capsys.readouterr().out
    assert "run: table/value bias2 moves in 1 of 5 by at most 1.0e-08" in told
    assert "run: json/rate moves in 1 of 1 by at most 1.0e-08" in told


@pytest.mark.parametrize(
    ("gone", "found"), [((), 1), (("run: table/value *",), 0), (("run: *",), 0), (("x: *",), 1)]
)
def test_what_is_missing_is_a_difference_unless_it_is_listed(tmp_path, gone, found):
    arrays = {"table/n bias2": ARRAYS["table/n bias2"]}
    assert differences(tmp_path, TEXTS, arrays, 1e-10, gone) == found


def test_a_listed_column_that_is_there_may_not_move(tmp_path):
    assert differences(tmp_path, *off(1 + 1e-8), 1e-10, ("run: table/*",)) == 2


@pytest.mark.parametrize(("gone", "found"), [((), 1), (("run: ",), 0), (("run: *",), 0)])
def test_a_case_that_is_missing_is_one_difference(tmp_path, gone, found):
    (tmp_path / "after").mkdir()
    before = written(tmp_path / "before", TEXTS, ARRAYS)
    assert compare(before, tmp_path / "after", 1e-10, gone) == found


def test_the_committed_list_names_a_case_and_a_name_in_each_line():
    assert all(": " in f"{line} " for line in removed())
