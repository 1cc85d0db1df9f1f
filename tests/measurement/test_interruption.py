"""Stopped by Ctrl-C or SIGTERM, a measurement keeps what the stages before it have found.

Simulators that leave the finite numbers are refused with step, start, state and action.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import gradlab
from gradlab import load, measure, tasks
from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.findings import failed
from gradlab.fitting import critics
from gradlab.measurement import measure as measurement
from gradlab.measurement.update import Update
from gradlab.runs.profile import Profile
from gradlab.runs.stages import Interrupted, completed
from gradlab.storage import records
from gradlab.systems import from_function
from gradlab.tasks import Task
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
    return measure(
        task, policy(), critic(), horizon=2, starts=16, judges=8, update=Update(refit=2), **rest
    )


@pytest.fixture(scope="module")
def whole() -> Profile:
    return measured()


@pytest.mark.parametrize("stage", ["checks", "rehearsal"])
def test_what_was_measured_before_stands_in_the_file(stage, whole, tmp_path):
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
    assert text.index("Interrupted in checks") < text.index('class="fields"')


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_command_leaves_a_readable_run(number, code, tmp_path):
    own, run = tmp_path / "own.py", tmp_path / "run.h5"
    own.write_text(OWN)
    records.write(run, records.Record({"complete": True}, {}))
    words = ["measure", *WORDS, "--policy", f"{own}:policy", "--critic", f"{own}:critic"]
    words += ["--horizon", "3", "--starts", "64", "--output", str(run), "--overwrite"]
    out, lines = ended([*words, "--no-report", "--json"], number, "checks: ", code, tmp_path)
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
    out, lines = ended(words, signal.SIGTERM, "policy: ", 143, tmp_path)
    assert out == "" and not list(runs.glob("*"))
    assert lines[-1].startswith("gradlab: terminated; ")


def test_what_was_fitted_is_kept_and_named(tmp_path, monkeypatch, capsys):
    """A critic took two minutes, and was lost with a measurement that ended in its truth."""
    own, run = tmp_path / "own.py", tmp_path / "run.h5"
    own.write_text(OWN)
    whole = measurement.conduct
    monkeypatch.setattr(critics, "UPDATES", 3)
    monkeypatch.setattr(critics, "TRAJECTORIES", 4)
    words = ["measure", *WORDS, "--policy", f"{own}:policy", "--output", str(run), "--horizon", "2"]
    words += ["--starts", "16", "--no-report", "--no-rehearsal"]

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "conduct", stopped)
    assert main(words) == 130
    kept = tmp_path / "run.partial.critic.safetensors"
    assert f"--critic {kept}" in capsys.readouterr().err and kept.is_file()
    monkeypatch.setattr(measurement, "conduct", whole)
    assert main(words) == 0 and not kept.exists()
    assert (tmp_path / "run.critic.safetensors").is_file()


def ended(
    words: list[str], number: signal.Signals, line: str, code: int, folder: Path
) -> tuple[str, list[str]]:
    """Standard output, and lines of standard error, of a command that gets a signal there."""
    eager = "from gradlab.cli import main, streams; streams._MINUTE = 0; raise SystemExit(main())"
    command = [sys.executable, "-c", eager, *words]
    with (folder / "out").open("w+") as out:
        with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            lines: list[str] = []
            sent = False
            for text in process.stderr:
                lines.append(text)
                if text.startswith(line) and not sent:
                    process.send_signal(number)
                    sent = True
        assert process.returncode == code, "".join(lines)
        out.seek(0)
        return out.read(), lines


GAIN, LIMIT, DISCOUNT = 0.5, 1.5, 0.9
STARTS = torch.tensor([[0.1], [-0.7], [0.4], [1.2], [0.9], [-0.2], [0.3], [0.6]]).double()


def policy():
    found = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(found.weight, GAIN)
    return found


def critic(state, action):
    return -(state[:, 0] ** 2) - action[:, 0] ** 2


def task(step, horizon=4, alive=None):
    system = from_function(step, 1, 1, alive=alive)
    return Task("own", system, None, lambda n, g: STARTS[:n].clone(), DISCOUNT, horizon)


def measured_with(step, starts=STARTS, alive=None, **given):
    settings = {"judges": 4, "rehearse": False} | given
    return gradlab.measure(task(step, alive=alive), policy(), critic, starts=starts, **settings)


def losing(what, value):
    """s′ = s + a = (1 + GAIN) s, with one number lost from states beyond LIMIT on."""

    def step(s, a):
        after, reward = s + a, -(s[:, 0] ** 2)
        if what == "reward":
            return after, torch.where(s[:, 0].abs() > LIMIT, value, reward)
        return torch.where(s.abs() > LIMIT, value, after), reward

    return step


@pytest.mark.parametrize("what", ["reward", "state"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_none_is_refused_where_it_is_made(what, value):
    path = [STARTS]
    while not (path[-1].abs() > LIMIT).any():
        path.append((1 + GAIN) * path[-1])
    start = int((path[-1].abs() > LIMIT).int().argmax())
    state = float(path[-1][start])
    assert len(path) == 2 and start == 3  # lost on the way, neither at once nor in the first start
    for starts, law in ((STARTS, None), (len(STARTS), "start"), (len(STARTS), "visited")):
        with pytest.raises(InputError) as refused:
            measured_with(losing(what, value), starts, law=law)
        said = str(refused.value)
        assert said.startswith(
            f"the simulator fails in step 1 from start {start}: its next {what} "
        )
        assert f"at state ({state:.3g}) and action ({GAIN * state:.3g})" in said


def test_a_reward_that_is_lost_beyond_the_horizon_is_refused_too():
    """The truth needs it."""
    steps = next(t for t in range(99) if float(STARTS.abs().max()) * 1.05**t > LIMIT)
    assert steps > 4

    def step(s, a):
        return 1.05 * s + 0 * a, losing("reward", torch.nan)(s, a)[1]

    with pytest.raises(InputError, match=f"fails in step {steps} from start 3: its next reward"):
        measured_with(step)


def test_a_return_that_overflows_after_finite_steps_says_so():
    largest = torch.finfo(torch.float64).max

    def rich(s, a):
        return 0.5 * s + 0.1 * a, torch.full_like(s[:, 0], 0.6 * largest) + 0 * a[:, 0]

    assert 0.6 < 1 < 0.6 * (1 + DISCOUNT)
    with pytest.raises(InputError, match=r"return overflows in step 1, from 8 of 8 starts \(first"):
        measured_with(rich)

    def growing(s, a):
        return 1e100 * (s + a), -s[:, 0].abs()

    with pytest.raises(InputError, match=r"in step 3, from 8 of 8 .* states are up to 4.1e\+300"):
        measured_with(growing)
    found = measured_with(growing, horizon=2)  # the steps before are measured, their truth is none
    assert (found.truth["code"], found.truth["value"]) == ("truth_lost", 8)


def test_what_comes_after_an_end_is_nobodys_loss():
    step, inside = losing("reward", torch.nan), lambda after: after[:, 0].abs() <= LIMIT
    found = measured_with(step, alive=inside, termination="mask")
    assert found.table().value.notna().all()
    with pytest.raises(InputError, match="from start 3"):
        measured_with(step, alive=inside)


def test_the_derivative_is_not_blamed_for_steps_that_are_not_finite():
    """Rewards are finite at integers alone, where the derivative is 0."""

    def step(s, a):
        return s + 0 * a, -(s[:, 0] ** 2) + (1 - 1e30 * (s - s.round()).square()).log().sum(1)

    starts = torch.arange(8).double()[:, None] - 3
    found = measured_with(step, starts)
    assert not failed(found.sanity, "simulator_wrong", "jacobians_wrong")
