"""DDPPO: two models, critics on both stores, policies from replayed states, ten updates a step."""

from dataclasses import replace

import torch

import gradlab
from gradlab.systems import from_function
from gradlab.systems.learned import TwoModels
from gradlab.training.algorithms import find
from gradlab.training.loop import describe, settings_of
from gradlab.training.models.branches import Branches, Branching
from gradlab.training.parts.sources import Branched, Stores, TwoStores
from gradlab.training.parts.targets import Soft
from gradlab.training.settings import Settings
from tests.training.estimated import assert_estimated, other
from tests.training.small_runs import row, task
from tests.training.test_branches import DRAWS, forward, model, replayed


def stores():
    """Replay, whose states are below 0.1, and rollouts of the model, which begin there at 1."""
    branches = Branches(Branching(every=10, rollouts=20, first=2, last=2), replayed(), DRAWS)
    branches.fill(replayed(), model(), forward, None, 0)
    return Stores(replayed(), branches.replay, DRAWS, 40), branches.choice


def test_critics_see_rows_of_both_stores_and_policies_begin_in_replayed_states_alone():
    both, branching = stores()
    batch = TwoStores(branching, 0.25)(both, 7)
    alone = Branched(branching, 0.25)(both, 7)
    for name, value in alone.tensors.items():
        assert torch.equal(value, batch.tensors[name])
    assert torch.equal(alone.visited, alone.state)
    real = {tuple(state) for state in both.replay.rows[0, :, :2].tolist()}
    begun = [tuple(state) for state in batch.visited[0].tolist()]
    assert batch.visited.shape == (2, 40, 2) and set(begun) <= real and len(set(begun)) > 10
    assert not {tuple(state) for state in batch.state[0, 10:].tolist()} <= real


def test_the_gradient_is_that_of_the_estimator_with_states_of_one_model_and_slopes_of_another():
    world, errs = task().simulator, from_function(other, state_dim=3, action_dim=2, noise_dim=3)
    small = replace(
        row("ddppo"), model=None, source=find("sac").source, activation="tanh", target=Soft(0.2)
    )
    two = replace(task(), prior=TwoModels(world, errs))
    assert_estimated(small, two, alpha=0.2, systems=(world, errs), apart=5.0)


def test_policy_and_critic_are_updated_ten_times_for_every_transition_unless_settings_say_other():
    ddppo, sac, pendulum = (
        find("ddppo"),
        find("sac"),
        gradlab.tasks.inverted_pendulum(engine="analytic"),
    )
    assert ddppo.delay == ddppo.reuse == 1
    for agents in (1, 8):
        chosen = settings_of(ddppo, pendulum, None, {"agents": agents})
        assert chosen.interval == 10 * agents
        # Fits and rollouts of the model: every 250 transitions.
        assert ddppo.model.every * agents / chosen.interval == 250
        assert ddppo.source.branching.every == ddppo.model.every
    assert settings_of(ddppo, pendulum, None, {"interval": 3}).interval == 3
    assert settings_of(ddppo, pendulum, Settings(interval=4), {}).interval == 4
    assert settings_of(sac, pendulum, None, {}).interval == 8
    assert "updates" not in describe(sac, pendulum, Settings())["algorithm"]
    assert describe(ddppo, pendulum, Settings())["algorithm"]["updates"] == 10
