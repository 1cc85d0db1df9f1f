"""Tables of runs (`gradlab.tools.sweep.table`).

A sweep of real measurements: the numbers of the plain command, one page, one comparison.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gradlab.errors import InputError
from gradlab.tools.sweep import table
from gradlab.tools.sweep.table import planned

TOML = """
command = "measure"
[settings]
task = "pendulum"
no-report = true
set = {engine = "analytic", mass = 2}
[grid]
seed = [0, 1]
set.mass = [0.5, 1]
[[run]]
name = "good critic"
critic = "c.safetensors"
[[run]]
spectral = ["policy", "critic"]
trim_starts = 0.1
"""


def test_every_run_is_combined_with_every_point_of_the_grid(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(TOML)
    runs = planned(table.read(path))
    assert len(runs) == 2 * 4
    assert runs[0].name == "good-critic-seed-0-mass-0.5"
    assert runs[3].differs == {"critic": "c.safetensors", "seed": 1, "set.mass": 1}
    common = ["measure", "pendulum", "--no-report"]
    assert runs[3].words == (
        *common, "--critic", "c.safetensors", "--seed", "1", "--set", "engine=analytic", "mass=1",
    )  # fmt: skip
    assert runs[4].words[3:8] == ("--spectral", "policy", "critic", "--trim-starts", "0.1")
    assert runs[4].name == "spectral-policy-critic-trim_starts-0.1-seed-0-mass-0.5"


def words(command="train", **settings):
    (run,) = planned({"command": command, "settings": settings})
    return run.words


def test_values_become_the_words_that_a_user_would_type():
    given = dict(algorithm="td3", task="a.py:task", seeds=2, horizons=[0, 5], deterministic=True)
    assert words(**given) == (
        "train", "td3", "a.py:task", "--seeds", "2", "--horizons", "0", "5", "--deterministic",
    )  # fmt: skip
    negative = words(algorithm="td3", task="t", reward_scale=-0.5, two_model=False)
    assert negative == ("train", "td3", "t", "--reward-scale=-0.5")
    parameters = words("certify", simulator="s", set={"a": "red", "b": "1", "c": [1, 2], "d": True})
    assert parameters[2:] == ("--set", "a=red", 'b="1"', "c=[1, 2]", "d=true")


def test_names_are_distinct_and_short_and_leave_the_sweeps_own_alone():
    runs: list[dict[str, Any]] = [{"name": "a/b"}, {"name": "A b"}, {"name": "sweep"}]
    runs += [{"name": "x" * 300}, {"policy": "../../p.safetensors"}]
    rows = planned({"command": "measure", "settings": {"task": "t"}, "run": runs})
    names = [row.name for row in rows]
    assert names == ["a-b", "run-2", "run-3", "run-4", "policy-..-..-p.safetensors"]


def bad(**parts):
    return {"command": "measure", "settings": {"task": "pendulum"}, **parts}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"command": "mesure"}, "expected one of"),
        ({"command": 3}, "command of the sweep is 3"),
        ({"grids": {}}, "a part of the sweep is 'grids'"),
        ({"settings": {"task": "t", "output": "a.h5"}}, "has 'output', which the sweep decides"),
        ({"grid": {"resume": [True]}}, r"\[grid\] has 'resume'"),
        ({"run": [{"overwrite": True}]}, r"\[\[run\]\] 1 has 'overwrite'"),
        ({"settings": 3}, r"\[settings\] is 3"),
        ({"settings": {"task": "t", "set": 3}}, "set is 3, expected a table of parameters"),
        ({"settings": {"task": ["t"]}}, "task is a list"),
        ({"settings": {"task": "--help"}}, "task has '--help', which begins with -"),
        ({"settings": {"task": "t", "spectral": ["--help"]}}, "spectral has '--help'"),
        ({"settings": {"task": "t", "set": {"--help": 1}}}, "set has '--help'"),
        ({"grid": {"seed": 3}}, "seed = 3, expected a list"),
        ({"grid": {"seed": []}}, "expected a list"),
        ({"grid": {"seed": list(range(101)), "horizon": list(range(100))}}, "10100 runs"),
        ({"run": []}, "0 runs"),
        ({"run": {"name": "a"}}, "begin each with"),
        ({"run": [{"name": 3}]}, "name of a run is 3"),
    ],
)
def test_a_table_that_is_wrong_is_refused_in_one_line(parts, message):
    with pytest.raises(InputError, match=message) as caught:
        planned(bad(**parts))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "t.toml"
    with pytest.raises(InputError, match=r"t\.toml cannot be read"):
        table.read(path)
    path.write_text("command = measure")
    with pytest.raises(InputError, match=r"no TOML file.*line 1"):
        table.read(path)
    path.write_bytes(b"command = '\xff'")
    with pytest.raises(InputError, match="no TOML file"):
        table.read(path)


def test_the_table_of_the_page_is_one():
    text = (Path(__file__).parents[2] / "docs/machines.md").read_text()
    (block,) = re.findall(r"```toml\n(command.*?)```", text, re.DOTALL)
    assert len(planned(tomllib.loads(block))) == 12
