"""Errors name arguments as Python does in Python, and as options on the command line.

Arguments are refused in one wording: "X is …, expected …".
"""

import math
import re
from pathlib import Path

import pytest

import gradlab
from gradlab import validation
from gradlab.cli.program import main
from gradlab.errors import InputError, as_options, in_short
from gradlab.progress import check_progress

PACKAGE = Path(gradlab.__file__).parent
OPTION = re.compile(r"(?<![-\w])--[a-z][a-z-]*")
RAISED = re.compile(r"raise (?:InputError|Failure|KeyboardInterrupt)\((?:[^()]|\([^()]*\))*\)")
# Raised in a command's own code, beside a Python that has the same, and where the words say both;
# the cluster's are options of Ray's own commands.
APART = (
    "cli/", "runs/attribution.py", "training/first_networks.py", "machine.py",
)  # fmt: skip


@pytest.mark.parametrize(
    ("python", "option"),
    [
        ("go on with resume=True, or replace it with overwrite=True",
         "go on with --resume, or replace it with --overwrite"),
        ("start it with resume=False", "start it without --resume"),
        ("resume=False, then overwrite=True", "without --resume, then --overwrite"),
        ("preresume=True and overwrite=1", "preresume=True and overwrite=1"),
    ],
)  # fmt: skip
def test_the_command_line_says_arguments_as_options(python, option):
    assert as_options(python) == option


def test_errors_of_the_library_name_no_options():
    found = [
        (path.relative_to(PACKAGE).as_posix(), option)
        for path in PACKAGE.rglob("*.py")
        for raised in RAISED.findall(path.read_text())
        for option in OPTION.findall(raised)
    ]
    own = [each for each in found if not each[0].endswith("/command.py")]
    assert [each for each in own if not each[0].startswith(APART)] == []


def test_one_error_in_both_languages(tmp_path, capsys):
    there = tmp_path / "run.h5"
    there.write_bytes(b"")
    with pytest.raises(InputError, match="go on with resume=True, or replace it with overwrite="):
        gradlab.train("mpg-v2", gradlab.tasks.double_integrator(), output=there)
    assert main(["train", "mpg-v2", "double_integrator", "--output", str(there)]) == 2
    said = capsys.readouterr().err
    assert "go on with --resume, or replace it with --overwrite" in said


def test_an_error_in_progress_is_of_that_argument():
    def wrong(stage):
        pass

    with pytest.raises(InputError, match=r"progress is 3, expected a function of stage"):
        check_progress(3)
    with pytest.raises(InputError, match=r"progress cannot be called .*: give a function of stage"):
        check_progress(wrong)("fit", 1, 2)


def test_a_long_reason_ends_with_a_whole_word():
    """float32 was not supported "(… compute it in the s)"."""
    words = "compute it in the state's dtype " * 9
    short = in_short(f"{words}\nand a second line", 90)
    assert len(short) <= 90 and short.endswith(" …")
    assert words.startswith(f"{short.removesuffix(' …')} ")
    assert in_short(RuntimeError("told")) == "told" and in_short(ValueError()) == "ValueError"
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    assert not any(re.search(r"error\)\.split\w*\([^)]*\)(\[0\])?\[:", text) for text in sources)


REFUSED = [
    (validation.number, (math.nan,), {}, "x is nan, expected a finite number"),
    (validation.number, (True,), {"above": 0}, "x is True, expected a number > 0"),
    (validation.number, (-1,), {"least": 0}, "x is -1, expected a number ≥ 0"),
    (validation.number, (0.0,), {"above": 0, "most": 1}, "x is 0.0, expected a number in (0, 1]"),
    (validation.number, (1,), {"least": 0, "below": 1}, "x is 1, expected a number in [0, 1)"),
    (validation.number, (2, "a share"), {"most": 1}, "x is 2, expected a share"),
    (validation.whole, (1.0, 1), {}, "x is 1.0, expected an integer ≥ 1"),
    (validation.flag, (1,), {}, "x is 1, expected True or False"),
    (validation.word, ("b", ("a", "c")), {}, "x is 'b', expected one of a, c"),
    (validation.function, (3, "s"), {}, "x is 3, expected a function of s"),
    (validation.path, ("",), {}, "x is '', expected the path of a file"),
]


@pytest.mark.parametrize(("check", "values", "bounds", "message"), REFUSED)
def test_refused_arguments_are_named_with_what_was_expected(check, values, bounds, message):
    with pytest.raises(InputError) as refused:
        check("x", *values, **bounds)
    assert str(refused.value) == message


def test_numbers_at_closed_ends_are_taken():
    assert validation.number("x", 1, above=0, most=1) == validation.number("x", 1, least=1) == 1.0
