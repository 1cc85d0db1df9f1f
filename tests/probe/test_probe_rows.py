"""What a probe writes down, against numbers worked out beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe.updates import STRIDE
from gradlab.storage import journal
from tests.probe.small_loops import probed, vitals


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2), nn.Tanh())


def looped(
    policy: nn.Module, probe: gradlab.Probe, optimizer: Any, updates: int, clip: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Norms of gradients [updates, P] before clipping, and |Δθ| / |θ| [updates]."""
    sizes, ratios = [], []
    for step in range(updates):
        optimizer.zero_grad()
        with probe(step):
            ((policy(torch.randn(16, 3)) - 0.5) ** 2).sum().backward()
        sizes.append(torch.stack([p.grad.double().norm() for p in policy.parameters()]))
        nn.utils.clip_grad_norm_(policy.parameters(), clip)
        before = nn.utils.parameters_to_vector(policy.parameters()).detach().double()
        optimizer.step()
        after = nn.utils.parameters_to_vector(policy.parameters()).detach().double()
        ratios.append((after - before).norm() / before.norm())
    return torch.stack(sizes), torch.stack(ratios)


def test_norms_are_those_before_clipping_and_ratios_those_of_the_steps():
    policy, rows = net(), []
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows)
    sizes, ratios = looped(policy, probe, optimizer, 100)
    row = vitals(rows)[0]
    whole = (sizes**2).sum(1).sqrt()
    assert row["vitals/grad_norm"] == pytest.approx(float(whole.mean()), rel=1e-5)
    assert row["vitals/grad_norm_max"] == pytest.approx(float(whole.max()), rel=1e-5)
    assert row["vitals/layer_norm/2.bias"] == pytest.approx(float(sizes[:, 3].mean()), rel=1e-5)
    assert row["vitals/update_ratio"] == pytest.approx(float(ratios[::STRIDE].mean()), rel=1e-3)
    assert row["vitals/looked"] == 100 and row["vitals/marked"] == 1 and row["step"] == 99


def test_of_several_backward_passes_the_accumulated_gradient_counts():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        optimizer.zero_grad()
        for part in range(3):
            with probe(3 * step + part):
                policy(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["vitals/looked"] == 100
    assert row["vitals/grad_norm"] == pytest.approx(3.0)


def test_without_an_optimiser_one_step_is_one_update():
    policy, rows = nn.Linear(1, 1, bias=False), []
    probe = probed(policy, None, rows)
    for step in range(101):
        policy.zero_grad()
        for _ in range(2):
            with probe(step):
                policy(torch.ones(1, 1)).sum().backward()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["vitals/grad_norm"] == pytest.approx(2.0)
    assert np.isnan(row["vitals/update_ratio"])


def test_a_gradient_scaler_is_divided_out():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=30)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        optimizer.zero_grad()
        with probe(step, scaler):
            scaler.scale(policy(torch.ones(1, 1)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    row = vitals(rows)[0]
    assert scaler.get_scale() > 1024
    assert row["vitals/grad_norm"] == pytest.approx(1.0)
    assert row["vitals/grad_norm_max"] == pytest.approx(1.0)


def test_steps_that_a_scaler_skips_are_no_updates():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    probe = probed(policy, optimizer, rows)
    for step in range(150):
        optimizer.zero_grad()
        factor = torch.inf if step % 3 == 0 else 1.0
        with probe(step, scaler):
            scaler.scale(policy(torch.ones(1, 1)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["step"] == 149
    assert row["vitals/nonfinite_updates"] == 0 and probe.alarms == []


@pytest.mark.parametrize("gain, share", [(100.0, 1.0), (1e-3, 0.0)])
def test_saturated_actions_are_counted_by_action(gain, share):
    policy, rows = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Tanh()), []
    with torch.no_grad():
        policy[0].weight.copy_(torch.tensor([[gain], [1e-3]]))
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        with torch.no_grad():
            policy(torch.zeros(1000, 1))  # acting does not count
        with probe(step):
            policy(torch.ones(4, 1)).sum().backward()
        optimizer.step()
    row = vitals(rows)[0]
    assert row["vitals/saturation/0"] == share and row["vitals/saturation/1"] == 0.0


def test_a_run_file_is_readable_while_it_is_written(tmp_path):
    policy, path = net(), tmp_path / "run.h5"
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=path, overhead_budget=1.0, clock=lambda: 0.0)
    looped(policy, probe, optimizer, 250)
    open_run = journal.read(path)
    assert open_run.groups["vitals"]["update"].values.tolist() == [100, 200]
    assert open_run.attributes["kind"] == "probe"
    probe.close()
    closed = journal.read(path)
    assert closed.groups["vitals"]["update"].values.tolist() == [100, 200, 250]
    assert closed.groups["vitals"]["layer_norm"].values.shape == (3, 4)
    assert closed.groups["vitals"]["saturation"].values.shape == (3, 2)
    assert closed.groups["vitals"]["own_seconds"].unit.startswith("s")
    assert len(closed.groups["successive"]["pairs"].values) >= 5
    assert not (tmp_path / "run.h5.journal").exists()


def test_successive_gradients_are_those_of_the_loop():
    policy, rows = nn.Linear(4, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    generator, gradients = torch.Generator().manual_seed(0), []
    for step in range(60):
        optimizer.zero_grad()
        x = torch.randn(8, 4, generator=generator) + 0.2
        with probe(step):
            policy(x).mean().backward()
        gradients.append(x.mean(0).double().numpy())
        optimizer.step()
    row = next(row for row in rows if "successive/signal" in row)
    last, pairs = row["update"], row["successive/pairs"]
    g = np.array(gradients[last - pairs - 1 : last])
    assert row["successive/signal"] == pytest.approx((g[1:] * g[:-1]).sum(1).mean(), rel=1e-5)
    assert row["successive/energy"] == pytest.approx((g**2).sum(1).mean(), rel=1e-5)
