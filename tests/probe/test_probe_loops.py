"""Loops of many kinds, with a probe and without: the same bits, and numbers that are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.probe.kinds_of_loops import LOOPS, Loop, net, plain, scaled, unmarked, with_closure
from tests.probe.small_loops import probed


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
        for kind in OPTIMIZERS if loop is plain else ("Adam",):
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
    assert not probe.off and probe._updates.count == counted
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
    assert grad_norm(with_closure) == pytest.approx(grad_norm(plain), rel=1e-6)
