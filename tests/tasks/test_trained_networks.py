"""Networks that come with the MuJoCo tasks."""

import pytest
import torch

from gradlab.data.noise import stream
from gradlab.networks import checkpoint
from gradlab.networks.interface import act, noise_dim
from gradlab.tasks import mujoco, pendulum
from gradlab.tasks.environments import TRAINED, trained_networks


@pytest.mark.parametrize("env_id", TRAINED)
def test_trained_networks_act_on_their_task(env_id):
    task = mujoco(env_id)
    files = trained_networks(task)
    assert all(file.stat().st_size < 1e6 for file in files.values())
    policy, critic = (checkpoint.load(files[kind]).double() for kind in ("policy", "critic"))
    state = task.starts(16, stream(0, "starts"))
    noise = torch.zeros(16, noise_dim(policy), dtype=torch.float64)
    action = act(policy, state, noise)
    assert (action.abs() <= torch.tensor(task.action_limit)).all()
    # The value of a start is at most what the best rewards would sum to, and above nothing.
    with torch.no_grad():
        assert 0 < float(critic(state, action).mean()) < 1e3
        alive = torch.ones(16, dtype=torch.bool)
        for _ in range(30):
            step = task.simulator.step(state, act(policy, state, noise))
            state, alive = step.state, alive & step.alive
    assert alive.float().mean() > 0.9


def test_other_tasks_have_none():
    assert not trained_networks(pendulum())
    assert not trained_networks(mujoco("Hopper-v5", healthy_reward=2.0))
