"""The augmented action against the policy's own density, the soft return against its definition."""

import pytest
import torch
from torch import Tensor, nn

from gradlab import systems
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.interface import check_critic, check_policy
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian, GaussianPolicy, SoftCritic, WithLogProb
from gradlab.systems.entropy import Entropic
from gradlab.systems.system import standard_normal

N, DS, DA = 6, 3, 2
KINDS = ("plain", "squashed", "wrapped", "own")


class Own(nn.Module):
    """A user's policy: a density, but no `with_log_prob`."""

    noise_dim = DA

    def __init__(self):
        super().__init__()
        self.inner = GaussianPolicy(DS, DA, (8,), "tanh", squash=True)

    def forward(self, state, noise):
        action: Tensor = self.inner(state, noise)
        return action

    def log_prob(self, state, action):
        return self.inner.log_prob(state, action)

    def infer_noise(self, state, action):
        return self.inner.infer_noise(state, action)


def make(kind):
    torch.manual_seed(3)
    if kind == "wrapped":
        return Gaussian(Policy(DS, DA, (8,), "tanh"), 0.4).double()
    if kind == "own":
        return Own().double()
    return GaussianPolicy(DS, DA, (8, 8), "tanh", squash=kind == "squashed").double()


def inputs():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(N, DS + DA, generator=generator, dtype=torch.float64)
    return draws[:, :DS].clone(), draws[:, DS:].clone()


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_action_is_the_log_probability_of_the_others(kind):
    policy, (state, noise) = make(kind), inputs()
    augmented = WithLogProb(policy)(state, noise)
    assert torch.equal(augmented[:, :-1], policy(state, noise))
    expected = policy.log_prob(state, augmented[:, :-1])
    torch.testing.assert_close(augmented[:, -1], expected, rtol=1e-10, atol=1e-10)
    both = zip(WithLogProb(policy).parameters(), policy.parameters(), strict=True)
    assert all(left is right for left, right in both), "in the same order"
    assert WithLogProb(policy).noise_dim == DA


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_total_through_the_action(kind):
    policy, (state, noise) = make(kind), inputs()
    state.requires_grad_()
    weight = torch.arange(1.0, N + 1, dtype=torch.float64)
    leaves = [state, *policy.parameters()]
    expected = (policy.log_prob(state, policy(state, noise)) * weight).sum()
    got = (WithLogProb(policy)(state, noise)[:, -1] * weight).sum()
    if not got.requires_grad:  # a fixed std has a constant entropy
        got = got + 0 * sum(leaf.sum() for leaf in leaves)
    left, right = (
        torch.autograd.grad(each, leaves, materialize_grads=True) for each in (got, expected)
    )
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "squashed", "wrapped"])
def test_the_augmented_policy_takes_the_fast_path(kind, recwarn):
    policy, (state, _) = WithLogProb(make(kind)), inputs()
    check_policy(policy, state, DA + 1)
    critic = SoftCritic(QCritic(DS, DA, (8,), "tanh").double(), 0.3)
    plain = systems.from_function(lambda s, a: (s, s[:, 0]), DS, DA)
    estimator = Estimator(Entropic(plain, 0.3), None, "first", Tail(0, critic, 0.9))
    rows = estimator.gradients(policy, state, seed=4)
    assert not recwarn.list
    value = critic(state, policy(state, standard_normal(N, DA, stream(4, "policy")))).sum()
    expected = torch.autograd.grad(value, list(policy.parameters()))
    flat = torch.cat([gradient.flatten() for gradient in expected])
    torch.testing.assert_close(rows.sum(dim=0), flat, rtol=1e-10, atol=1e-12)


def test_a_soft_critic_charges_alpha_per_nat():
    critic, (state, noise) = QCritic(DS, DA, (8,)).double(), inputs()
    soft = SoftCritic(critic, 0.3)
    check_critic(soft, "Q", state, DA + 1)
    log_prob = torch.randn(N, dtype=torch.float64)
    augmented = torch.cat([noise, log_prob[:, None]], dim=1)
    torch.testing.assert_close(soft(state, augmented), critic(state, noise) - 0.3 * log_prob)


def test_entropy_needs_a_density_and_a_temperature():
    with pytest.raises(InputError, match="wrap it"):
        WithLogProb(Policy(DS, DA))
    for alpha in (-0.1, float("nan"), float("inf"), "0.1"):
        with pytest.raises(InputError, match="alpha"):
            SoftCritic(QCritic(DS, DA), alpha)
