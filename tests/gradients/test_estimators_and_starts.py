"""Start laws against closed forms of linear systems and chains that can be counted.

Every estimator against its definition, differentiated by autograd. Kernels against explicit
per-sample gradients.
"""

import copy
import dataclasses
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

import gradlab.gradients.rollout as rollouts
from gradlab import Estimator, Tail, systems
from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients import policy_jacobian as operator
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import Starts, as_starts
from gradlab.gradients.start_laws import initial, mixture, repeated, visitation
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import Gaussian
from gradlab.tasks import Task
from tests.gradients.every_horizon import horizon_gradients
from tests.gradients.worlds import Critic, Noisy, linear, network, reference_gradients, worlds

DISCOUNT, STD = 0.9, 0.5
SPREAD = torch.tensor([2.0, 0.5], dtype=torch.float64)
K = torch.tensor([[0.3, 0.6]], dtype=torch.float64)


def draw_starts(n: int, generator: torch.Generator) -> Tensor:
    return 1 + SPREAD * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def task() -> Task:
    return Task("linear", linear(), None, draw_starts, discount=DISCOUNT, horizon=5)


def feedback() -> nn.Module:
    """u = −K s + std ε."""
    layer = nn.Linear(2, 1, bias=False).double()
    layer.weight.data = -K
    return Gaussian(layer, STD)


def second_moments() -> tuple[Tensor, Tensor]:
    """E[s sᵀ] under ζ and under ν: Σ = γ M Σ Mᵀ + E_ζ[s sᵀ] + γ/(1−γ) (W + B std² Bᵀ)."""
    system = linear()
    begin = torch.ones(2, 2, dtype=torch.float64) + torch.diag(SPREAD**2)
    M = system.A - system.B @ K
    noise = system.noise_covariance + STD**2 * system.B @ system.B.T
    constant = begin + DISCOUNT / (1 - DISCOUNT) * noise
    sigma = scipy.linalg.solve_discrete_lyapunov(math.sqrt(DISCOUNT) * M.numpy(), constant.numpy())
    return begin, (1 - DISCOUNT) * torch.from_numpy(np.asarray(sigma))


def z_scores(path: Path, expected: Tensor) -> Tensor:
    """Deviation of the weighted second moment from `expected` in standard errors, by group."""
    s = path.states[0]
    products = torch.einsum("n,ni,nj->nij", path.weight, s, s) - expected
    groups = torch.zeros(int(path.group.max()) + 1, 2, 2, dtype=torch.float64)
    groups.index_add_(0, path.group, products)
    mean = groups.mean(dim=0)
    return mean / (groups.std(dim=0) / math.sqrt(len(groups)))


@pytest.mark.parametrize("per_trajectory", [1, 4])
def test_the_second_moment_under_visitation_is_the_discounted_lyapunov_solution(per_trajectory):
    _, expected = second_moments()
    path = visitation(task(), feedback(), 20_000, per_trajectory=per_trajectory)
    assert z_scores(path, expected).abs().max() < 4
    assert torch.equal(path.group, torch.arange(20_000) // per_trajectory)


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_a_mixture_has_the_mixed_second_moment(beta):
    begin, visited = second_moments()
    path = mixture(task(), feedback(), 20_000, beta, seed=1)
    assert z_scores(path, beta * visited + (1 - beta) * begin).abs().max() < 4
    assert z_scores(path, (1 - beta) * visited + beta * begin).abs().max() > 10


def test_beta_zero_is_the_tasks_own_starts_and_beta_one_the_visitation():
    own = task().starts(50, stream(7, "starts"))
    assert torch.equal(initial(task(), 50, seed=7).states[0], own)
    assert torch.equal(mixture(task(), feedback(), 50, 0.0, seed=7).states[0], own)
    visited = visitation(task(), feedback(), 50, seed=7).states[0]
    assert torch.equal(mixture(task(), feedback(), 50, 1.0, seed=7).states[0], visited)
    share = (visited != own).any(dim=1).double().mean()
    assert abs(float(share) - DISCOUNT) < 0.15


def test_a_larger_beta_moves_starts_to_the_visitation_and_none_back():
    zeta, few, many, nu = (
        mixture(task(), feedback(), 400, beta, seed=2).states[0] for beta in (0.0, 0.3, 0.6, 1.0)
    )
    for mixed, beta in ((few, 0.3), (many, 0.6)):
        from_nu, from_zeta = ((mixed == law).all(dim=1) for law in (nu, zeta))
        assert bool((from_nu | from_zeta).all())
        moved = float((~from_zeta).double().mean())
        assert abs(moved - beta * DISCOUNT) < 0.1
    assert bool(((many == nu) | (few != nu)).all())


def counter(end: float = math.inf) -> Task:
    """States that count the steps, from 0; alive before `end`."""
    system = systems.from_function(
        lambda s, a: (s + 1, 0 * s[:, 0]), 1, 1, alive=lambda s: s[:, 0] < end
    )

    def zeros(n: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    return Task("counter", system, None, zeros, discount=DISCOUNT, horizon=5)


@pytest.mark.parametrize("per_trajectory", [1, 5])
def test_the_time_of_a_state_is_geometric(per_trajectory):
    n = 50_000
    policy = Policy(1, 1, ())
    path = visitation(counter(), policy, n, per_trajectory=per_trajectory)
    time = path.states[0, :, 0]
    for t in range(12):
        expected = (1 - DISCOUNT) * DISCOUNT**t
        error = math.sqrt(expected * (1 - expected) / n)
        assert abs(float((time == t).double().mean()) - expected) < 4 * error
    if per_trajectory > 1:  # times within a trajectory are independent of each other
        times = time.reshape(-1, per_trajectory)
        assert abs(np.corrcoef(times[:, 0], times[:, 1])[0, 1]) < 4 / math.sqrt(len(times))


def test_states_past_the_end_weigh_nothing_under_mask_and_are_simulated_under_ignore():
    policy = Policy(1, 1, ())
    masked = visitation(counter(end=3), policy, 2000, termination="mask")
    ignored = visitation(counter(end=3), policy, 2000)
    time = ignored.states[0, :, 0]
    assert float(time.max()) > 20
    assert torch.equal(masked.weight, (time < 3).double())
    assert bool((ignored.weight == 1).all())
    assert float(masked.states.max()) == 3


def test_values_do_not_depend_on_how_rows_are_blocked(monkeypatch):
    whole = visitation(task(), feedback(), 300, seed=5, per_trajectory=3)
    monkeypatch.setattr(rollouts, "ROWS", 7)
    blocked = visitation(task(), feedback(), 300, seed=5, per_trajectory=3)
    torch.testing.assert_close(blocked.states, whole.states, rtol=1e-12, atol=1e-12)


def test_a_seed_makes_the_same_starts_and_spares_the_global_stream():
    policy, before = feedback(), torch.random.get_rng_state()
    first, second, other = (visitation(task(), policy, 100, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.states, second.states)
    assert not torch.isclose(first.states, other.states).any()


def test_rollouts_from_the_visitation_see_other_noise_than_led_there():
    """Noise reused would correlate s_T with the ε that follows at the same seed."""
    policy, n = feedback(), 20_000
    path = visitation(task(), policy, n, seed=0)
    after = rollout(linear(), policy, as_starts(path, 2), 1, seed=0)
    for noise in (after.policy_noise[0], after.dynamics_noise[0]):
        correlation = np.corrcoef(path.states[0].T, noise.T)[:2, 2:]
        assert np.abs(correlation).max() < 4 / math.sqrt(n)


def test_repeated_starts_share_a_group():
    states = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    path = repeated(states, 3)
    assert path.states[0, :, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert path.group.tolist() == [0, 0, 0, 1, 1, 1]
    weighted = dataclasses.replace(path, weight=torch.arange(6.0).double())
    again = repeated(weighted, 2)
    assert again.group.tolist() == [0] * 6 + [1] * 6
    assert again.weight.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    begin = as_starts(path, 1)
    assert isinstance(begin, Starts)
    noise = rollout(
        systems.from_function(lambda s, a: (s, s[:, 0]), 1, 1),
        Gaussian(Policy(1, 1, ()).double(), 1.0),
        begin,
        0,
    ).policy_noise[0, :, 0]
    assert len(set(noise.tolist())) == 6


def test_wrong_arguments_are_named():
    policy = feedback()
    cases = (
        (lambda: visitation(task(), policy, 10, per_trajectory=3), "multiple of per_trajectory"),
        (lambda: visitation(task(), policy, 0), "n is 0"),
        (lambda: mixture(task(), policy, 4, 1.5), "beta is 1.5"),
        (lambda: mixture(task(), policy, 4, math.nan), "beta is nan"),
        (lambda: visitation(task(), policy, 4, termination="stop"), "termination is 'stop'"),
        (lambda: visitation(task(), Policy(3, 1), 4), "policy cannot take"),
        (lambda: repeated(torch.zeros(2, 1), 0), "samples is 0"),
        (lambda: initial(task(), -1), "n is -1"),
    )
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    exploding = dataclasses.replace(task(), simulator=linear(1e200))
    with pytest.raises(InputError, match="out of the finite numbers"):
        visitation(exploding, policy, 100)


WORLDS = worlds()
POLICIES = {
    "elu": lambda ds, da: network((ds, 8, 8, da), nn.ELU),
    "tanh": lambda ds, da: network((ds, 6, da), nn.Tanh),
    "relu, no bias": lambda ds, da: network((ds, 8, 6, 5, da), nn.ReLU, bias=False),
    "stochastic": lambda ds, da: Noisy(network((ds, 8, 2 * da), nn.ELU), da),
}


def ingredients(world, kind):
    torch.manual_seed(1)
    simulator, model, scale = WORLDS[world]
    ds, da = simulator.state_dim, simulator.action_dim
    policy, critic = POLICIES[kind](ds, da), Critic(ds + da)
    starts = scale * torch.randn(5, ds, generator=stream(0, "test"), dtype=torch.float64)
    return simulator, model, policy, critic, starts


# Every world with every kind of policy, and either of them with every choice beside it.
PAIRS = [
    (world, kind, (i + j) % 2 == 1)
    for i, world in enumerate(WORLDS)
    for j, kind in enumerate(POLICIES)
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("world", "kind", "odd"), PAIRS)
@pytest.mark.sampled(11)
def test_sweeps_equal_autograd_at_every_horizon(world, kind, odd, masked):
    spliced, termination = odd != masked, "mask" if masked else "ignore"
    simulator, model, policy, critic, starts = ingredients(world, kind)
    states, jacobians = simulator, model if spliced else simulator
    for actions in ("first", "all"):
        for horizon in (0, 1, 2, 6):
            estimator = Estimator(states, jacobians, actions, Tail(horizon, critic, 0.95))
            got = estimator.gradients(policy, starts, seed=3, termination=termination)
            begin = as_starts(starts, states.state_dim)
            want = reference_gradients(estimator, policy, begin, 3, termination)
            assert (got - want).abs().max() <= 1e-10 * max(1.0, float(want.abs().max()))
            mean = estimator.mean_gradient(policy, starts, seed=3, termination=termination)
            torch.testing.assert_close(mean, want.mean(dim=0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("actions", ["first", "all"])
def test_value_critics_and_detached_tails_equal_autograd(actions):
    simulator, model, policy, _, starts = ingredients("nonlinear", "elu")
    for value, inputs in (("V", 2), ("Q", 4)):
        for terminal in ("attached", "detached"):
            tail = Tail(3, Critic(inputs), 0.9, value=value, terminal_action=terminal)
            estimator = Estimator(simulator, model, actions, tail)
            got = estimator.gradients(policy, starts)
            want = reference_gradients(estimator, policy, as_starts(starts, 2))
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_full_gradient_is_discounted_sum_of_unified_along_the_path():
    """MPG Thm 1 with the k = n term it omits: full_n = Σ_{k=0}^{n} γᵏ unified_{n−k}(s_k)."""
    system, _, policy, critic, starts = ingredients("linear", "elu")
    quiet = copy.copy(system)
    object.__setattr__(quiet, "noise_root", torch.zeros(2, 2, dtype=torch.float64))
    gamma, n = 0.9, 2

    def unified(horizon, s):
        return Estimator(quiet, quiet, "first", Tail(horizon, critic, gamma)).gradients(policy, s)

    states = [starts]
    for _ in range(n):
        states.append(quiet.step(states[-1], policy(states[-1]).detach()).state)
    total = sum(gamma**k * unified(n - k, states[k]) for k in range(n + 1))
    full = Estimator(quiet, quiet, "all", Tail(n, critic, gamma)).gradients(policy, starts)
    torch.testing.assert_close(full, total, rtol=1e-12, atol=1e-12)
    printed = sum(gamma**k * unified(n - k, states[k]) for k in range(n))
    assert (full - printed).norm() > 0.02 * full.norm()
    frozen = Tail(n, critic, gamma, terminal_action="detached")
    detached = Estimator(quiet, quiet, "all", frozen).gradients(policy, starts)
    torch.testing.assert_close(detached, printed, rtol=1e-12, atol=1e-12)


def test_a_float32_policy_gives_float32_gradients_close_to_float64():
    simulator, model, policy, critic, starts = ingredients("vehicle", "elu")
    tail = Tail(4, critic, 0.98)
    exact = Estimator(simulator, model, "first", tail).gradients(policy, starts)
    narrow = Tail(4, copy.deepcopy(critic).float(), 0.98)
    rough = Estimator(simulator, model, "first", narrow).gradients(
        copy.deepcopy(policy).float(), starts.float()
    )
    assert rough.dtype == torch.float32
    assert (rough.double() - exact).norm() < 1e-3 * exact.norm()


def test_gradients_do_not_touch_the_users_random_stream():
    simulator, _, policy, critic, starts = ingredients("nonlinear", "stochastic")
    estimator = Estimator(simulator, simulator, "all", Tail(3, critic, 0.9))
    torch.manual_seed(0)
    estimator.gradients(policy, starts)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(starts=torch.zeros(3, 5, dtype=torch.float64)), "starts has shape"),
        (dict(starts=torch.zeros(0, 2, dtype=torch.float64)), "starts is empty"),
        (dict(starts=torch.full((3, 2), torch.nan, dtype=torch.float64)), "not finite"),
        (dict(policy=nn.Linear(2, 3).double()), "policy returns shape"),
        (dict(policy=nn.Sequential(nn.Linear(2, 1), nn.Dropout()).double()), "train mode"),
        (dict(critic=network((3, 4, 1), nn.Tanh)), "critic"),
        (dict(termination="never"), "termination is"),
    ],
)
def test_bad_input_names_the_argument(change, word):
    starts = change.get("starts", torch.zeros(3, 2, dtype=torch.float64))
    policy = change.get("policy", nn.Linear(2, 1).double())
    critic = change.get("critic", Critic(3))
    estimator = Estimator(linear(), linear(), "first", Tail(1, critic, 0.9))
    with pytest.raises(InputError, match=word):
        estimator.gradients(policy, starts, termination=change.get("termination", "ignore"))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Tail(-1, None, 0.9), "horizon is -1"),
        (lambda: Tail(1, None, 1.5), "discount is 1.5"),
        (lambda: Tail(1, None, 0.9, value="W"), "value is"),
        (lambda: Estimator(linear(), None, "first", Tail(1, None, 0.9)), "jacobians is None"),
        (lambda: Estimator(linear(), linear(), "some", Tail(1, None, 0.9)), "actions is"),
        (lambda: Estimator(linear(), linear(), "first", Tail(0, None, 0.9)), "no θ"),
        (
            lambda: Estimator(
                linear(), linear(), "all", Tail(0, Critic(3), 0.9, terminal_action="detached")
            ),
            "no θ",
        ),
        (
            lambda: Estimator(linear(), WORLDS["vehicle"][0], "first", Tail(1, None, 0.9)),
            "state_dim 6",
        ),
    ],
)
def test_impossible_estimators_are_refused(make, word):
    with pytest.raises(InputError, match=word):
        make()


@pytest.mark.parametrize(("world", "kind", "odd"), PAIRS)
def test_all_horizons_at_once_equal_one_at_a_time_in_blocks_of_any_size(world, kind, odd):
    actions = "all" if odd else "first"
    simulator, model, policy, critic, starts = ingredients(world, kind)
    begin = as_starts(starts, simulator.state_dim)
    estimator = Estimator(simulator, model, actions, Tail(5, critic, 0.95))
    whole = horizon_gradients(estimator, policy, begin, seed=2)
    parts = horizon_gradients(estimator, policy, begin, seed=2, horizons=(1, 4, 5), block=2)
    for k, n in enumerate(whole.horizons):
        tail = Tail(n, critic, 0.95)
        G = Estimator(simulator, model, actions, tail).gradients(policy, starts, seed=2)
        close = dict(rtol=1e-9, atol=1e-10 * max(1.0, float(G.abs().max())) ** 2)
        torch.testing.assert_close(whole.means[k], G.mean(dim=0), **close)
        torch.testing.assert_close(whole.squared_norms[k], (G**2).sum(dim=1), **close)
        trace = torch.cov(G.T).trace()
        torch.testing.assert_close(whole.variance()[k], trace, rtol=1e-6, atol=1e-9)
    for k, n in enumerate(parts.horizons):
        torch.testing.assert_close(parts.means[k], whole.means[n], rtol=1e-12, atol=1e-13)
        norms = whole.squared_norms[n]
        torch.testing.assert_close(parts.squared_norms[k], norms, rtol=1e-12, atol=1e-13)


class Mixed(nn.Module):
    """Parameters outside linear layers: a scale and a shift of its own."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = network((3, 5, 2), nn.ELU), nn.Parameter(torch.ones(2).double())

    def forward(self, state):
        return self.inner(state) * self.scale


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()

    def forward(self, state):
        return self.out(torch.tanh(self.layer(torch.tanh(self.layer(state)))))


def flat(parameters, grads):
    """Gradients in the order of all parameters, zeros where they are frozen."""
    left = iter(grads)
    return torch.cat([(next(left) if p.requires_grad else 0 * p).flatten() for p in parameters])


def explicit(policy, states, noise, g):
    parameters = list(policy.parameters())
    trained = [p for p in parameters if p.requires_grad]
    action = policy(states, noise) if noise.shape[1] else policy(states)
    outputs = (action * g).sum(dim=1)
    rows = [torch.autograd.grad(each, trained, retain_graph=True) for each in outputs]
    return torch.stack([flat(parameters, row) for row in rows])


class Tied(nn.Module):
    """A layer's weight used a second time by a function."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()

    def forward(self, state):
        return self.out(torch.tanh(nn.functional.linear(self.layer(state), self.layer.weight)))


def in_place():
    layers = nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ELU(inplace=True)
    return nn.Sequential(*layers, nn.Linear(8, 2)).double()


def frozen_head():
    policy = network((3, 8, 8, 2), nn.ELU)
    policy[4].requires_grad_(False)
    policy[0].bias.requires_grad_(False)
    return policy


PARAMETERISED = {
    "in place": (in_place, 0, False),
    "frozen head": (frozen_head, 0, False),
    "tied weight": (Tied, 0, True),
    "elu": (lambda: network((3, 8, 8, 2), nn.ELU), 0, False),
    "no bias": (lambda: network((3, 7, 2), nn.Tanh, bias=False), 0, False),
    "stochastic": (lambda: Noisy(network((3, 8, 4), nn.ELU), 2), 2, False),
    "scale parameter": (Mixed, 0, True),
    "shared layer": (Twice, 0, True),
}


@pytest.mark.parametrize("kind", PARAMETERISED)
def test_kernels_equal_explicit_gradients(kind):
    make, width, falls_back = PARAMETERISED[kind]
    torch.manual_seed(0)
    policy, n = make(), 7
    states, noise = torch.randn(n, 3).double(), torch.randn(n, width).double()
    g = torch.randn(4, n, 2).double()
    if falls_back:
        with pytest.warns(UserWarning, match="outside linear layers"):
            jacobian = policy_jacobian(policy, states, noise)
    else:
        jacobian = policy_jacobian(policy, states, noise)
    G = torch.stack([explicit(policy, states, noise, each) for each in g])
    close = dict(rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(jacobian.gradients(g[:1]), G[0], **close)
    torch.testing.assert_close(jacobian.T @ g, G.sum(dim=1), **close)
    torch.testing.assert_close(jacobian.squared_norms(g[:, None]), (G**2).sum(dim=2), **close)
    v = torch.randn(3, G.shape[2]).double()
    basis = torch.eye(2).double()
    rows = torch.stack([explicit(policy, states, noise, row.expand(n, 2)) for row in basis])
    want = torch.einsum("anp,dp->dna", rows, v)
    torch.testing.assert_close(jacobian @ v, want, **close)
    own = torch.randn(n, G.shape[2]).double()
    want = torch.einsum("anp,np->na", rows, own)[None]
    torch.testing.assert_close(jacobian.along_own(own), want, **close)


def test_path_gradients_sum_over_time():
    torch.manual_seed(0)
    policy, t, n = network((3, 8, 2), nn.ELU), 4, 5
    states, costates = torch.randn(t, n, 3).double(), torch.randn(t, n, 2).double()
    none = torch.zeros(t * n, 0).double()
    jacobian = policy_jacobian(policy, states.flatten(0, 1), none)
    want = sum(explicit(policy, s, none[:n], c) for s, c in zip(states, costates, strict=True))
    torch.testing.assert_close(jacobian.gradients(costates), want)


@pytest.mark.parametrize("kind", PARAMETERISED)
@pytest.mark.filterwarnings("ignore:the policy has parameters outside")
def test_path_kernels_equal_explicit_path_gradients(kind, monkeypatch):
    make, width, _ = PARAMETERISED[kind]
    torch.manual_seed(0)
    policy, t, n, horizons = make(), 5, 6, (1, 4, 2)
    states, noise = torch.randn(t * n, 3).double(), torch.randn(t * n, width).double()
    costates = torch.randn(len(horizons), t, n, 2).double()
    for k, horizon in enumerate(horizons):
        costates[k, horizon + 1 :] = 0
    jacobian = policy_jacobian(policy, states, noise)
    G = torch.stack([jacobian.gradients(each) for each in costates])
    close = dict(rtol=1e-12, atol=1e-12)
    for thin, rows, entries in ((4096, 1024, 1 << 22), (0, 7, 1)):
        monkeypatch.setattr(operator, "THIN", thin)
        monkeypatch.setattr(operator, "ROWS", rows)
        monkeypatch.setattr(operator, "ENTRIES", entries)
        norms = jacobian.squared_norms(costates)
        torch.testing.assert_close(norms, (G**2).sum(dim=2), **close)
        sums = jacobian.T @ costates.flatten(1, 2)
        torch.testing.assert_close(sums, G.sum(dim=1), **close)
