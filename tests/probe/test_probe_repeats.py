"""Samples that return in the next batch are seen, and pairs that share them do not count."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from gradlab.statistics.successive import fresh, signal
from tests.probe.small_loops import probed


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
    (row,) = probe.alarm_log.rows[0]["successive"]
    assert row["pairs"] == 32 and row["fresh"] in (3, 4) and row["overlap"] == 0.0
    assert 4 / 33 - 0.05 < row["distinct"] < 5 / 33 + 0.01
