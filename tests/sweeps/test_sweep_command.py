"""`gradlab sweep`: failures, deaths, interruption, resumption, one writer."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gradlab
from gradlab import cli
from gradlab.errors import Failure, InputError
from gradlab.storage import whole_files
from gradlab.storage.whole_files import locked
from gradlab.tools.sweep import running
from gradlab.tools.sweep import table as index

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
ROWS: dict[str, Any] = {
    "command": "measure",
    "settings": {"task": "pendulum", "starts": 32},
    "run": [{"name": "plain"}, {"name": "bad", "critic": "fails"}, {"name": "wrong",
            "critic": "raises"}, {"name": "fatal", "critic": "dies"},
            {"name": "unlucky", "critic": "dies-once"}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    """Runs without torch, in a folder of their own."""
    monkeypatch.setattr(running, "CHILD", "tests.sweeps.held")
    monkeypatch.chdir(tmp_path)


def toml(table, path):
    """The file of a table whose values JSON writes as TOML does."""
    parts = [f'command = "{table["command"]}"', "[settings]"]
    parts += [f"{key} = {json.dumps(value)}" for key, value in table["settings"].items()]
    for run in table["run"]:
        parts += ["[[run]]", *(f"{key} = {json.dumps(value)}" for key, value in run.items())]
    path.write_text("\n".join(parts))
    return str(path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder after a sweep with every kind of ending, its exit code and what was printed."""
    folder = tmp_path_factory.mktemp("swept")
    patched = pytest.MonkeyPatch()
    patched.setattr(running, "CHILD", "tests.sweeps.held")
    patched.chdir(folder)
    file = toml(ROWS, folder / "table.toml")
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        code = cli.main(["sweep", file, "--workers", "1", "--output", str(folder / "out")])
    yield folder / "out", code, errors.getvalue()
    patched.undo()


def test_a_failure_is_kept_and_the_others_go_on(swept):
    folder, code, errors = swept
    rows = {row.name: row for row in index.load(folder).rows}
    assert code == 1
    assert {name: row.state for name, row in rows.items()} == {
        "plain": "done", "bad": "failed", "wrong": "failed", "fatal": "failed", "unlucky": "failed",
    }  # fmt: skip
    assert "No space left" in rows["bad"].error
    assert "exit code 1: see its log" in rows["wrong"].error
    assert "ValueError: a mistake" in (folder / "wrong.log").read_text()
    assert "SIGKILL" in rows["fatal"].error
    assert rows["plain"].sentence == "result: that of plain"
    assert "5 of 5: " in errors and "bad: failed" in errors


def test_the_page_has_a_row_per_run_and_escapes_what_stands_in_them(swept, capsys):
    folder = swept[0]
    (folder / "plain.html").touch()
    assert cli.main(["report", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recommendation"]["next"].startswith("read the errors of 4, then")
    page = (folder / "sweep.html").read_text()
    assert '<a href="plain.html">plain</a>' in page
    runs = page[page.index("<h2>Runs") : page.index('id="findings"')]
    assert runs.count("<tr>") == 1 + 5
    assert "No space left on device" in page and "gradlab sweep" in page


def test_resume_does_what_is_missing_and_nothing_else(swept):
    folder = swept[0].with_name("again")
    folder.mkdir()
    for name in ("sweep.json", "plain.h5"):
        (folder / name).write_bytes((swept[0] / name).read_bytes())
    runs = gradlab.sweep(ROWS, folder, workers=1, resume=True)
    states = {row.name: row.state for row in runs.rows}
    known = {row.name: row.state for row in index.load(swept[0]).rows}
    assert {*states} == {*known} and states["unlucky"] == "failed"
    assert not (folder / "plain.log").exists()  # it was done
    runs = gradlab.sweep(ROWS, folder, workers=1, resume=True)
    assert (folder / "unlucky.h5").exists()  # it was killed once, and began anew
    assert "--overwrite" in (folder / "unlucky.log").read_text().splitlines()[-1]
    table = runs.table().set_index("name")
    assert table.loc["unlucky", "state"] == "done" and table.loc["bad", "critic"] == "fails"
    with pytest.raises(InputError, match=r"plain of .* had other settings"):
        changed = {**ROWS, "settings": {"task": "pendulum", "starts": 33}}
        gradlab.sweep(changed, folder, resume=True)
    with pytest.raises(InputError, match="holds a sweep"):
        gradlab.sweep(ROWS, folder)


def test_control_c_lets_runs_save_and_leaves_the_rest_to_resume(tmp_path, capsys):
    rows = [{"name": "long", "critic": "sleeps"}, {"name": "later"}]
    file = toml({**ROWS, "run": rows}, tmp_path / "t.toml")
    words = ["sweep", file, "--workers", "1", "--output", "out"]
    pressed = threading.Thread(target=press, args=(tmp_path / "out/long.tried",))
    pressed.start()
    assert cli.main(words) == 130
    pressed.join()
    states = {row.name: row.state for row in index.load(tmp_path / "out").rows}
    assert states == {"long": "interrupted", "later": "waiting"}
    assert "repeat with --resume: 2 of 2" in capsys.readouterr().out
    # The interrupted run may begin again where its file is.
    (tmp_path / "out/long.tried").unlink()
    pressed = threading.Thread(target=press, args=(tmp_path / "out/long.tried",))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        gradlab.sweep({**ROWS, "run": rows}, tmp_path / "out", workers=1, resume=True)
    pressed.join()
    assert (tmp_path / "out/long.log").read_text().splitlines()[1].endswith("--overwrite --json")


def press(started):
    """Ctrl-C once the run has begun."""
    while not started.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_saves_nothing_in_time_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_SAVING", 0.5)
    pressed = threading.Thread(target=press, args=(tmp_path / "out/deaf.tried",))
    pressed.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        gradlab.sweep({**ROWS, "run": [{"name": "deaf", "critic": "deaf"}]}, tmp_path / "out")
    assert time.monotonic() - begun < 30
    assert index.load(tmp_path / "out").rows[0].state == "interrupted"
    assert not alive(int((tmp_path / "out/deaf.tried").read_text()))


SWEEPING = """
import sys
import gradlab
from gradlab.tools.sweep import running
running.CHILD = "tests.sweeps.held"
gradlab.sweep({"command": "measure", "settings": {"task": "pendulum", "critic": "sleeps"}}, "out")
"""


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_runs_do_not_outlive_a_killed_sweep(tmp_path):
    sweep = subprocess.Popen([sys.executable, "-c", SWEEPING], cwd=tmp_path, env=ENVIRONMENT)
    started = tmp_path / "out/measure.tried"
    wait_for(lambda: started.exists() and started.read_text())
    process = int(started.read_text())
    assert alive(process)
    sweep.kill()
    sweep.wait()
    wait_for(lambda: not alive(process))


def wait_for(what, seconds=60.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_sweeps_into_one_folder_and_an_index_that_cannot_be_written(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        locked(folder / ".sweep.lock"),
        pytest.raises(InputError, match=r"another sweep writes into .*out"),
    ):
        gradlab.sweep({**ROWS, "run": [{"name": "plain"}]}, folder)
    write, calls = whole_files.write, []

    def full(path, content):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(whole_files, "write", full)
    with pytest.raises(Failure, match=r"sweep\.json cannot be written \(No space left"):
        gradlab.sweep({**ROWS, "run": [{"name": "plain"}]}, folder)
    assert (folder / "plain.h5").exists()


def test_arguments_that_are_wrong_are_a_line(tmp_path):
    wrong: list[tuple[dict[str, Any], str]] = [
        (dict(workers=0), "workers is 0"), (dict(workers="two"), "workers is 'two'"),
        (dict(ray=6379), "ray is 6379"), (dict(output=3), "output is 3"),
        (dict(table=3), "the sweep is 3"), (dict(table={}), "command of the sweep is None"),
    ]  # fmt: skip
    for change, message in wrong:
        with pytest.raises(InputError, match=message):
            gradlab.sweep(**{"table": ROWS, "output": tmp_path / "out", **change})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"task": "pendulum", "starts": "many"}}, "run measure of the sweep: "),
        ({"settings": {"task": "pendulum", "horizn": 3}}, "no option --horizn: .*--horizon"),
        ({"settings": {}}, "needs TASK"),
        ({"settings": {"task": "pendulum", "seed": -1}}, "seed is -1"),
        ({"settings": {"task": "pendulum", "policy": "a\0b"}}, "NUL"),
    ],
)
def test_every_run_is_parsed_before_the_first_begins(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        gradlab.sweep({**ROWS, "run": [{}], **changes}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"file": "../../etc/passwd"}, {"state": "odd"}, {"more": 1}])
def test_an_index_of_somebody_else_is_no_way_out_of_its_folder(tmp_path, change):
    row = {"name": "a", "file": "a.h5", "words": ["measure"], "differs": {}}
    whole_files.write(tmp_path / "sweep.json", {"version": 1, "command": "", "rows": [row]})
    assert index.load(tmp_path).rows[0].state == "waiting"
    rows = [{**row, **change}]
    whole_files.write(tmp_path / "sweep.json", {"version": 1, "command": "", "rows": rows})
    with pytest.raises(InputError, match=r"sweep\.json is damaged"):
        index.load(tmp_path)
