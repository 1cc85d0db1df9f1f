"""Samples at a checkpoint made for the test: whose states, whose critics, which truth."""

import numpy as np
import pytest
import torch

from analyses.horizons import checkpoint_samples, critic_samples
from analyses.horizons.checkpoint_samples import RETURN, Place, starts_of
from analyses.mpg_table_1.runs import task_of
from gradlab.data.noise import stream
from gradlab.gradients.start_laws import visitation
from gradlab.gradients.tail import Tail
from gradlab.networks import checkpoint
from gradlab.networks.mlp import Policy, QCritic
from gradlab.storage import records

TASK = "inverted_pendulum"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Seeds 3 and 0 (in that order), 5 kept states each, at iteration 1000."""
    root = tmp_path_factory.mktemp("runs")
    place = Place(TASK, 1000, 0, "visited").folder(root)
    place.mkdir(parents=True)
    states = np.arange(2 * 5 * 4, dtype=np.float64).reshape(2, 5, 4) * 1e-3
    arrays = {
        "seed": records.Array(np.array([3, 0]), ("seed",)),
        "sample": records.Array(np.arange(5), ("sample",)),
        "coordinate": records.Array(np.arange(4), ("coordinate",)),
        "state": records.Array(states, ("seed", "sample", "coordinate")),
    }
    records.write(place / "states.h5", records.Record({"kind": "states"}, {"states": arrays}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        checkpoint.save(Policy(4, 1, hidden=(8,)), place / "seed0-policy.safetensors")
        checkpoint.save(QCritic(4, 1, hidden=(8,)), place / "seed0-critic.safetensors")
    return root


def test_visited_states_are_those_of_the_seed(checkpoints):
    found = starts_of(Place(TASK, 1000, 0, "visited"), 3, checkpoints).states
    np.testing.assert_allclose(found, (20 + np.arange(12)).reshape(3, 4) * 1e-3)
    assert len(starts_of(Place(TASK, 1000, 3, "visited"), 1024, checkpoints).states) == 5


@pytest.mark.parametrize("place", [Place(TASK, 0, 0, "visited"), Place(TASK, 1000, 0, "starts")])
def test_elsewhere_starts_follow_the_tasks_law(checkpoints, place):
    found = starts_of(place, 6, checkpoints).states
    torch.testing.assert_close(found, task_of(TASK).starts(6, stream(0, "starts")).double())


def test_states_of_the_return_are_those_that_the_checkpoint_visits(checkpoints):
    """From the task's own starts, some of them later than at the start."""
    place = Place(TASK, 1000, 0, RETURN)
    policy = checkpoint_samples.policy_at(place, checkpoints)
    found = starts_of(place, 6, checkpoints)
    want = visitation(task_of(TASK), policy, 6, 0)
    assert torch.equal(found.states, want.states[0])
    at_starts = task_of(TASK).starts(6, stream(0, "starts")).double()
    assert int((found.states != at_starts).any(dim=1).sum()) > 0
    kept = {name: folder for name, _, folder in checkpoint_samples.places() if name.law == RETURN}
    assert len(kept) == 12 and set(kept.values()) == {checkpoint_samples.KEPT}


def test_critics_before_training_differ_and_are_remade_alike():
    task = task_of(TASK)
    states, actions = torch.randn(4, 4), torch.randn(4, 1)
    values = [critic_samples.untrained(task, k)(states, actions) for k in (0, 1, 0)]
    assert torch.equal(values[0], values[2]) and not torch.allclose(values[0], values[1])


def test_gradients_under_several_critics_are_gradlabs_and_come_back_from_disk(
    checkpoints, tmp_path, monkeypatch
):
    place = Place(TASK, 1000, 0, "visited")
    made = [critic_samples.untrained(task_of(TASK), k) for k in range(2)]
    monkeypatch.setattr(critic_samples, "critics_for", lambda *_: made)
    found = critic_samples.measured(place, checkpoints, 2, 5, horizon=3)
    policy, task = checkpoint_samples.policy_at(place, checkpoints), task_of(TASK)
    for k, critic in enumerate(made):
        estimator = checkpoint_samples.estimators(task, critic.double(), 3)["model"]
        assert estimator.tail == Tail(3, critic, task.discount)
        mean = estimator.mean_gradient(policy, found.states)
        state = found.states.clone().requires_grad_(False)
        action = policy(state)
        ours = torch.autograd.grad((action * found.model[k]).sum() / 5, list(policy.parameters()))
        torch.testing.assert_close(torch.cat([g.flatten() for g in ours]), mean)
    critic_samples.save(found, tmp_path / "critics.h5")
    again = critic_samples.load(tmp_path / "critics.h5")
    assert again.place == place and again.fitted
    torch.testing.assert_close(again.model, found.model, rtol=1e-6, atol=1e-6)


def test_the_truth_is_long_where_the_precise_one_is_cut(checkpoints):
    place = Place(TASK, 1000, 0, "visited")
    task, policy = task_of(TASK), checkpoint_samples.policy_at(place, checkpoints)
    begin = starts_of(place, 5, checkpoints)
    gradients, steps = checkpoint_samples.long_truth(task, policy, begin, 0)
    assert gradients.shape == (5, 1) and steps >= 100
