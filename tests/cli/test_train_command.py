"""What the command line makes of a learned model and its remedies, and of a run that grows.

`gradlab report RUN.h5 --follow`: the page of a run that another process writes, as training and a
probe write it, in known rows.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradlab import cli
from gradlab.cli import reading
from gradlab.cli.train import Train
from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import MultiStep, OneStepError
from gradlab.reporting.shell import GENERATOR
from gradlab.storage.journal import Journal, journal_of
from gradlab.storage.journal_tables import Column, Table
from gradlab.training import algorithms
from gradlab.training.algorithms import find
from gradlab.training.learner import Learner


def row(**options):
    return Train("mpg-v2", "double_integrator", **options)._row()


def test_a_prior_is_used_unless_a_model_is_asked_for_or_the_algorithm_learns_one():
    plain = row()
    assert plain.model is None and plain.policy_spectral is None

    def model(name, **options):
        return Train(name, "double_integrator", **options)._row().model

    assert model("maac") == find("maac").model
    assert model("maac-no-steve", model="prior") is None
    assert model("maac", members=3) == replace(find("maac").model, members=3)
    assert model("maac", loss="dd").loss.name == "dd"
    assert model("mbpo", members=3) == replace(find("mbpo").model, members=3, elites=None)
    for options in ({"model": "prior"}, {"members": 1}):
        with pytest.raises(InputError, match=r"maac has targets .* learn one of 2 members"):
            model("maac", **options)


LOSSES = {
    "nll": OneStepError, "dd": DirectionalDerivative, "multistep": MultiStep,
    "multistep-dd": DirectionalDerivative,
}  # fmt: skip


@pytest.mark.parametrize(("loss", "kind"), LOSSES.items())
def test_every_loss_has_its_name(loss, kind):
    model = row(model="learned", loss=loss).model
    assert isinstance(model.loss, kind) and model.loss.name == loss
    assert not model.two_models and model.spectral is None


def test_a_loss_of_ones_own_is_that_of_the_learned_model(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("def squared(m, v, y):\n    return (m - y).square().mean(dim=(1, 2))\n")
    model = row(model="learned", loss=f"{own}:squared").model
    assert model.name == f"{own}:squared" and model.loss.prediction == "mse"
    with pytest.raises(InputError, match="loss is 'sobolev', expected one of nll, mse, mul"):
        row(model="learned", loss="sobolev")


def test_two_models_are_likelihood_and_directional_loss():
    model = row(model="learned", two_model=True).model
    assert {role: loss.name for role, loss in model.roles.items()} == {
        "prediction": "nll",
        "gradient": "dd",
    }
    ablation = row(model="learned", two_model=True, loss="nll").model
    assert [loss.name for loss in ablation.roles.values()] == ["nll", "nll"]


def test_spectral_names_whose_layers():
    held = row(
        model="learned", spectral="model,policy", members=3, fit_every=10, fit_steps=7,
        model_hidden=(20, 10),
    )  # fmt: skip
    assert held.model.spectral == "all_but_last" and held.policy_spectral == "all"
    assert held.critic_spectral is None
    assert (held.model.members, held.model.every, held.model.steps) == (3, 10, 7)
    assert held.model.hidden == (20, 10)
    assert row(spectral="critic").critic_spectral == "all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "dd"}, "--loss is for a learned model: add --model learned"),
        ({"two_model": True}, "--two-model is for a learned model"),
        ({"spectral": "model"}, "--spectral model is for a learned model"),
        ({"members": 3, "model": "prior"}, "--members is for a learned model"),
        ({"spectral": "policies"}, "--spectral names 'policies', expected model, policy or critic"),
        ({"model_hidden": (200,)}, "--model-hidden is for a learned model"),
        ({"model": "learned", "members": 0}, "model's members is 0"),
        ({"model": "learned", "model_hidden": (64, 0)}, "model's hidden is 0"),
    ],
)
def test_options_that_do_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        row(**options)


def test_numbers_of_the_algorithm_and_of_its_loss_are_options():
    numbers = {"batch": 32, "hidden": (16, 8), "delay": 3, "reuse": 2, "tau": 0.1, "replay": 900}
    given = row(**numbers, value_rate=1e-3, exploration=0.3, updates=2, clip=1.0)
    assert {name: getattr(given, name) for name in numbers} == numbers
    assert given.value_rate == (1e-3, 1e-3) and given.policy_rate == find("mpg-v2").policy_rate
    assert (given.exploration, given.updates, given.clip) == (0.3, 2, 1.0)
    own = find("mpg-v1").target
    other = Train("mpg-v1", "double_integrator", target_steps=4)._row()
    assert other.target == replace(own, steps=4) != own
    dd = row(model="learned", loss="dd", loss_weight=0.5, neighbours=4).model.loss
    assert (dd.weight, dd.neighbours) == (0.5, 4)
    assert row(model="learned", loss="multistep", loss_steps=3).model.loss == MultiStep(3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shac", {"batch": 8}, "batch is 8, but shac has none: its batches are all steps of its"),
        ("sac", {"exploration": 0.2}, "sac has none: its policy explores by itself"),
        ("td3", {"target_steps": 3}, "td3 has none: its target has no steps; take one of .*mpg-v1"),
        ("mpg-v1", {"target_steps": 0}, "target_steps is 0"),
        ("td3", {"tau": 1.5}, r"td3's tau is 1.5, expected a number in \(0, 1\]"),
        ("td3", {"hidden": (16, 0)}, "td3's hidden is 0, expected an integer"),
        ("td3", {"exploration": -1.0}, "td3's exploration is -1.0, expected a number"),
        ("td3", {"value_rate": -0.1}, "value_rate is -0.1, expected a number"),
        ("mbpo", {"loss_steps": 3}, "loss_steps is 3, but the loss is nll: take multistep"),
        ("ddppo", {"loss_steps": 3}, "steps is 3, but the loss is dd: take multistep-dd"),
    ],
)
def test_numbers_out_of_range_or_without_use_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        Train(name, "double_integrator", **options)._row()


def paper(algorithm, task, **options):
    command, lines = Train(algorithm, task, preset="paper", **options).printed(task)
    return command, command._row(), "\n".join(lines)


def test_the_paper_gives_every_option_that_is_left_out_and_says_what_differs():
    command, row, said = paper("ddppo", "Hopper-v5")
    dd, rollouts = row.model.loss, row.source.branching
    assert row.horizons == (2,) and (row.model.members, row.model.hidden) == (7, (200,) * 4)
    assert (dd.neighbours, dd.directions, dd.weight, dd.as_printed) == (25, None, 50.0, True)
    assert [rollouts.length(1000 * 10 * epoch) for epoch in (0, 25, 90, 155, 200)] == [
        1,
        1,
        8,
        15,
        15,
    ]
    assert (command.warmup, command.iterations, row.updates) == (5000, 1_000_000, 10)
    assert "--horizons 2 (DDPPO table 1, H)" in said
    assert "--loss-weight 50 (DDPPO table 1, w)" in said
    command, row, said = paper("ddppo", "InvertedPendulum-v5", neighbours=3, warmup=7)
    assert (row.model.loss.neighbours, command.warmup, row.source.branching.lengths) == (3, 7, (1,))
    assert "warmup" not in said
    assert paper("ddppo", "Hopper-v5", loss="nll")[1].model.loss.name == "nll"


def test_rp_pgms_model_predicts_as_many_steps_as_are_unrolled():
    for options, loss in (({}, "multistep"), ({"loss": "multistep-dd"}, "multistep-dd")):
        _, row, _ = paper("rp-dp", "Hopper-v5", horizons=(15,), **options)
        assert (row.model.loss.name, row.model.loss.steps, row.horizons) == (loss, 15, (15,))
    assert paper("rp-dp", "Hopper-v5", loss="mse", horizons=(15,))[1].model.loss.name == "mse"


def test_the_papers_larger_model_has_twice_the_parameters():
    sizes = {}
    for name in ("ddppo", "ddppo-double-parameters"):
        widths = (14, *paper(name, "Hopper-v5")[1].model.hidden, 24)
        sizes[name] = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    assert sizes["ddppo-double-parameters"] == pytest.approx(2 * sizes["ddppo"], rel=0.03)


def test_every_preset_is_one_that_its_row_can_have():
    for of in algorithms._papers():
        for algorithm in of["algorithms"]:
            for task in of["tasks"]:
                command, row, _ = paper(algorithm, task)
                assert command.preset is None and row.name == algorithm
    assert paper("mpg-v1", "path_tracking")[1] == find("mpg-v1")
    for name, task, words in (
        ("ddppo", "pendulum", "no paper has ddppo on pendulum: it has InvertedPendulum-v5, Hopper"),
        ("shac", "Hopper-v5", "which shac has not: presets are of mpg-v1, .*ddppo"),
    ):
        with pytest.raises(InputError, match=words):
            paper(name, task)


def test_rollouts_that_fill_a_second_replay_are_options():
    own = Train("mbpo", "pendulum", rollout_length=(3,), rollouts=40)._row().source
    assert (own.branching.lengths, own.branching.rollouts) == ((3,), 40)
    with pytest.raises(InputError, match="rollouts is 40, but td3 has none: take one of maac"):
        Train("td3", "pendulum", rollouts=40)._row()
    with pytest.raises(InputError, match="rollout_length is"):
        Train("mbpo", "pendulum", rollout_length=(1, 2))._row()


def test_a_model_of_ones_own_is_the_prior(tmp_path, monkeypatch):
    """As --model of the other commands: it was refused."""
    taken = []
    monkeypatch.setattr(
        "gradlab.training.loop.train", lambda row, task, *_, **__: taken.append(task)
    )
    monkeypatch.setattr("gradlab.cli.train.of_run", lambda *_, **__: {})
    own = tmp_path / "own.py"
    own.write_text("def step(state, action):\n    return state + 0 * action, state[:, 0]\n")
    given = {"output": tmp_path / "run.h5", "no_report": True}
    Train("mpg-v2", "double_integrator", model=f"{own}:step", **given).run("")
    ones = torch.ones(3, 2, dtype=torch.float64)
    assert (taken[0].prior.step(ones, ones[:, :1]).state == ones).all()
    assert taken[0].parameters["prior_file"] == f"{own}:step"
    with pytest.raises(InputError, match="gone: no such file"):
        Train("mpg-v2", "double_integrator", model="gone", **given).run("")


SHORT = ("train", "td3", "double_integrator", "--iterations", "40", "--agents", "4")


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.parametrize(("sent", "word", "code"), [("SIGTERM", "terminated", 143),
                                                    ("SIGINT", "interrupted", 130)])  # fmt: skip
def test_a_run_that_is_ended_saves_its_state(
    ctrl_c, sent, word, code, tmp_path, monkeypatch, capsys
):
    """Also where a shell's background ignores Ctrl-C."""
    update = Learner.update

    def ended(self, iteration, batch):
        if iteration == 7:
            signal.raise_signal(signal.Signals[sent])
        return update(self, iteration, batch)

    words = [*SHORT, "--checkpoint-every", "40", "--output", str(tmp_path / "run.h5")]
    both = signal.SIGINT, signal.SIGTERM
    before = signal.signal(signal.SIGINT, ctrl_c), signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Learner, "update", ended)
            assert cli.main([*words, "--no-report"]) == code
        assert [signal.getsignal(each) for each in both] == [ctrl_c, before[1]]
    finally:
        signal.signal(signal.SIGINT, before[0])
    said = f"gradlab: {word}; the state after 8 iterations is saved: the same again with --resume"
    assert said in capsys.readouterr().err
    assert cli.main([*words, "--no-report", "--resume"]) == 0


def test_a_thread_of_a_program_may_run_a_command():
    with ThreadPoolExecutor() as pool:
        assert pool.submit(cli.main, ["list", "tasks"]).result() == 0


TOTAL = 1000
SEED = ("seed",)


def training_tables(seeds: int = 2) -> dict[str, Table]:
    numbers = tuple(range(seeds))
    names = ("policy_norm", "critic_norm", "critic_loss", "value", "nonfinite")
    updates = {name: Column(SEED) for name in names} | {"weight": Column(("horizon",))}
    updates |= {
        name: Column()
        for name in ("seconds", "realised_horizon", "policy_seconds", "critic_seconds")
    }
    evaluations = {name: Column(SEED) for name in ("return_mean", "return_se", "ends")}
    evaluations |= {"rms": Column(("seed", "coordinate")), "seconds": Column()}
    return {
        "updates": Table("iteration", updates, {"seed": numbers, "horizon": (0, 25)}),
        "evaluations": Table("iteration", evaluations, {"seed": numbers, "coordinate": (0,)}),
        "events": Table("number", {"message": Column(text=True)}),
    }


def training_attributes(task: str = "pendulum", seeds: int = 2) -> dict[str, Any]:
    settings = {
        "iterations": TOTAL, "seeds": seeds, "first_seed": 0, "evaluation_starts": 50,
        "episode": 100, "device": "cpu", "precision": "float32", "termination": "ignore",
        "at_end": "restart", "reward_scale": 1.0,
    }  # fmt: skip
    config = {"algorithm": {"name": "mpg-v2"}, "task": task, "settings": settings}
    return {"kind": "training", "config": json.dumps(config), "environment": "{}"}


def training(path: Path, task: str = "pendulum", seeds: int = 2) -> Journal:
    """The open journal of a run of training without rows."""
    return Journal(path, training_tables(seeds), training_attributes(task, seeds))


def update_row(k: int, seeds: int = 2) -> dict[str, Any]:
    """Iteration 10 k: norms k + 1, k + 3, …; 20 iterations a second."""
    norms = k + 1.0 + 2.0 * np.arange(seeds)
    return {
        "iteration": 10 * k, "policy_norm": norms, "critic_loss": 1 / norms, "seconds": 0.5 * k,
        "nonfinite": np.zeros(seeds), "weight": np.array([0.25, 0.75]), "value": -norms,
        "critic_norm": norms, "realised_horizon": 25, "policy_seconds": 0.1, "critic_seconds": 0.1,
    }  # fmt: skip


def evaluation_row(k: int, seeds: int = 2) -> dict[str, Any]:
    returns = -100.0 + k - 4.0 * np.arange(seeds)
    return {
        "iteration": 10 * k, "return_mean": returns, "return_se": np.full(seeds, 0.5),
        "ends": np.zeros(seeds), "rms": np.ones((seeds, 1)), "seconds": 0.5 * k,
    }  # fmt: skip


def trained(path: Path, task: str = "pendulum", seeds: int = 2) -> Path:
    """A run of 400 iterations, evaluated at every hundredth, in which a seed diverged at 300."""
    with training(path, task, seeds) as writer:
        for k in range(41):
            writer.append("updates", update_row(k, seeds))
            if k % 10 == 0:
                writer.append("evaluations", evaluation_row(k, seeds))
        writer.append("events", {"number": 2 * 300 * seeds + 1, "message": f"{task} diverged"})
    return path


def killed(path: Path, rows: int = 5) -> None:
    """A run of training whose writer was killed after so many rows."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.cli import test_train_command as grown\n"
        "writer = grown.training(Path(sys.argv[1]))\n"
        f"for k in range({rows}): writer.append('updates', grown.update_row(k))\n"
        "print('written', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert journal_of(path).exists()


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without figures, which take seconds."""

    def write(target, page, progress=None):
        target.write_text(GENERATOR)
        return target

    monkeypatch.setattr("gradlab.reporting.output.write", write)


def test_it_waits_for_a_run_and_ends_when_the_run_is_closed(tmp_path, capfd, monkeypatch, undrawn):
    path = tmp_path / "run.h5"
    monkeypatch.setattr(reading.time, "sleep", lambda _: path.exists() or trained(path))
    assert cli.main(["report", str(path), "--follow"]) == 0
    out, err = capfd.readouterr()
    assert "no such file" in err and out.splitlines()[-1] == f"report: {tmp_path / 'run.html'}"
    assert "change   −100 → −62" in out


def test_as_json_the_last_state_is_the_document(tmp_path, capsys, undrawn):
    path = trained(tmp_path / "run.h5")
    assert cli.main(["report", str(path), "--follow", "--json"]) == 0
    followed = json.loads(capsys.readouterr().out)
    assert cli.main(["report", str(path), "--json"]) == 0
    assert followed == json.loads(capsys.readouterr().out)


def test_a_run_whose_writer_was_killed_is_followed_until_ctrl_c(tmp_path, capfd, monkeypatch):
    path = tmp_path / "run.h5"
    killed(path)
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
