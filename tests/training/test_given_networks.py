"""Runs that begin with a policy and a critic of the user's."""

import copy
from dataclasses import replace

import pytest
import torch

from gradlab.cli.program import main
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.runs.training.results import load
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.parts.targets import Copied, Polyak
from gradlab.training.settings import Settings
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


# Target networks follow by a share, by copies, or are none; and a run that has them resumes.


def batches(count):
    """As many of random transitions, of two seeds."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(2, 16, *shape, generator=generator, dtype=torch.float64)

    return [
        Batch(drawn(3), drawn(2), drawn(), drawn(3), drawn().gt(1).double()) for _ in range(count)
    ]


def learner_of(**changes):
    changed = replace(row("td3"), delay=2, **changes)
    return Learner(changed, task(), Settings(precision="float64", seeds=2, termination="mask"))


def differences(target, live):
    pairs = zip(target.parameters, live.parameters, strict=True)
    return sum(float((a - b).detach().abs().sum()) for a, b in pairs)


def test_polyak_moves_by_its_share_when_the_policy_is_updated():
    learner = learner_of()
    target, moved = learner.target_critic, learner.critic.copied()
    for parameter in moved.parameters:
        parameter += 1
    wanted = [0.75 * parameter + 0.25 * (parameter + 1) for parameter in target.copied().parameters]
    Polyak(0.25)(target, moved, 0, False)
    assert differences(target, learner.critic) == 0
    Polyak(0.25)(target, moved, 0, True)
    torch.testing.assert_close(target.parameters, wanted)


def test_copies_are_made_every_so_many_updates_of_the_critic_and_of_it_alone():
    learner = learner_of(target_critic=Copied(3))
    for k, batch in enumerate(batches(7)):
        learner.update(k, batch)
        fresh = differences(learner.target_critic, learner.critic) == 0
        assert fresh == (k in (2, 5))
        assert differences(learner.target_policy, learner.policy) > 0  # by τ


def test_a_copy_after_every_update_leaves_no_network_of_its_own():
    learner = learner_of(target_critic=Copied(), target_policy=Copied())
    for k, batch in enumerate(batches(4)):  # the policy is updated in every second one
        learner.update(k, batch)
        assert differences(learner.target_critic, learner.critic) == 0
        assert differences(learner.target_policy, learner.policy) == 0
