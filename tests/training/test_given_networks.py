"""Runs that begin with a policy and a critic of the user's."""

import copy

import pytest
import torch
from torch import nn

from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, numbers, row, same_tables, task

LIMIT = (2.0, 1.0)
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


def test_every_seed_begins_with_them_in_the_tasks_own_rewards(tmp_path):
    given = policy(), critic()
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


def test_given_networks_are_left_as_they_are(tmp_path):
    given = policy(), critic()
    before = copy.deepcopy(given)
    train(row("mpg-v2"), task(), tmp_path / "run.h5", policy=given[0], critic=given[1], **SMALL)
    for own, earlier in zip(given, before, strict=True):
        for after, first in zip(own.parameters(), earlier.parameters(), strict=True):
            assert torch.equal(after, first)


def test_a_deterministic_policy_keeps_its_own_limits(tmp_path):
    unlimited = Policy(3, 2, (6,)).double()
    path = train(row("ddpg"), task(), tmp_path / "run.h5", policy=unlimited, **SMALL)
    far = 100 * STATES
    torch.testing.assert_close(begun(path)[0](far), unlimited(far), rtol=0, atol=0)
    assert (begun(path)[0](far).abs() > 2).any()


def test_a_fresh_critic_has_the_widths_of_the_policy(tmp_path):
    path = train(row("ddpg"), task(), tmp_path / "run.h5", policy=policy((6, 7, 5)), **SMALL)
    _, own = begun(path)
    assert own.architecture["hidden"] == [6, 7, 5] and own.architecture["activation"] == "tanh"


def test_a_stochastic_policy_and_a_state_value_begin_a_run_too(tmp_path):
    torch.manual_seed(3)
    given = GaussianPolicy(3, 2, (6,), squash=True, limit=LIMIT).double(), VCritic(3, (6,)).double()
    path = train(row("svg"), task(), tmp_path / "run.h5", policy=given[0], critic=given[1], **SMALL)
    own = begun(path)
    torch.testing.assert_close(own[0].normal(STATES), given[0].normal(STATES), rtol=0, atol=0)
    torch.testing.assert_close(own[1](STATES), given[1](STATES), rtol=0, atol=0)


def test_a_run_goes_on_with_its_own_networks_and_with_no_others(tmp_path):
    whole = train(row("ddpg"), task(), tmp_path / "whole.h5", policy=policy(), **SMALL)

    def stop(stage, done, total):
        if done == 40:
            raise KeyboardInterrupt

    half = tmp_path / "half.h5"
    with pytest.raises(KeyboardInterrupt):
        train(row("ddpg"), task(), half, policy=policy(), progress=stop, **SMALL)
    other = policy()
    with torch.no_grad():
        other.network[-3].bias += 1e-9
    for wrong in (other, None):
        with pytest.raises(InputError, match="given_networks"):
            train(row("ddpg"), task(), half, policy=wrong, resume=True, **SMALL)
    train(row("ddpg"), task(), half, policy=policy(), resume=True, **SMALL)
    same_tables(whole, half)


def test_processes_begin_with_them_too(tmp_path):
    together = train(row("ddpg"), task(), tmp_path / "one.h5", policy=policy(), **SMALL)
    apart = train(
        row("ddpg"), task(), tmp_path / "two.h5", policy=policy(),
        asynchronous=Asynchronous(learners=1, queue=0, deterministic=True), **SMALL,
    )  # fmt: skip
    assert torch.equal(numbers(together), numbers(apart))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sac", {"policy": policy()}, "policy is a Policy, expected gradlab's GaussianPolicy"),
        ("ddpg", {"policy": nn.Linear(3, 2)}, "policy is a Linear, expected gradlab's Policy"),
        ("ddpg", {"policy": Policy(4, 2, limit=LIMIT)}, "policy has state_dim 4, expected 3"),
        ("ddpg", {"policy": Policy(3, 1, limit=(1.0,))}, "policy has action_dim 1, expected 2"),
        ("ddpg", {"policy": Policy(3, 2, bias=False, limit=LIMIT)}, "policy has bias False"),
        ("sac", {"policy": GaussianPolicy(3, 2)}, "policy has squash False, expected True"),
        (
            "sac",
            {"policy": GaussianPolicy(3, 2, squash=True)},
            r"policy has limit 1.0, expected \[2.0, 1.0\]",
        ),
        ("ddpg", {"critic": VCritic(3)}, "critic is a VCritic, expected gradlab's QCritic"),
        ("svg", {"critic": critic()}, "critic is a QCritic, expected gradlab's VCritic"),
        ("ddpg", {"critic": QCritic(3, 1)}, "critic has action_dim 1, expected 2"),
        ("bptt", {"critic": critic()}, "critic is given, but bptt has none"),
    ],
)
def test_networks_that_a_row_cannot_train_are_refused(name, given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(row(name), task(), tmp_path / "run.h5", **given, **SMALL)
    assert not list(tmp_path.iterdir())


def test_the_command_line_takes_files_of_networks(tmp_path):
    policy = str(tmp_path / "policy.safetensors")
    checkpoint.save(Policy(2, 1, (6,)), policy)
    words = ["train", "ddpg", "double_integrator", "--iterations", "4", "--agents", "4"]
    run = tmp_path / "run.h5"
    assert main([*words, "--no-report", "--output", str(run), "--policy", policy]) == 0
    assert begun(run)[0].architecture["hidden"] == [6]
