"""`gradlab certify`: its document, its files and its exit codes."""

import json

import pytest

from gradlab import cli

SYSTEMS = """
import gradlab

def sound():
    return gradlab.systems.from_function(lambda s, a: (0.9 * s + a, -s[:, 0] ** 2), 1, 1)

def wrong():
    step = lambda s, a: (0.9 * s + a + 0.2 * (s - s.detach()), -s[:, 0] ** 2)
    return gradlab.systems.from_function(step, 1, 1)

def reshaped():
    return gradlab.systems.from_function(lambda s, a: (s[:, :0], s[:, 0]), 1, 1)

def number():
    return 3
"""
FEW = ("--samples", "64")


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(SYSTEMS)
    return str(path)


def test_a_sound_system_ends_with_0_and_its_files(own, tmp_path):
    page, record = tmp_path / "page.html", tmp_path / "certificate.json"
    words = ["certify", f"{own}:sound", *FEW, "--html", str(page), "--output", str(record)]
    assert cli.main(words) == 0
    assert "<html" in page.read_text()
    document = json.loads(record.read_text())
    assert document["passed"] and document["system"] == "own.py:sound"


def test_a_wrong_derivative_ends_with_1(own, capsys):
    assert cli.main(["certify", f"{own}:wrong", *FEW, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["passed"]
    assert [each["block"] for each in document["findings"] if each["severity"] == "wrong"] == ["A"]


def test_fail_above_is_what_may_be_wrong(own):
    assert cli.main(["certify", f"{own}:wrong", *FEW, "--fail-above", "0.5"]) == 0


@pytest.mark.parametrize(
    ("simulator", "words", "message"),
    [
        ("reshaped", (), "step returned"),
        ("number", (), "expected a System or a Task"),
        ("sound", ("--fail-above", "0"), "fail_above"),
        ("sound", ("--html", "page.txt"), ".html"),
        ("sound", ("--samples", "1"), "samples"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(own, simulator, words, message, capsys):
    assert cli.main(["certify", f"{own}:{simulator}", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gradlab")]
    assert len(lines) == 1 and message in lines[0]
