"""Commands do what they say, refuse in one line, and keep standard output for the answer.

Streams that are closed, full or know no Unicode (`gradlab.cli.streams`). Wrong words are refused in
one short line that names the command and what to do.
"""

import contextlib
import errno
import io
import json
import os
import shlex
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from gradlab import cli
from gradlab.cli import main, program, streams
from gradlab.cli import measure as measure_command
from gradlab.cli.answer import answer
from gradlab.cli.streams import in_one_line
from gradlab.errors import InputError
from gradlab.fitting import critics, policies
from gradlab.measurement import measure as measurement
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.reporting import output
from gradlab.reporting.page import Page, panel
from gradlab.storage import records
from gradlab.verdicts.measurement import verdict as verdicts
from tests import planted

SAVED: list[dict[str, str]] = []


@dataclass(frozen=True)
class Saved(planted.Profile):
    """The planted profile, which can be saved and knows its recommendation."""

    kind: ClassVar[str] = "planted"
    recommendation: ClassVar = planted.first_sentence(planted.VERDICT, "mse")

    def save(self, path, overwrite=False):
        SAVED.append(dict(self.environment))
        records.write(path, records.Record({"planted": True}, {}), overwrite)


@pytest.fixture
def calls(monkeypatch):
    """Replaces the long work by records of how it was called."""
    seen: dict[str, Any] = {}

    def measure(config, task, policy, critic, **rest):
        seen["measure"] = {"task": task, "policy": policy, "critic": critic, **rest}
        seen["measure"] |= asdict(config)
        rest["progress"]("rollouts", 1, 2)
        return Saved()

    def make_policy(task, **rest):
        seen["policy"] = rest
        return Policy(4, 1, (4,))

    def make_critic(task, policy, **rest):
        seen["critic"] = rest
        return QCritic(4, 1, (4,))

    monkeypatch.setattr(measurement, "conduct", measure)
    advice = planted.first_sentence(planted.VERDICT, "mse")
    drawn = panel("gain", "Gain", "", lambda table, ax: ax, planted.table())
    page = Page("inverted_pendulum", "Which gradient?", {}, advice, (drawn,))
    kind = output.Kind(lambda *_: page, lambda run: advice)
    monkeypatch.setattr(output, "_read", lambda path: (Saved(), kind))
    monkeypatch.setattr(output, "KINDS", {Saved.kind: kind})
    monkeypatch.setattr(verdicts, "advice", lambda profile: advice)
    monkeypatch.setattr(policies, "stabilising_policy", make_policy)
    monkeypatch.setattr(critics, "fit_critic", make_critic)
    return seen


def refused(capsys, *words):
    """The one line that a refused command prints."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradlab: error: ")
    assert err.count("\n") == 1
    return err


def test_the_wall_time_of_a_run_is_that_of_the_whole_command(calls, tmp_path, monkeypatch):
    """Fitted networks included: a measurement of 8 s was once a run of 100 s."""
    clock = iter([1000.0] + [1100.0] * 1000)
    monkeypatch.setattr("gradlab.cli.measure.time.monotonic", lambda: next(clock))
    assert cli.main(["measure", "inverted_pendulum", "--output", str(tmp_path / "run.h5")]) == 0
    assert SAVED[-1]["wall_seconds"] == "100.0"


def test_measure_hands_on_what_was_asked(calls, tmp_path, capsys):
    run = tmp_path / "new/run.h5"
    words = ["measure", "inverted_pendulum", "--set", "engine=analytic", "--horizon", "7"]
    words += ["--starts", "32", "--batch", "64", "--seed", "5", "--termination", "mask"]
    assert cli.main([*words, "--output", str(run)]) == 0
    asked = calls["measure"]
    expected = {"horizon": 7, "starts": 32, "batch": 64, "seed": 5, "termination": "mask"}
    assert {name: asked[name] for name in expected} == expected
    assert asked["task"].parameters["engine"] == "analytic"
    assert asked["command"].startswith("gradlab measure inverted_pendulum --set engine=analytic")
    assert calls["policy"]["seed"] == calls["critic"]["seed"] == 5
    assert calls["critic"]["termination"] == "mask"
    names = {path.name for path in run.parent.iterdir()}
    networks = {"run.policy.safetensors", "run.critic.safetensors"}
    assert names == {"run.h5", "run.html", "run_figures"} | networks
    out = capsys.readouterr().out
    assert " ".join(planted.VERDICT[0].text.split()) in " ".join(out.split())
    assert " ".join(planted.VERDICT[1].text.split()) not in " ".join(out.split())


def test_the_networks_are_named_where_they_are_not_the_users(calls, tmp_path, capsys, monkeypatch):
    """A trained pair where there is one; else fitted ones, which are kept with the run."""
    words = ["measure", "Hopper-v5", "--no-report", "--output"]
    assert cli.main([*words, str(tmp_path / "trained.h5")]) == 0
    assert "SAC's after 25,000 updates" in capsys.readouterr().out
    policy = calls["measure"]["policy"]
    assert type(policy) is GaussianPolicy
    assert calls["measure"]["termination"] == "mask"
    assert "policy" not in calls and "critic" not in calls
    checkpoint.save(policy, tmp_path / "mine.safetensors")
    mine = ["--policy", str(tmp_path / "mine.safetensors")]
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "runs/mine.h5", *mine]) == 0
    out = " ".join(capsys.readouterr().out.split())
    kept = "fitted here and kept in runs/mine.critic.safetensors"
    assert f"Networks: a critic of the policy, {kept}; give yours with --critic FILE." in out
    assert "critic" in calls and "policy" not in calls


@pytest.mark.parametrize("name", ["score", "ivw"])
@pytest.mark.parametrize("given", [True, False])
def test_scores_of_a_deterministic_policy_are_refused_before_anything_is_fitted(
    calls, tmp_path, capsys, name, given
):
    policy = tmp_path / "policy.safetensors"
    checkpoint.save(Policy(4, 1, (4,)).double(), policy)
    words = ["--policy", str(policy)] if given else []
    run = str(tmp_path / "run.h5")
    task = ["inverted_pendulum", "--set", "engine=analytic"]
    line = refused(capsys, "measure", *task, *words, "--also", name, "--output", run)
    assert ("a score needs a density" if given else "a stochastic policy") in line
    assert not calls


def test_json_is_one_document_and_everything_else_goes_to_standard_error(calls, tmp_path, capsys):
    run = str(tmp_path / "run.h5")
    assert cli.main(["measure", "inverted_pendulum", "--output", run, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [each["sentence"] for each in document["findings"]] == [
        each.text for each in planted.VERDICT
    ]
    assert document["run"] == run
    assert len(document["table"]) == len(planted.table())
    assert document["table"][0]["value"] == planted.table()["value"][0]
    assert "rollouts" not in err
    assert cli.main(["report", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "run.html")


def test_saved_networks_can_be_passed_back(calls, tmp_path):
    run = tmp_path / "run.h5"
    assert cli.main(["measure", "inverted_pendulum", "--output", str(run)]) == 0
    first = calls.pop("measure")
    calls.clear()
    given = ["--policy", str(tmp_path / "run.policy.safetensors")]
    given += ["--critic", str(tmp_path / "run.critic.safetensors")]
    other = str(tmp_path / "again.h5")
    assert cli.main(["measure", "inverted_pendulum", "--output", other, *given]) == 0
    assert set(calls) == {"measure"}
    state = torch.zeros(2, 4)
    assert torch.equal(calls["measure"]["policy"](state), first["policy"](state))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("measure", "no_such_task"), "inverted_pendulum"),
        (("measure", "inverted_pendulums"), "inverted_pendulum"),
        (("measure", "inverted_pendulum", "--set", "engine"), "NAME=VALUE"),
        (("measure", "inverted_pendulum", "--set", "a=1", "--set", "a=2"), "twice"),
        (("measure", "inverted_pendulum", "--set", "color=red"), "color"),
        (("measure", "inverted_pendulum", "--output", "run.html"), ".h5"),
        (("measure", "inverted_pendulum", "--policy", "absent.safetensors"), "absent.safetensors"),
        (("measure", "inverted_pendulum", "--critic", "absent.py:critic"), "absent.py"),
        (("report", "absent.h5"), "absent.h5"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_two(
    calls, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    if words[0] == "report":
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not calls


def test_existing_output_is_refused_before_any_work(calls, tmp_path, capsys):
    for name in ("run.h5", "run.policy.safetensors", "run.critic.safetensors", "run.html"):
        path = tmp_path / name
        path.write_text("mine")
        message = refused(
            capsys, "measure", "inverted_pendulum", "--output", str(tmp_path / "run.h5")
        )
        assert name in message
        assert path.read_text() == "mine"
        path.unlink()
    assert not calls


def test_overwrite_replaces_an_earlier_run(calls, tmp_path):
    words = ["measure", "inverted_pendulum", "--output", str(tmp_path / "run.h5"), "--no-report"]
    assert cli.main(words) == 0
    assert cli.main(words) == 2
    assert cli.main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (InputError("two\nlines"), 2)]
)
def test_an_interruption_or_bad_input_inside_leaves_one_line(
    calls, tmp_path, monkeypatch, capsys, error, code
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(measurement, "conduct", fail)
    run = tmp_path / "run.h5"
    assert cli.main(["measure", "inverted_pendulum", "--output", str(run)]) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith("gradlab: ")
    assert not run.exists()


def test_which_networks_are_gradlabs_own_is_kept_with_a_measurement():
    made = {"policy": Policy(2, 1), "critic": QCritic(2, 1)}
    assert measure_command._kinds(made) == {"policy": "policy", "critic": "q_critic"}
    assert measure_command._kinds({"policy": torch.nn.Linear(2, 1)}) == {}


def test_without_a_terminal_there_is_at_most_one_line_a_minute():
    written, now = [], [0.0]
    tell = streams.each_minute(written.append, lambda: now[0])
    for now[0], stage, done in (
        (0.0, "truth", 100), (59.0, "truth", 200), (60.0, "truth", 300), (61.0, "checks", 0),
        (119.0, "checks", 1), (121.0, "checks", 2), (200.0, "checks", 400),
    ):  # fmt: skip
        tell(stage, done, 400)
    assert written == [
        "truth: 300 of 400, about 30 s left",  # what an earlier sitting did is no part of the rate
        "checks: 2 of 400, about 3.3 h left",
        "checks: 400 of 400",
    ]


ENDS = {"| head -c 1": 0, ">&-": 0, "> /dev/full": 1, "2> /dev/full": 0, "<&- >&- 2>&-": 0}


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


def test_a_minus_is_a_hyphen_where_a_stream_has_no_other():
    for encoding, minus in (("utf-8", "−"), ("ascii", "-"), ("latin-1", "-")):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=streams.ESCAPED)
        with contextlib.redirect_stdout(out):
            fields = {"use": "-7: `train --lr -3`", "gain": "-1 – θ"}
            answer({"recommendation": fields, "light": "act", "lit": "Act"}, as_json=False)
        out.flush()
        text = out.buffer.getvalue().decode(encoding)
        assert f"use   {minus}7: `train --lr -3`\n" in text and f"gain  {minus}1" in text
        assert ("θ" in text) == (encoding == "utf-8")


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


def test_a_warning_is_said_once_from_however_many_places_it_comes():
    with warnings.catch_warnings(record=True) as said, in_one_line():
        warnings.simplefilter("always")
        for words in ("Jacobians are explicit", "another", "Jacobians are explicit"):
            warnings.warn(words, stacklevel=1)
        warnings.warn("Jacobians are explicit", stacklevel=1)
    assert [str(each.message) for each in said] == ["Jacobians are explicit", "another"]


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
