"""Critics as users have them."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.networks.mlp import as_critic, judge

ONE = torch.eye(2, dtype=torch.float64)
TASK = gradlab.tasks.linear_quadratic(
    A=0.8 * ONE, B=ONE[:, :1], Q=ONE, R=ONE[:1, :1], noise_covariance=0.01 * ONE,
    start_mean=torch.ones(2, dtype=torch.float64), start_covariance=ONE, discount=0.8,
)  # fmt: skip
STATES = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)


def network(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def policy():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(2, 1, dtype=torch.float64)


class Row(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, state, action):
        return self.net(torch.cat([state, action], 1))[:, 0]


class Column(Row):
    def forward(self, state, action):
        return self.net(torch.cat([state, action], 1))


NET = network()
SHAPES = {
    "row": Row(),
    "column": Column(),
    "function": lambda s, a: NET(torch.cat([s, a], 1))[:, 0],
    "column function": lambda s, a: NET(torch.cat([s, a], 1)),
    "method": Row().forward,
}


def tail(critic, **more):
    system = TASK.simulator
    return gradlab.Estimator(system, system, "all", gradlab.Tail(2, critic, 0.8, **more))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_critic_of_any_shape_gives_the_same_numbers(shape):
    plain, other = (tail(SHAPES[name]).gradients(policy(), STATES) for name in ("row", shape))
    assert torch.equal(plain, other)
    soft = [replace(tail(SHAPES[name]), entropy=0.1) for name in ("row", shape)]
    drawn = gradlab.networks.policies.Gaussian(policy(), 0.1)
    assert torch.equal(*(each.mean_gradient(drawn, STATES) for each in soft))


def test_a_function_of_a_float32_network_is_evaluated_in_its_precision_and_says_so():
    single = network(torch.float32)
    with pytest.warns(UserWarning, match="evaluated in float32: give the network itself"):
        found = tail(lambda s, a: single(torch.cat([s, a], 1))).gradients(policy(), STATES)
    wanted = tail(SHAPES["row"]).gradients(policy(), STATES)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert found.dtype == torch.float64


def test_networks_and_starts_of_two_precisions_meet_in_float64():
    single, critic = policy().float(), copy.deepcopy(SHAPES["row"]).float()
    states = STATES.float()
    wanted = tail(critic.double()).gradients(policy().float().double(), states.double())
    critic = critic.float()
    for given in ((single, states.double()), (single.double(), states)):
        found = tail(critic).gradients(*given)
        assert found.dtype == torch.float64
        assert torch.equal(found, wanted)
        assert torch.equal(tail(critic).mean_gradient(*given), tail(critic).mean_gradient(*given))
    single.float()
    assert next(critic.parameters()).dtype == torch.float32, "the user's own is left as it was"
    assert tail(critic).gradients(single, states).dtype == torch.float32


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        (network(), "of one input, critic=lambda s, a: net(torch.cat([s, a], 1))"),
        (lambda s: s[:, 0], "a critic of states alone needs Tail(value='V')"),
        (
            lambda s, a: (s[:, :1], s[:, :1]),
            "2 values ([2, 1], [2, 1]), expected one tensor: choose",
        ),
        (lambda s, a: s.numpy(), "critic returns a ndarray, expected one tensor"),
        (lambda s, a: s, "critic returns shape (2, 2) for 2 rows, expected [2]"),
        (Row, "critic is the class Row, expected a torch.nn.Module or a function"),
        (3, "critic is int, expected a torch.nn.Module or a function"),
    ],
)
def test_a_critic_that_does_not_fit_is_named_with_the_remedy(critic, words):
    for call in (gradlab.measure, lambda *given: tail(critic).gradients(policy(), STATES)):
        with pytest.raises(InputError) as error:
            call(TASK, policy(), critic)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_a_critic_in_a_file_may_be_the_function_itself(tmp_path):
    from gradlab.networks import checkpoint

    (tmp_path / "mine.py").write_text("def value(state, action):\n    return -(state**2).sum(1)\n")
    critic = checkpoint.load(f"{tmp_path}/mine.py:value")
    assert torch.equal(judge(critic, "Q", STATES, STATES[:, :1]), -(STATES**2).sum(1))
    with pytest.raises(InputError, match="policy is a function, expected"):
        gradlab.measure(TASK, critic, critic, starts=8)


def test_functions_have_hashes_of_their_own():
    from gradlab.provenance import network_hash

    one, other = as_critic(lambda s, a: s[:, 0]), as_critic(lambda s, a: s[:, 0] + a[:, 0])
    assert network_hash(one) != network_hash(other)
    assert network_hash(one) == network_hash(as_critic(one.function))
