"""A probe that fails beside other people's hooks: the loop goes on, and nobody's hook is lost."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlab


def trained(*given: dict[str, Any]) -> list[Tensor]:
    """θ and a moving average of it, which a hook behind these probes' keeps."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    probes = [gradlab.Probe(policy, optimizer, **each) for each in given]
    average = copy.deepcopy(policy)

    def smooth(*_: Any) -> None:
        for kept, p in zip(average.parameters(), policy.parameters(), strict=True):
            kept.data.lerp_(p.detach(), 0.01)

    optimizer.register_step_post_hook(smooth)
    for step in range(130):
        optimizer.zero_grad()
        loss = policy(torch.randn(8, 2)).square().sum()
        marks = [probe(step) for probe in probes]
        for mark in marks:
            mark.__enter__()
        loss.backward()
        for mark in reversed(marks):
            mark.__exit__(None, None, None)
        optimizer.step()
    for probe in probes:
        probe.close()
    assert len(optimizer._optimizer_step_post_hooks) == 1 and not policy._forward_hooks
    return [p.detach() for module in (policy, average) for p in module.parameters()]


def broken(_: Any) -> None:
    raise OSError("no space")


def late_clock(calls: int) -> Callable[[], float]:
    left = iter(range(calls))

    def clock() -> float:
        if next(left, None) is None:
            raise RuntimeError("no time")
        return 0.0

    return clock


def same(found: list[Tensor]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # where warnings are errors, too
        bare = trained()
    return all(torch.equal(a, b) for a, b in zip(bare, found, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_logs_that_fail_one_after_the_other(count):
    with pytest.warns(RuntimeWarning, match="training goes on") as caught:
        found = trained(*[{"log": broken}] * count)
    assert same(found) and len(caught) == count


@pytest.mark.parametrize("calls", [3, 40, 400])
def test_a_clock_that_fails(calls):
    with pytest.warns(RuntimeWarning, match="no time"):
        found = trained({"clock": late_clock(calls)})
    assert same(found)


def test_an_interrupt_in_the_middle_of_a_probe_is_the_users():
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained({"log": interrupted})
