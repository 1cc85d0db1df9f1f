"""What a probe writes down of single updates, against numbers worked out beside it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradlab
from gradlab.probe.loop import THROWN, WHOLE
from gradlab.statistics.successive import fresh, signal
from gradlab.storage import journal
from tests.probe import small_loops
from tests.probe.small_loops import probed, told, vitals


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor])
def test_a_schedule_beyond_its_end_is_named(kind):
    policy, rows = nn.Linear(2, 1), []
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)

    def loss(step: int) -> Tensor:
        optimizer.param_groups[0]["lr"] = kind(1e-3 * (1 - step / 80))
        return policy(torch.randn(8, 2)).square().sum()

    small_loops.looped(policy, optimizer, probed(policy, optimizer, rows), 120, loss)
    (found,) = told(rows, "settings")
    assert found["update"] == 100 and "`lr` of the optimiser of actor" in found["findings/message"]


def test_gradients_thrown_away_without_a_step_are_told():
    policy, rows = nn.Linear(2, 1), []
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows)
    for step in range(THROWN + 1):
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 2)).sum().backward()
    (found,) = told(rows)
    assert found["findings/title"] == "actor does not move"
    assert f"{THROWN} backward passes. Give the probe" in found["findings/message"]


def test_updates_are_looked_at_by_the_schedule():
    """1 to 50, then every K-th; a burst of 33 from the first on, and after every tenth look."""
    policy, rows = nn.Linear(2, 1), []
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows, every=20)
    small_loops.looped(policy, optimizer, probe, 250)
    assert [row["update"] for row in vitals(rows)] == [20, 40, 50, *range(60, 260, 20)]
    assert [row["vitals/looked"] for row in vitals(rows)] == [20, 20, 10, *[1] * 10]
    bursts = [row["update"] for row in rows if "successive/pairs" in row]
    assert bursts == [33, 233]


# Samples that return in the next batch are seen, and pairs that share them do not count.


def test_pairs_that_share_more_than_chance_explains_are_left_out():
    assert fresh(np.array([0, 64.0, 0, 16])).tolist() == [True, False, True, False]
    assert fresh(np.array([13.0, 6, 20, 17])).tolist() == [True, True, False, False]
    assert fresh(np.full(3, np.nan)).all()  # not seen: all that there is


def gradients(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Products, squares of batches without any signal, and samples in common, of 33 in a row."""
    generator = np.random.default_rng(seed)
    rows, index = [], []
    while len(rows) < 33:
        data = generator.standard_normal((64, 30))
        for _ in range(4):
            parts = generator.permutation(64).reshape(4, 16)
            parts = parts if name == "partition" else [np.arange(16)] * 4
            rows += [data[part].mean(0) for part in parts]
            index += [len(index) // 16 * 64 + part for part in parts]
    g = np.array(rows[:33])
    shared = np.array([len(np.intersect1d(a, b)) for a, b in pairwise(index)])
    return np.stack([(g[1:] * g[:-1]).sum(1), shared[:32]]), (g**2).sum(1)


@pytest.mark.parametrize("name, biased", [("partition", 6 / 32 / 4), ("same", 30 / 32)])
def test_shared_samples_make_a_share_out_of_nothing_unless_left_out(name, biased):
    """Between epochs on 4 parts a quarter of the samples return; one batch 16 times is itself."""
    plain, kept = [], []
    for seed in range(300):
        (products, shared), squares = gradients(name, seed)
        plain.append(signal(products, squares).share)
        kept.append(signal(products, squares, fresh(shared)).share)
    for found, truth in ((plain, biased), (kept, 0.0)):
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - truth) < 4 * error + 0.01


def test_a_batch_used_ten_times_leaves_the_pairs_where_it_changes():
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = probed(net, optimizer)
    for step in range(60):
        if step % 10 == 0:
            torch.manual_seed(step)
            x = torch.randn(8, 3)
        optimizer.zero_grad()
        with probe(step):
            net(x).square().mean().backward()
        optimizer.step()
    (row,) = probe._log.rows["successive"]
    assert row["pairs"] == 32 and row["fresh"] in (3, 4) and row["overlap"] == 0.0
    assert 4 / 33 - 0.05 < row["distinct"] < 5 / 33 + 0.01


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
    sizes, ratios = looped(policy, probe, optimizer, WHOLE)
    row = vitals(rows)[0]
    whole = (sizes**2).sum(1).sqrt()
    assert row["vitals/grad_norm"] == pytest.approx(float(whole.mean()), rel=1e-5)
    assert row["vitals/grad_norm_max"] == pytest.approx(float(whole.max()), rel=1e-5)
    assert row["vitals/layer_norm/2.bias"] == pytest.approx(float(sizes[:, 3].mean()), rel=1e-5)
    assert row["vitals/update_ratio"] == pytest.approx(float(ratios.mean()), rel=1e-3)
    assert row["vitals/looked"] == 50 and row["vitals/marked"] == 1 and row["step"] == 49


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
    assert row["update"] == 50 and row["vitals/looked"] == 50
    assert row["vitals/grad_norm"] == pytest.approx(3.0)


def test_without_an_optimiser_one_step_is_one_update():
    policy, rows = nn.Linear(1, 1, bias=False), []
    probe = probed(policy, None, rows)
    for step in range(51):
        policy.zero_grad()
        for _ in range(2):
            with probe(step):
                policy(torch.ones(1, 1)).sum().backward()
    row = vitals(rows)[0]
    assert row["update"] == 50 and row["vitals/grad_norm"] == pytest.approx(2.0)
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
    for step in range(75):
        optimizer.zero_grad()
        factor = torch.inf if step % 3 == 0 else 1.0
        with probe(step, scaler):
            scaler.scale(policy(torch.ones(1, 1)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    row = vitals(rows)[0]
    assert row["update"] == 50 and row["step"] == 74
    assert row["vitals/nonfinite_updates"] == 0 and probe.alarms == []


def test_a_lost_gradient_whose_step_the_loop_skips_is_an_update():
    policy, rows = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = probed(policy, optimizer, rows)
    for step in range(51):
        optimizer.zero_grad()
        loss = policy(torch.ones(1, 1)).sum() * (torch.nan if step % 5 == 4 else 1.0)
        with probe(step):
            loss.backward()
        if torch.isfinite(loss):
            optimizer.step()
    row = vitals(rows)[0]
    assert row["update"] == row["vitals/looked"] == 50
    assert row["vitals/nonfinite_updates"] == 10


class Scaled(nn.Module):
    """limit · tanh(W o); behind: the tanh is a hidden one, the newest module all the same."""

    def __init__(self, limit: float, function: bool = False, behind: bool = False) -> None:
        super().__init__()
        self.limit_of_actions, self.behind = limit, behind
        self.layer, self.last = nn.Linear(1, 2, bias=False), nn.Linear(2, 2)
        self.tanh = torch.tanh if function else nn.Tanh()

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        unit = self.tanh(self.layer(observation))
        return self.limit_of_actions * (self.last(unit) if self.behind else unit)


def saturation_of(policy, gain, call=lambda policy, x: policy(x)):
    """The first row of vitals, at pre-activations `gain` and 0.693, where tanh is 0.6."""
    rows = []
    with torch.no_grad():
        policy.layer.weight.copy_(torch.tensor([[gain], [0.6931472]]))
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    probe = probed(policy, optimizer, rows)
    for step in range(100):
        with torch.no_grad():
            policy(torch.zeros(1000, 1))  # acting does not count
        with probe(step):
            call(policy, torch.ones(4, 1)).sum().backward()
        optimizer.step()
    assert not probe.off
    probe.close()
    return vitals(rows)[0]


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("gain, share", [(100.0, 1.0), (1e-3, 0.0)])
@pytest.mark.sampled(5)
def test_saturated_actions_are_counted_by_action_in_any_units(gain, share, limit, function):
    row = saturation_of(Scaled(limit, function), gain)
    assert row["vitals/saturation/0"] == share and row["vitals/saturation/1"] == 0.0
    assert row["vitals/attenuation/0"] == pytest.approx(1 - share, abs=1e-5)
    assert row["vitals/attenuation/1"] == pytest.approx(1 - 0.6**2, abs=1e-5)


def test_no_saturation_is_counted_where_no_limit_is_known():
    assert "vitals/saturation/0" not in saturation_of(Scaled(1.0, behind=True), 100.0)
    row = saturation_of(Scaled(1.0), 100.0, partial(checkpoint, use_reentrant=False))
    assert "vitals/saturation/0" not in row


def test_a_run_file_is_readable_while_it_is_written(tmp_path):
    policy, path = net(), tmp_path / "run.h5"
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=path)
    looped(policy, probe, optimizer, 120)
    open_run = journal.read(path)
    assert open_run.groups["vitals"]["update"].values.tolist() == [50, 100]
    assert open_run.attributes["kind"] == "probe"
    probe.close()
    closed = journal.read(path)
    assert closed.groups["vitals"]["update"].values.tolist() == [50, 100, 120]
    assert closed.groups["vitals"]["layer_norm"].values.shape == (3, 4)
    assert closed.groups["vitals"]["saturation"].values.shape == (3, 2)
    assert closed.groups["vitals"]["own_seconds"].unit.startswith("s")
    assert len(closed.groups["successive"]["pairs"].values) == 1
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


def first(net: nn.Module, states: Tensor) -> Any:
    """The row of one update."""
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = probed(net, optimizer)
    with probe(0):
        net(states).sum().backward()
    optimizer.step()
    probe.close()
    return probe._log.rows["vitals"][0]


@pytest.mark.parametrize("size", [0.1, 2.0, 30.0])
def test_attenuation_is_the_mean_derivative_of_the_tanh(size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    states = size * torch.randn(16, 3, dtype=torch.float64)
    latent = net[0](states).detach().requires_grad_()
    (slope,) = torch.autograd.grad(torch.tanh(latent).sum(), latent)
    found = first(net, states)
    np.testing.assert_allclose(found["attenuation"], slope.mean(0).numpy(), rtol=1e-9, atol=1e-12)


def test_actions_that_are_nan_leave_the_others_of_the_row_known():
    torch.manual_seed(0)
    net, states = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double(), torch.randn(16, 3).double()
    known = first(net, states)
    lost = torch.cat([states, torch.full((4, 3), torch.nan, dtype=torch.float64)])
    found = first(net, lost)
    for name in ("attenuation", "saturation"):
        np.testing.assert_allclose(found[name], known[name], rtol=1e-12)
    assert found["nonfinite_updates"] == found["looked"]  # and that they are lost is counted
