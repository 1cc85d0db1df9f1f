"""Probes in several processes: data parallel training by gloo, sharded policies, forks."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

import gradlab
from gradlab.errors import InputError
from gradlab.storage import journal
from tests.probe.kinds_of_loops import net
from tests.probe.small_loops import looped

UPDATES = 120
PROCESSES = 2
FREE: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}


def trained(rank: int, folder: Path, probed: bool) -> list[torch.Tensor]:
    """θ after data parallel updates; each process has data of its own."""
    policy = nn.parallel.DistributedDataParallel(net())
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    probe = None
    if probed:
        probe = gradlab.Probe(policy, optimizer, log=folder / "run.h5", **FREE)
        assert probe.off == (rank > 0)
    torch.manual_seed(rank)
    for step in range(UPDATES):
        optimizer.zero_grad()
        loss = ((policy(torch.randn(8, 2)) - 0.5) ** 2).sum()
        if probe is None:
            loss.backward()
        else:
            with probe(step):
                loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 0.1)
        optimizer.step()
    if probe is not None:
        probe.close()
    return [p.detach().clone() for p in policy.parameters()]


def refused(rank: int) -> bool:
    """Is a policy of which this process has a part only refused?"""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    policy = net()
    fully_shard(policy, mesh=init_device_mesh("cpu", (PROCESSES,)))
    try:
        gradlab.Probe(policy)
    except InputError as error:
        return "sharded" in str(error)
    return False


def process(rank: int, folder: Path, results: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", RuntimeWarning)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES
    )
    try:
        bare, watched = trained(rank, folder, False), trained(rank, folder, True)
        same = all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))
        results.put((rank, same, float(watched[0].sum()), refused(rank)))
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_a_group_of_processes_trains_alike_and_the_first_one_writes(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=process, args=(rank, tmp_path, results), daemon=True)
        for rank in range(PROCESSES)
    ]
    for each in workers:
        each.start()
    found = sorted(results.get(timeout=120) for _ in workers)
    for each in workers:
        each.join(timeout=60)
    assert [each.exitcode for each in workers] == [0, 0]
    assert [same for _, same, _, _ in found] == [True, True]
    assert found[0][2] == found[1][2]
    assert [said for _, _, _, said in found] == [True, True]
    run = journal.read(tmp_path / "run.h5")
    assert run.groups["vitals"]["update"].values.tolist() == [100, UPDATES]
    assert {each.name for each in tmp_path.iterdir()} <= {"run.h5", "meet"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_leaves_the_file_and_the_policy_alone(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5", **FREE)
    looped(policy, optimizer, probe)
    before = sorted(tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        left = 1
        try:
            off = probe.off
            looped(policy, optimizer, probe)
            hooks = policy._forward_hooks, optimizer._optimizer_step_pre_hooks
            free = off and not any(hooks)
            probe.close()
            left = 0 if free else 2
        finally:
            os._exit(left)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(tmp_path.iterdir()) == before
    looped(policy, optimizer, probe)
    assert not probe.off
    probe.close()
    run = journal.read(tmp_path / "run.h5")
    assert run.groups["vitals"]["update"].values.tolist() == [100, 200]
