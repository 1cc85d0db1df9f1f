"""Linear-quadratic gradients with known moments, which tests of intervals draw from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.truth.lqr import lqr_gradient
from tests.statistics import quadratic_gradients as lq


def system(world, A, B):
    d, da = world.B.shape
    eyes = (torch.eye(k, dtype=torch.float64) for k in (d, da))
    noise = world.noise * torch.eye(d, dtype=torch.float64)
    return LinearQuadratic(torch.tensor(A), torch.tensor(B), *eyes, noise)


@pytest.mark.parametrize("world", [lq.WORLDS[0], lq.WORLDS[2]], ids=lambda w: w.name)
def test_the_true_mean_is_the_closed_form(world):
    d = len(world.A)
    second = world.spread * np.eye(d) + world.mean**2 * np.ones((d, d))
    exact = lqr_gradient(
        system(world, world.A, world.B), torch.tensor(-world.K), torch.tensor(second),
        world.discount, "first",
    )  # fmt: skip
    found = lq.mean_of(world, lq.action_gradients(world)["truth"])
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4)


@pytest.mark.parametrize("world", lq.WORLDS, ids=lambda w: w.name)
def test_means_and_traces_are_those_of_many_draws(world):
    M = lq.action_gradients(world)
    for name, G in lq.drawn(world, M, 25_000, np.random.default_rng(0)).items():
        trace, mean = lq.trace_of(world, M[name]), lq.mean_of(world, M[name])
        assert np.linalg.norm(G.mean(0) - mean) < 4 * (trace / len(G)) ** 0.5, name
        assert np.var(G, axis=0).sum() == pytest.approx(trace, rel=0.06), name


def test_without_noise_a_gradient_is_that_of_gradlab():
    world = lq.WORLDS[3]
    d, da = world.B.shape
    policy = torch.nn.Linear(d, da, bias=False).double()
    torch.nn.init.zeros_(policy.weight).data -= torch.tensor(world.K)
    starts = torch.randn(6, d, generator=torch.Generator().manual_seed(0)).double()

    class Quadratic(torch.nn.Module):
        def forward(self, s, u):
            cross = 0.8 * s.sum(dim=1) * u.sum(dim=1)
            return -2 * s.square().sum(dim=1) - 1.5 * u.square().sum(dim=1) - cross

    prior = system(lq.World(**(vars(world) | {"noise": 0.0})), world.prior_A, world.prior_B)
    tail = gradlab.Tail(5, Quadratic(), world.discount)
    found = gradlab.Estimator(prior, prior, "first", tail).gradients(policy, starts)
    M = lq.action_gradients(world)["model 5"][:, :d]
    want = np.einsum("na,nd->nad", starts.numpy() @ M.T, starts.numpy()).reshape(6, -1)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-10)


def test_the_trace_is_that_of_many_draws_from_tailed_starts_too():
    world = replace(lq.WORLDS[2], freedom=9.0)
    m = lq.action_gradients(world, (5,))["model 5"]
    G = lq.drawn(world, {"G": m}, 100_000, np.random.default_rng(2))["G"]
    assert np.var(G, axis=0).sum() == pytest.approx(lq.trace_of(world, m), rel=0.06)
