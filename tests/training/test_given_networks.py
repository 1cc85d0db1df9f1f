"""Runs that begin with a policy and a critic of the user's."""

import copy

import pytest
import torch

from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.runs.training.results import load
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, numbers, row, same_tables, task

LIMIT = (2.0, 1.0)
KINDS = ("policy", "critic")
STATES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def policy(hidden=(6,)):
    torch.manual_seed(1)
    return Policy(3, 2, hidden, "tanh", scale=(0.5, 1.0, 2.0), limit=LIMIT).double()


def critic():
    torch.manual_seed(2)
    return QCritic(3, 2, (4, 5), "softplus").double()


def begun(path, seed=0):
    """Policy and critic of a seed that were kept before the first update."""
    folder = path.with_name(path.stem + "-checkpoints") / "000000"
    return tuple(
        checkpoint.load(folder / f"seed{seed}-{kind}.safetensors").double()
        for kind in ("policy", "critic")
    )


def test_every_seed_begins_with_them_in_the_tasks_own_rewards_and_leaves_them_alone(tmp_path):
    given = policy(), critic()
    before = copy.deepcopy(given)
    path = train(
        row("mpg-v2"), task(), tmp_path / "run.h5", policy=given[0], critic=given[1],
        seeds=2, reward_scale=0.1, **SMALL,
    )  # fmt: skip
    for seed in range(2):
        own = begun(path, seed)
        torch.testing.assert_close(own[0](STATES), given[0](STATES), rtol=0, atol=0)
        actions = given[0](STATES)
        torch.testing.assert_close(own[1](STATES, actions), given[1](STATES, actions))
    assert not torch.equal(numbers(path, 0), numbers(path, 1))  # data of their own
    assert not torch.equal(begun(path)[0](STATES), torch.zeros(5, 2))
    for own, earlier in zip(given, before, strict=True):
        for after, first in zip(own.parameters(), earlier.parameters(), strict=True):
            assert torch.equal(after, first)


def test_a_stochastic_policy_and_a_state_value_begin_a_run_too(tmp_path):
    torch.manual_seed(3)
    own = GaussianPolicy(3, 2, (6,), squash=True, limit=LIMIT, log_std_bounds=(-1.0, 2.0))
    given = own.double(), VCritic(3, (6,)).double()
    path = train(row("svg"), task(), tmp_path / "run.h5", policy=given[0], critic=given[1], **SMALL)
    own = begun(path)
    torch.testing.assert_close(own[0].normal(STATES), given[0].normal(STATES), rtol=0, atol=0)
    torch.testing.assert_close(own[1](STATES), given[1](STATES), rtol=0, atol=0)


def test_a_run_goes_on_with_its_own_networks_and_with_no_others(tmp_path):
    scaled = {"critic": critic(), "reward_scale": 0.1, **SMALL}
    whole = train(row("ddpg"), task(), tmp_path / "whole.h5", policy=policy(), **scaled)

    def stop(stage, done, total):
        if done == 40:
            raise KeyboardInterrupt

    half = tmp_path / "half.h5"
    with pytest.raises(KeyboardInterrupt):
        train(row("ddpg"), task(), half, policy=policy(), progress=stop, **scaled)
    other = policy()
    with torch.no_grad():
        other.network[-3].bias += 1e-9
    for wrong in (other, None):
        with pytest.raises(InputError, match="given_networks"):
            train(row("ddpg"), task(), half, policy=wrong, resume=True, **scaled)
    train(row("ddpg"), task(), half, policy=policy(), resume=True, **scaled)
    same_tables(whole, half)


def test_the_command_line_takes_files_of_networks(tmp_path, capsys):
    files = {kind: tmp_path / "old-checkpoints" / f"{kind}.safetensors" for kind in KINDS}
    checkpoint.save(Policy(2, 1, (6,)), files["policy"])
    checkpoint.save(QCritic(2, 1, (5,)), files["critic"])
    words = ["train", "ddpg", "double_integrator", "--iterations", "4", "--agents", "4"]
    words += [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    run = tmp_path / "run.h5"
    assert main([*words, "--no-report", "--output", str(run), "--policy-rate", "1e-5"]) == 0
    own = begun(run)
    assert [each.architecture["hidden"] for each in own] == [[6], [5]]
    assert load(run).config["algorithm"]["policy_rate"] == [1e-5, 1e-5]
    assert main([*words, "--overwrite", "--output", str(tmp_path / "old.h5")]) == 2
    assert "which --overwrite removes" in capsys.readouterr().err
    assert all(file.exists() for file in files.values())
