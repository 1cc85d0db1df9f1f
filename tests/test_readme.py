"""What the README shows runs as printed."""

import re
from pathlib import Path

import pytest

from gradlab.fitting import critics, policies

README = Path(__file__).parent.parent / "README.md"


def test_the_api_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policies, "UPDATES", 200)
    monkeypatch.setattr(critics, "UPDATES", 50)
    first = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)[0]
    exec(compile(first.replace("starts=512", "starts=64"), "README.md", "exec"), {})
    assert (tmp_path / "run.h5").exists()
    assert (tmp_path / "run.html").exists()


def test_files_that_the_readme_links_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("words", ["make demo", "make test"])
def test_the_two_commands_are_in_the_makefile(words):
    assert words in README.read_text()
    assert f"\n{words.split()[1]}:" in (README.parent / "Makefile").read_text()
