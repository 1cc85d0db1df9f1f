"""A loop with a probe computes the same bits as without one."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

import gradlab
from gradlab.probe.isolation import copied, undisturbed
from gradlab.probe.parts.networks import Calls
from tests.probe.small_loops import linear_task


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1), nn.Tanh())


def dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 1))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


class Noisy(nn.Module):
    """Draws from the global stream in its forward pass, in eval mode, too."""

    def __init__(self, size: float = 0.01) -> None:
        super().__init__()
        self.size = size
        self.layer = nn.Linear(2, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, state: Tensor) -> Tensor:
        self.calls += 1
        random.random(), np.random.random()
        return self.layer(state) + self.size * torch.randn(len(state), 1, dtype=state.dtype)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.layer(torch.cat([state, action], 1))[:, 0]


def run(
    make: Callable[[], nn.Module],
    probed: bool,
    updates: int,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    **given: Any,
) -> tuple[Any, gradlab.Probe | None]:
    """All that a loop leaves behind, with a clip between backward pass and step."""
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    policy, critic = make(), Critic()
    optimiser = optimizer(policy.parameters(), 1e-2)
    if given.get("critic"):
        given["critic"] = critic
    probe = gradlab.Probe(policy, optimiser, **given) if probed else None
    gradients = []
    for step in range(updates):
        s = torch.randn(8, 2)
        optimiser.zero_grad()
        loss = -critic(s, policy(s)).mean() + 0.1 * (policy(s) ** 2).mean()
        if probe is None:
            loss.backward()
        else:
            with probe(step):
                loss.backward()
        gradients.append([p.grad.clone() for p in policy.parameters()])
        nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimiser.step()
    left = {
        "parameters": policy.state_dict(),
        "grad": [p.grad for p in policy.parameters()],
        "gradients": gradients,
        "critic": critic.state_dict(),
        "optimizer": optimiser.state_dict(),
        "modes": [m.training for m in policy.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }
    if probe is not None:
        assert not probe.off
        probe.close()
    return left, probe


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("updates", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [plain, dropped, normalised, Noisy])
def test_updates_have_the_same_bits_with_a_probe(make, updates, tmp_path):
    log = tmp_path / "p.h5"
    without, _ = run(make, False, updates)
    with_one, probe = run(make, True, updates, log=log, overhead_budget=1.0, clock=lambda: 0.0)
    assert probe is not None and probe.alarm_log.rows["successive"]
    assert same(without, with_one)


def double_integrator() -> gradlab.Task:
    A = torch.tensor([[1.0, 0.1], [0.0, 0.9]], dtype=torch.float64)
    B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
    return linear_task(A=A, B=B, prior=(1.05 * A, 0.9 * B))


def drawing() -> nn.Module:
    """Draws, but its actions do not show it: those that do cannot be measured."""
    return Noisy(0.0)


@pytest.mark.parametrize("make", [plain, drawing])
def test_measurements_on_a_task_leave_the_same_bits(make):
    without, _ = run(make, False, 4)
    task = double_integrator()
    with_one, probe = run(
        make, True, 4, task=task, critic=True, overhead_budget=1.0, clock=lambda: 0.0
    )
    assert probe is not None and len(probe.alarm_log.rows["measured"]) >= 2
    assert same(without, with_one)


def test_a_copy_of_a_watched_policy_is_not_watched():
    policy = plain()
    probe = gradlab.Probe(policy)
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        with probe(0):
            twin(torch.zeros(3, 2)).sum().backward()
        assert probe._updates.watch.inputs == ()
        assert all(torch.equal(a, b) for a, b in zip(
            policy.parameters(), twin.parameters(), strict=True))  # fmt: skip


def test_what_the_probe_calls_by_itself_is_no_network_of_the_loop():
    calls, net = Calls(), plain()
    twin = nn.Sequential(copied(net))
    handle = register_module_forward_hook(calls.hook)
    with undisturbed():
        twin(torch.ones(4, 2))
    assert not calls.outermost()
    net(torch.ones(4, 2))
    handle.remove()
    assert [*calls.outermost()] == [net]


class Mark:
    pass


def test_no_graph_is_kept_alive():
    policy = plain()
    probe = gradlab.Probe(policy, torch.optim.SGD(policy.parameters(), 1e-2))
    state = torch.zeros(3, 2, requires_grad=True) * 1.0  # states of a rollout have a graph, too
    out = policy(state)
    mark = Mark()
    held = weakref.ref(mark)
    for node in (out.grad_fn, state.grad_fn):
        node.register_hook(lambda *_, mark=mark: None)
    with probe(0):
        out.sum().backward()
    del out, state, node, mark
    gc.collect()
    assert held() is None


def test_the_policy_is_free_again_when_the_probe_is_closed():
    policy = plain()
    optimizer = torch.optim.Adam(policy.parameters())
    probe = gradlab.Probe(policy, optimizer)
    probe.close()
    assert not policy._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
