"""Commands of tools: what they write and say, their exit codes, and wrong usage in one line.

`gradlab audit` takes a user's file, and its exit code is the verdict. `gradlab measure --attribute`
prints what causes the error below its answer. `gradlab certify`: its document, its files and its
exit codes. `gradlab jacobians`: a run and its page. `gradlab fit`: what it writes, what it says,
what it refuses.

A file that a command cannot read: no message recommends a command that refuses it, too. `--data` of
fit, remedies and jacobians, and the data of logs: one record in any format, compared with the
task's simulator before the work begins.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab import cli
from gradlab.data import record_files
from gradlab.fitting.collection import collect, exploring
from gradlab.networks import checkpoint
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy
from gradlab.reporting.output import KINDS
from gradlab.storage import records
from gradlab.tasks import double_integrator
from tests.data.written import write
from tests.logs.carts import linear, noisy

FILE = """
import torch
from torch import nn

def made(cut=False):
    torch.manual_seed(0)
    actor, critic = nn.Linear(3, 2), nn.Linear(5, 1)
    def loss(s, length=1):
        a = actor(s).detach() if cut else actor(s)
        print("chatter on standard output")
        return -critic(torch.cat([s, a], 1)).mean() + 0.1 * actor(s).square().mean() * length
    return dict(loss=loss, actor=actor, critic=critic, inputs=torch.ones(4, 3))

def sound():
    return made()

def cut():
    return made(cut=True)

def fails():
    return made() | {"loss": lambda s: 1 / 0}

def number():
    return 3

def unknown():
    return made() | {"policy": None}

def short():
    return {"actor": None}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_sound_loss_exits_with_zero(mine, capsys):
    assert cli.main(["audit", f"{mine}:sound"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Passed: ") and "laws hold." in out and "chatter" not in out


def test_lost_path_exits_with_one_and_names_the_line(mine, capsys, tmp_path):
    saved = tmp_path / "audit.h5"
    assert cli.main(["audit", f"{mine}:cut", "--json", "--output", str(saved)]) == 1
    document = json.loads(capsys.readouterr().out)
    broken = [row for row in document["findings"] if row["decision"] == "fail"]
    assert document["passed"] is False
    assert broken[0]["code"] == "actor.lost.detached"
    assert broken[0]["at"] == "detach, mine.py, line 9"
    assert not gradlab.load(saved).passed


CRITIC = """
import torch
from torch import nn
torch.manual_seed(0)
critic, target, discount = nn.Linear(3, 1), nn.Linear(3, 1), 0.9
kind, columns = "critic", {"next_observation": "next"}
def loss(batch):
    with torch.no_grad():
        y = batch["reward"] + 0.81 * (1 - batch["terminated"]) * target(batch["next"])
    return (critic(batch["observation"]) - y).square().mean()
"""


def test_a_loss_is_asked_with_a_file_of_columns(tmp_path, capsys):
    (tmp_path / "td.py").write_text(CRITIC)
    g = np.random.default_rng(0)
    columns = {
        "observation": g.normal(size=(16, 3)),
        "next": g.normal(size=(16, 3)),
        "reward": g.normal(size=(16, 1)),
        "terminated": np.arange(16)[:, None] % 3 == 0,
    }
    np.savez(tmp_path / "b.npz", **{k: x.astype(np.float32) for k, x in columns.items()})
    words = ["audit", f"{tmp_path}/td.py:loss", "--batch", f"{tmp_path}/b.npz"]
    assert cli.main(words) == 1
    assert "discount of the target: 0.81, not 0.9: twice." in capsys.readouterr().out
    assert cli.main([*words, "--meant", "discount"]) == 0
    assert cli.main([*words, "--discount", "0.81"]) == 0
    assert cli.main([*words[:-1], "no.npz"]) == 2
    assert "batch is 'no.npz', expected a file of numpy.savez" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{file}:number", "is 3, expected a dict of the arguments of gradlab.audit"),
        ("{file}:unknown", "gives 'policy', expected any of actor"),
        ("{file}:short", "gives no loss"),
        ("{file}:fails", "loss failed (ZeroDivisionError: division by zero; "),
        ("{file}:nothing", "has no function 'nothing'"),
        ("{file}", "needs a name, {file}:NAME, and has "),
        ("mine", "is no function of a file, expected FILE.py:NAME"),
        ("missing.py:f", "missing.py: no such file"),
    ],
)
def test_bad_file_is_refused_in_one_line(words, message, mine, capsys):
    assert cli.main(["audit", words.format(file=mine)]) == 2
    err = capsys.readouterr().err
    assert message.format(file=mine) in err and len(err.splitlines()) == 1


SYSTEMS = """
import gradlab

def sound():
    return gradlab.systems.from_function(lambda s, a: (0.9 * s + a, -s[:, 0] ** 2), 1, 1)

def wrong():
    step = lambda s, a: (0.9 * s + a + 0.2 * (s - s.detach()), -s[:, 0] ** 2)
    return gradlab.systems.from_function(step, 1, 1)

def reshaped():
    return gradlab.systems.from_function(lambda s, a: (s[:, :0], s[:, 0]), 1, 1)

def number():
    return 3
"""
FEW = ("--samples", "64")


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(SYSTEMS)
    return str(path)


def test_a_sound_system_ends_with_0_and_its_files(own, tmp_path):
    words = ["certify", f"{own}:sound", *FEW, "--output", str(tmp_path / "run.h5")]
    assert cli.main(words) == 0
    assert "<html" in (tmp_path / "run.html").read_text()
    found = gradlab.load(tmp_path / "run.h5")
    assert found.passed and found.system == "own.py:sound"


def test_a_wrong_derivative_ends_with_1(own, capsys):
    assert cli.main(["certify", f"{own}:wrong", *FEW, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["passed"]
    assert document["recommendation"]["usable"] == "no" and document["light"] == "none"
    assert [each["block"] for each in document["entries"] if each["code"] != "rough"] == ["A"]


def test_fail_above_is_what_may_be_wrong(own):
    assert cli.main(["certify", f"{own}:wrong", *FEW, "--fail-above", "0.5"]) == 0


SMALL = ("--members", "2", "--hidden", "8", "8", "--epochs", "2", "--json")


def fit(capsys, *words):
    assert cli.main(["fit", *words, *SMALL]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys, *words):
    assert cli.main(["fit", *words, *SMALL]) == 2
    return capsys.readouterr().err


def test_a_model_its_curves_and_its_data_are_kept(tmp_path, capsys):
    model = tmp_path / "m.safetensors"
    words = ("pendulum", "--rows", "200", "--spectral", "all_but_last", "--output", str(model))
    document = fit(capsys, *words)
    ensemble = checkpoint.load(model)
    assert isinstance(ensemble, GaussianEnsemble) and ensemble.members == 2
    curves = records.read(tmp_path / "m.h5")
    assert curves.attributes["kind"] == "fit" and curves.attributes["task"] == "pendulum"
    assert curves.groups["curves"]["held_out"].values.shape == (2, 2)
    assert curves.groups["norms"]["normalised"].values.tolist() == [True, True, False]
    assert len(record_files.read(tmp_path / "m.data.h5")) == 200
    found = {each["code"]: each for each in document["findings"]}
    assert (found["recorded"]["n"], found["recorded"]["subject"]) == (200, "random actions")
    assert found["spectral_norms"]["at"].startswith("layer 1 1, layer 2 1, layer 3")
    assert any("change of θ [rad]" in each["subject"] for each in document["findings"])
    assert "exists" in refused(capsys, *words)


def test_sentences_are_decided_where_the_data_decide(tmp_path, capsys):
    decided = {}
    for name, rows in (("pendulum", "3000"), ("double_integrator", "1500")):
        place = ("--output", str(tmp_path / f"{name}.safetensors"), "--neighbours", "3")
        words = ("--members", "2", "--hidden", "16", "--epochs", "60", "--json")
        assert cli.main(["fit", name, "--rows", rows, *place, *words]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["next"].startswith(f"gradlab measure {name} --model ")
        codes = {each["code"]: set() for each in document["findings"]}
        for each in document["findings"]:
            codes[each["code"]].add(each["decision"])
        decided[name] = codes
    assert "undecided" in decided["pendulum"]["explained"]
    assert decided["double_integrator"]["explained"] == {"pass"}


def test_minari_datasets_are_taken_and_given(tmp_path, capsys):
    dataset = str(tmp_path / "dataset")
    first, again = (str(tmp_path / f"{name}.safetensors") for name in ("first", "again"))
    words = ("pendulum", "--rows", "120", "--output", first, "--export", dataset)
    fit(capsys, *words)
    document = fit(capsys, "pendulum", "--data", dataset, "--output", again)
    assert "120 of 120 recorded rows, stepped by the simulator" in str(document["findings"])
    assert Path(first).read_bytes() == Path(again).read_bytes()


def test_an_interrupted_fit_keeps_its_transitions_from_which_the_same_is_fitted(
    tmp_path, capsys, monkeypatch
):
    from gradlab.fitting.fitted import Descent

    words = ("fit", "pendulum", "--output", str(tmp_path / "half.safetensors"), *SMALL)

    def stopped(descent):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Descent, "run_epoch", stopped)
        assert cli.main([*words, "--rows", "120"]) == 130
    kept = tmp_path / "half.data.h5"
    assert f"no model was written; its transitions are kept: --data {kept}" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == [kept]
    fit(capsys, "pendulum", "--data", str(kept), "--output", str(tmp_path / "half.safetensors"))
    fit(capsys, "pendulum", "--rows", "120", "--output", str(tmp_path / "whole.safetensors"))
    whole, half = (tmp_path / f"{name}.safetensors" for name in ("whole", "half"))
    assert whole.read_bytes() == half.read_bytes()


def test_places_that_are_taken_or_missing_are_refused(tmp_path, capsys):
    data = tmp_path / "data.h5"
    collect(double_integrator(), 50).save(data)
    (tmp_path / "dataset").write_text("")
    exported = ("double_integrator", "--data", str(data), "--export", str(tmp_path / "dataset"))
    assert "exists" in refused(capsys, *exported, "--output", str(tmp_path / "x.safetensors"))
    assert "ends in .safetensors" in refused(capsys, "pendulum", "--output", "model.h5")
    assert "no such file" in refused(capsys, "pendulum", "--data", str(tmp_path / "none.h5"))


OTHERS = ("action gradients", "states", "trajectories", "fit")
READERS = {
    "report": ("report", "FILE"),
    "choose": ("choose", "FILE"),
    "compare": ("compare", "FILE", "FILE"),
    "jacobians": ("jacobians", "pendulum", "--data", "FILE"),
    "fit": ("fit", "pendulum", "--data", "FILE"),
    "logs": ("logs", "FILE", "--policy", "policy.safetensors", "--discount", "0.9"),
}


@pytest.mark.parametrize("name", READERS)
def test_no_refusal_recommends_a_command_that_refuses_the_file(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Policy(2, 1), tmp_path / "policy.safetensors")
    for kind in (*OTHERS, *KINDS):
        file = f"{kind.replace(' ', '-')}.h5"
        run = {"config": "{}"} if kind in KINDS else {}
        records.write(file, records.Record({"kind": kind, **run}, {}))
        words = [file if word == "FILE" else word for word in READERS[name]]
        assert cli.main(words) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        advised = re.findall(r"`gradlab (\w+)", message)
        assert name not in advised, message
        assert "report" not in advised or kind in KINDS, message
        assert file in message and "run of trajectories" not in message


TASK = double_integrator()
SOUND = "next states agree ("


@pytest.fixture(scope="module")
def record():
    return collect(TASK, 240, exploring(TASK, noisy(), std=(0.0,)), length=12)


def words(command, data, folder):
    """A cheap call of the command; the policy's file is beside its output."""
    policy = folder / "policy.safetensors"
    checkpoint.save(linear(), policy)
    fits = ("--members", "1", "--hidden", "8", "--epochs", "2")
    fixed = {
        "fit": ("double_integrator", "--data", data, *fits),
        "remedies": ("double_integrator", "--data", data, "--remedies", "mse", "--trials", "1",
                     "--hidden", "8", "--epochs", "2", "--horizon", "2", "--starts", "8",
                     "--batch", "8", "--policy", policy, "--critic", f"{folder}/own.py:critic"),
        "jacobians": ("double_integrator", "--data", data, "--policy", policy, "--horizon", "2",
                      "--starts", "16"),
        "logs": (data, "--task", "double_integrator", "--model", "prior", "--policy", policy,
                 "--noise-std", "0.3", "--horizon", "2"),
    }  # fmt: skip
    (folder / "own.py").write_text(
        "from gradlab.networks.mlp import QCritic\n"
        "def critic():\n    return QCritic(2, 1, (4,)).double()\n"
    )
    ending = "m.safetensors" if command == "fit" else "run.h5"
    page = () if command == "fit" else ("--no-report",)
    given = (command, *fixed[command], "--output", folder / ending, *page, "--json")
    return [str(word) for word in given]


@pytest.mark.parametrize(
    ("command", "ending"),
    [("fit", "h5"), ("remedies", "npz"), ("jacobians", "csv"), ("logs", "h5")],
)
def test_every_command_reads_any_format(command, ending, record, tmp_path, capsys):
    data = write(record, tmp_path / f"data.{ending}")
    assert cli.main(words(command, data, tmp_path)) == 0
    out, err = capsys.readouterr()
    assert f"{data}: 240 of 240 recorded rows, stepped by the simulator" in err and SOUND in err
    assert SOUND in str(json.loads(out)["findings"])


@pytest.mark.parametrize("command", ["fit", "remedies", "jacobians", "logs"])
def test_every_command_says_first_where_the_rewards_are_others(command, record, tmp_path, capsys):
    size = record.action[:, 0].abs()
    wrong = replace(record, reward=record.reward - 0.9 * (size > size.quantile(0.8)))
    data = write(wrong, tmp_path / "data.npz")
    assert cli.main(words(command, data, tmp_path)) == 0
    out, err = capsys.readouterr()
    says = "rewards differ by up to 0.9 in 48 rows"
    assert says in err.splitlines()[0] and says in str(json.loads(out)["findings"])


@pytest.mark.parametrize("command", ["fit", "remedies", "jacobians", "logs"])
def test_every_command_says_what_another_programs_file_lacks(command, tmp_path, capsys):
    (tmp_path / "theirs.csv").write_text("obs,act,reward\n0.1,0.2,0.3\n")
    assert cli.main(words(command, tmp_path / "theirs.csv", tmp_path)) == 2
    err = capsys.readouterr().err
    assert "missing state_0, action_0, next_state_0, terminated, episode; it has obs, act" in err
