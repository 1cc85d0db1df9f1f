"""Networks that cannot be measured: one line, with the cause and what to write."""

import gymnasium
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradlab
from gradlab.errors import InputError

SYSTEM = gradlab.systems.from_function(lambda s, a: (0.9 * s + a, -(s**2).sum(1)), 2, 1)


def starts(n, generator):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


TASK = gradlab.Task("mine", SYSTEM, None, starts, discount=0.9, horizon=1)
STATES = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)
Q = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()


class Actor(nn.Module):
    """What a user writes into forward."""

    def __init__(self, act, noise_dim=None):
        super().__init__()
        self.net, self.act = nn.Linear(2, 1), act
        if noise_dim:
            self.noise_dim = noise_dim

    def forward(self, state):
        return self.act(self.net, state)


def valued(state, action):
    return Q(torch.cat([state, action], 1))


def blind(state, action):
    with torch.no_grad():
        return valued(state, action)


def gradients(critic, policy=None):
    tail = gradlab.Tail(0, critic, 0.9)
    policy = nn.Linear(2, 1, dtype=torch.float64) if policy is None else policy
    return gradlab.Estimator(SYSTEM, None, "first", tail).gradients(policy, STATES)


def old_weight_norm():
    with pytest.warns(FutureWarning):
        return torch.nn.utils.weight_norm(nn.Linear(2, 1))


ELSEWHERE = torch.ones(1, 1, dtype=torch.float64, device="meta")  # as of a GPU


def sb3_actor():
    import stable_baselines3  # takes half a second

    env = gymnasium.make("Pendulum-v1")
    return stable_baselines3.TD3("MlpPolicy", env, buffer_size=10, device="cpu").actor


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Actor(lambda net, s: torch.distributions.Normal(net(s), 0.1)),
         "returns a Normal, expected one tensor: of a mean and"),
        (lambda: Actor(lambda net, s: {"action": net(s)}),
         "returns a dict, expected one tensor: return the actions [N, da]"),
        (lambda: Actor(lambda net, s: F.dropout(net(s), 0.05)), "it draws inside forward"),
        (lambda: Actor(lambda net, s: net(s.float())),
         "it turns its inputs to another dtype: leave that out"),
        (lambda: Actor(lambda net, s: torch.tanh(net(s)).mul_(2.0)),
         "cannot be differentiated in its parameters: one of the variables needed"),
        (lambda: Actor(lambda net, s: net(s), noise_dim=1),
         "with noise_dim it is called as policy(state, noise)"),
        (lambda: nn.GRU(2, 1), "gradlab.tasks.with_memory(task, policy)"),
        (sb3_actor, "stable_baselines3.parts_of(model).policy"),
        (lambda: nn.LazyLinear(1), "policy has lazy parameters: run one forward pass first"),
        (old_weight_norm, "use those of torch.nn.utils.parametrizations"),
        (lambda: torch.jit.trace(nn.Linear(2, 1), torch.zeros(1, 2)),
         "the module it was made from"),
        (lambda: lambda state: state, "policy is a function, expected a torch.nn.Module"),
        (lambda: Actor, "policy is a class Actor, expected a torch.nn.Module"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_measured_is_told_why(make, words):
    with pytest.raises(InputError) as error:
        gradlab.measure(TASK, make(), valued, starts=8)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        (blind, "critic has no gradient in its inputs"),
        (lambda s, a: valued(s.detach(), a.detach()), "critic has no gradient in its inputs"),
        (lambda s, a: (9.5 * s[:, 0]).long(), "critic has no gradient in its inputs"),
        (lambda s, a: valued(s, a) + torch.randn(len(s), 1), "critic gives other values for the"),
        (lambda s, a: F.dropout(valued(s, a), 0.05), "critic gives other values for the same"),
        (lambda s, a: 0.0, "critic returns a float, expected one tensor: return [N], computed"),
        (lambda s, a: [][0], "list index out of range"),
        (
            lambda s, a: torch.cat([s, ELSEWHERE.expand(len(s), 1)], 1),
            "its inputs are on cpu: what it",
        ),
    ],
)
def test_a_critic_that_cannot_be_differentiated_is_told_why(critic, words):
    policy = nn.Linear(2, 1)
    for call in (lambda: gradients(critic), lambda: gradlab.measure(TASK, policy, critic)):
        with pytest.raises(InputError) as error:
            call()
        assert words in str(error.value) and "\n" not in str(error.value)
        assert "of one input" not in str(error.value), "the remedy for something else"


class Kept(nn.Module):
    """With a module on the meta device, as TD-MPC2's ensemble keeps one."""

    def __init__(self, inputs):
        super().__init__()
        self.net, self.shape = nn.Linear(inputs, 1), nn.Linear(inputs, 1, device="meta")

    def forward(self, *inputs):
        return self.net(torch.cat(inputs, 1))


def test_parameters_without_values_are_passed_over_in_a_critic_and_refused_in_a_policy():
    profile = gradlab.measure(TASK, nn.Linear(2, 1), Kept(3), starts=8)
    assert len(profile.config["critic_hash"]) == 12
    with pytest.raises(InputError, match=r"policy parameter shape\.weight has no values"):
        gradlab.measure(TASK, Kept(2), valued, starts=8)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_is_a_critic_whose_gradient_is_0(value):
    found = gradients(lambda s, a: torch.full((len(s),), value, dtype=s.dtype))
    assert torch.equal(found, torch.zeros_like(found))


def test_trying_draws_nothing_from_the_users_stream():
    before = torch.get_rng_state()
    with pytest.raises(InputError):
        gradients(lambda s, a: valued(s, a) + torch.randn(len(s), 1), nn.Linear(2, 1).double())
    gradients(valued, (policy := nn.Linear(2, 1).double()))
    torch.set_rng_state(before)
    expected = [nn.Linear(2, 1).double() for _ in range(2)][1].weight
    assert torch.equal(policy.weight, expected)
