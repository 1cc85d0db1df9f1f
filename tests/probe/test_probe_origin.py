"""The first operation, module and sample that leave the finite numbers, planted and found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.losses.finite import Finder
from gradlab.probe.origin import origin
from gradlab.probe.passes import Passes, Watched
from tests.probe.small_loops import probed


class Root(nn.Module):
    """√|x|: finite at 0, its derivative is not; below 0 √x is not."""

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x if self.signed else x * x)


def policy(signed: bool) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2, bias=False), Root(signed), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
    return net


def told(net: nn.Module, bad: Tensor, at: int = 3, after: Any = None) -> tuple[list[str], Any]:
    """Five updates, the one numbered `at` with the state `bad` in row 5."""
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = probed(net, optimizer)
    for step in range(5):
        optimizer.zero_grad()
        state = torch.rand(8, 2) + 0.5
        if step >= at:
            state[5] = bad
        with probe(step):
            action = net(state)
            (action.sum() if after is None else after(action, step)).backward()
        optimizer.step()
    assert not probe.off
    return [each.message for each in probe.alarms if each.code.startswith("nan.")], probe


def test_a_forward_pass_names_operation_module_and_row():
    messages, _ = told(policy(signed=True), torch.tensor([-1.0, 1.0]))
    assert "The sqrt of a negative number is NaN: sqrt, test_probe_origin.py, line" in messages[0]
    assert "(row 5 of 8), in the forward pass of 1" in messages[0]


def test_a_backward_pass_names_operation_module_and_row():
    messages, _ = told(policy(signed=False), torch.tensor([0.0, 1.0]))
    assert "(row 5 of 8), in the backward pass through 1" in messages[0]


def test_a_gradient_that_arrives_lost_comes_from_the_loss_and_names_its_rows():
    def loss(action: Tensor, step: int) -> Tensor:
        scale = torch.ones(8, 1)
        scale[2] = torch.inf if step == 3 else 1.0
        return (action * scale).sum()

    messages, _ = told(policy(signed=False), torch.tensor([1.0, 1.0]), after=loss)
    assert messages == [
        "What the loss sent to the policy is not finite in row 2 of 8. Look at the rewards and "
        "targets of these rows."
    ]


def test_an_operation_is_no_origin_of_what_it_was_given():
    spoilt = torch.tensor([1.0, torch.nan, torch.inf])
    with Finder() as finder:
        spoilt.mul(2).add(1)
    assert finder.found is None and not finder.where
    with Finder() as finder:
        torch.tensor([0.5, 2.0]).acos().add(spoilt[0])
    assert finder.found[:2] == ("operation", "acos")
    assert finder.where.startswith("acos, test_probe_origin.py, line ")
    assert finder.where.endswith("(row 1 of 2)")


def test_a_logarithm_of_a_negative_number_and_a_deviation_of_one_row_are_named():
    with Finder() as finder:
        torch.log(1 - torch.tensor([0.5, 2.0]).pow(2)).sum()
    assert finder.found[:2] == ("negative", "log") and finder.where.endswith("(row 1 of 2)")
    with Finder() as finder:
        torch.ones(1).std()
    assert finder.found[0] == "one row"
    with Finder() as finder:  # inf that no NaN comes of is no origin of one
        torch.zeros(2).log().exp().sub(2.0).log()
    assert finder.found[0] == "negative"


def test_a_batch_of_one_row_is_named_where_the_policy_gives_a_distribution():
    class Gaussian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(2, 1)

        def forward(self, state: Tensor) -> Any:
            return torch.distributions.Normal(self.mean(state), 1.0)

    policy = Gaussian()
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer)
    for step, rows in enumerate((8, 8, 1)):
        advantage = torch.randn(rows)
        weight = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        optimizer.zero_grad()
        with probe(step):
            (policy(torch.randn(rows, 2)).log_prob(torch.zeros(1))[:, 0] * weight).sum().backward()
        optimizer.step()
    (told,) = [each.message for each in probe.alarms if each.code.startswith("nan.")]
    assert told.startswith("The deviation over one row is NaN")


def test_a_declared_loss_names_the_operation_and_leaves_no_trace():
    """The loss itself is NaN, forward; √ at 0 in the second loses its gradient alone."""
    torch.manual_seed(0)
    net, x = nn.Linear(2, 2), torch.randn(8, 2)
    losses = {
        "log": lambda: torch.log(-net(x).abs()).mean(),
        "root": lambda: (net(x) - net(x).detach()).square().sum(1).sqrt().sum(),
        "sound": lambda: net(x).square().mean() + torch.zeros(3).log().exp().sum(),
    }
    state = torch.get_rng_state()
    found = {name: origin(None, {}, {name: loss}) for name, loss in losses.items()}
    assert found["log"].code == "nan.negative" and "log's loss, forward" in found["log"].at
    assert found["root"].code == "nan.operation" and "root's loss, backward" in found["root"].at
    assert found["sound"].code == "nan.unseen"
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("scaled", [True, False])
def test_a_scaler_that_searches_its_scale_is_no_origin(scaled):
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    probe = probed(net, optimizer)
    with probe(0, scaler if scaled else None):
        (scaler.scale(net(torch.ones(1, 1)).sum()) * torch.inf).backward()
    assert bool(probe.alarms) != scaled


class Agent(nn.Module):
    """Two networks that are called apart and stepped at once, as in PPO."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.actor = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def dies(which: str, at: int, probes: list[gradlab.Probe], clip: bool = True) -> None:
    """Raises ValueError after update `at` + 2, since one return is infinite in row 37."""
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), 1e-3)
    policy = agent if which == "agent" else agent.actor
    probe = gradlab.Probe(policy, optimizer)
    probes.append(probe)
    for step in range(200):
        state = torch.randn(64, 2)
        action = torch.distributions.Normal(agent.actor(state), 1.0, validate_args=True)
        goal = state.sum(1, keepdim=True)
        goal[37] = torch.inf if step == at else 0.0
        loss = (
            action.log_prob(goal.clamp(-1, 1)).mean() + ((agent.critic(state) - goal) ** 2).mean()
        )
        optimizer.zero_grad()
        with probe(step):
            loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()


@pytest.mark.parametrize("which", ["agent", "agent.actor"])
@pytest.mark.parametrize("at", [60, 61, 99, 150])
@pytest.mark.sampled(3)
def test_a_loop_that_dies_of_one_infinite_return_is_seen_at_any_update(which, at):
    probes: list[gradlab.Probe] = []
    try:
        dies(which, at, probes)
    except ValueError:
        probes[0].close()
    first = probes[0].alarms[0]
    alone = which == "agent.actor"  # the critic is lost first; by the norm of both, the actor next
    lost = "non-finite gradient of another network" if alone else "non-finite gradient"
    assert first.code == lost and first.since == at


def test_a_root_at_0_loses_every_row_and_is_named():
    net = nn.Linear(2, 3)
    heard = Passes(Watched(net))
    net.register_forward_hook(heard)
    out = net(torch.randn(8, 2))
    (out - out.detach()).square().sum(1).sqrt().sum().backward()
    found = origin(None, {"critic": heard}, {})
    assert (found.code, found.at) == ("nan.loss of all rows", "rows 0, 1, 2, … of 8")
    heard.release()
    out = net(torch.randn(8, 2))
    (out - torch.where(torch.arange(8)[:, None] == 5, torch.nan, 0.0)).square().sum().backward()
    found = origin(None, {"critic": heard}, {})
    assert (found.code, found.subject, found.at) == ("nan.loss of rows", "critic", "row 5 of 8")


# PPO's weights of log π: a wrong sign, an inverted ratio, and returns are told from advantages.


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))
