"""The notebooks run as they are committed, and are committed with their outputs.

What a newcomer who watches another library's training needs stands on its pages.
"""

import importlib
import json
import re

import matplotlib
import pytest

from gradlab import tasks
from tests.pages import blocks

NOTEBOOKS = sorted((blocks.ROOT / "docs/notebooks").glob("*.ipynb"))


def cells_of(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, object] = {}
    for number, cell in enumerate(cells_of(path)):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert list(tmp_path.glob("*.h5"))


def test_outputs_are_committed_and_no_cell_failed():
    assert len(NOTEBOOKS) == 1
    for path in NOTEBOOKS:
        outputs = [output for cell in cells_of(path) for output in cell["outputs"]]
        kinds = {output["output_type"] for output in outputs}
        assert "display_data" in kinds and "error" not in kinds
        assert "/tmp" not in json.dumps(outputs) and "/home" not in json.dumps(outputs)


PAGE = (blocks.ROOT / "docs/howto/trainers.md").read_text()
WATCH = (blocks.ROOT / "docs/watch.md").read_text()
API = (blocks.ROOT / "docs/reference/api.md").read_text()
PROBES = {
    "ProbeCallback": "gradlab.integrations.stable_baselines3",
    "ProbeHook": "gradlab.integrations.torchrl",
}


@pytest.mark.parametrize(("name", "module"), PROBES.items())
def test_import_lines_stand_where_the_class_is_used(name, module):
    line = f"from {module} import {name}"
    assert line in PAGE and line in WATCH and f".. autoclass:: {module}.{name}\n" in API
    assert importlib.util.find_spec(module) is not None


def test_every_task_of_the_table_has_the_width_of_its_environment():
    widths = {"Pendulum-v1": 3, "InvertedPendulum-v5": 4, "Hopper-v5": 11, "Ant-v5": 27}
    rows = dict(re.findall(r"^\| `([\w-]+)`.*?\| (`gradlab\.tasks.*?`)", PAGE, re.M))
    for name, width in widths.items():
        made = eval(rows[name].strip("`"), {"gradlab": type("gradlab", (), {"tasks": tasks})})
        assert made.simulator.state_dim == width, name
