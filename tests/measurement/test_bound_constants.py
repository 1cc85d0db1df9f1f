"""Constants of bounds against matrices, and runs in which there is nothing to bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from gradlab import Estimator, Tail
from gradlab.gradients.starts import as_starts
from gradlab.measurement.bounds import measured_bounds
from gradlab.statistics.bounds.constants import Derivatives, growth_rate
from gradlab.systems import LinearQuadratic
from tests.measurement.bounded import H, Quadratic, T, World, named


def test_constants_are_those_of_the_matrices_to_rounding():
    for seed in range(20):
        world = World(seed)
        found = world.bounds_of("first").constants
        closed, model = world.A + world.B @ world.W, world.A_ + world.B_ @ world.W
        size = lambda x: np.linalg.norm(x, 2)  # noqa: E731
        known = {
            "MPG Thm 2: B_ps": size(closed),
            "MPG Thm 2: B_fs": size(model),
            "MPG Thm 2: B_pa": size(world.B),
            "MPG Thm 2: B_fa": size(world.B_),
            "MPG Thm 2: B_delta_s": size(model - closed),
            "MPG Thm 2: B_delta_a": size(world.B_ - world.B),
            "MPG Thm 2: B_delta_r": 0.0,
            "RP Prop 5.8: closed_loop": max(size(closed), size(model)),
            "RP Prop 5.8: L_pi": size(world.W),
            "DDPPO Thm 1: epsilon_r_grad": 0.0,
        }
        for name, value in known.items():
            assert found[f"model, {name}"] == pytest.approx(value, rel=1e-10, abs=1e-12), name
        both = size(np.hstack([world.A_, world.B_]))
        assert found["mixed, MAAC Lemma A.1: L_f"] == pytest.approx(both, rel=1e-10)
        # |∂π/∂θ| of a linear policy is |s| in each of its da rows.
        reach = world.starts.norm(dim=1).max().item() * len(world.W) ** 0.5
        assert found["model, MPG Thm 2: B_theta"] == pytest.approx(reach, rel=1e-10)


def test_the_growth_of_sensitivities_is_the_smallest_rate_that_bounds_them():
    """s' = 0.9 s + 2 a with a = −0.1 s: ∂s_t/∂a_0 = 2 · 0.7^{t−1}, largest rate at t = 1."""
    ones = np.ones((5, 3, 1, 1))
    zero = np.zeros((5, 3, 1))
    path = Derivatives(0.9 * ones, 2 * ones, zero, zero, -0.1 * np.ones((6, 3, 1, 1)), zero, zero)
    assert growth_rate(path, "first") == pytest.approx(2 * np.hypot(1, 0.1))
    slow = replace(path, B=0.01 * ones)  # the last step has the largest rate then
    pair = 0.01 * 0.899**4 * np.hypot(1, 0.1)
    assert growth_rate(slow, "first") == pytest.approx(pair ** (1 / 5))
    every = growth_rate(path, "all")  # |∂s_1/∂θ| ≤ 2, |∂a_1/∂θ| ≤ 0.1 · 2 + 1
    assert every == pytest.approx(np.hypot(2, 1.2))


def test_lipschitz_constants_of_derivatives_never_exceed_the_known_ones():
    for seed in range(20):
        world = World(seed)
        found = world.bounds_of("first").constants
        curvature = 2 * np.linalg.norm(world.Q + world.W.T @ world.R @ world.W, 2)
        assert found["model, MPG Thm 2: L_grad_f"] <= 1e-6
        assert 0.2 * curvature <= found["model, MPG Thm 2: L_grad_r"] <= curvature * (1 + 1e-6)
        assert found["model, DDPPO Thm 1: L_pig"] == pytest.approx(len(world.W) ** 0.5, rel=1e-6)


def test_a_steep_system_is_said_not_to_meet_the_assumptions():
    world = World(3)
    steep = 1.3 * world.simulator.A / np.linalg.norm(world.A, 2)
    world.simulator = replace(world.simulator, A=steep)
    found = named(world.bounds_of("first"))
    for theorem in ("RP Prop 5.8", "DDPPO Thm 1"):
        assert not found[theorem].applies
        assert "measured" in found[theorem].sentence
    assert np.isnan(found["DDPPO Thm 1"].values).all()
    assert found["DDPPO Thm 1"].best == -1


def test_the_surrogates_horizon_is_that_of_the_measured_errors():
    """Prop 5.10 with l = ln 1/γ: h* solves (2/3) l h e^{(2/3) l h} = argument, by bisection."""
    world = World(1)
    bounds = world.bounds_of("first")
    sentence = named(bounds)["RP Prop 5.8"].sentence
    f, v = (bounds.constants[f"model, RP Prop 5.8: epsilon_{each}"] for each in "fv")
    rate = -np.log(world.gamma)
    argument = 2 / 3 * rate ** (4 / 3) * (v / f) ** (2 / 3)
    known = scipy.optimize.brentq(lambda w: w * np.exp(w) - argument, 0, 50) * 3 / (2 * rate)
    assert f"least of its surrogate at h* = {known:.2g}" in sentence


def test_the_exact_critic_has_no_error():
    """Q = −(sᵀQs + aᵀRa) − γ s'ᵀP s' with P = Q + WᵀRW + γ MᵀPM."""
    world = World(4)
    A, B, g = world.A, world.B, world.gamma
    closed = A + B @ world.W
    stage = world.Q + world.W.T @ world.R @ world.W
    P = scipy.linalg.solve_discrete_lyapunov(np.sqrt(g) * closed.T, stage)
    step = np.hstack([A, B])
    exact = scipy.linalg.block_diag(world.Q, world.R) + g * step.T @ P @ step
    world.critic = Quadratic(torch.from_numpy(exact))
    found = world.bounds_of("first").constants
    for name in ("model, MPG Thm 2: B_qs", "model, MPG Thm 2: B_qa"):
        assert found[name] < 1e-6 < found["model, MPG Thm 2: B_Qs"]
    assert found["mixed, MAAC Lemma A.1: epsilon_Q"] < 1e-6


def test_a_wrong_reward_enters_the_bounds():
    """The model's reward lacks the action's cost; nothing else is wrong."""
    world = World(5)
    free = torch.zeros_like(world.model.R)
    zero = torch.zeros_like(world.model.Q)
    world.model = LinearQuadratic(
        world.simulator.A, world.simulator.B, world.simulator.Q, free, zero
    )
    for states, name in ((world.model, "model"), (world.simulator, "mixed")):
        (bound,) = [
            each
            for each in world.bounds_of("first").bounds
            if each.estimator == name and each.theorem in ("MPG Thm 2", "MAAC Lemma A.1")
        ]
        bias = world.bias(states, "first")
        assert bias[1:].min() > 0
        assert (bound.values >= bias).all()
    closed = torch.from_numpy(world.A + world.B @ world.W)
    cost = torch.from_numpy(2 * world.W.T @ world.R @ world.W)
    later = torch.stack(
        [world.starts @ torch.linalg.matrix_power(closed, t).T @ cost for t in range(1, H)]
    )
    found = world.bounds_of("first").constants
    wanted = later.norm(dim=2).max().item()
    assert found["model, MPG Thm 2: B_delta_r"] == pytest.approx(wanted, rel=1e-10)


def test_the_minimum_is_the_brute_force_one():
    found = World(7).bounds_of("first").bounds
    for bound in (each for each in found if each.quantity == "bias"):
        assert bound.values[bound.best] == np.nanmin(bound.values)


def test_without_a_truth_or_a_model_there_is_nothing_to_bound():
    world = World(1)
    begin = as_starts(world.starts, len(world.A))
    own = {"true": Estimator(world.simulator, world.simulator, "first", Tail(3, None, 0.9))}
    assert measured_bounds(world.setting(begin), own, T) is None
    chosen = {"model": world.estimator(world.model, "first")}
    assert measured_bounds(world.setting(begin), chosen, None) is None
