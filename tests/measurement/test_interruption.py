"""Stopped by Ctrl-C or SIGTERM, a measurement keeps what the stages before it have found."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradlab import load, measure, tasks
from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.fitting import critics
from gradlab.measurement import measure as measurement
from gradlab.networks import checkpoint
from gradlab.runs.profile import Profile
from gradlab.runs.stages import Interrupted, completed
from gradlab.storage import records
from tests.own_files import OWN

LQR = dict(
    A=[[0.9]], B=[[0.5]], Q=[[1.0]], R=[[1.0]], noise_covariance=[[0.01]], start_mean=[0.0],
    start_covariance=[[1.0]], discount=0.9,
)  # fmt: skip
WORDS = ["linear_quadratic", "--set", *(f"{name}={json.dumps(v)}" for name, v in LQR.items())]


def stopped_at(stage: str, **rest: object) -> Profile:
    """The profile of a measurement that was stopped when `stage` began."""

    def progress(now: str, done: int, total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        measured(progress=progress, **rest)
    if not isinstance(stop.value, Interrupted):
        raise stop.value
    assert stop.value.stage == stage
    return stop.value.profile


def measured(**rest: object) -> Profile:
    scope: dict[str, object] = {}
    exec(OWN, scope)
    policy, critic = scope["policy"], scope["critic"]
    assert callable(policy) and callable(critic)
    task = tasks.linear_quadratic(**LQR)
    return measure(task, policy(), critic(), horizon=2, starts=16, **rest)


@pytest.mark.parametrize("stage", ["checks", "rehearsal"])
def test_what_was_measured_before_stands_in_the_file(stage, tmp_path):
    whole = measured()
    kept = load(stopped_at(stage).save(tmp_path / "run.h5"))
    assert kept.config["interrupted"] == stage and "interrupted" not in whole.config
    pd.testing.assert_frame_equal(kept.table(), whole.table())
    assert kept.sanity is None and kept.realised is not None
    assert (kept.rehearsal is None) == (stage == "rehearsal")


@pytest.mark.parametrize("stage", ["truth", "estimators"])
def test_before_the_estimators_there_is_nothing_to_keep(stage):
    with pytest.raises(KeyboardInterrupt) as stop:
        stopped_at(stage)
    assert not isinstance(stop.value, Interrupted)


def test_other_errors_of_a_stage_pass():
    def fail(profile: Profile) -> Profile:
        raise InputError("a stage that fails")

    with pytest.raises(InputError):
        completed(stopped_at("checks"), {"checks": fail}, 0.0)


def test_the_page_and_the_terminal_begin_with_the_interruption(tmp_path, monkeypatch):
    from gradlab.cli.answer import of_run
    from gradlab.reporting import profile_page, report

    monkeypatch.setattr(profile_page, "panels", lambda *_: [])  # figures take the time
    run = stopped_at("checks").save(tmp_path / "run.h5")
    document = of_run(run, page=False)
    assert next(iter(document)) == "notice" and "checks" in str(document["notice"])
    text = report(run).read_text()
    assert text.index("Interrupted in checks") < text.index('class="headline"')


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_command_leaves_a_readable_run(number, code, tmp_path):
    own, run = tmp_path / "own.py", tmp_path / "run.h5"
    own.write_text(OWN)
    records.write(run, records.Record({"complete": True}, {}))
    words = ["measure", *WORDS, "--policy", f"{own}:policy", "--critic", f"{own}:critic"]
    words += ["--horizon", "3", "--starts", "64", "--output", str(run), "--overwrite"]
    out, lines = ended([*words, "--no-report", "--json"], number, "checks: begins", code, tmp_path)
    document = json.loads(out)
    assert document["interrupted"] == "checks" and document["run"] == str(run)[:-3] + ".partial.h5"
    kept = load(tmp_path / "run.partial.h5")
    assert set(kept.table()["estimator"]) >= {"data", "model"}
    assert records.read(run).attributes == {"complete": True}  # an earlier run is left alone
    assert not any("Traceback" in line for line in lines)


@pytest.mark.slow
def test_a_command_that_is_killed_early_writes_nothing(tmp_path):
    runs = tmp_path / "runs"
    words = ["measure", *WORDS, "--output", str(runs / "run.h5")]
    out, lines = ended(words, signal.SIGTERM, "policy: begins", 143, tmp_path)
    assert out == "" and not list(runs.glob("*"))
    assert lines[-1].startswith("gradlab: terminated; ")


def test_the_same_command_goes_on_from_the_networks_that_were_fitted(tmp_path, monkeypatch, capsys):
    """A critic took two minutes, and was lost with a measurement that ended in its truth."""
    own, run = tmp_path / "own.py", tmp_path / "run.h5"
    own.write_text(OWN)
    fitted, whole = [], measurement.measure
    fit = critics.fit_critic
    monkeypatch.setattr(critics, "UPDATES", 3)
    monkeypatch.setattr(critics, "TRAJECTORIES", 4)
    monkeypatch.setattr(
        critics, "fit_critic", lambda *a, **k: fitted.append(fit(*a, **k)) or fitted[-1]
    )

    def stopped(*_, **__):
        raise KeyboardInterrupt

    def told(*more):
        words = ["measure", *WORDS, "--policy", f"{own}:policy", "--output", str(run), "--horizon"]
        code = main([*words, "2", "--starts", "16", "--no-report", "--no-rehearsal", *more])
        return code, capsys.readouterr().err.splitlines()[-1]

    monkeypatch.setattr(measurement, "measure", stopped)
    for count, more in ((1, ()), (1, ()), (2, ("--seed", "1"))):
        code, line = told(*more)
        assert code == 130 and len(fitted) == count
        assert "pilot and truth are lost, the fitted critic is kept: the same command" in line
    own.write_text(OWN + "\n")  # perhaps another task
    assert told()[0] == 130 and len(fitted) == 3
    monkeypatch.setattr(measurement, "measure", whole)
    assert told()[0] == 0 and len(fitted) == 3
    kept = checkpoint.load(tmp_path / "run.critic.safetensors").state_dict()
    assert all(torch.equal(kept[name], x) for name, x in fitted[2].state_dict().items())
    assert not list(tmp_path.glob("run.partial.*"))


def ended(
    words: list[str], number: signal.Signals, line: str, code: int, folder: Path
) -> tuple[str, list[str]]:
    """Standard output, and lines of standard error, of a command that gets a signal there."""
    command = [sys.executable, "-m", "gradlab", *words]
    with (folder / "out").open("w+") as out:
        with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            lines: list[str] = []
            for text in process.stderr:
                lines.append(text)
                if line in text:
                    process.send_signal(number)
        assert process.returncode == code, "".join(lines)
        out.seek(0)
        return out.read(), lines
