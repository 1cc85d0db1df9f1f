"""`--data` of fit, remedies and jacobians, and the data of logs: one record in any format, compared
with the task's simulator before the work begins."""

import json
from dataclasses import replace

import pytest

from gradlab import cli
from gradlab.fitting.collection import collect, exploring
from gradlab.networks import checkpoint
from gradlab.tasks import double_integrator
from tests.data.written import FORMATS, write
from tests.logs.carts import linear, noisy

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


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("command", ["fit", "remedies", "jacobians", "logs"])
def test_every_command_reads_every_format(command, ending, record, tmp_path, capsys):
    data = write(record, tmp_path / f"data.{ending}")
    assert cli.main(words(command, data, tmp_path)) == 0
    out, err = capsys.readouterr()
    assert f"{data}: 240 of 240 recorded rows, stepped by the simulator" in err and SOUND in err
    assert SOUND in str(json.loads(out)["verdict"])


@pytest.mark.parametrize("command", ["fit", "remedies", "jacobians", "logs"])
def test_every_command_says_first_where_the_rewards_are_others(command, record, tmp_path, capsys):
    size = record.action[:, 0].abs()
    wrong = replace(record, reward=record.reward - 0.9 * (size > size.quantile(0.8)))
    data = write(wrong, tmp_path / "data.npz")
    assert cli.main(words(command, data, tmp_path)) == 0
    out, err = capsys.readouterr()
    says = "rewards differ by up to 0.9 in 48 rows, those with large |acceleration|"
    assert says in err.splitlines()[0] and says in str(json.loads(out)["verdict"])


@pytest.mark.parametrize("command", ["fit", "remedies", "jacobians", "logs"])
def test_every_command_says_what_another_programs_file_lacks(command, tmp_path, capsys):
    (tmp_path / "theirs.csv").write_text("obs,act,reward\n0.1,0.2,0.3\n")
    assert cli.main(words(command, tmp_path / "theirs.csv", tmp_path)) == 2
    err = capsys.readouterr().err
    assert "missing state_0, action_0, next_state_0, terminated, episode; it has obs, act" in err


def test_logs_without_a_task_have_no_simulator(record, tmp_path, capsys):
    data = write(record, tmp_path / "data.csv")
    given = words("logs", data, tmp_path)
    at = given.index("--task")
    del given[at : at + 4]
    assert cli.main([*given, "--discount", "0.9"]) == 0
    assert "simulator" not in capsys.readouterr().err
