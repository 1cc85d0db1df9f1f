"""Help and lists: questions, options and examples that the command itself takes; 80 columns."""

import json
import shlex

import pytest

from gradlab import cli
from gradlab.cli import program
from gradlab.cli.usage import question
from gradlab.fitting.derivative_losses import LOSSES
from gradlab.tools.remedies.result import DEFAULT

CLASSES = program.commands()
COLUMNS = 80


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def page(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", CLASSES)
def test_help_asks_a_question_and_has_two_examples(name, capsys):
    lines = page(capsys, name)
    usage = [line for line in lines if line.startswith(f"usage: gradlab {name}")]
    assert len(usage) == 1 and max(len(line) for line in lines if line not in usage) <= COLUMNS
    assert " ".join(lines[:2]).strip().startswith(question(CLASSES[name]))
    assert question(CLASSES[name]).count("?") == 1
    shown = [line for line in lines if line.startswith(f"  gradlab {name}")]
    assert len(shown) == 2
    for example in shown:
        assert type(program.parsed(shlex.split(example)[1:])) is CLASSES[name]


def test_every_option_and_its_default_are_in_the_help(capsys):
    text = " ".join(" ".join(page(capsys, "measure")).replace("│", " ").split())
    for option in ("--set NAME=VALUE", "--truth objective|matched", "--judges INT", "--json"):
        assert f"{option} " in text
    assert "Number of starts, from which states are visited. (default: 512)" in text
    assert "None" not in text


def test_every_loss_has_a_line_in_the_list_that_the_help_names(capsys):
    for command in ("fit", "train"):
        assert "--loss NAME|FILE" in "\n".join(page(capsys, command))
    assert "`gradlab list losses`" in "\n".join(page(capsys, "fit"))
    assert cli.main(["list", "losses", "--json"]) == 0
    losses = json.loads(capsys.readouterr().out)["losses"]
    assert losses.keys() == LOSSES.keys() | {"sobolev"} and all(losses.values())


def test_the_programs_help_has_every_command_with_its_question(capsys):
    lines = page(capsys)
    assert max(map(len, lines)) <= COLUMNS
    text = " ".join(" ".join(lines).split())
    assert all(f" {name} {question(each)}" in text for name, each in CLASSES.items())


def test_lists_fit_a_terminal_and_mark_what_is_taken_by_default(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= COLUMNS and not [each for each in lines if each[-1:] == " "]
    assert lines[0].endswith("* marks defaults.")
    marked = [line.split()[1] for line in lines if line.startswith("* ")]
    assert set(marked) == {"data", "model", "mixed", "true_dynamics", "nll", *DEFAULT} | {
        "model_all", "mixed_all", "true_dynamics_all",
    }  # fmt: skip


def test_options_of_a_configuration_have_its_words_and_defaults(capsys):
    text = " ".join(" ".join(page(capsys, "train")).replace("│", " ").split())
    assert "--queue INT Gradients that may wait" in text
    assert "--precision float32|float64 Precision of training. Default: float32." in text
