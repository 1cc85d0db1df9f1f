"""Every estimator against its definition, differentiated by autograd."""

import copy

import pytest
import torch
from torch import nn

from gradlab import Estimator, Tail
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.starts import as_starts
from gradlab.truth.oracles import reference_gradients
from tests.gradients.worlds import Critic, Noisy, linear, network, worlds

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
    for states, jacobians in ((model, model), (simulator, model)):
        estimator = Estimator(states, jacobians, actions, Tail(5, critic, 0.95))
        whole = horizon_gradients(estimator, policy, begin, seed=2)
        parts = horizon_gradients(estimator, policy, begin, seed=2, horizons=(1, 4, 5), block=2)
        for k, n in enumerate(whole.horizons):
            tail = Tail(n, critic, 0.95)
            G = Estimator(states, jacobians, actions, tail).gradients(policy, starts, seed=2)
            close = dict(rtol=1e-9, atol=1e-10 * max(1.0, float(G.abs().max())) ** 2)
            torch.testing.assert_close(whole.means[k], G.mean(dim=0), **close)
            torch.testing.assert_close(whole.squared_norms[k], (G**2).sum(dim=1), **close)
            trace = torch.cov(G.T).trace()
            torch.testing.assert_close(whole.variance()[k], trace, rtol=1e-6, atol=1e-9)
        for k, n in enumerate(parts.horizons):
            torch.testing.assert_close(parts.means[k], whole.means[n], rtol=1e-12, atol=1e-13)
            norms = whole.squared_norms[n]
            torch.testing.assert_close(parts.squared_norms[k], norms, rtol=1e-12, atol=1e-13)
