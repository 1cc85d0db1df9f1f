"""Stochastic policies against torch.distributions, quadrature and their own inverse."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    AffineTransform,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from gradlab import systems
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian, GaussianPolicy, check_stochastic, is_stochastic
from gradlab.systems.system import standard_normal

N, DS, DA = 7, 3, 2
LIMIT = (0.5, 3.0)
Stochastic = GaussianPolicy | Gaussian


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(kind, activation="tanh"):
    torch.manual_seed(5)
    if kind == "wrapped":
        return Gaussian(Policy(DS, DA, (8,), activation).double(), (0.2, 0.7))
    squash = kind == "squashed"
    limit = LIMIT if squash else None
    return GaussianPolicy(DS, DA, (8, 8), activation, None, squash, limit).double()


KINDS = ("plain", "squashed", "wrapped")


def reference(policy, state):
    """The same law from torch.distributions, its parameters read off the network."""
    if isinstance(policy, Gaussian):
        std = torch.tensor([0.2, 0.7], dtype=torch.float64).expand(len(state), DA)
        return Independent(Normal(policy.policy(state), std), 1)
    out = policy.network(state)
    low, high = policy.log_std_bounds
    std = torch.exp(low + (high - low) * torch.sigmoid(out[:, DA:]))
    normal = Normal(out[:, :DA], std)
    if policy.limit is None:
        return Independent(normal, 1)
    scale = torch.tensor(LIMIT, dtype=torch.float64)
    squashed = TransformedDistribution(normal, [TanhTransform(), AffineTransform(0.0, scale)])
    return Independent(squashed, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_that_of_torch_distributions(kind):
    policy, state = make(kind), draw(N, DS)
    action = policy(state, draw(N, DA, seed=1)).detach()
    expected = reference(policy, state).log_prob(action)
    torch.testing.assert_close(policy.log_prob(state, action), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_follow_the_law_whose_density_log_prob_states(kind):
    policy, n = make(kind), 100_000
    state = draw(1, DS).expand(n, DS)
    action = policy(state, draw(n, DA, seed=2)).detach()
    low, high = action.quantile(0.2, dim=0), action.quantile(0.8, dim=0)
    inside = ((action > low) & (action < high)).all(dim=1)
    # E_π[1{a in box} / π(a)] is the volume of the box.
    ratio = inside / policy.log_prob(state, action).detach().exp() / (high - low).prod()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(n) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_integrates_to_one(kind):
    torch.manual_seed(1)
    if kind == "wrapped":
        policy: Stochastic = Gaussian(Policy(1, 1, (4,)).double(), 0.3)
    else:
        policy = GaussianPolicy(1, 1, (4,), squash=kind == "squashed").double()
    edge = 1.0 if kind == "squashed" else 8.0
    m = 400_000
    action = edge * ((torch.arange(m, dtype=torch.float64) + 0.5) / m * 2 - 1)
    density = policy.log_prob(torch.full((m, 1), 0.3).double(), action[:, None]).exp()
    assert float(density.detach().sum()) * 2 * edge / m == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_gives_action_and_log_prob_of_a_noise_that_is_inferred_again(kind):
    policy, state, noise = make(kind), draw(N, DS), draw(N, DA, seed=1)
    action, log_prob = policy.with_log_prob(state, noise)
    assert torch.equal(action, policy(state, noise))
    torch.testing.assert_close(log_prob, policy.log_prob(state, action), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(policy.infer_noise(state, action), noise, rtol=1e-9, atol=1e-9)
    assert torch.equal(policy.mean_action(state), policy(state, torch.zeros(N, DA).double()))


def test_the_tanh_correction_holds_where_tanh_rounds_to_one():
    policy = GaussianPolicy(1, 1, (), squash=True, log_std_bounds=(-0.1, 0.1))
    nn.init.zeros_(policy.network[0].weight)
    nn.init.zeros_(policy.network[0].bias)
    noise = torch.tensor([[-30.0], [30.0]])
    _, log_prob = policy.with_log_prob(torch.zeros(2, 1), noise)
    # σ = 1; log(1 − tanh²u) → 2 log 2 − 2|u|
    expected = -450 - 0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 60)
    torch.testing.assert_close(log_prob, torch.full((2,), expected), rtol=1e-6, atol=0)


def test_log_std_stays_within_its_bounds():
    policy = GaussianPolicy(DS, DA, (8,), log_std_bounds=(-3.0, 1.0)).double()
    state = 1e3 * draw(N, DS)
    spread = policy(state, torch.ones(N, DA).double()) - policy.mean_action(state)
    assert bool((spread > math.exp(-3) * (1 - 1e-6)).all())
    assert bool((spread < math.exp(1) * (1 + 1e-6)).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
def test_per_sample_gradients_take_the_fast_path_and_equal_autograd(kind, activation, recwarn):
    policy, state = make(kind, activation), draw(N, DS)
    critic = QCritic(DS, DA, (8,), "tanh").double()
    system = systems.from_function(lambda s, a: (s, s[:, 0]), DS, DA)
    got = Estimator(system, None, "first", Tail(0, critic, 0.9)).gradients(policy, state, seed=4)
    assert not recwarn.list
    noise = standard_normal(N, DA, stream(4, "policy"))
    for i in range(N):
        row = slice(i, i + 1)
        value = critic(state[row], policy(state[row], noise[row])).sum()
        expected = torch.cat(
            [g.flatten() for g in torch.autograd.grad(value, list(policy.parameters()))]
        )
        torch.testing.assert_close(got[i], expected, rtol=1e-10, atol=1e-12)


def test_limits_keep_their_value_when_a_float32_policy_turns_double():
    policy = GaussianPolicy(1, 1, (), squash=True, limit=0.1).double()
    far = torch.full((1, 1), 1e6, dtype=torch.float64)
    assert policy(torch.zeros(1, 1).double(), far).item() == 0.1


@pytest.mark.parametrize("action", [0.5, -0.5, 0.7, math.nan])
def test_an_action_that_a_squashed_policy_cannot_give_is_named(action):
    policy, state = make("squashed"), draw(N, DS)
    actions = torch.zeros(N, DA, dtype=torch.float64)
    actions[4, 0] = action
    for call in (policy.infer_noise, policy.log_prob):
        with pytest.raises(InputError, match=r"1 entries at or over the limit.*row 4, action 0"):
            call(state, actions)


def test_a_deterministic_policy_is_told_how_to_get_a_score():
    policy = Policy(DS, DA)
    assert not is_stochastic(policy)
    with pytest.raises(InputError, match=r"policies\.Gaussian\(policy, std\)"):
        check_stochastic(policy)
    wrapped = Gaussian(policy, 0.1)
    assert is_stochastic(wrapped)
    check_stochastic(wrapped)
    assert list(wrapped.parameters()) == list(policy.parameters())
    noisy = nn.Linear(1, 1)
    noisy.noise_dim = 1  # noise without a density
    assert not is_stochastic(noisy)
    with pytest.raises(InputError, match="no density"):
        check_stochastic(noisy)


def test_a_module_of_ones_own_is_wrapped_with_one_std_for_all_actions():
    policy = Gaussian(nn.Linear(DS, DA, bias=False).double(), 0.3)
    state, noise = draw(N, DS), draw(N, DA, seed=1)
    assert policy.noise_dim == DA
    torch.testing.assert_close(policy(state, noise), policy.mean_action(state) + 0.3 * noise)


def test_wrong_arguments_are_named():
    state = draw(N, DS)
    with pytest.raises(InputError, match="noise has shape"):
        make("plain")(state, draw(N))
    with pytest.raises(InputError, match="action has shape"):
        make("wrapped").log_prob(state, draw(N, 1))
    with pytest.raises(InputError, match="squash is False"):
        GaussianPolicy(DS, DA, limit=1.0)
    with pytest.raises(InputError, match="limit has 3 entries, expected 2"):
        GaussianPolicy(DS, DA, squash=True, limit=(1.0, 2.0, 3.0))
    with pytest.raises(InputError, match="low < high"):
        GaussianPolicy(DS, DA, log_std_bounds=(2.0, -5.0))
    for std in (0.0, -1.0, math.nan, math.inf, ()):
        with pytest.raises(InputError, match="std"):
            Gaussian(Policy(DS, DA), std)
    with pytest.raises(InputError, match="stochastic already"):
        Gaussian(make("plain"), 0.1)
    with pytest.raises(InputError, match="one per action"):
        Gaussian(nn.Identity(), 0.1)
    with pytest.raises(InputError, match="give std per action"):
        Gaussian(nn.Linear(DS, DA).double(), (0.1,))(state, draw(N, 1))
