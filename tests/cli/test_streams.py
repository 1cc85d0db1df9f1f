"""Streams that are closed, full or know no Unicode (`gradlab.cli.terminal.streams`)."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from gradlab.cli import main
from gradlab.cli.terminal import streams
from gradlab.fitting import policies

ENDS = {"| head -c 1": 0, ">&-": 0, "> /dev/full": 1, "2> /dev/full": 0, "<&- >&- 2>&-": 0}
# What a terminal without UTF-8 gives Python; LANG=C alone is mended by Python itself.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


class Full(io.StringIO):
    """Standard output on a full disk."""

    def flush(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def shell(line, **environment):
    line = line.replace("gradlab", f"{sys.executable} -m gradlab", 1)
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("end", ENDS)
def test_a_stream_that_closes_or_is_full_leaves_no_traceback(end):
    found = shell(f"gradlab --help {end}")
    assert "Traceback" not in found.stderr and "Exception" not in found.stderr
    assert found.returncode == ENDS[end]
    lines = found.stderr.strip().splitlines()
    assert len(lines) == (end == "> /dev/full")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "end"), [("measure nowhere", ">&-"), ("nonsense", "2>&1 | head -c 1")]
)
def test_wrong_usage_keeps_its_exit_code(words, end):
    found = shell(f"gradlab {words} {end}")
    assert found.returncode == 2 and "Traceback" not in found.stderr


@pytest.mark.slow
def test_signs_are_escaped_where_the_terminal_has_ascii_alone():
    found = shell("gradlab list", **ASCII)
    assert found.returncode == 0 and not found.stderr
    assert found.stdout.isascii() and "A s + B u + w, reward" in found.stdout
    assert shell("gradlab nonsense", **ASCII).stderr.isascii()


@pytest.mark.slow
def test_json_keeps_every_sign_where_the_terminal_has_ascii_alone(capsys):
    plain = shell("gradlab list --json", **ASCII).stdout
    assert main(["list", "--json"]) == 0
    full = capsys.readouterr().out
    assert plain.isascii() and not full.isascii()
    assert json.loads(plain) == json.loads(full)


def test_an_argument_that_is_no_utf8_can_be_named_in_an_answer():
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=streams.ESCAPED)
    with streams.lasting():
        out.write("run: caf\udce9 θ")
    out.flush()
    assert out.buffer.getvalue() == "run: caf\\udce9 θ".encode()


def test_a_run_is_saved_although_its_answer_cannot_be_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policies, "UPDATES", 20)
    words = ["jacobians", "double_integrator", "--starts", "8", "--output", "run.h5", "--no-report"]
    monkeypatch.setattr(streams, "_drop", lambda _: None)  # pytest's own descriptor 1 stays
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Full())
        code = main(words)
    assert code == 1 and (tmp_path / "run.h5").stat().st_size > 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == (
        "gradlab: failed: standard output could not be written (No space left on device): "
        "give it a place that has space"
    )
