"""`gradlab sweep`: failures, deaths, interruption, resumption, one writer."""

import contextlib
import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gradlab
from gradlab import cli
from gradlab.errors import Failure, InputError
from gradlab.storage import whole_files
from gradlab.storage.journal_files import locked
from gradlab.tools.sweep import command
from gradlab.tools.sweep import result as index
from gradlab.tools.sweep.runner import Runner
from gradlab.workers.local import processors

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
    monkeypatch.setattr(command, "RUNNER", "tests.sweeps.held:Fake")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
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
    patched.setattr(command, "RUNNER", "tests.sweeps.held:Fake")
    patched.syspath_prepend(str(Path(__file__).parents[2]))
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
        "plain": "done", "bad": "failed", "wrong": "failed", "fatal": "failed", "unlucky": "done",
    }  # fmt: skip
    assert "No space left" in rows["bad"].error
    assert "ValueError: a mistake" in rows["wrong"].error
    assert "SIGKILL" in rows["fatal"].error and "3 attempts" in rows["fatal"].error
    assert [rows[name].attempts for name in ("plain", "fatal", "unlucky")] == [1, 3, 2]
    assert rows["plain"].sentence == "Result of plain."
    assert "5 of 5: " in errors and "bad: failed" in errors


def test_a_worker_serves_run_after_run_and_a_retry_may_replace(swept):
    folder = swept[0]
    first, second = ((folder / f"{name}.log").read_text() for name in ("plain", "bad"))
    assert first.split(":")[0] == second.split(":")[0]
    assert "--overwrite" not in first
    assert (folder / "unlucky.log").read_text().splitlines()[1].endswith("--overwrite")


def test_the_page_has_a_row_per_run_and_escapes_what_stands_in_them(swept, capsys):
    folder = swept[0]
    (folder / "plain.html").touch()
    assert cli.main(["report", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recommendation"].startswith("Read the errors of 3 runs, then")
    page = (folder / "sweep.html").read_text()
    assert '<a href="plain.html">plain</a>' in page
    assert page.count("<tr>") == 1 + 5
    assert "No space left on device" in page and "gradlab sweep" in page


def test_resume_does_what_is_missing_and_nothing_else(swept):
    folder = swept[0].with_name("again")
    folder.mkdir()
    for name in ("sweep.json", "plain.h5"):
        (folder / name).write_bytes((swept[0] / name).read_bytes())
    runs = gradlab.sweep(ROWS, folder, workers=1, resume=True)
    states = {row.name: row.state for row in runs.rows}
    assert states == {row.name: row.state for row in index.load(swept[0]).rows}
    assert not (folder / "plain.log").exists()  # it was done
    assert (folder / "unlucky.h5").exists()  # it was done, but its file had gone
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
    assert "Repeat the command with --resume: 2 runs of 2" in capsys.readouterr().out
    # The interrupted run sleeps again, is killed by two signals, and both are kept apart.
    (tmp_path / "out/long.tried").unlink()
    pressed = threading.Thread(target=press, args=(tmp_path / "out/long.tried",))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        gradlab.sweep({**ROWS, "run": rows}, tmp_path / "out", workers=1, resume=True)
    pressed.join()
    assert (tmp_path / "out/long.log").read_text().splitlines()[1].endswith("--overwrite")


def press(started):
    """Ctrl-C once the run has begun."""
    while not started.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


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
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(whole_files, "write", full)
    with pytest.raises(Failure, match=r"sweep\.json cannot be written \(No space left"):
        gradlab.sweep({**ROWS, "run": [{"name": "plain"}]}, folder)
    assert (folder / "plain.h5").exists()


def test_arguments_that_are_wrong_and_more_workers_than_processors_are_a_line(tmp_path):
    cores = processors()
    with pytest.warns(UserWarning, match=f"{cores + 1} workers share {cores} processors"):
        gradlab.sweep({**ROWS, "run": [{"name": "plain"}]}, tmp_path / "out", workers=cores + 1)
    wrong: list[tuple[dict[str, Any], str]] = [
        (dict(workers=0), "workers is 0"), (dict(workers="two"), "workers is 'two'"),
        (dict(ray=6379), "ray is 6379"), (dict(output=3), "output is 3"),
        (dict(table=3), "the sweep is 3"), (dict(table={}), "command of the sweep is None"),
    ]  # fmt: skip
    for change, message in wrong:
        with pytest.raises(InputError, match=message):
            gradlab.sweep(**{"table": ROWS, "output": tmp_path / "out", **change})


@pytest.mark.ray
def test_a_sweep_on_ray_ends_as_on_processes_of_this_machine(tmp_path):
    pytest.importorskip("ray")
    runs = gradlab.sweep(ROWS, tmp_path / "out", workers=2, ray="local")
    states = {row.name: row.state for row in runs.rows}
    assert states == {
        "plain": "done", "bad": "failed", "wrong": "failed", "fatal": "failed", "unlucky": "done",
    }  # fmt: skip
    rows = [{"name": "long", "critic": "sleeps"}]
    pressed = threading.Thread(target=press, args=(tmp_path / "two/long.tried",))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        gradlab.sweep({**ROWS, "run": rows}, tmp_path / "two", workers=1, ray="local")
    pressed.join()
    assert index.load(tmp_path / "two").rows[0].state == "interrupted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"task": "pendulum", "starts": "many"}}, "run measure of the sweep: "),
        ({"settings": {"task": "pendulum", "seed": -1}}, "--seed is -1"),
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


@pytest.mark.parametrize("log", ["run.log", "/dev/full"])
def test_a_command_in_a_worker_has_its_error_also_where_its_log_is_full(tmp_path, log):
    code, sentence, error = Runner(".").run(["report", "absent.h5"], log)
    assert code == 2 and sentence == ""
    assert "absent.h5" in error and not error.startswith("gradlab")
    if log == "run.log":
        assert "gradlab: error: " in (tmp_path / log).read_text()


@pytest.mark.ray
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_dead_raylet_ends_the_sweep_and_what_is_done_stands(tmp_path, interrupted):
    ray = pytest.importorskip("ray")
    rows = [{"name": "plain"}, {"name": "long", "critic": "sleeps"}, {"name": "later"}]
    killed: list[float] = []

    def kill():
        while not (tmp_path / "out/long.tried").exists():
            time.sleep(0.05)
        time.sleep(1.0)  # the first run is noted
        (raylet,) = ray._private.worker._global_node.all_processes["raylet"]
        raylet.process.kill()
        killed.append(time.monotonic())
        if interrupted:
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=kill).start()
    with pytest.raises(KeyboardInterrupt if interrupted else Failure):
        gradlab.sweep({**ROWS, "run": rows}, tmp_path / "out", workers=1, ray="local")
    assert time.monotonic() - killed[0] < 45  # 30, and what Ray takes to end
    states = {row.name: row.state for row in index.load(tmp_path / "out").rows}
    assert states.pop("plain") == "done" and not {*states.values()} & {"done", "running"}
