"""Loops of many kinds, with a probe and without: the same bits, and numbers that are right.

Faults that are planted in a whole loop raise their alarm.
"""

from __future__ import annotations

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe.checks import CHECKS, Evidence
from gradlab.runs.probe.schema import ALPHA
from tests.probe.planted_rows import burst, measured, vitals
from tests.probe.small_loops import linear_task, looped, probed

UPDATES = 120
Mark = Callable[..., AbstractContextManager[None]]
Loop = Callable[[nn.Module, torch.optim.Optimizer, Mark], None]


def loss_of(policy: nn.Module) -> Tensor:
    return ((policy(torch.randn(8, 2)) - 0.5) ** 2).sum()


def plain_loop(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        with mark(step):
            loss_of(policy).backward()
        optimizer.step()


def accumulated(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):
        optimizer.zero_grad()
        for _ in range(3):
            with mark(step):
                (loss_of(policy) / 3).backward()
        optimizer.step()


def double_backward(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    """A penalty on the gradient's own norm."""
    for step in range(UPDATES):
        optimizer.zero_grad()
        found = torch.autograd.grad(loss_of(policy), [*policy.parameters()], create_graph=True)
        with mark(step):
            sum((g**2).sum() for g in found).backward()  # type: ignore[union-attr]
        optimizer.step()


def with_closure(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    for step in range(UPDATES):

        def closure(step: int = step) -> float:
            optimizer.zero_grad()
            loss = loss_of(policy)
            with mark(step):
                loss.backward()
            return float(loss.detach())

        optimizer.step(closure)


def scaled(unscale: bool, inside: bool, overflows: bool) -> Loop:
    def loop(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=30)
        for step in range(UPDATES):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = loss_of(policy)
            if overflows and step % 7 == 3:
                loss = loss * torch.inf
            with mark(step, scaler):
                scaler.scale(loss).backward()
                if inside:
                    scaler.unscale_(optimizer)
            if unscale:
                if not inside:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(policy.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()

    return loop


def whole_step_compiled(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    @torch.compile(backend="eager")
    def update(x: Tensor) -> None:
        optimizer.zero_grad()
        ((policy(x) - 0.5) ** 2).sum().backward()
        optimizer.step()

    for _ in range(UPDATES):
        update(torch.randn(8, 2))


def caught_errors(policy: nn.Module, optimizer: torch.optim.Optimizer, mark: Mark) -> None:
    """Every third backward pass fails, and the loop goes on to the next."""
    for step in range(UPDATES):
        optimizer.zero_grad()
        try:
            with mark(step):
                loss = loss_of(policy)
                if step % 3 == 0:
                    loss.register_hook(_refuse)
                loss.backward()
        except ZeroDivisionError:
            continue
        optimizer.step()


def _refuse(gradient: Tensor) -> Tensor:
    raise ZeroDivisionError("the user's")


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Tanh())


def unmarked(step: int, scaler: object = None) -> AbstractContextManager[None]:
    return nullcontext()


LOOPS: dict[str, tuple[Loop, int]] = {
    "plain": (plain_loop, UPDATES),
    "accumulated": (accumulated, UPDATES),
    "double backward": (double_backward, UPDATES),
    "closure": (with_closure, UPDATES),
    "scaler, unscaled inside": (scaled(True, True, False), UPDATES),
    "scaler, steps skipped": (scaled(True, False, True), UPDATES - len(range(3, UPDATES, 7))),
    "compiled step": (whole_step_compiled, UPDATES),
    "errors in between": (caught_errors, UPDATES - UPDATES // 3),
}


def left(policy: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    state = [x for each in optimizer.state.values() for x in each.values()]
    gradients = [p.grad for p in policy.parameters()]
    return [*policy.parameters(), *gradients, *state, torch.get_rng_state()]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


Make = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "Adam": lambda p: torch.optim.Adam(p, 1e-2),
    "Adam, foreach": lambda p: torch.optim.Adam(p, 1e-2, foreach=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "RMSprop, centred": lambda p: torch.optim.RMSprop(p, 1e-3, centered=True),
    "SGD, maximize": lambda p: torch.optim.SGD(p, 1e-3, maximize=True),
}


def ways() -> Iterator[Any]:
    for name, (loop, counted) in LOOPS.items():
        for kind in OPTIMIZERS if loop is plain_loop else ("Adam",):
            yield pytest.param(loop, counted, OPTIMIZERS[kind], id=f"{name}, {kind}")
    loop, counted = LOOPS["scaler, steps skipped"]
    yield pytest.param(loop, counted, OPTIMIZERS["AdamW, fused"], id="steps skipped by a fused one")


@pytest.mark.slow
@pytest.mark.parametrize("loop, counted, make", list(ways()))
def test_this_loop_keeps_its_bits_and_its_updates_are_counted(loop, counted, make):
    policies = net(), net()
    optimizers = [make(policy.parameters()) for policy in policies]
    torch.manual_seed(2)
    loop(policies[0], optimizers[0], unmarked)
    bare = left(policies[0], optimizers[0])
    rows: list[dict[str, Any]] = []
    probe = probed(policies[1], optimizers[1], rows)
    torch.manual_seed(2)
    loop(policies[1], optimizers[1], probe)
    assert same(bare, left(policies[1], optimizers[1]))
    assert not probe.off and probe._loop.count == counted
    probe.close()
    row = next(row for row in rows if "vitals/grad_norm" in row)
    assert row["vitals/nonfinite_updates"] == 0 and probe.alarms == []
    assert 0 < row["vitals/grad_norm"] < 100 and 0 < row["vitals/update_ratio"] < 0.1


def grad_norm(loop: Loop, marked: bool = True) -> float:
    """What the first row says of a loop."""
    policy, rows = net(), []
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    probe = probed(policy, optimizer, rows)
    torch.manual_seed(2)
    loop(policy, optimizer, probe if marked else unmarked)
    found = next(row for row in rows if "vitals/grad_norm" in row)
    assert found["vitals/marked"] == marked
    return float(found["vitals/grad_norm"])


def test_a_scale_is_divided_out_once_wherever_it_was_taken_out():
    clipped, inside = grad_norm(scaled(True, False, False)), grad_norm(scaled(True, True, False))
    assert inside == pytest.approx(clipped, rel=1e-6)
    marked, at_the_step = (grad_norm(scaled(False, False, False), mark) for mark in (True, False))
    assert marked == pytest.approx(at_the_step, rel=1e-6)


def test_the_gradient_of_a_closure_is_found_after_the_step():
    assert grad_norm(with_closure, False) == pytest.approx(grad_norm(with_closure), rel=1e-6)
    assert grad_norm(with_closure) == pytest.approx(grad_norm(plain_loop), rel=1e-6)


class Tanh(nn.Module):
    """A policy that stops listening to its gradient, by what is planted."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.first, self.last, self.detached = nn.Linear(3, 8), nn.Linear(8, 1), detached

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(state))
        return self.last(hidden.detach() if self.detached else hidden)


@pytest.mark.parametrize("planted", [True, False])
def test_a_detached_layer_is_told_with_its_tensors(planted):
    torch.manual_seed(0)
    policy = Tanh(detached=planted)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)

    def loss(step: int) -> torch.Tensor:
        return (policy(torch.randn(8, 3)) - 1).square().sum()

    probe = probed(policy, optimizer)
    looped(policy, optimizer, probe, 200, loss)
    told = [each.message for each in probe.alarms if each.code == "dead path"]
    assert bool(told) == planted and all("first.weight, first.bias" in each for each in told)


# False alarms stay below the stated rate over a whole run.


def asked(code: str, evidence: Evidence) -> Any:
    (check,) = (each for each in CHECKS if each.code == code)
    return check(evidence)


def test_levels_over_all_looks_sum_to_the_stated_rate():
    total = sum(Evidence([{}], k).level for k in range(1, 100_001))
    assert total == pytest.approx(ALPHA, rel=1e-4)


@pytest.mark.slow
def test_noise_rings_falsely_in_at_most_the_stated_share_of_runs():
    """At the worst gradient of the hypothesis, whose cosine is exactly 0.1, over 40 looks."""
    size = (200 * 0.01 / 0.99) ** 0.5
    false = 0
    for run in range(200):
        rows = [burst(size, 1000 * run + k) for k in range(40)]
        looks = (Evidence(rows[:k], k) for k in range(1, 41))
        false += any(asked("gradient no better than noise", look) for look in looks)
    assert false <= 6  # 200 · 1% = 2 expected at most; 6 or more has probability 0.02


def test_an_actor_that_saturates_late_in_a_long_run_rings():
    """Its newest sixteen looks are: one alone would not do."""
    rows = [vitals(saturation=np.array([0.1, 0.97]), watched=1, looked=1)] * 16
    assert asked("saturated actor", Evidence(rows[:15], 10_000)) is None
    assert asked("saturated actor", Evidence(rows, 10_000)) is not None


def test_drift_rings_falsely_in_at_most_the_stated_share_of_runs():
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(1000):
        errors = generator.normal(-1.0, 0.1, size=40)
        rows = [measured(jacobian_error=error) for error in errors]
        looks = (Evidence(rows[:k], k) for k in range(1, 41))
        false += any(asked("drifting model Jacobian", look) for look in looks)
    assert false <= 20


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


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("updates", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [plain, dropped, normalised, Noisy])
def test_updates_have_the_same_bits_with_a_probe(make, updates, tmp_path):
    log = tmp_path / "p.h5"
    without, _ = run(make, False, updates)
    with_one, probe = run(make, True, updates, log=log)
    assert probe is not None and probe._log.rows["successive"]
    assert equal(without, with_one)


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
    with_one, probe = run(make, True, 4, task=task, critic=True, every=1)
    assert probe is not None and len(probe._log.rows["measured"]) >= 2
    assert equal(without, with_one)


def test_a_copy_of_a_watched_policy_is_not_watched():
    policy = plain()
    probe = gradlab.Probe(policy)
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        with probe(0):
            twin(torch.zeros(3, 2)).sum().backward()
        assert probe._loop.passes.inputs == ()
        assert all(torch.equal(a, b) for a, b in zip(
            policy.parameters(), twin.parameters(), strict=True))  # fmt: skip


class Marker:
    pass


def test_no_graph_is_kept_alive():
    policy = plain()
    probe = gradlab.Probe(policy, torch.optim.SGD(policy.parameters(), 1e-2))
    state = torch.zeros(3, 2, requires_grad=True) * 1.0  # states of a rollout have a graph, too
    out = policy(state)
    mark = Marker()
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
