"""What a probe refuses, what it survives, and that it never stops a loop.

Unusual policies, optimisers and arguments: supported, or refused in words.
"""

from __future__ import annotations

import copy
import errno
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe import arguments, measured
from gradlab.storage import journal
from gradlab.storage.journal import Journal
from tests.probe.small_loops import linear_task, looped, net, probed, vitals


def emptied() -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    optimizer.param_groups[0]["params"] = []
    return optimizer


SPLIT = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
REFUSED: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    ("policy is a function, expected a torch.nn.Module", lambda: {"policy": lambda s: s}),
    ("policy has no trainable parameter", lambda: {"policy": net().requires_grad_(False)}),
    ("policy has lazy parameters", lambda: {"policy": nn.LazyLinear(2)}),
    (".*mark the closure's backward pass",
     lambda: {"policy": (own := net()), "optimizer": torch.optim.LBFGS(own.parameters())}),
    (r"critic is given without a task.*probe.networks", lambda: {"critic": nn.Linear(3, 1)}),
    ("policy is spread over", lambda: {"policy": SPLIT}),
    ("optimizer is a list without step hooks",
     lambda: {"optimizer": [torch.optim.SGD(net().parameters())] * 2}),
    ("optimizer has no parameters", lambda: {"optimizer": emptied()}),
    ("optimizer has none of the policy's",
     lambda: {"optimizer": torch.optim.SGD(net().parameters())}),
    ("task is 'pendulum'", lambda: {"task": "pendulum"}),
    ("critic is str, expected a torch.nn.Module or",
     lambda: {"task": linear_task(), "critic": "q"}),
    ("critic returns shape", lambda: {"task": linear_task(), "critic": lambda s, a: s}),
    ("policy cannot take inputs of shape", lambda: {"task": linear_task(3)}),
    ("every is 0, expected", lambda: {"every": 0}),
    ("env is 3, expected a function", lambda: {"env": 3}),
    ("critic_alone is 1, expected", lambda: {"critic_alone": 1}),
    ("log is 3", lambda: {"log": 3}),
]  # fmt: skip


@pytest.mark.parametrize("words, given", REFUSED)
def test_bad_arguments_are_refused_in_one_line(words, given):
    with pytest.raises(InputError, match="^" + words) as caught:
        gradlab.Probe(**({"policy": net()} | given()))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "run.h5").write_text("mine")
    with pytest.raises(InputError, match=r"run\.h5, which holds a run already: choose") as e:
        gradlab.Probe(net(), log=tmp_path / "run.h5")
    assert (tmp_path / "run.h5").read_text() == "mine" and "--" not in str(e.value)


def failing(row: dict[str, Any]) -> None:
    raise KeyError("the user's logger")


@pytest.mark.parametrize("strict", [False, True])
def test_a_probe_that_fails_warns_once_and_goes(strict):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=failing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if strict else "always")
        looped(policy, optimizer, probe, 300)
    assert probe.off and not policy._forward_hooks and not optimizer._optimizer_step_post_hooks
    if not strict:
        assert [str(each.message) for each in caught] == [
            "gradlab's probe is off; training goes on (KeyError: \"the user's logger\")"
        ]


def test_sparse_gradients_are_told_and_the_loop_goes_on():
    policy = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer)
    with pytest.warns(RuntimeWarning, match="gradient is sparse.*say sparse=False to the layer"):
        looped(policy, optimizer, probe, 5, lambda step: policy(torch.tensor([1, 2])).sum())
    assert probe.off


def test_a_measurement_that_fails_leaves_the_rest_at_work(monkeypatch):
    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("no measurement today")

    monkeypatch.setattr(measured, "measured", broken)
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows, task=linear_task())
    with pytest.warns(RuntimeWarning, match="no measurement today") as caught:
        looped(policy, optimizer, probe, 120)
    assert len(caught) == 1 and not probe.off
    assert any("vitals/grad_norm" in row for row in rows)


def test_functional_transforms_pass_the_hook_unseen():
    policy = net()
    probe = gradlab.Probe(policy)
    jacobian = torch.func.vmap(torch.func.jacrev(policy))(torch.randn(3, 2))
    assert jacobian.shape == (3, 1, 2)
    assert probe._loop.passes.inputs == () and probe._loop.passes.error is None


def test_other_processes_of_a_group_stay_silent(monkeypatch):
    monkeypatch.setattr(arguments, "spectator", lambda: True)
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=rows.append)
    looped(policy, optimizer, probe, 120)
    assert rows == [] and not policy._forward_hooks


# A probe that fails beside other people's hooks: the loop goes on, and nobody's hook is lost.


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


def test_an_interrupt_in_the_middle_of_a_probe_is_the_users():
    pressed: list[bool] = []

    def interrupted(_: Any) -> None:
        if not pressed:  # once: the probe is left open, and the process goes on
            pressed.append(True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained({"log": interrupted})


class Mixed(nn.Module):
    """Of two precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 3, dtype=torch.bfloat16)
        self.b = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> Any:
        return self.b(self.a(x).double())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16, None])
def test_other_precisions_are_read_and_may_be_mixed(kind):
    policy, rows = Mixed() if kind is None else net().to(kind), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    looped(policy, optimizer, probe)
    assert vitals(rows)[0]["vitals/looked"] == 50 and not probe.off
    assert 0 < vitals(rows)[0]["vitals/update_ratio"] < 1


def test_parameters_that_join_the_optimiser_later_are_followed():
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy[2].parameters(), 1e-2)
    policy[0].requires_grad_(False)
    probe = probed(policy, optimizer, rows)
    looped(policy, optimizer, probe)
    policy[0].requires_grad_(True)
    optimizer.add_param_group({"params": policy[0].parameters(), "lr": 1e-3})
    looped(policy, optimizer, probe, 200)
    norm = [row["vitals/layer_norm/0.weight"] for row in vitals(rows)]
    assert np.isnan(norm[0]) and norm[-1] > 0 and not probe.off


def test_a_probe_is_closed_as_often_as_one_likes(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5")
    looped(policy, optimizer, probe)
    probe.close()
    written = (tmp_path / "run.h5").read_bytes()
    probe.close()
    looped(policy, optimizer, probe, 3)
    assert (tmp_path / "run.h5").read_bytes() == written


def test_copies_of_a_probe_do_nothing():
    policy = net()
    probe = gradlab.Probe(policy)
    for found in (copy.deepcopy(probe), pickle.loads(pickle.dumps(probe))):
        with found(0):
            policy(torch.zeros(1, 2)).sum().backward()
        found.close(), found.resume()
        assert found.off and found.spent == 0 and not found.alarms
    assert not probe.off


def test_a_full_disk_costs_the_log_only(monkeypatch, tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5")
    looped(policy, optimizer, probe)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as caught:
        looped(policy, optimizer, probe, 300)
    assert len(caught) == 1 and probe.off
    assert journal.read(tmp_path / "run.h5").groups["vitals"]["update"].values.tolist() == [50, 100]


# The reward that a critic has learnt: a flipped or lost one is told, a scaled one is sound.
