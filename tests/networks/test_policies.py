"""Stochastic policies against torch.distributions, their own inverse and autograd."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from gradlab import systems
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Tail
from gradlab.networks.actors import gaussian, squashed
from gradlab.networks.interface import check_critic, check_policy
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import (
    Gaussian,
    GaussianPolicy,
    SoftCritic,
    WithLogProb,
    check_stochastic,
    is_stochastic,
)
from gradlab.systems.system import Entropic, standard_normal

N, DS, DA = 7, 3, 2
LIMIT = (0.5, 3.0)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


class SacActor(nn.Module):
    """As CleanRL's: forward gives mean and log σ, `get_action` draws."""

    def __init__(self):
        super().__init__()
        self.body = network(DS, 8)
        self.fc_mean, self.fc_logstd = nn.Linear(8, DA), nn.Linear(8, DA)
        self.register_buffer("action_scale", torch.tensor(LIMIT))
        self.register_buffer("action_bias", torch.tensor([0.5, -0.1]))

    def forward(self, x):
        x = torch.relu(self.body(x))
        return self.fc_mean(x), -5 + 3.5 * (torch.tanh(self.fc_logstd(x)) + 1)


class Agent(nn.Module):
    """As CleanRL's PPO: no forward, a mean network and a parameter."""

    def __init__(self):
        super().__init__()
        self.critic, self.actor_mean = network(DS, 1), network(DS, DA)
        self.actor_logstd = nn.Parameter(torch.tensor([[-1.0, 0.2]]))


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


KINDS = {
    "plain": lambda: GaussianPolicy(DS, DA, (8, 8), "tanh"),
    "squashed": lambda: GaussianPolicy(DS, DA, (8, 8), "tanh", None, True, LIMIT),
    "wrapped": lambda: Gaussian(Policy(DS, DA, (8,), "tanh"), (0.2, 0.7)),
    "sac": lambda: squashed(SacActor()),
    "ppo": lambda: gaussian((agent := Agent()).actor_mean, agent.actor_logstd),
    "normal": lambda: gaussian(Act(lambda x: Independent(Normal(x, 0.5), 1))),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


class Act(nn.Module):
    """What a user makes of a network's output."""

    def __init__(self, act, outputs=DA):
        super().__init__()
        self.net, self.act = network(DS, outputs), act

    def forward(self, state):
        return self.act(self.net(state))


def make(kind):
    torch.manual_seed(5)
    return Own().double() if kind == "own" else KINDS[kind]().double()


def reference(kind, policy, state):
    """The same law from torch.distributions, its parameters read off the network."""
    scale = torch.tensor(LIMIT, dtype=torch.float64)
    if kind == "sac":
        mean, log_std = policy.actor(state)
        bounds = AffineTransform(policy.bias, scale)
        law = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(), bounds])
    elif kind == "ppo":
        law = Normal(policy.actor(state), policy.log_std.exp().expand(len(state), DA))
    elif kind == "normal":
        law = policy.actor(state).base_dist
    elif kind == "wrapped":
        std = torch.tensor([0.2, 0.7], dtype=torch.float64)
        law = Normal(policy.policy(state), std.expand(len(state), DA))
    else:
        out = policy.network(state)
        low, high = policy.log_std_bounds
        law = Normal(out[:, :DA], torch.exp(low + (high - low) * torch.sigmoid(out[:, DA:])))
        if kind == "squashed":
            law = TransformedDistribution(law, [TanhTransform(), AffineTransform(0.0, scale)])
    return Independent(law, 1)


@every_kind
def test_log_prob_is_that_of_torch_distributions(kind):
    policy, state = make(kind), draw(N, DS)
    action = policy(state, draw(N, DA, seed=1)).detach()
    expected = reference(kind, policy, state).log_prob(action)
    torch.testing.assert_close(policy.log_prob(state, action), expected, rtol=1e-9, atol=1e-9)


@every_kind
def test_actions_follow_the_law_whose_density_log_prob_states(kind):
    policy, n = make(kind), 100_000
    state = draw(1, DS).expand(n, DS)
    action = policy(state, draw(n, DA, seed=2)).detach()
    low, high = action.quantile(0.2, dim=0), action.quantile(0.8, dim=0)
    inside = ((action > low) & (action < high)).all(dim=1)
    # E_π[1{a in box} / π(a)] is the volume of the box.
    ratio = inside / policy.log_prob(state, action).detach().exp() / (high - low).prod()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(n) < 0.05


@every_kind
def test_one_pass_gives_action_and_log_prob_of_a_noise_that_is_inferred_again(kind):
    policy, state, noise = make(kind), draw(N, DS), draw(N, DA, seed=1)
    action, log_prob = policy.with_log_prob(state, noise)
    assert torch.equal(action, policy(state, noise))
    near = dict(rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_prob, policy.log_prob(state, action), **near)
    torch.testing.assert_close(log_prob, policy.log_prob_of_draw(state, noise), **near)
    torch.testing.assert_close(policy.infer_noise(state, action), noise, **near)
    torch.testing.assert_close(policy.mean_action(state), policy(state, 0 * noise))


@pytest.mark.parametrize("kind", [*KINDS, "own"])
def test_the_last_action_is_the_log_probability_of_the_others(kind):
    """And its derivatives are total, through the action."""
    policy, state, noise = make(kind), draw(N, DS).requires_grad_(), draw(N, DA, seed=1)
    augmented = WithLogProb(policy)(state, noise)
    assert torch.equal(augmented[:, :-1], policy(state, noise))
    expected = policy.log_prob(state, augmented[:, :-1])
    torch.testing.assert_close(augmented[:, -1], expected, rtol=1e-10, atol=1e-10)
    both = zip(WithLogProb(policy).parameters(), policy.parameters(), strict=True)
    assert all(left is right for left, right in both), "in the same order"
    leaves, weight = [state, *policy.parameters()], torch.arange(1.0, N + 1).double()
    unused = 0 * sum(leaf.sum() for leaf in leaves)  # a fixed std has a constant entropy
    left, right = (
        torch.autograd.grad((each * weight).sum() + unused, leaves, retain_graph=True)
        for each in (augmented[:, -1], expected)
    )
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@every_kind
@pytest.mark.parametrize("soft", [False, True])
def test_per_sample_gradients_take_the_fast_path_and_equal_autograd(kind, soft, recwarn):
    policy, state = make(kind), draw(N, DS)
    critic: nn.Module = QCritic(DS, DA, (8,), "tanh").double()
    system = systems.from_function(lambda s, a: (s, s[:, 0]), DS, DA)
    if soft:
        policy, critic, system = WithLogProb(policy), SoftCritic(critic, 0.3), Entropic(system, 0.3)
        check_policy(policy, state, DA + 1)
        check_critic(critic, "Q", state, DA + 1)
    recwarn.clear()
    got = Estimator(system, None, "first", Tail(0, critic, 0.9)).gradients(policy, state, seed=4)
    assert bool(recwarn.list) == (kind == "ppo")  # a parameter of no layer
    noise = standard_normal(N, DA, stream(4, "policy"))
    for i in range(N):
        row = slice(i, i + 1)
        value = critic(state[row], policy(state[row], noise[row])).sum()
        expected = torch.autograd.grad(value, list(policy.parameters()), materialize_grads=True)
        expected = torch.cat([g.flatten() for g in expected])
        torch.testing.assert_close(got[i], expected, rtol=1e-10, atol=1e-12)


def test_adapted_actors_keep_their_parameters_and_know_their_width():
    agent = Agent()
    policy = gaussian(agent.actor_mean, agent.actor_logstd)
    assert any(p is agent.actor_logstd for p in policy.parameters())
    assert policy(draw(N, DS).float(), draw(N, DA).float()).dtype == torch.float32
    actor = Act(lambda out: out.chunk(2, -1), 2)  # mean and log σ of one action, from one layer
    actor.register_buffer("action_scale", torch.tensor([2.0]))
    assert squashed(actor).noise_dim == 1
    del actor.action_scale
    assert squashed(actor).noise_dim == gaussian(actor).noise_dim == 1
    policy = Gaussian(nn.Linear(DS, DA, bias=False).double(), 0.3)
    state, noise = draw(N, DS), draw(N, DA, seed=1)
    torch.testing.assert_close(policy(state, noise), policy.mean_action(state) + 0.3 * noise)


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


def test_limits_keep_their_value_when_a_float32_policy_turns_double():
    policy = GaussianPolicy(1, 1, (), squash=True, limit=0.1).double()
    far = torch.full((1, 1), 1e6, dtype=torch.float64)
    assert policy(torch.zeros(1, 1).double(), far).item() == 0.1


def test_a_soft_critic_charges_alpha_per_nat():
    critic, state, action = QCritic(DS, DA, (8,)).double(), draw(N, DS), draw(N, DA)
    log_prob = draw(N, seed=2)
    augmented = torch.cat([action, log_prob[:, None]], dim=1)
    wanted = critic(state, action) - 0.3 * log_prob
    torch.testing.assert_close(SoftCritic(critic, 0.3)(state, augmented), wanted)


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
    for refused in (check_stochastic, WithLogProb):
        with pytest.raises(InputError, match=r"policies\.Gaussian\(policy, std\)"):
            refused(policy)
    wrapped = Gaussian(policy, 0.1)
    assert is_stochastic(wrapped)
    assert list(wrapped.parameters()) == list(policy.parameters())
    noisy = nn.Linear(1, 1)
    noisy.noise_dim = 1  # noise without a density
    with pytest.raises(InputError, match="no density"):
        check_stochastic(noisy)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SacActor(), "policy returns a tuple"),
        (lambda: Agent(), "gradlab.networks.actors makes one"),
        (lambda: Act(lambda mean: Normal(mean, 0.1).rsample()), "draws inside forward"),
        (
            lambda: Act(lambda mean: Independent(Normal(mean, 0.5), 1)),
            "policy returns a Independent",
        ),
    ],
)
def test_an_actor_that_is_no_policy_yet_is_told_what_makes_it_one(make, words):
    policy = make().double()
    state = torch.get_rng_state()
    with pytest.raises(InputError) as error:
        check_policy(policy, draw(N, DS), DA)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert torch.equal(torch.get_rng_state(), state), "the user's stream stands where it stood"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make("plain")(draw(N, DS), draw(N)), "noise has shape"),
        (lambda: make("wrapped").log_prob(draw(N, DS), draw(N, 1)), "action has shape"),
        (lambda: GaussianPolicy(DS, DA, limit=1.0), "squash is False"),
        (
            lambda: GaussianPolicy(DS, DA, squash=True, limit=(1.0, 2.0, 3.0)),
            "limit has 3 entries, expected 2",
        ),
        (lambda: GaussianPolicy(DS, DA, log_std_bounds=(2.0, -5.0)), "low < high"),
        (lambda: Gaussian(Policy(DS, DA), -1.0), "std is -1.0"),
        (lambda: Gaussian(Policy(DS, DA), math.nan), "std is nan"),
        (lambda: Gaussian(Policy(DS, DA), ()), "std"),
        (lambda: Gaussian(make("plain"), 0.1), "stochastic already"),
        (lambda: Gaussian(nn.Identity(), 0.1), "one per action"),
        (
            lambda: Gaussian(nn.Linear(DS, DA).double(), (0.1,))(draw(N, DS), draw(N, 1)),
            "give std per action",
        ),
        (lambda: SoftCritic(QCritic(DS, DA), float("inf")), "alpha is inf"),
        (lambda: squashed(network(DS, 1))(draw(N, DS).float(), draw(N, 1)), "expected mean and"),
        (lambda: squashed(network(2, 1), scale=math.inf), "use gaussian()"),
        (lambda: squashed(nn.Tanh()), "no linear layer"),
        (lambda: gaussian(lambda s: s), "actor is a function"),
        (lambda: gaussian(network(2, 1), 0.0), "log_std is 0.0, expected a tensor"),
        (lambda: make("sac").log_prob(draw(N, DS), 9 + draw(N, DA)), "at or over"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)
