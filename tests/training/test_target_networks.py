"""Target networks follow by a share, by copies, or are none; and a run that has them resumes."""

from dataclasses import replace

import torch

from gradlab.data.replay import Batch
from gradlab.training.learner import Learner
from gradlab.training.parts.targets import Copied, Polyak
from gradlab.training.settings import Settings
from tests.training.small_runs import row, task


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
