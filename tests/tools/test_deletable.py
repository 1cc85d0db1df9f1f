"""A tool is one folder: without it the core imports, helps, measures and reads its run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradlab
from gradlab.cli import program
from tests.own_files import OWN

HOME = Path(gradlab.__file__).parent
TOOLS = sorted(path.parent.name for path in (HOME / "tools").glob("*/__init__.py"))
ROWS = {name: row for name, row in program._ROWS.items() if isinstance(row, str)}
CHILD = """
import contextlib, io, sys
from pathlib import Path
import gradlab
from gradlab.cli import main
assert Path(gradlab.__file__).parent == Path("gradlab").resolve()
page, refusal = io.StringIO(), io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(page):
    main(["--help"])
rows = [line.split()[0] for line in page.getvalue().splitlines() if line.strip()]
assert "measure" in rows
for command in {commands}:
    assert command not in rows, command
    with contextlib.redirect_stderr(refusal):
        assert main([command, "x"]) == 2
    assert "is not installed" in refusal.getvalue(), refusal.getvalue()
for name in {names}:
    try:
        getattr(gradlab, name)
    except gradlab.errors.InputError as error:
        assert "is not installed" in str(error)
    else:
        raise AssertionError(name)
matrices = ["A=[[0.9]]", "B=[[0.5]]", "Q=[[1]]", "R=[[1]]", "noise_covariance=[[0.01]]"]
starts = ["start_mean=[0]", "start_covariance=[[1]]", "discount=0.9"]
given = ["--policy", "own.py:policy", "--critic", "own.py:critic", "--horizon", "1"]
words = ["measure", "linear_quadratic", "--set", *matrices, *starts, *given]
few = ["--starts", "8", "--truth", "matched", "--law", "start"]
assert main([*words, *few, "--no-report"]) == 0
from gradlab.reporting.output import advice_of
assert advice_of(next(Path("runs").glob("*.h5"))).use
"""


def home(tool):
    return f"gradlab.tools.{tool}."


@pytest.mark.parametrize(
    "tools",
    [TOOLS, *(pytest.param([tool], marks=pytest.mark.slow) for tool in TOOLS)],
    ids=" ".join,
)
def test_the_core_works_without_a_tools_folder(tools, tmp_path):
    shutil.copytree(HOME, tmp_path / "gradlab")
    for tool in tools:
        shutil.rmtree(tmp_path / "gradlab" / "tools" / tool)
    (tmp_path / "own.py").write_text(OWN)
    commands, names = (
        [name for name, row in rows.items() for tool in tools if row.startswith(home(tool))]
        for rows in (ROWS, gradlab._HOMES)
    )
    assert len(commands) >= len(tools)
    code = CHILD.format(commands=commands, names=names)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
