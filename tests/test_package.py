"""What the package says about itself stands in one place, or is held equal to it.

pytest collects test files by their names alone: two of one name stop the whole suite.

The installation says in short what it does, without addresses, and shows all where it fails. What
the README shows runs as printed, and so does what pages show of stochastic policies.
"""

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

import gradlab
from gradlab import cli, machine

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradlab"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]


def test_the_version_is_that_of_pyproject(capsys):
    assert gradlab.__version__ == VERSION
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gradlab {VERSION}\n"
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    written = [f for f in (ROOT / "gradlab").rglob("*.py") if f'"{VERSION}"' in f.read_text()]
    assert not written


def test_another_system_than_linux_is_said_at_import(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.warns(UserWarning, match="Linux only, not darwin: use a container"):
        importlib.reload(gradlab)


def test_an_older_torch_is_refused_at_import_with_the_line_that_helps(monkeypatch):
    lowest = next(each for each in PROJECT["project"]["dependencies"] if "torch" in each)[7:]
    for old, new in (("2.5.1+cu124", "2.6.0"), ("1.13.1", "2.10.0a0")):
        monkeypatch.setattr(machine, "version", lambda *_, v=new: v)
        importlib.reload(gradlab)
        monkeypatch.setattr(machine, "version", lambda *_, v=old: v)
        with pytest.raises(ImportError, match=f"{old[:3]}.* ≥ {lowest}: pip install -U torch"):
            importlib.reload(gradlab)


def test_the_lowest_versions_that_are_tried_are_those_that_are_asked_for():
    names = [line for line in (ROOT / "floors.txt").read_text().splitlines() if line[0] != "#"]
    tried = dict(line.split("==") for line in names)
    asked = dict(line.split(">=") for line in PROJECT["project"]["dependencies"])
    assert tried.keys() == asked.keys()
    for name, lowest in asked.items():
        assert f"{tried[name]}.0".startswith(f"{lowest}."), name


def test_a_program_may_begin_with_a_function_that_stands_beside_its_command():
    names = [name for name, home in gradlab._HOMES.items() if home.endswith(".command")]
    assert names
    for name in names:
        program = f"import gradlab; assert callable(gradlab.{name})"
        subprocess.run([sys.executable, "-c", program], check=True)


def test_every_extra_is_documented():
    extras = set(PROJECT["project"]["optional-dependencies"])
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Extras\n")[2]
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", page, flags=re.M)
    documented = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert documented == extras


def test_files_beside_the_code_are_in_the_wheel():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["gradlab"]
    package = ROOT / "gradlab"
    files = [file for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    names = [str(file.relative_to(package)) for file in files if file.suffix != ".py"]
    assert "py.typed" in names
    missing = [name for name in names if not any(fnmatch(name, each) for each in patterns)]
    assert not missing


def test_no_constant_of_a_module_is_assigned_twice():
    """The second one is that of both: a ratio of two spacings was 0.3 in a certificate, not 4."""
    twice = []
    for file in (ROOT / "gradlab").rglob("*.py"):
        assigned = [
            each for each in ast.parse(file.read_text()).body if isinstance(each, ast.Assign)
        ]
        names = Counter(
            node.id for each in assigned for target in each.targets for node in ast.walk(target)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )  # fmt: skip
        twice += [f"{file.name}: {name}" for name, count in names.items() if count > 1]
    assert twice == []


def test_no_two_test_files_share_a_name():
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_what_is_installed_is_never_another_program_of_the_same_name():
    """ "gradlab" on the package index is somebody else's: extras refer to this distribution, and
    lines that are shown install from a clone."""
    name = PROJECT["project"]["name"]
    assert inspect.signature(machine.version).parameters["package"].default == name != "gradlab"
    extras = PROJECT["project"]["optional-dependencies"]
    assert {each.partition("[")[0] for row in extras.values() for each in row
            if each.startswith("gradlab")} == {name}  # fmt: skip
    by_index = re.compile(r"pip install\b[^\n`]*[\s'\"]gradlab(\[|['\"]?\s|$)", re.MULTILINE)
    assert by_index.search("pip install 'gradlab[sb3]'") and by_index.search("pip install gradlab")
    shown = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    files = [ROOT / each for each in shown.splitlines() if re.search(r"\.(py|md|yml|toml)$", each)]
    files = [each for each in files if each.name not in ("CHANGELOG.md", Path(__file__).name)]
    assert len(files) > 500
    assert [str(each) for each in files if by_index.search(each.read_text())] == []


def test_the_extra_that_a_message_names_is_one():
    extras = PROJECT["project"]["optional-dependencies"]
    asked = re.compile(r'(?:not_installed|required)\("[^"]+", "([^"]+)"')
    files = (ROOT / "gradlab").rglob("*.py")
    named = [match[1] for file in files for match in asked.finditer(file.read_text())]
    assert len(named) >= 6 and set(named) <= set(extras)


def test_no_unit_of_a_column_names_a_module_that_is_not_there():
    folders = "|".join(["gradlab", *(each.parent.name for each in PACKAGE.glob("*/__init__.py"))])
    path = re.compile(rf"\b(?:{folders})(?:\.\w+)+")
    named = {
        name.removeprefix("gradlab.")
        for file in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "").endswith("Column")
        for word in ast.walk(call)
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
        for name in path.findall(word.value)
    }
    homes = {name: name.split(".") for name in named}
    lost = {
        name
        for name, words in homes.items()
        if not any(PACKAGE.joinpath(*words[:k]).with_suffix(".py").is_file() for k in (2, 3, 4))
    }
    assert not lost


README, START = ROOT / "README.md", ROOT / "docs/start.md"


def test_files_that_the_readme_links_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing
