"""From a record to a verdict, a file, a page and an exit code; and everything that is refused."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab.cli import main
from gradlab.data.trajectories import first, segments
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.tools.jacobians.result import load as load_jacobians
from gradlab.tools.logs import page as logs_page
from gradlab.tools.logs.arguments import windows
from gradlab.tools.logs.compute import measure_logs
from gradlab.tools.logs.findings import agreements, load, numbers, supported, verdict
from gradlab.truth.lqr import ExactCritic
from tests.first_screens import check_first_screen
from tests.logs.carts import STD, WEIGHT, arrays, fallen, falling, linear, noisy, recorded, task

DISCOUNT = task().discount
OWN = f"""
import torch
from gradlab import tasks
from gradlab.networks.mlp import Policy

def policy():
    found = Policy(2, 1, (), bias=False).double()
    with torch.no_grad():
        found.network[0].weight.copy_(torch.tensor([{WEIGHT}]))
    return found

def model():
    return tasks.double_integrator(prior_push=0.4).prior
"""


def critics():
    weight = linear().network[0].weight
    return [ExactCritic(task(push).prior, weight, DISCOUNT) for push in (1.0, 0.8)]


@pytest.fixture(scope="module")
def run():
    """Of a wrong model and two critics."""
    return measure_logs(
        recorded(300, 40), noisy(), task(0.4).prior, critics(), discount=DISCOUNT, horizon=8
    )


def told(run, about):
    return [each.text for each in verdict(run) if each.about == about]


def test_the_exact_model_is_supported_and_a_wrong_one_refuted():
    for push, right in ((1.0, True), (0.1, False)):
        model = task(push).prior
        found = measure_logs(recorded(600, 8), noisy(), model, discount=DISCOUNT, horizon=6)
        same = agreements(found, "same")
        assert (supported(same) >= 5) == right
        assert any(each.status == "disagree" for each in same) != right
        words = "supported up to" if right else "refuted at"
        assert words in told(found, "support")[0]


def test_at_horizon_0_no_model_can_be_wrong_and_whole_returns_need_long_horizons(run):
    assert agreements(run, "same")[0].status != "disagree"
    assert not told(run, "control")
    whole = {each.horizon: each.gap.value for each in agreements(run, "whole")}
    assert run.config["reach"] == 40 and whole[8] < whole[1]
    assert "γ^40" in told(run, "whole")[0]


def test_a_file_gives_back_what_was_found(run, tmp_path):
    path = run.save(tmp_path / "logs.h5")
    again = load(path)
    for name, values in run.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    assert verdict(again) == verdict(run)
    assert dict(again.config) == json.loads(json.dumps(dict(run.config)))
    with pytest.raises(InputError, match="holds 'logs'"):
        load_jacobians(path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.h5")


def test_a_deterministic_record_has_no_score_but_the_rest():
    world = task()
    data = recorded(60, 12, policy=linear())
    found = measure_logs(data, linear(), world.prior, critics(), discount=DISCOUNT, horizon=5)
    assert "no score exists" in told(found, "policy")[0]
    assert not numbers(found, "gradient", "variance", "score")
    assert numbers(found, "gradient", "variance", "model") and told(found, "critic")
    assert not told(found, "support")
    with pytest.raises(InputError, match=r"lie about \((0.3|0.29).*noise_std"):
        measure_logs(recorded(60, 8), linear(), world.prior, discount=DISCOUNT)


def test_known_noise_makes_a_deterministic_policy_stochastic():
    data, model = recorded(60, 8), task().prior
    one = measure_logs(data, linear(), model, discount=DISCOUNT, horizon=3, noise_std=STD)
    two = measure_logs(data, noisy(), model, discount=DISCOUNT, horizon=3)
    assert one.table().equals(two.table())


def test_an_end_that_actions_move_is_told():
    data, policy = fallen()
    found = measure_logs(data, policy, falling(), discount=DISCOUNT, horizon=5)
    assert "actions move the end" in told(found, "episodes")[0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"discount": 1.2}, "discount is 1.2"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": 5, "reach": 3}, "reach is 3, expected at least the horizon"),
        ({"data": [1, 2]}, "data is a list"),
        ({"model": 3}, "model is 3, expected a System"),
        ({"model": falling()}, "model has states of width 1"),
        ({"critic": []}, "empty sequence"),
        ({"critic": torch.nn.Linear(3, 1)}, "critic"),
        ({"policy": torch.nn.Linear(3, 1)}, "policy cannot take inputs"),
        ({"noise_std": 0.1}, "stochastic already"),
        ({"policy": linear(), "noise_std": (0.1, 0.2, 0.3)}, "3 numbers for 1 actions"),
        ({"policy": noisy(0.05)}, "not of this policy"),
        ({"data": recorded(1, 20)}, "1 trajectories"),
        ({"data": recorded(6, 4)}, "of which 0 have 5 steps"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(changed, says):
    known = {"data": recorded(6, 8), "policy": noisy(), "model": task().prior, "critic": None}
    arguments = known | {"discount": DISCOUNT, "horizon": 5} | changed
    with pytest.raises(InputError, match=says):
        measure_logs(**arguments)


def test_the_command_writes_a_run(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    checkpoint.save(noisy(), tmp_path / "policy.safetensors")
    words = [
        "logs", str(arrays(tmp_path / "logs.npz")),
        "--policy", str(tmp_path / "policy.safetensors"),
        "--model", f"{tmp_path / 'own.py'}:model", "--discount", "0.95", "--horizon", "4",
        "--output", str(tmp_path / "run.h5"), "--json", "--no-report",
    ]  # fmt: skip
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"verdict", "run", "table"} <= set(document)
    assert load(document["run"]).config["horizon"] == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--discount is missing"),
        (("--discount", "0.9", "--model", "prior"), "needs a --task"),
        (("--discount", "0.9"), "give noise_std"),
        (("--task", "double_integrator", "--noise-std", "0.01"), "not of this policy"),
        (("--task", "path_tracking", "--noise-std", "0.3"), "width"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(tmp_path, capsys, words, says):
    (tmp_path / "own.py").write_text(OWN)
    data, policy = arrays(tmp_path / "logs.npz"), f"{tmp_path / 'own.py'}:policy"
    output = ("--output", str(tmp_path / "run.h5"))
    assert main(["logs", str(data), "--policy", policy, *output, *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[2] / "examples" / "logs_and_a_model.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    assert "supported up to h = " in capsys.readouterr().out
    assert (tmp_path / "logs.html").is_file() and (tmp_path / "judged.npz").is_file()


def test_a_refuted_model_is_refused_on_the_first_screen(run, tab, tmp_path):
    found = logs_page.page(run)
    check_first_screen(tab, found, tmp_path)
    assert found.screen.headline.startswith("Do not use this model's gradient")
    assert found.screen.light == "act"


# Windows of recorded trajectories hold the whole return of their first state.


def test_windows_of_whole_trajectories_are_segments():
    data = recorded(6, 5)
    cut, known = windows(data, 5).path, segments(data, 5)
    for name in ("states", "rewards", "alive", "group"):
        assert torch.equal(getattr(cut, name), getattr(known, name)), name
    assert torch.equal(cut.actions[:-1], known.actions[:-1])
    assert cut.actions[-1].isnan().all()


def test_a_fallen_trajectory_goes_on_dead_and_its_return_is_that_of_the_rows():
    data, _ = fallen()
    lengths = torch.bincount(data.trajectory)
    early = int((lengths < 4).nonzero()[0])
    cut = windows(data, 6)
    assert cut.trajectories == 40 and cut.left_out == 0
    column = cut.path.group.tolist().index(early)
    n = int(lengths[early])
    assert cut.path.alive[:, column].tolist() == [True] * n + [False] * (7 - n)
    assert not cut.path.rewards[n:, column].any()
    last = data.next_state[data.trajectory == early][-1]
    assert torch.equal(cut.path.states[n:, column], last.expand(7 - n, -1))
    ended = float(data.terminated.sum()) / 40
    assert cut.ended == pytest.approx(ended)
    rewards = windows(data, 6).path.rewards.sum(dim=0)
    known = torch.zeros(40, dtype=torch.float64).index_add_(0, data.trajectory, data.reward)
    torch.testing.assert_close(rewards, known)


def test_a_trajectory_that_merely_stops_is_left_out():
    short = first(recorded(6, 5), 28)  # the last has 3 steps
    assert windows(short, 5).left_out == 1
    assert windows(short, 3).left_out == 0


def test_windows_begin_every_so_many_steps():
    cut = windows(recorded(5, 10), 4, every=3)
    assert cut.path.group.tolist() == [k for k in range(5) for _ in range(3)]
    first_rows = recorded(5, 10).state.reshape(5, 10, 2)[:, [0, 3, 6]].reshape(15, 2)
    assert torch.equal(cut.path.states[0], first_rows)


@pytest.mark.parametrize(
    ("count", "steps", "every", "told"),
    [
        (3, 5, None, "3 trajectories, of which 3"),
        (6, 9, None, "of which 0 have 9 steps"),
        (6, 0, None, "steps is 0"),
        (6, 5, 0, "every is 0"),
    ],
)
def test_too_little_is_refused_with_numbers(count, steps, every, told):
    with pytest.raises(InputError, match=told):
        windows(recorded(count, 5), steps, every)
