"""Help and lists: one voice, 80 columns, and examples that the command itself takes."""

import dataclasses
import json
import re
import shlex
from typing import get_args

import pytest

from gradlab import cli
from gradlab.cli import program
from gradlab.cli.train import Train
from gradlab.cli.usage import examples
from gradlab.fitting.derivative_losses import LOSSES
from gradlab.gradients import named
from gradlab.tools.remedies.result import DEFAULT

CLASSES = {
    mark.name: row.__origin__ for row in get_args(program.Command) for mark in row.__metadata__
}
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
def test_help_begins_with_a_question_and_ends_with_two_examples(name, capsys):
    lines = page(capsys, name)
    assert max(map(len, lines)) <= COLUMNS
    assert re.fullmatch(r"[A-Z][^.?]*\?", lines[0]), lines[0]
    assert lines[2].startswith(f"usage: gradlab {name}")
    shown = [line.strip() for line in lines[lines.index("Examples:") + 1 :]]
    assert shown == examples(CLASSES[name]) and len(shown) == 2
    for example in shown:
        words = shlex.split(example)
        assert words[:2] == ["gradlab", name]
        assert type(program.parsed(words[1:])) is CLASSES[name]


def test_every_option_and_its_default_are_in_the_help(capsys):
    text = " ".join(" ".join(page(capsys, "measure")).split())
    for option in ("--set NAME=VALUE", "--truth {objective,matched}", "--judges INT", "--json"):
        assert f"{option} " in text
    assert "Number of starts; gradients" in text and "visited from them. Default: 512." in text
    assert "None" not in text and "(default" not in text
    assert "usage: gradlab logs DATA --policy FILE [options]" in page(capsys, "logs")


def test_every_loss_has_a_line_in_the_list_that_the_help_names(capsys):
    for command in ("fit", "train"):
        assert "--loss NAME|FILE" in "\n".join(page(capsys, command))
    assert "`gradlab list losses`" in " ".join(" ".join(page(capsys, "fit")).split())
    assert cli.main(["list", "losses", "--json"]) == 0
    losses = json.loads(capsys.readouterr().out)["losses"]
    assert losses.keys() == LOSSES.keys() | {"sobolev"} and all(losses.values())


def test_the_programs_help_has_every_command_with_its_question(capsys):
    lines = page(capsys)
    assert max(map(len, lines)) <= COLUMNS
    text = " ".join(" ".join(lines).split())
    for name in CLASSES:
        assert f" {name} {page(capsys, name)[0]}" in text


def test_lists_fit_a_terminal_and_mark_what_is_taken_by_default(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].endswith("* marks defaults.")
    marked = [line.split()[1] for line in lines if line.startswith("* ")]
    assert set(marked) == {"data", "model", "mixed", "true_dynamics", "nll", *DEFAULT} | {
        "model_all", "mixed_all", "true_dynamics_all",
    }  # fmt: skip
    assert any(line.startswith(f"  {named.mpg.__name__} ") for line in lines)


@pytest.mark.parametrize("name", CLASSES)
def test_no_list_of_options_is_longer_than_twenty(name, capsys):
    groups = getattr(CLASSES[name], "GROUPS", {})
    grouped = [each for names in groups.values() for each in names]
    fields = {f"{no}{x.name}" for x in dataclasses.fields(CLASSES[name]) for no in ("", "no_")}
    assert len(set(grouped)) == len(grouped) and set(grouped) <= fields
    lines = page(capsys, name)
    assert all(f"{title}:" in lines for title in groups)
    longest = max(("\n".join(lines) + "\n").split("\n\n"), key=lambda part: part.count("\n  -"))
    assert longest.count("\n  -") <= 20


def test_options_of_a_training_stand_in_groups_with_the_defaults_of_its_algorithm(capsys):
    own = page(capsys, "train", "td3")
    assert all(f"{title}:" in own for title in ("Options", *Train.GROUPS))
    lines = page(capsys, "train")
    text = " ".join(" ".join(own).split())
    assert "--delay INT Updates of the critic" in text and "networks. Default of td3: 2." in text
    assert "--target-steps INT Steps n of an n-step target of the critic. Not for td3" in text
    assert "td3" not in " ".join(lines).partition("Options:")[2].partition("Examples:")[0]
