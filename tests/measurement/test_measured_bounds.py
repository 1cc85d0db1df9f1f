"""Bounds from measured constants hold for the exact bias, and constants are what they should be."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import gradlab
from gradlab import Estimator, Tail
from gradlab.gradients.horizons import horizon_gradients
from gradlab.gradients.starts import as_starts
from gradlab.measurement.bounds import measured_bounds
from gradlab.runs.bound_comparison import absence
from gradlab.runs.bounds import Bound, Bounds
from gradlab.storage.codec import arrays, decoded
from gradlab.systems import LinearQuadratic, from_function
from tests.measurement.bounded import H, Linear, N, Quadratic, T, World, named


@pytest.mark.parametrize("actions", ["first", "all"])
def test_no_bound_that_applies_is_violated_by_the_exact_bias(actions):
    applied: dict[str, int] = {}
    for seed in range(16):
        world = World(seed)
        bias = {
            "model": world.bias(world.model, actions),
            "mixed": world.bias(world.simulator, actions),
        }
        for bound in world.bounds_of(actions).bounds:
            if not bound.applies or bound.quantity != "bias":
                continue
            applied[bound.theorem] = applied.get(bound.theorem, 0) + 1
            here = ~np.isnan(bound.values)
            if bound.theorem == "DDPPO Thm 1":
                here &= np.arange(H + 1) == H  # for h → ∞ and without a critic
                bias_here = infinite_bias(world, actions)
            else:
                bias_here = bias[bound.estimator]
            slack = bound.values[here] - bias_here[here]
            assert (slack >= -1e-9 * bias_here[here]).all(), (seed, bound.theorem)
    wanted = {"MAAC Lemma A.1", "RP Prop 5.8", "DDPPO Thm 1"}
    assert set(applied) == wanted | ({"MPG Thm 2"} if actions == "first" else set())
    assert min(applied.values()) >= 8


def exact_variance(world: World, actions: str) -> np.ndarray:
    """Of the law that has these very starts with equal probability, at 0 … H."""
    found = horizon_gradients(world.estimator(world.model, actions), world.policy, world.starts)
    return (found.variance() * (N - 1) / N).numpy()


@pytest.mark.parametrize("actions", ["first", "all"])
def test_the_variance_bound_is_not_exceeded_where_it_applies(actions):
    checked = 0
    for seed in range(16):
        world = World(seed)
        bound = named(world.bounds_of(actions))["RP Prop 5.4"]
        variance = exact_variance(world, actions)
        assert bound.quantity == "variance" and bound.estimator == "model"
        assert np.isnan(bound.values[0])  # printed: 0, which the variance exceeds
        assert variance[0] > 0 and bound.best == -1
        if bound.applies:
            checked += 1
            assert (variance[1:] <= bound.values[1:]).all()
    assert checked >= 8


@pytest.mark.parametrize(("part", "loose"), [("reward", 2.0), ("critic", 18.0)])
def test_the_variance_bound_gives_away_no_more_than_its_constants_at_one_step(part, loose):
    """Half of the starts at 0, half at 1, B = 0, θ = −0.3: gradients are 0 or G, so that
    tr Cov = G²/4. With reward −a² alone or critic −a² alone |∇r| or |∇Q̂| times |∂a/∂θ| is G."""
    world = World(0)
    world.policy = Linear(torch.tensor([[-0.3]]))
    world.starts = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(N // 2, 1)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    R = one if part == "reward" else zero
    world.simulator = LinearQuadratic(one, zero, zero, R, zero)
    world.model, world.A = replace(world.simulator), np.ones((1, 1))
    weight = 1.0 if part == "critic" else 0.0
    world.critic = Quadratic(torch.diag(torch.tensor([0.0, weight], dtype=torch.float64)))
    bound = named(world.bounds_of("all"))["RP Prop 5.4"]
    variance = exact_variance(world, "all")
    assert bound.applies
    assert bound.values[1] / variance[1] == pytest.approx(4 * loose, rel=1e-9)


def test_a_start_with_a_weight_has_its_square_in_the_variance_bound():
    world = World(2)
    begin = as_starts(world.starts, len(world.A))
    chosen = {"model": world.estimator(world.model, "all")}
    one, nine = (
        measured_bounds(world.setting(each), chosen, T)
        for each in (begin, replace(begin, weight=3 * begin.weight))
    )
    ratio = named(nine)["RP Prop 5.4"].values[1:] / named(one)["RP Prop 5.4"].values[1:]
    np.testing.assert_allclose(ratio, 9.0)


def test_a_steep_model_has_no_variance_bound_that_applies_and_still_has_numbers():
    world = World(3)
    world.model = replace(world.model, A=1.3 * world.model.A / np.linalg.norm(world.A_, 2))
    bound = named(world.bounds_of("first"))["RP Prop 5.4"]
    assert not bound.applies and "of the model along the policy" in bound.sentence
    assert np.isfinite(bound.values[1:]).all()


def infinite_bias(world: World, actions: str) -> np.ndarray:
    """Of the model's return without an end, the same at every horizon."""
    made = (
        Estimator(each, each, actions, Tail(T, None, world.gamma))
        for each in (world.simulator, world.model)
    )
    true, guess = (each.mean_gradient(world.policy, world.starts) for each in made)
    return np.full(H + 1, float((guess - true).norm()))


def test_a_model_that_overflows_has_no_bound_says_so_and_stops_nothing():
    def explode(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return torch.exp(20 * s**2) + a.sum(dim=1)[:, None], -(s**2).sum(dim=1)

    world = World(1)
    wild = from_function(explode, len(world.A), world.B.shape[1])
    chosen = {
        "wild": Estimator(wild, wild, "first", Tail(H, world.critic, world.gamma)),
        "mixed": world.estimator(world.simulator, "first"),
    }
    begin = as_starts(world.starts, len(world.A))
    found = measured_bounds(world.setting(begin), chosen, T)
    assert found is not None
    assert named(found)["MAAC Lemma A.1"].applies
    assert named(found)["RP Prop 5.4"].quantity == "variance"
    for theorem in ("MPG Thm 2", "RP Prop 5.8", "DDPPO Thm 1", "RP Prop 5.4"):
        bound = named(found)[theorem]
        assert not bound.applies and np.isnan(bound.values).all()
        assert "leaves the finite numbers" in bound.sentence


def test_a_profile_keeps_its_theory_and_its_findings(tmp_path):
    task = gradlab.tasks.linear_quadratic()
    policy = Linear(torch.tensor([[-0.5, -0.8]]))
    critic = Quadratic(torch.eye(3, dtype=torch.float64))
    profile = gradlab.measure(task, policy, critic, horizon=4, starts=32, law="start")
    again = gradlab.load(profile.save(tmp_path / "run.h5"))
    assert again.sanity == profile.sanity and profile.sanity
    assert profile.theory is not None and again.theory is not None
    assert again.theory.constants == profile.theory.constants
    assert again.theory.starts == profile.theory.starts
    for one, other in zip(again.theory.bounds, profile.theory.bounds, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert (one.theorem, one.estimator, one.applies, one.sentence, one.best) == (
            other.theorem, other.estimator, other.applies, other.sentence, other.best,
        )  # fmt: skip
        assert one.quantity == other.quantity
    assert {each.quantity for each in again.theory.bounds} == {"bias", "variance"}


def test_a_file_from_before_variance_bounds_still_has_its_bias_bounds():
    bias = Bound("MPG Thm 2", "model", np.arange(3.0), True, "explicit", 0)
    group = arrays(Bounds((bias,), {"c": 1.0}, 4))
    del group["quantity"]
    (again,) = decoded(Bounds, group).bounds
    assert (again.theorem, again.quantity, again.best) == ("MPG Thm 2", "bias", 0)
    np.testing.assert_array_equal(again.values, bias.values)


@pytest.mark.parametrize(
    ("config", "truth", "said"),
    [
        ({"truth": "objective"}, {"admissible": True}, "truth='objective' measures"),
        ({}, {"admissible": False}, "no truth is admissible"),
        ({"termination": "mask"}, {"admissible": True}, "termination='mask'"),
        ({"horizon": 0}, {"admissible": True}, "H = 0 unrolls no model"),
        ({}, {"admissible": True}, "no estimator both is differentiated through a model"),
    ],
)
def test_why_there_are_no_bounds_is_said_in_a_sentence(config, truth, said):
    asked = {"truth": "matched", "termination": "ignore", "horizon": 5} | config
    text = absence(SimpleNamespace(theory=None, config=asked, truth=truth))
    assert said in text and text.count(". ") == 0 and text.endswith(".")


def test_a_profile_with_bounds_has_no_such_sentence_and_one_without_settings_says_not_recorded():
    bound = Bound("MPG Thm 2", "model", np.arange(3.0), True, "explicit", 0)
    known = SimpleNamespace(theory=Bounds((bound,), {}, 4), config={}, truth={})
    assert absence(known) == ""
    assert absence(SimpleNamespace(theory=None, config={}, truth={})).startswith("Not recorded")
