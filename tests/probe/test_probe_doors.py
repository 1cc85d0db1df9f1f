"""What a probe refuses, what it survives, and that it never stops a loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe import arguments, sampler


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


def task(dim: int = 2) -> gradlab.Task:
    eye = torch.eye(dim, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        A=0.9 * eye, B=eye[:, :1], Q=eye, R=eye[:1, :1], noise_covariance=0.01 * eye,
        start_mean=torch.zeros(dim, dtype=torch.float64), start_covariance=eye, discount=0.8,
    )  # fmt: skip


class Wrapper:
    """An optimiser without hooks."""

    param_groups: tuple[()] = ()


def emptied() -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    optimizer.param_groups[0]["params"] = []
    return optimizer


def lazy() -> nn.Module:
    return nn.LazyLinear(2)


SPLIT = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
REFUSED: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    ("policy is a function, expected a torch.nn.Module", lambda: {"policy": lambda s: s}),
    ("policy has no trainable parameter", lambda: {"policy": net().requires_grad_(False)}),
    ("policy has lazy parameters", lambda: {"policy": lazy()}),
    ("policy is spread over", lambda: {"policy": SPLIT}),
    ("optimizer is a Wrapper without step hooks", lambda: {"optimizer": Wrapper()}),
    ("optimizer has no parameters", lambda: {"optimizer": emptied()}),
    ("optimizer has none of the policy's",
     lambda: {"optimizer": torch.optim.SGD(net().parameters())}),
    ("task is a str", lambda: {"task": "pendulum"}),
    ("critic is given without a task", lambda: {"critic": nn.Linear(3, 1)}),
    ("critic is str, expected a torch.nn.Module or", lambda: {"task": task(), "critic": "q"}),
    ("critic returns shape", lambda: {"task": task(), "critic": lambda s, a: s}),
    ("policy cannot take inputs of shape", lambda: {"task": task(3)}),
    ("overhead_budget is 0, expected", lambda: {"overhead_budget": 0}),
    ("overhead_budget is 5, expected", lambda: {"overhead_budget": 5}),
    ("log is a int", lambda: {"log": 3}),
]  # fmt: skip


@pytest.mark.parametrize("words, given", REFUSED)
def test_bad_arguments_are_refused_in_one_line(
    words: str, given: Callable[[], dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match="^" + words) as caught:
        gradlab.Probe(**({"policy": net()} | given()))
    assert "\n" not in str(caught.value)


def test_lbfgs_is_refused_with_the_way_out() -> None:
    policy = net()
    with pytest.raises(InputError, match="mark the closure's backward pass"):
        gradlab.Probe(policy, torch.optim.LBFGS(policy.parameters()))


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_text("mine")
    with pytest.raises(InputError, match=r"run\.h5, which holds a run already"):
        gradlab.Probe(net(), log=tmp_path / "run.h5")
    assert (tmp_path / "run.h5").read_text() == "mine"


def looped(policy: nn.Module, probe: gradlab.Probe, optimizer: Any, updates: int = 120) -> None:
    for step in range(updates):
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(4, 2)).sum().backward()
        optimizer.step()


def failing(row: dict[str, Any]) -> None:
    raise KeyError("the user's logger")


@pytest.mark.parametrize("strict", [False, True])
def test_a_probe_that_fails_warns_once_and_goes(strict: bool) -> None:
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=failing, overhead_budget=1.0, clock=lambda: 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if strict else "always")
        looped(policy, probe, optimizer, 300)
    assert probe.off and not policy._forward_hooks and not optimizer._optimizer_step_post_hooks
    if not strict:
        assert [str(each.message) for each in caught] == [
            "gradlab's probe is off; training goes on (KeyError: \"the user's logger\")"
        ]


def test_an_error_of_the_loop_is_the_loops() -> None:
    policy = net()
    probe = gradlab.Probe(policy)
    with pytest.raises(ZeroDivisionError), probe(0):
        1 / 0  # noqa: B018
    assert not probe.off


def test_sparse_gradients_are_told_and_the_loop_goes_on() -> None:
    policy = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer)
    with pytest.warns(RuntimeWarning, match="a gradient is sparse"):
        for step in range(5):
            optimizer.zero_grad()
            with probe(step):
                policy(torch.tensor([1, 2])).sum().backward()
            optimizer.step()
    assert probe.off


def test_a_measurement_that_fails_leaves_the_rest_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("no measurement today")

    monkeypatch.setattr(sampler, "measured", broken)
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(
        policy, optimizer, task=task(), log=rows.append, overhead_budget=1.0, clock=lambda: 0.0
    )
    with pytest.warns(RuntimeWarning, match="no measurement today") as caught:
        looped(policy, probe, optimizer)
    assert len(caught) == 1 and not probe.off
    assert any("vitals/grad_norm" in row for row in rows)


@pytest.mark.slow
def test_a_compiled_policy_is_watched_and_one_compiled_later_is_left_alone() -> None:
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    policy = torch.compile(nn.Sequential(nn.Linear(2, 1), nn.Tanh()), backend="eager")
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(
        policy, optimizer, task=task(), log=rows.append, overhead_budget=1.0, clock=lambda: 0.0
    )
    looped(policy, probe, optimizer, 100)
    assert not probe.off
    assert any("vitals/saturation/0" in row for row in rows)
    assert any("measured/lyapunov" in row for row in rows)
    original = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
    probe = gradlab.Probe(original, log=rows.append, overhead_budget=1.0, clock=lambda: 0.0)
    later = torch.compile(original, backend="eager", fullgraph=True)
    looped(later, probe, torch.optim.SGD(original.parameters(), 1e-3), 5)
    assert not probe.off


def test_functional_transforms_pass_the_hook_unseen() -> None:
    policy = net()
    probe = gradlab.Probe(policy)
    jacobian = torch.func.vmap(torch.func.jacrev(policy))(torch.randn(3, 2))
    assert jacobian.shape == (3, 1, 2)
    assert probe._updates.watch.inputs == () and probe._updates.watch.error is None


def test_other_processes_of_a_group_stay_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "spectator", lambda: True)
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=rows.append)
    looped(policy, probe, optimizer)
    assert rows == [] and not policy._forward_hooks


def test_autocast_of_the_loop_does_not_reach_a_measurement() -> None:
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(
        policy, optimizer, task=task(), log=rows.append, overhead_budget=1.0, clock=lambda: 0.0
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        looped(policy, probe, optimizer, 3)
    found = [row["measured/lyapunov"] for row in rows if "measured/lyapunov" in row]
    assert found and not probe.off


@pytest.mark.parametrize("log", ["", ".", "x" * 300])
def test_a_log_that_no_file_can_be_named_is_refused(log: str) -> None:
    with pytest.raises(InputError, match=r"is a folder|is too long"):
        gradlab.Probe(net(), log=log)
