"""A user's own file, named as file.py:function: what works, and what every mistake in it says."""

import re
import sys
from pathlib import Path

import pytest
import torch

from gradlab.cli import main
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.tasks import task_from_name
from gradlab.user_code import load_made, load_object

FILE = """
import torch
from sibling_of_mine import WIDTH

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(WIDTH, 1)

class Wide(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(width, 1)

ready = Net()

def make():
    from late_of_mine import SCALE
    return Net() if SCALE else None

def critic(state, action):
    return -(state**2).sum(1)

def raises():
    return 1 / 0

def task(discount=0.9):
    import gradlab
    return gradlab.tasks.linear_quadratic(discount=discount)
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "sibling_of_mine.py").write_text("WIDTH = 2\n")
    (tmp_path / "late_of_mine.py").write_text("SCALE = 1\n")
    (tmp_path / "mine.py").write_text(FILE)
    yield str(tmp_path / "mine.py")
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))
    for name in ("sibling_of_mine", "late_of_mine"):
        sys.modules.pop(name, None)


def test_the_folder_of_the_file_can_be_imported_from_and_hides_no_package(mine):
    assert load_object(f"{mine}:ready").in_features == 2
    assert sys.path[-1] == str(Path(mine).parent) and sys.path.count(sys.path[-1]) == 1
    load_object(f"{mine}:ready")
    assert sys.path.count(sys.path[-1]) == 1


@pytest.mark.parametrize("name", ["make", "ready", "Net"])
def test_a_network_is_made_by_a_function_or_a_class_or_is_there(mine, name):
    assert isinstance(checkpoint.load(f"{mine}:{name}"), torch.nn.Linear)


def test_a_function_that_needs_arguments_is_what_is_asked_for(mine):
    states = torch.ones(3, 2)
    assert load_made(f"{mine}:critic")(states, states).tolist() == [-2.0] * 3


def test_a_task_takes_its_settings_and_says_where_it_refuses_them(mine):
    assert task_from_name(f"{mine}:task", {"discount": 0.5}).discount == 0.5
    line = 1 + FILE.split("\n").index(FILE.rstrip().split("\n")[-1])
    with pytest.raises(InputError, match=rf"mine\.py, line {line}: discount is 3, expected"):
        task_from_name(f"{mine}:task", {"discount": 3})
    with pytest.raises(InputError, match="discont"):
        task_from_name(f"{mine}:task", {"discont": 3})


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("import nowhere_at_all\n", "make", "line 1: ModuleNotFoundError: No module named 'nowh"),
        ("\ndef make(:\n", "make", "line 2: SyntaxError: "),
        ("raise SystemExit(3)\n", "make", "line 1 ends the process"),
        ("def make():\n    return 1 / 0\n", "make", "line 2: ZeroDivisionError: division by zero"),
        ("make = 3\n", "make", "make returned 3, expected a torch.nn.Module"),
        (
            "class make:\n    def __init__(self, x): ...\n",
            "make",
            "class that needs arguments",
        ),
        ("def make():\n    raise ValueError('two\\nlines')\n", "make", "ValueError: two lines"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place(tmp_path, text, name, words):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError) as error:
        checkpoint.load(f"{tmp_path}/mine.py:{name}")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert "mine.py" in str(error.value)


def test_the_line_is_that_of_the_innermost_own_file(tmp_path):
    (tmp_path / "helper_of_mine.py").write_text(
        "\n\ndef f():\n    torch = 0\n    return torch.zeros\n"
    )
    (tmp_path / "mine.py").write_text("def make():\n    from helper_of_mine import f\n    f()\n")
    with pytest.raises(InputError, match=r"helper_of_mine\.py, line 5: AttributeError"):
        load_made(f"{tmp_path}/mine.py:make")


@pytest.mark.parametrize("command", ["measure", "jacobians", "fit", "remedies", "train", "logs"])
def test_help_says_that_the_file_is_executed(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "file.py:function" not in shown or re.search("(file is|files are) executed", shown)
