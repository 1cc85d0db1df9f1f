"""The gradient that a row's loss follows, beside the estimator that the row claims to be."""

import torch
from torch import nn

import gradlab
from gradlab.data.noise import stream
from gradlab.data.replay import Batch
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import as_starts
from gradlab.training.learner import Learner
from gradlab.training.members import unstacked
from gradlab.training.settings import Settings
from tests.training.small_runs import flattened, policy_gradients, push

N = 16


class Least(nn.Module):
    """The smaller of two critics."""

    def __init__(self, critics):
        super().__init__()
        self.critics = nn.ModuleList(critics)

    def forward(self, state, action):
        return torch.minimum(*(critic(state, action) for critic in self.critics))


class Drawn:
    """The noise of given paths, one for each member; starts as a run draws them."""

    def __init__(self, draws, paths):
        self.device, self.dtype, self.generators = draws.device, draws.dtype, draws.generators
        policy = torch.stack([path.policy_noise for path in paths], dim=1)
        model = torch.stack([path.dynamics_noise for path in paths], dim=2)
        self.noise = {"action": policy[0], "later actions": policy[1:].transpose(0, 1)}
        self.noise["model noise"] = model.permute(2, 0, 1, 3)

    def normal(self, name, iteration, shape):
        assert self.noise[name].shape[1:] == shape
        return self.noise[name]


def other(state, action, noise):
    """A model that errs in states and Jacobians."""
    after, reward = push(state, action, noise)
    return after + 0.2 * torch.cos(state) * action[:, :1], reward + 0.3 * state[:, 0] * action[:, 1]


def critics_of(learner, seed):
    """The smaller of a seed's critics, or None of a row that has none."""
    if learner.critic is None or not learner.critic.parameters:
        return None
    module = learner.critic_module
    pair = [unstacked(learner.critic, 2 * seed + k, module).double() for k in range(2)]
    return Least(pair)


def first_states(task, replayed, share):
    """Of each seed, this share of states in which episodes begin, before those of replay."""
    count = round(share * N)
    streams = [stream(seed, "training policy starts", 0) for seed in range(2)]
    fresh = torch.stack([task.starts(count, generator) for generator in streams])
    return torch.cat([fresh, replayed[:, count:]], dim=1)


def assert_estimated(
    row, task, fresh=0.0, alpha=0.0, samples=1, systems=None, termination="ignore", apart=0.0
):
    """A row of one term with θ in all actions; its critics' rows may be `apart` from its starts."""
    learner = Learner(row, task, Settings(precision="float64", seeds=2, termination=termination))
    states, jacobians = systems or (task.prior, task.prior)
    replayed, horizon = torch.randn(2, N, 3, dtype=torch.float64), row.terms[0].horizon
    first = first_states(task, replayed, fresh)
    begins = [as_starts(rows.repeat_interleave(samples, dim=0), 3) for rows in first]
    policies = [learner.policy_of(seed).double() for seed in range(2)]
    paths = [
        rollout(states, policy, begin, max(horizon, 1), seed=7)
        for policy, begin in zip(policies, begins, strict=True)
    ]
    nothing, at = replayed.new_zeros(2, N), replayed + apart
    starts = replayed if apart else None
    batch = Batch(at, at[..., :2], nothing, at, nothing, starts=starts)
    gradients = policy_gradients(learner, 0, batch, Drawn(learner.draws, paths))
    for seed, (policy, begin) in enumerate(zip(policies, begins, strict=True)):
        tail = gradlab.Tail(horizon, critics_of(learner, seed), task.discount)
        estimator = gradlab.Estimator(states, jacobians, "all", tail, entropy=alpha)
        wanted = estimator.mean_gradient(policy, begin.states, seed=7, termination=termination)
        torch.testing.assert_close(-flattened(gradients, seed), wanted, rtol=1e-9, atol=1e-11)
