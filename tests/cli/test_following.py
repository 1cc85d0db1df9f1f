"""`gradlab report RUN.h5 --follow`: the page of a run that another process writes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gradlab import cli
from gradlab.cli import reading
from gradlab.reporting.shell import GENERATOR
from tests.reporting import grown


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without figures, which take seconds."""

    def write(target, page, progress=None):
        target.write_text(GENERATOR)
        return target

    monkeypatch.setattr("gradlab.reporting.output.write", write)


@pytest.mark.slow
def test_a_growing_run_is_rendered_again_and_what_it_recommends_is_printed_until_ctrl_c(tmp_path):
    path, page = tmp_path / "run.h5", tmp_path / "run.html"
    follow = [sys.executable, "-m", "gradlab", "report", str(path), "--follow"]
    reader = subprocess.Popen(follow, stdout=subprocess.PIPE, text=True)
    with reader, grown.training(path) as writer:
        writer.append("updates", grown.update_row(0))
        writer.append("evaluations", grown.evaluation_row(0))
        assert "return −100 → −100" in reader.stdout.readline()
        before = page.stat().st_mtime_ns
        writer.append("updates", grown.update_row(1))  # recommends nothing else
        while page.stat().st_mtime_ns == before:
            time.sleep(0.05)
        writer.append("evaluations", grown.evaluation_row(40))
        while "−100 → −62" not in (line := reader.stdout.readline()):
            assert line, "the reader ended"
        reader.send_signal(signal.SIGINT)
        rest = reader.stdout.read()
        assert reader.wait(timeout=60) == 0
    assert rest.splitlines()[-1] == f"report: {page}" and page.exists()


def test_it_waits_for_a_run_and_ends_when_the_run_is_closed(tmp_path, capfd, monkeypatch, undrawn):
    path = tmp_path / "run.h5"
    monkeypatch.setattr(reading.time, "sleep", lambda _: path.exists() or grown.trained(path))
    assert cli.main(["report", str(path), "--follow"]) == 0
    out, err = capfd.readouterr()
    assert "no such file" in err and out.splitlines()[-1] == f"report: {tmp_path / 'run.html'}"
    assert "return −100 → −62" in out


def test_as_json_the_last_state_is_the_document(tmp_path, capsys, undrawn):
    path = grown.trained(tmp_path / "run.h5")
    assert cli.main(["report", str(path), "--follow", "--json"]) == 0
    followed = json.loads(capsys.readouterr().out)
    assert cli.main(["report", str(path), "--json"]) == 0
    assert followed == json.loads(capsys.readouterr().out)


def test_a_run_whose_writer_was_killed_is_followed_until_ctrl_c(tmp_path, capfd, monkeypatch):
    path = tmp_path / "run.h5"
    grown.killed(path)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(reading.time, "sleep", sleep)
    assert cli.main(["report", str(path), "--follow"]) == 0
    out, err = capfd.readouterr()
    assert err.count("has no evaluation yet") == 1 and out == "report: none was written\n"


@pytest.mark.parametrize("name", ["run.h5", "."])
def test_what_is_no_run_is_refused(tmp_path, name, capsys):
    (tmp_path / "run.h5").write_bytes(b"no HDF5 at all")
    assert cli.main(["report", str(tmp_path / name), "--follow"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
