"""Actors of other programs: CleanRL's shapes, and what is said of those that cannot be taken."""

import math

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.networks.actors import gaussian, squashed
from gradlab.networks.interface import check_policy
from gradlab.networks.policies import is_stochastic

STATES = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)
NOISE = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(8, 1)


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


class SacActor(nn.Module):
    """As CleanRL's: forward gives mean and log σ, `get_action` draws."""

    def __init__(self):
        super().__init__()
        self.body, self.fc_mean, self.fc_logstd = network(2, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        self.register_buffer("action_scale", torch.tensor([2.0]))
        self.register_buffer("action_bias", torch.tensor([0.5]))

    def forward(self, x):
        x = torch.relu(self.body(x))
        return self.fc_mean(x), -5 + 3.5 * (torch.tanh(self.fc_logstd(x)) + 1)


class Agent(nn.Module):
    """As CleanRL's PPO: no forward, a mean network and a parameter."""

    def __init__(self):
        super().__init__()
        self.critic, self.actor_mean = network(2, 1), network(2, 1)
        self.actor_logstd = nn.Parameter(torch.zeros(1, 1) - 1)


class Own(nn.Module):
    def __init__(self, act, outputs=1):
        super().__init__()
        self.net, self.act = network(2, outputs), act

    def forward(self, state):
        return self.act(self.net(state))


def drawing():
    return Own(lambda mean: torch.distributions.Normal(mean, 0.1).rsample())


def normal():
    return Own(
        lambda mean: torch.distributions.Independent(torch.distributions.Normal(mean, 0.5), 1)
    )


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_a_squashed_actor_gives_the_actions_and_densities_of_its_own_program():
    actor = SacActor().double()
    policy = squashed(actor)
    mean, log_std = actor(STATES)
    normal = torch.distributions.Normal(mean, log_std.exp())
    x = mean + log_std.exp() * NOISE
    y = torch.tanh(x)
    action, density = policy.with_log_prob(STATES, NOISE)
    slope = torch.log(2.0 * (1 - y**2))
    torch.testing.assert_close(action, 2 * y + 0.5)
    torch.testing.assert_close(density, (normal.log_prob(x) - slope).sum(1))
    torch.testing.assert_close(policy.log_prob(STATES, action), density)
    torch.testing.assert_close(policy.log_prob_of_draw(STATES, NOISE), density)
    torch.testing.assert_close(policy.infer_noise(STATES, action), NOISE)
    assert is_stochastic(policy) and policy.noise_dim == 1
    assert {id(p) for p in policy.parameters()} == {id(p) for p in actor.parameters()}


def test_bounds_of_an_actor_tell_how_many_actions_there_are():
    actor = Own(lambda out: out.chunk(2, -1), 2).double()  # mean and log σ from one layer
    actor.register_buffer("action_scale", torch.tensor([2.0]))
    policy = squashed(actor)
    assert policy.noise_dim == 1
    assert policy(STATES, NOISE).shape == (len(STATES), 1)


def test_a_gaussian_agent_keeps_its_log_std_a_parameter():
    agent = Agent().double()
    policy = gaussian(agent.actor_mean, agent.actor_logstd)
    action, density = policy.with_log_prob(STATES, NOISE)
    mean = agent.actor_mean(STATES)
    torch.testing.assert_close(action, mean + math.exp(-1) * NOISE)
    normal = torch.distributions.Normal(mean, math.exp(-1))
    torch.testing.assert_close(density, normal.log_prob(action).sum(1))
    torch.testing.assert_close(policy.infer_noise(STATES, action), NOISE)
    torch.testing.assert_close(policy.mean_action(STATES), mean)
    assert any(p is agent.actor_logstd for p in policy.parameters())


ADAPTED = {
    "sac": lambda: squashed(SacActor()),
    "ppo": lambda: gaussian(Agent().actor_mean, Agent().actor_logstd),
    "normal": lambda: gaussian(normal()),
    "fixed": lambda: gaussian(network(2, 1), torch.zeros(1)),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_adapted_actors_are_measured(name):
    one = torch.eye(2, dtype=torch.float64)
    task = gradlab.tasks.linear_quadratic(
        A=0.8 * one, B=one[:, :1], Q=one, R=one[:1, :1], noise_covariance=0.01 * one,
        start_mean=torch.ones(2, dtype=torch.float64), start_covariance=one, discount=0.8,
    )  # fmt: skip
    policy = ADAPTED[name]()
    assert policy(STATES.float(), NOISE.float()).dtype == torch.float32
    found = gradlab.measure(
        task,
        policy,
        lambda s, a: -(s**2).sum(1),
        horizon=1,
        starts=16,
        batch=16,
        judges=8,
        rehearse=name == "sac",
    )
    assert len(found.table())


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (SacActor, "policy returns 2 values ([2, 1], [2, 1]), expected one tensor: of a mean and"),
        (Agent, "gradlab.networks.actors.gaussian(agent.actor_mean, agent.actor_logstd)"),
        (drawing, "draws inside forward"),
        (normal, "policy returns a Independent, expected one tensor: of a mean and"),
    ],
)
def test_an_actor_that_is_no_policy_yet_is_told_what_makes_it_one(policy, words):
    state = torch.get_rng_state()
    made = policy().double()
    torch.set_rng_state(state)
    with pytest.raises(InputError) as error:
        check_policy(made, STATES, 1)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert torch.equal(torch.get_rng_state(), state), "the user's stream stands where it stood"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: squashed(network(2, 1))(STATES.float(), NOISE.float()), "expected mean and log"),
        (lambda: squashed(network(2, 1), scale=math.inf), "use gaussian()"),
        (lambda: squashed(nn.Tanh()), "no linear layer"),
        (lambda: gaussian(lambda s: s), "actor is a function"),
        (lambda: gaussian(network(2, 1), 0.0), "log_std is 0.0, expected a tensor"),
        (lambda: squashed(SacActor()).log_prob(STATES.float(), 9 + NOISE.float()), "at or over"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value) and "\n" not in str(error.value)
