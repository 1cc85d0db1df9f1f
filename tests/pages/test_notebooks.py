"""The notebooks run as they are committed, and are committed with their outputs."""

import json

import matplotlib
import pytest

from tests.pages import blocks

NOTEBOOKS = sorted((blocks.ROOT / "docs/notebooks").glob("*.ipynb"))


def cells_of(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


# The calls of "choosing" are those of the others, and dearer.
RUNS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == "choosing" else [])
    for path in NOTEBOOKS
]


@pytest.mark.parametrize("path", RUNS)
def test_every_cell_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, object] = {}
    for number, cell in enumerate(cells_of(path)):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert list(tmp_path.glob("*.h5")) or path.stem == "choosing"


def test_outputs_are_committed_and_no_cell_failed():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        outputs = [output for cell in cells_of(path) for output in cell["outputs"]]
        kinds = {output["output_type"] for output in outputs}
        assert "display_data" in kinds and "error" not in kinds
        assert "/tmp" not in json.dumps(outputs) and "/home" not in json.dumps(outputs)
