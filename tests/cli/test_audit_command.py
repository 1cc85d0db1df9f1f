"""`gradlab audit` takes a user's file, and its exit code is the verdict."""

import json

import pytest

from gradlab import cli

FILE = """
import torch
from torch import nn

def made(cut=False):
    torch.manual_seed(0)
    actor, critic = nn.Linear(3, 2), nn.Linear(5, 1)
    def loss(s, length=1):
        a = actor(s).detach() if cut else actor(s)
        print("chatter on standard output")
        return -critic(torch.cat([s, a], 1)).mean() + 0.1 * actor(s).square().mean() * length
    return dict(loss=loss, actor=actor, critic=critic, inputs=torch.ones(4, 3))

def sound():
    return made()

def cut():
    return made(cut=True)

def fails():
    return made() | {"loss": lambda s: 1 / 0}

def number():
    return 3

def unknown():
    return made() | {"policy": None}

def short():
    return {"loss": print}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_sound_loss_exits_with_zero(mine, capsys):
    assert cli.main(["audit", f"{mine}:sound"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("The actor's gradient is whole") and "chatter" not in out
    assert "weight" in out and "critic" in out


def test_lost_path_exits_with_one_and_names_the_line(mine, capsys):
    assert cli.main(["audit", f"{mine}:cut", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    wrong = [row for row in document["findings"] if row["severity"] == "wrong"]
    assert [(row["kind"], row["place"]) for row in wrong] == [("detached", "mine.py, line 9")]
    assert {row["path"] for row in document["table"]} == {"critic", "neither"}


def test_lengths_are_handed_to_the_loss(mine, capsys):
    assert cli.main(["audit", f"{mine}:sound", "--lengths", "4", "8", "--json"]) == 0
    (scale,) = json.loads(capsys.readouterr().out)["scales"]
    assert scale["role"] == "actor" and scale["ratio"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{file}:number", "gives a int, expected a dict of the arguments of gradlab.audit"),
        ("{file}:unknown", "gives 'policy', expected any of loss, actor"),
        ("{file}:short", "gives no actor"),
        ("{file}:fails", "loss failed (ZeroDivisionError: division by zero; "),
        ("{file}:nothing", "has no function 'nothing'"),
        ("{file}", "is no function of a file, expected FILE.py:FUNCTION"),
        ("missing.py:f", "missing.py: no such file"),
    ],
)
def test_bad_file_is_refused_in_one_line(words, message, mine, capsys):
    assert cli.main(["audit", words.format(file=mine)]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
