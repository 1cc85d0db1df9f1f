"""Wrong words are refused in one short line that names the command and what to do."""

import shlex
from pathlib import Path

import pytest

from gradlab import cli
from gradlab.cli import program

REFUSED = {
    (
        "report",
        "run.h5",
        "--overwrite",
    ): "gradlab report has no option --overwrite: an ",
    ("report", "--overwrite"): "gradlab report has no option --overwrite: an ",
    ("report",): "gradlab report needs RUN.h5|FOLDER; see gradlab report --help",
    ("choose",): "gradlab choose needs RUN.h5; see gradlab choose --help",
    ("train", "mpg-v2"): "gradlab train needs TASK; see",
    ("logs",): "gradlab logs needs DATA --policy FILE; see",
    ("measure", "pendulum", "--start", "3"): "has no option --start: did you mean --starts",
    ("measure", "pendulum", "--starts"): "gradlab measure: --starts needs a value",
    ("measure", "pendulum", "--starts", "x"): "--starts is 'x', expected an integer",
    ("measure", "pendulum", "--truth", "x"): "--truth is 'x', expected one of ",
    ("report", "a.h5", "b.h5"): "gradlab report takes no further 'b.h5'",
    ("measure", "pendulum", "--resume"): "has no option --resume: measurements are not resumed, "
    "run it again with --overwrite; `gradlab train` and `gradlab sweep` resume",
    ("certify", "pendulum", "--output", "x.h5"): "--output is x.h5: certify writes the "
    "certificate as --output FILE.json and the page as --html FILE.html, no .h5",
    ("mesure", "pendulum"): "gradlab has no command 'mesure': did you mean measure?",
    (): "gradlab needs a command; see gradlab --help",
    ("train", "ppo", "pendulum"): "algorithm is 'ppo', which gradlab does not train",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_wrong_words_are_refused_in_one_short_line(words, capsys):
    assert cli.main(list(words)) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("gradlab: error: ") and err.count("\n") == 1
    assert REFUSED[words] in err and len(err) < 450


@pytest.mark.parametrize("name", program.REMOVED)
def test_a_removed_command_says_in_one_line_what_to_use(name, capsys):
    assert cli.main([name, "x"]) == cli.main([name, "--help"]) == 2
    out, err = capsys.readouterr()
    line = f"gradlab {name} was removed: {program.REMOVED[name]}"
    assert not out and err.splitlines() == [line] * 2 and name not in program._ROWS


def test_what_a_removed_command_names_is_there():
    for used in program.REMOVED.values():
        words = shlex.split(used)
        if words[0] == "gradlab":
            assert words[1] in program._ROWS
        place = Path(__file__).parents[2] / words[-1]
        assert words[0] in ("gradlab", "make") or place.exists()
