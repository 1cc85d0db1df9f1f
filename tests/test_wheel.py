"""The wheel works without the repository, and the source distribution has what a build needs.

    make package     builds dist/ and runs this with `-m package`

The wheel is unpacked into an environment of its own, which shares the installed dependencies: an
empty one, with everything downloaded, is a step of the release (CONTRIBUTING.md).
"""

import json
import os
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.own_files import LQR, OWN

pytestmark = pytest.mark.package
ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    with zipfile.ZipFile(ROOT / "dist" / f"gradlab_rl-{VERSION}-py3-none-any.whl") as wheel:
        wheel.extractall(packages)
    return folder / "bin" / "python"


def run(python, folder, *words):
    """What a command prints that is started outside of the repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_measures_and_reports_in_a_folder_of_its_own(python, tmp_path):
    at = run(python, tmp_path, "-c", "import gradlab; print(gradlab.__file__)").strip()
    assert Path(at).is_relative_to(python.parent.parent)
    assert run(python, tmp_path, "-m", "gradlab", "--version") == f"gradlab {VERSION}\n"
    assert "usage: gradlab" in run(python, tmp_path, "-m", "gradlab", "--help")
    (tmp_path / "own.py").write_text(OWN)
    given = ["--policy", "own.py:policy", "--critic", "own.py:critic", "--horizon", "2"]
    words = ["measure", *LQR, *given, "--starts", "64", "--no-report", "--json"]
    document = json.loads(run(python, tmp_path, "-m", "gradlab", *words))
    assert document["findings"]
    page = json.loads(run(python, tmp_path, "-m", "gradlab", "report", document["run"], "--json"))
    assert (tmp_path / page["report"]).is_file()


def test_a_users_program_sees_the_types(python, tmp_path):
    program = ROOT / "tests" / "typing" / "user_program.py"
    words = ["--strict", "--python-executable", python, "--cache-dir", tmp_path, program]
    assert "no issues" in run(Path(sys.executable), tmp_path, "-m", "mypy", *words)


def test_the_source_distribution_has_what_a_build_and_a_reader_need():
    with tarfile.open(ROOT / "dist" / f"gradlab_rl-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "gradlab").rglob("*.py")}
    beside = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert code | beside | {"constraints.txt", "gradlab/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "reports/"))]
