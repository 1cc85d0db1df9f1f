"""`benchmarks.unchanged compare`: what moved or went is a difference, what was added is none."""

import json

import pytest

from benchmarks.unchanged import compare

BEFORE = {"light": "act", "table": {"rows": 3, "value": "abc"}, "json": {"/table/0/value": "0x1p0"}}


@pytest.mark.parametrize(
    ("after", "differences"),
    [
        (BEFORE, 0),
        (BEFORE | {"table": BEFORE["table"] | {"unit": "def"}}, 0),
        (BEFORE | {"seconds": 1}, 0),
        (BEFORE | {"light": "choose"}, 1),
        (BEFORE | {"table": {"rows": 3}}, 1),
        (BEFORE | {"json": {"/table/0/value": "0x1.0000000000001p0"}}, 1),
        (None, 1),
    ],
    ids=["same", "column added", "field added", "light", "column gone", "number", "run gone"],
)
def test_what_is_a_difference(tmp_path, after, differences):
    for name, content in (("before", BEFORE), ("after", after)):
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "run-one.json").write_text(json.dumps(content))
    assert compare(tmp_path / "before", tmp_path / "after") == differences
