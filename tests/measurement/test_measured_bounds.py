"""Bounds from measured constants hold for the exact bias, and constants are what they should be."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor, nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.gradients.horizons import horizon_gradients
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts, as_starts
from gradlab.measurement.bounds import theory
from gradlab.runs.bound_comparison import absence
from gradlab.runs.bounds import Bound, Bounds
from gradlab.statistics.bounds.constants import Derivatives, growth_rate
from gradlab.storage.codec import arrays, decoded
from gradlab.systems import LinearQuadratic, from_function
from gradlab.systems.system import System

H, T, N = 12, 80, 32


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
        self.layer.weight.data = weight.double()

    def forward(self, state: Tensor) -> Tensor:
        return self.layer(state)


class Quadratic(nn.Module):
    """Q(s, a) = −zᵀ P z with z = (s, a)."""

    def __init__(self, P: Tensor) -> None:
        super().__init__()
        self.register_buffer("P", P)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        z = torch.cat([state, action], dim=1)
        return -((z @ self.P) * z).sum(dim=1)


class World:
    """A random linear-quadratic task without noise, a model of it, a critic and a policy."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ds, da = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        error = 10.0 ** rng.uniform(-3, -1)
        self.gamma = float(rng.uniform(0.5, 0.97))
        A = rng.normal(size=(ds, ds))
        A *= 0.7 * rng.uniform(0.3, 1) / np.linalg.norm(A, 2)
        B = rng.normal(size=(ds, da))
        B *= 0.7 * rng.uniform(0.3, 1) / np.linalg.norm(B, 2)
        W = rng.normal(size=(da, ds))
        W *= 0.3 / np.linalg.norm(W, 2)
        Q, R = np.eye(ds) * rng.uniform(0.1, 2), np.eye(da) * rng.uniform(0.1, 2)
        zero = torch.zeros(ds, ds, dtype=torch.float64)

        def system(A: np.ndarray, B: np.ndarray) -> LinearQuadratic:
            return LinearQuadratic(*map(torch.from_numpy, (A, B, Q, R)), zero)

        self.A, self.B, self.W, self.Q, self.R = A, B, W, Q, R
        self.A_, self.B_ = (x + error * rng.normal(size=x.shape) for x in (A, B))
        self.simulator, self.model = system(A, B), system(self.A_, self.B_)
        P = rng.normal(size=(ds + da, ds + da))
        self.critic = Quadratic(torch.from_numpy((P @ P.T) * rng.uniform(0.1, 1)))
        self.policy = Linear(torch.from_numpy(W))
        self.starts = torch.from_numpy(rng.normal(size=(N, ds)))

    def estimator(self, states: System, actions: str, n: int = H) -> Estimator:
        return Estimator(states, self.model, actions, Tail(n, self.critic, self.gamma))

    def bias(self, states: System, actions: str) -> np.ndarray:
        """|mean gradient − true mean gradient| on these very starts, at 0 … H."""
        whole = Estimator(self.simulator, self.simulator, actions, Tail(T, None, self.gamma))
        true = whole.mean_gradient(self.policy, self.starts)
        found = horizon_gradients(self.estimator(states, actions), self.policy, self.starts)
        return (found.means - true).norm(dim=1).numpy()

    def setting(self, starts: Starts) -> Setting:
        return Setting(self.simulator, self.policy, starts, self.gamma, H)

    def theory(self, actions: str) -> Bounds:
        chosen = {
            "model": self.estimator(self.model, actions),
            "mixed": self.estimator(self.simulator, actions),
        }
        found = theory(self.setting(as_starts(self.starts, len(self.A))), chosen, T)
        assert found is not None
        return found


def named(found: Bounds) -> dict[str, Bound]:
    return {each.theorem: each for each in found.bounds}


@pytest.mark.parametrize("actions", ["first", "all"])
def test_no_bound_that_applies_is_violated_by_the_exact_bias(actions):
    applied: dict[str, int] = {}
    for seed in range(16):
        world = World(seed)
        bias = {
            "model": world.bias(world.model, actions),
            "mixed": world.bias(world.simulator, actions),
        }
        for bound in world.theory(actions).bounds:
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
        bound = named(world.theory(actions))["RP Prop 5.4"]
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
    bound = named(world.theory("all"))["RP Prop 5.4"]
    variance = exact_variance(world, "all")
    assert bound.applies
    assert bound.values[1] / variance[1] == pytest.approx(4 * loose, rel=1e-9)


def test_a_start_with_a_weight_has_its_square_in_the_variance_bound():
    world = World(2)
    begin = as_starts(world.starts, len(world.A))
    chosen = {"model": world.estimator(world.model, "all")}
    one, nine = (
        theory(world.setting(each), chosen, T)
        for each in (begin, replace(begin, weight=3 * begin.weight))
    )
    ratio = named(nine)["RP Prop 5.4"].values[1:] / named(one)["RP Prop 5.4"].values[1:]
    np.testing.assert_allclose(ratio, 9.0)


def test_a_steep_model_has_no_variance_bound_that_applies_and_still_has_numbers():
    world = World(3)
    world.model = replace(world.model, A=1.3 * world.model.A / np.linalg.norm(world.A_, 2))
    bound = named(world.theory("first"))["RP Prop 5.4"]
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


def test_constants_are_those_of_the_matrices_to_rounding():
    for seed in range(20):
        world = World(seed)
        found = world.theory("first").constants
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
        found = world.theory("first").constants
        curvature = 2 * np.linalg.norm(world.Q + world.W.T @ world.R @ world.W, 2)
        assert found["model, MPG Thm 2: L_grad_f"] <= 1e-6
        assert 0.2 * curvature <= found["model, MPG Thm 2: L_grad_r"] <= curvature * (1 + 1e-6)
        assert found["model, DDPPO Thm 1: L_pig"] == pytest.approx(len(world.W) ** 0.5, rel=1e-6)


def test_a_steep_system_is_said_not_to_meet_the_assumptions():
    world = World(3)
    steep = 1.3 * world.simulator.A / np.linalg.norm(world.A, 2)
    world.simulator = replace(world.simulator, A=steep)
    found = named(world.theory("first"))
    for theorem in ("RP Prop 5.8", "DDPPO Thm 1"):
        assert not found[theorem].applies
        assert "measured" in found[theorem].sentence
    assert np.isnan(found["DDPPO Thm 1"].values).all()
    assert found["DDPPO Thm 1"].best == -1


def test_the_surrogates_horizon_is_that_of_the_measured_errors():
    """Prop 5.10 with l = ln 1/γ: h* solves (2/3) l h e^{(2/3) l h} = argument, by bisection."""
    world = World(1)
    theory = world.theory("first")
    sentence = named(theory)["RP Prop 5.8"].sentence
    f, v = (theory.constants[f"model, RP Prop 5.8: epsilon_{each}"] for each in "fv")
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
    found = world.theory("first").constants
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
            for each in world.theory("first").bounds
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
    found = world.theory("first").constants
    wanted = later.norm(dim=2).max().item()
    assert found["model, MPG Thm 2: B_delta_r"] == pytest.approx(wanted, rel=1e-10)


def test_the_minimum_is_the_brute_force_one():
    found = World(7).theory("first").bounds
    for bound in (each for each in found if each.quantity == "bias"):
        assert bound.values[bound.best] == np.nanmin(bound.values)


def test_without_a_truth_or_a_model_there_is_nothing_to_bound():
    world = World(1)
    begin = as_starts(world.starts, len(world.A))
    own = {"true": Estimator(world.simulator, world.simulator, "first", Tail(3, None, 0.9))}
    assert theory(world.setting(begin), own, T) is None
    chosen = {"model": world.estimator(world.model, "first")}
    assert theory(world.setting(begin), chosen, None) is None


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
    found = theory(world.setting(begin), chosen, T)
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
