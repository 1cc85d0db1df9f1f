"""What a newcomer who watches another library's training needs stands on its pages."""

import importlib
import re

import pytest

from gradlab import tasks
from tests.pages import blocks

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
