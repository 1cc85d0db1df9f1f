"""Kernels against explicit per-sample gradients."""

import pytest
import torch
from torch import nn

from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from tests.gradients.worlds import Noisy, network


class Mixed(nn.Module):
    """Parameters outside linear layers: a scale and a shift of its own."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = network((3, 5, 2), nn.ELU), nn.Parameter(torch.ones(2).double())

    def forward(self, state):
        return self.inner(state) * self.scale


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()

    def forward(self, state):
        return self.out(torch.tanh(self.layer(torch.tanh(self.layer(state)))))


def flat(parameters, grads):
    """Gradients in the order of all parameters, zeros where they are frozen."""
    left = iter(grads)
    return torch.cat([(next(left) if p.requires_grad else 0 * p).flatten() for p in parameters])


def explicit(policy, states, noise, g):
    parameters = list(policy.parameters())
    trained = [p for p in parameters if p.requires_grad]
    action = policy(states, noise) if noise.shape[1] else policy(states)
    outputs = (action * g).sum(dim=1)
    rows = [torch.autograd.grad(each, trained, retain_graph=True) for each in outputs]
    return torch.stack([flat(parameters, row) for row in rows])


class Tied(nn.Module):
    """A layer's weight used a second time by a function."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()

    def forward(self, state):
        return self.out(torch.tanh(nn.functional.linear(self.layer(state), self.layer.weight)))


def in_place():
    layers = nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ELU(inplace=True)
    return nn.Sequential(*layers, nn.Linear(8, 2)).double()


def frozen_head():
    policy = network((3, 8, 8, 2), nn.ELU)
    policy[4].requires_grad_(False)
    policy[0].bias.requires_grad_(False)
    return policy


POLICIES = {
    "in place": (in_place, 0, False),
    "frozen head": (frozen_head, 0, False),
    "tied weight": (Tied, 0, True),
    "elu": (lambda: network((3, 8, 8, 2), nn.ELU), 0, False),
    "no bias": (lambda: network((3, 7, 2), nn.Tanh, bias=False), 0, False),
    "stochastic": (lambda: Noisy(network((3, 8, 4), nn.ELU), 2), 2, False),
    "scale parameter": (Mixed, 0, True),
    "shared layer": (Twice, 0, True),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_kernels_equal_explicit_gradients(kind, monkeypatch):
    make, width, falls_back = POLICIES[kind]
    torch.manual_seed(0)
    policy, n = make(), 7
    states, noise = torch.randn(n, 3).double(), torch.randn(n, width).double()
    g = torch.randn(4, n, 2).double()
    if falls_back:
        with pytest.warns(UserWarning, match="outside linear layers"):
            jacobian = policy_jacobian(policy, states, noise)
    else:
        jacobian = policy_jacobian(policy, states, noise)
    G = torch.stack([explicit(policy, states, noise, each) for each in g])
    close = dict(rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gram.path_gradients(jacobian, g[:1]), G[0], **close)
    torch.testing.assert_close(gram.mean_gradients(jacobian, g), G.mean(dim=1), **close)
    torch.testing.assert_close(gram.squared_norms(jacobian, g), (G**2).sum(dim=2), **close)
    v = torch.randn(3, G.shape[2]).double()
    basis = torch.eye(2).double()
    rows = torch.stack([explicit(policy, states, noise, row.expand(n, 2)) for row in basis])
    want = torch.einsum("anp,dp->dna", rows, v)
    torch.testing.assert_close(gram.along(jacobian, v), want, **close)
    group = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    total, within = gram.products(jacobian, g, group)
    rows = torch.einsum("knp,kp->kn", G, G.sum(dim=1))
    torch.testing.assert_close((g * total).sum(dim=2), rows, **close)
    same = (group[:, None] == group[None]).double()
    inside = torch.einsum("knp,nm,kmp->kn", G, same, G)
    torch.testing.assert_close((g * within).sum(dim=2), inside, **close)
    monkeypatch.setattr(gram, "PAIRS", 1)
    chunked, _ = gram.products(jacobian, g, group)
    torch.testing.assert_close(chunked, total, **close)
    monkeypatch.setattr(gram, "KERNEL", 0)
    mixed = torch.tensor([2, 0, 1, 2, 0, 2, 3])
    by_sums, inside = gram.products(jacobian, g, mixed)
    torch.testing.assert_close(by_sums, total, **close)
    same = (mixed[:, None] == mixed[None]).double()
    want = torch.einsum("knp,nm,kmp->kn", G, same, G)
    torch.testing.assert_close((g * inside).sum(dim=2), want, **close)


def test_path_gradients_sum_over_time():
    torch.manual_seed(0)
    policy, t, n = network((3, 8, 2), nn.ELU), 4, 5
    states, costates = torch.randn(t, n, 3).double(), torch.randn(t, n, 2).double()
    none = torch.zeros(t * n, 0).double()
    jacobian = policy_jacobian(policy, states.flatten(0, 1), none)
    want = sum(explicit(policy, s, none[:n], c) for s, c in zip(states, costates, strict=True))
    torch.testing.assert_close(gram.path_gradients(jacobian, costates), want)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.filterwarnings("ignore:the policy has parameters outside")
def test_path_kernels_equal_explicit_path_gradients(kind, monkeypatch):
    make, width, _ = POLICIES[kind]
    torch.manual_seed(0)
    policy, t, n, horizons = make(), 5, 6, (1, 4, 2)
    states, noise = torch.randn(t * n, 3).double(), torch.randn(t * n, width).double()
    costates = torch.randn(len(horizons), t, n, 2).double()
    for k, horizon in enumerate(horizons):
        costates[k, horizon + 1 :] = 0
    jacobian = policy_jacobian(policy, states, noise)
    G = torch.stack([gram.path_gradients(jacobian, each) for each in costates])
    close = dict(rtol=1e-12, atol=1e-12)
    for thin, rows, entries in ((4096, 1024, 1 << 22), (0, 7, 1)):
        monkeypatch.setattr(gram, "THIN", thin)
        monkeypatch.setattr(gram, "ROWS", rows)
        monkeypatch.setattr(gram, "ENTRIES", entries)
        norms = gram.path_squared_norms(jacobian, costates)
        torch.testing.assert_close(norms, (G**2).sum(dim=2), **close)
        means = gram.path_mean_gradients(jacobian, costates, horizons)
        torch.testing.assert_close(means, G.mean(dim=1), **close)
