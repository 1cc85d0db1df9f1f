"""Policies that remember, against autograd through the recurrent loop as its user writes it."""

import warnings

import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.errors import InputError
from gradlab.systems import from_function

GAMMA, HORIZON = 0.95, 6


class Recurrent(nn.Module):
    """(observation, memory) → (action, memory), by one of torch's cells."""

    def __init__(self, kind, seen):
        super().__init__()
        self.kind = kind
        cells = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "plain": nn.RNNCell, "stacked": nn.Linear}
        cell = cells[kind]
        self.width = {"lstm": 10, "stacked": 2 * seen}.get(kind, 5)
        self.cell = cell(3 * seen, 5) if kind == "stacked" else cell(seen, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, seen, memory):
        if self.kind in ("gru", "plain"):
            memory = self.cell(seen, memory)
            return self.head(memory), memory
        if self.kind == "lstm":
            hidden, cell = self.cell(seen, tuple(memory.chunk(2, 1)))
            return self.head(hidden), torch.cat([hidden, cell], 1)
        frames = torch.cat([seen, memory], 1)
        return self.head(torch.tanh(self.cell(frames))), frames[:, : self.width]


def pushed(state, action):
    """A cart with friction on a spring, of which policies see the place alone."""
    place, speed = state[:, :1], state[:, 1:]
    after = torch.cat([place + 0.1 * speed, 0.95 * speed - 0.1 * torch.sin(place) + action], 1)
    return after, -(place[:, 0] ** 2) - 0.1 * action[:, 0] ** 2


def cart():
    return gradlab.Task(
        "cart", from_function(pushed, 2, 1), None,
        lambda n, generator: torch.randn(n, 2, generator=generator, dtype=torch.float64),
        GAMMA, HORIZON,
    )  # fmt: skip


def see(state):
    return state[:, :1]


@pytest.mark.parametrize("kind", ["gru", "plain", "lstm", "stacked"])
def test_bptt_through_the_memory_is_that_of_the_recurrent_loop(kind):
    torch.manual_seed(0)
    policy = Recurrent(kind, 1).double()
    task, wide, critic = gradlab.tasks.with_memory(cart(), policy, policy.width, see)
    assert critic is None and task.simulator.state_dim == 2 + policy.width
    begin = task.starts(16, torch.Generator().manual_seed(1))
    estimator = Estimator(task.simulator, task.simulator, "all", Tail(HORIZON, None, GAMMA))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no Jacobians are formed explicitly
        got = estimator.gradients(wide, begin).mean(0)
    state, memory, total = begin[:, :2], torch.zeros(16, policy.width).double(), torch.zeros(())
    for t in range(HORIZON):
        action, memory = policy(see(state), memory)
        state, reward = pushed(state, action)
        total = total + GAMMA**t * reward.mean()
    want = torch.autograd.grad(total, list(wide.parameters()))
    assert {id(p) for p in wide.parameters()} == {id(p) for p in policy.parameters()}
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in want]), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_recurrent_policy_is_measured_and_its_first_step_helps():
    torch.manual_seed(0)
    policy = Recurrent("gru", 1)
    task, wide, _ = gradlab.tasks.with_memory(cart(), policy, 5, see)
    whole = Estimator(task.simulator, task.simulator, "all", Tail(HORIZON, None, GAMMA))
    profile = gradlab.measure(
        task, wide, None, {"bptt": whole}, horizon=HORIZON, starts=64, rehearse=False
    )
    table = profile.realised.table()
    of_bptt = table[(table.estimator == "bptt") & (table.horizon == HORIZON) & table["update"]]
    assert (of_bptt.ci_low > 0).all() and len(of_bptt) == 1


def test_a_critic_sees_what_the_policy_sees():
    class Q(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, seen, action):
            return self.layer(torch.cat([seen, action], 1))[:, 0]

    inner = Q()
    task, _, critic = gradlab.tasks.with_memory(cart(), Recurrent("gru", 1), 5, see, inner)
    state, action = torch.randn(4, 7), torch.randn(4, 6)
    assert torch.equal(critic(state, action), inner(state[:, :1], action[:, :1]))
    assert task.simulator.action_dim == 6


class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.layer, self.answer = nn.Linear(1, 1), answer

    def forward(self, seen, memory=None):
        action = self.layer(seen)
        if self.answer == "action alone":
            return action
        if self.answer == "hidden of another batch":
            return action, torch.zeros(1, 5)
        return (torch.cat([action, action], 1), memory)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("action alone", r"policy returned .*expected \(action, next memory\)"),
        ("hidden of another batch", r"memory of shape \(1, 5\), expected \[2, 5\]"),
        ("two actions", "policy gives 2 actions for an observation, the task has 1"),
    ],
)
def test_policies_of_other_shapes_are_refused(answer, words):
    with pytest.raises(InputError, match=words):
        gradlab.tasks.with_memory(cart(), Wrong(answer), 5, see)


def test_an_observation_of_all_states_at_once_is_refused():
    with pytest.raises(InputError, match=r"observe gave .*expected a tensor \[2, …\]"):
        gradlab.tasks.with_memory(cart(), Wrong(""), 5, lambda s: s.mean(0, keepdim=True))
