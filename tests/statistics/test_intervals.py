"""Intervals cover what they say they cover.

One row per quantity, and everything that is named in it exists.

Ends of a squared norm from the noncentral χ² of its sample's mean.

Numbers decide what their intervals exclude, and say how many samples would exclude the rest.

Intervals at N = 64 where standard errors are themselves badly known.

Linear-quadratic gradients with known moments, which tests of intervals draw from.

Policy gradients of linear-quadratic worlds as products of Gaussians, with every moment known.

    s' = A s + B u + w,   u = −K s,   r = −(|s|² + |u|²),   critic −(sᵀ C s + uᵀ E u + 2 sᵀ F u)

Along a linear path every action gradient is linear in z = (s_0, w_0, w_1, …), so that a sample is
G = (M z) s_0ᵀ with one matrix M per estimator and horizon; its mean needs second and |G|² fourth
moments of z. Independent of gradlab's own sweeps, and thousands of repetitions cost seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import scipy
import torch
from scipy import stats

import gradlab
from gradlab.errors import InputError
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.growth import error_growth, variance_growth
from gradlab.statistics.intervals import (
    METHODS,
    freedom,
    interval,
    jackknife_se,
    noncentral_ends,
    noncentrality,
)
from gradlab.statistics.moments import WITHOUT_TRUTH, Estimate, estimates, squared_norm
from gradlab.statistics.quantities import QUANTITIES, TABLE
from gradlab.systems.closed_form import LinearQuadratic
from tests.linear_quadratic import lqr_gradient
from tests.planted_moments import drawn_batch_cosine, moments, pairs, planted

HORIZONS = (5, 25)
Array = np.ndarray


@dataclass(frozen=True)
class World:
    """A task, its prior model, and how many steps the true return sums."""

    name: str
    A: Array
    B: Array
    prior_A: Array
    prior_B: Array
    K: Array
    noise: float
    steps: int = 60
    discount: float = 0.9
    mean: float = 0.6
    spread: float = 0.5  # variance of each start coordinate
    freedom: float = np.inf  # of the starts, which are Student's t of this spread


def scalar(name: str, noise: float, steps: int, prior: float = 0.8) -> World:
    one = np.ones((1, 1))
    return World(name, 0.9 * one, 0.5 * one, prior * one, 0.6 * one, 0.3 * one, noise, steps)


def random_world(d: int, noise: float) -> World:
    """d states, d/2 actions, a stable closed loop and a prior that is about 10% off."""
    rng, da = np.random.default_rng(d), max(1, d // 2)
    A = rng.normal(size=(d, d))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    B = 0.5 * rng.normal(size=(d, da))
    prior = A + 0.1 * rng.normal(size=(d, d)) / d**0.5, B + 0.1 * rng.normal(size=(d, da))
    return World(f"lq{d}", A, B, *prior, 0.2 * rng.normal(size=(da, d)), noise)


WORLDS = (
    scalar("lq1", noise=0.01, steps=60),
    scalar("lq1, noisy, 10 steps", noise=0.3, steps=10),
    random_world(2, noise=0.1),
    random_world(4, noise=0.1),
)
UNSTABLE = scalar("growing", noise=0.01, steps=25, prior=1.25)
LENGTHS = tuple(range(1, 26))  # horizons of growth


def action_gradients(w: World, horizons: tuple[int, ...] = HORIZONS) -> dict[str, Array]:
    """M [da, d (1 + steps)] of the data gradient, each estimator and horizon, and the truth."""
    closed, prior = w.A - w.B @ w.K, w.prior_A - w.prior_B @ w.K
    simulated = _swept(w, closed, closed, w.B, w.steps)
    mixed = _swept(w, closed, prior, w.prior_B, max(horizons))
    model = _swept(w, prior, prior, w.prior_B, max(horizons))
    found = {"truth": simulated.returns[w.steps], "data": simulated.with_critic[0]}
    for h in horizons:
        found |= {f"model {h}": model.with_critic[h], f"mixed {h}": mixed.with_critic[h]}
    return found


class _Swept(NamedTuple):
    returns: list[Array]
    with_critic: list[Array]


def _swept(w: World, states: Array, chain: Array, B: Array, steps: int) -> _Swept:
    """Gradients of the n-step return in the first action, without and with the critic."""
    d, K = len(states), w.K
    c = -2 * (np.eye(d) + K.T @ K)
    E, F = 1.5 * np.eye(len(K)), 0.4 * np.ones((d, len(K)))
    Q_a = 2 * E @ K - 2 * F.T
    q = -4 * np.eye(d) + 2 * F @ K - K.T @ Q_a
    s = np.zeros((d, d * (1 + max(w.steps, steps))))
    s[:, :d] = np.eye(d)
    returns, tails, D = [0 * K @ s, 2 * K @ s], [Q_a @ s], B
    for t in range(1, steps + 1):
        s = states @ s
        s[:, d * t : d * (t + 1)] = np.eye(d)
        discount = w.discount**t
        tails.append(returns[t] + discount * D.T @ q @ s)
        returns.append(returns[t] + discount * D.T @ c @ s)
        D = chain @ D
    return _Swept(returns, tails)


def drawn(w: World, M: dict[str, Array], n: int, rng: np.random.Generator) -> dict[str, Array]:
    """One sample of n gradients of each kind, [n, da · d]."""
    width = max(m.shape[1] for m in M.values())
    z = rng.normal(size=(n, width)) * w.noise**0.5
    return products(M, z, starts(w, n, rng))


def starts(w: World, n: int, rng: np.random.Generator) -> Array:
    """[n, d]"""
    x = rng.normal(size=(n, len(w.A)))
    if np.isfinite(w.freedom):
        x *= ((w.freedom - 2) / rng.chisquare(w.freedom, size=(n, 1))) ** 0.5
    return np.asarray(w.mean + x * w.spread**0.5)


def products(M: dict[str, Array], noise: Array, starts: Array) -> dict[str, Array]:
    """Gradients of each kind, [n, da · d], at these starts; their place in the noise is unused."""
    n, d = starts.shape
    z = noise.copy()
    z[:, :d] = starts
    return {
        name: np.einsum("na,nd->nad", z[:, : m.shape[1]] @ m.T, z[:, :d]).reshape(n, -1)
        for name, m in M.items()
    }


def mean_of(w: World, m: Array) -> Array:
    """E G = M E[z s_0ᵀ], [da · d]."""
    d = len(w.A)
    second = w.spread * np.eye(d) + w.mean**2 * np.ones((d, d))
    return np.asarray((m[:, :d] @ second).ravel())


def trace_of(w: World, m: Array) -> float:
    """tr Cov G = E[|F s|² |s|²] + tr Ω E|s|² − |E G|², with M z = F s_0 + noise of covariance Ω.

    For s ~ N(μ, v I):  E[sᵀA s · |s|²] = (d + 2) v² tr A + (d + 4) v μᵀA μ + v |μ|² tr A
    + |μ|² μᵀA μ. Under Student's t with ν degrees of freedom the first term, of fourth moments, is
    (ν − 2)/(ν − 4) times as large, and infinite up to ν = 4.
    """
    d, v = len(w.A), w.spread
    mu = np.full(d, w.mean)
    F, rest = m[:, :d], m[:, d:]
    A, length, size = F.T @ F, mu @ mu, mu @ F.T @ F @ mu
    tails = 1.0 if np.isinf(w.freedom) else (w.freedom - 2) / (w.freedom - 4)
    fourth = tails * (d + 2) * v**2 * np.trace(A) + (d + 4) * v * size + v * length * np.trace(A)
    noise = w.noise * (rest**2).sum() * (d * v + length)
    mean = mean_of(w, m)
    return float(fourth + length * size + noise - mean @ mean)


def system(world, A, B):
    d, da = world.B.shape
    eyes = (torch.eye(k, dtype=torch.float64) for k in (d, da))
    noise = world.noise * torch.eye(d, dtype=torch.float64)
    return LinearQuadratic(torch.tensor(A), torch.tensor(B), *eyes, noise)


@pytest.mark.parametrize("world", [WORLDS[0], WORLDS[2]], ids=lambda w: w.name)
def test_the_true_mean_is_the_closed_form(world):
    d = len(world.A)
    second = world.spread * np.eye(d) + world.mean**2 * np.ones((d, d))
    exact = lqr_gradient(
        system(world, world.A, world.B), torch.tensor(-world.K), torch.tensor(second),
        world.discount, "first",
    )  # fmt: skip
    found = mean_of(world, action_gradients(world)["truth"])
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4)


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: w.name)
def test_means_and_traces_are_those_of_many_draws(world):
    M = action_gradients(world)
    for name, G in drawn(world, M, 25_000, np.random.default_rng(0)).items():
        trace, mean = trace_of(world, M[name]), mean_of(world, M[name])
        assert np.linalg.norm(G.mean(0) - mean) < 4 * (trace / len(G)) ** 0.5, name
        assert np.var(G, axis=0).sum() == pytest.approx(trace, rel=0.06), name


def test_without_noise_a_gradient_is_that_of_gradlab():
    world = WORLDS[3]
    d, da = world.B.shape
    policy = torch.nn.Linear(d, da, bias=False).double()
    torch.nn.init.zeros_(policy.weight).data -= torch.tensor(world.K)
    starts = torch.randn(6, d, generator=torch.Generator().manual_seed(0)).double()

    class Quadratic(torch.nn.Module):
        def forward(self, s, u):
            cross = 0.8 * s.sum(dim=1) * u.sum(dim=1)
            return -2 * s.square().sum(dim=1) - 1.5 * u.square().sum(dim=1) - cross

    prior = system(World(**(vars(world) | {"noise": 0.0})), world.prior_A, world.prior_B)
    tail = gradlab.Tail(5, Quadratic(), world.discount)
    found = gradlab.Estimator(prior, prior, "first", tail).gradients(policy, starts)
    M = action_gradients(world)["model 5"][:, :d]
    want = np.einsum("na,nd->nad", starts.numpy() @ M.T, starts.numpy()).reshape(6, -1)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-10)


def test_the_trace_is_that_of_many_draws_from_tailed_starts_too():
    world = replace(WORLDS[2], freedom=9.0)
    m = action_gradients(world, (5,))["model 5"]
    G = drawn(world, {"G": m}, 100_000, np.random.default_rng(2))["G"]
    assert np.var(G, axis=0).sum() == pytest.approx(trace_of(world, m), rel=0.06)


CELLS = [(0.0, 1.0), (1.0, 1.0), (30.0, 1.0), (1.0, 0.3)]


def coverage(n, tails, repetitions, seed=0):
    """Share of intervals that hold the known value, per quantity and cell."""
    rng, hits = np.random.default_rng(seed), {}
    for ratio, size in CELLS:
        for _ in range(repetitions):
            data = planted(rng, n, ratio=ratio, size=size, tails=tails)
            for name, estimate in estimates(moments(data.G, data.T), batch=n).items():
                if name not in data.known:
                    continue
                found = interval(name, estimate)
                inside = found.low <= data.known[name] <= found.high
                hits.setdefault((name, ratio, size), []).append(inside)
    return {cell: float(np.mean(each)) for cell, each in hits.items()}


@pytest.mark.slow
def test_intervals_cover_light_tails():
    found = coverage(64, "gaussian", 250)
    assert min(found.values()) > 0.88  # 95% nominal less 4 standard errors of 250 repetitions
    for name in ("bias2", "variance", "mse"):
        assert np.mean([c for (n, *_), c in found.items() if n == name]) > 0.92


@pytest.mark.slow
@pytest.mark.parametrize(("tails", "floor"), [("gaussian", 0.92), ("t4.5", 0.86)])
@pytest.mark.parametrize("n", [64, 256])
def test_intervals_cover_in_every_cell(n, tails, floor):
    for cell, share in coverage(n, tails, 2000).items():
        if cell[0] in ("bias2", "variance", "mse"):
            assert share >= floor, cell


def test_ends_are_ordered_and_clipped():
    rng = np.random.default_rng(1)
    for _ in range(50):
        data = planted(rng, 16, ratio=0.0, size=0.2)
        for name, estimate in estimates(moments(data.G, data.T), batch=16).items():
            found = interval(name, estimate)
            assert found.low <= found.high or np.isnan(found.low)
            lowest, highest = QUANTITIES[name].range
            assert np.isnan(found.low) or lowest <= found.low
            assert np.isnan(found.high) or found.high <= highest


def test_a_norm_whose_square_is_estimated_below_zero_is_not_known_to_be_zero():
    rng, hits, below = np.random.default_rng(5), [], 0
    for _ in range(400):
        data = planted(rng, 64, ratio=0.0, size=0.1)  # |mean|² = 0.64 of the noise of the mean
        norm = estimates(moments(data.G), batch=64)["mean_norm"]
        found = interval("mean_norm", norm)
        below += norm.value == 0
        hits.append(found.low <= data.known["mean_norm"] <= found.high)
    assert below > 40
    assert np.mean(hits) > 0.9


def test_a_cosine_lost_in_noise_is_anything():
    lost = Estimate(float("nan"), np.full(8, np.nan))
    found = interval("cosine", lost)
    assert (found.low, found.high) == (-1.0, 1.0)
    assert "noise" in found.method


def test_cosines_of_products_of_states_are_covered_and_missed_on_either_side():
    """Gradients (M z) s₀ᵀ of a linear-quadratic world: where the gap is small, so is its error."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 3)), 0.5 * rng.normal(size=(3, 2))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    prior = A + 0.2 * rng.normal(size=(3, 3)), B + 0.2 * rng.normal(size=(3, 2))
    world = World("", A, B, *prior, 0.1 * rng.normal(size=(2, 3)), noise=0.1, steps=20)
    M = action_gradients(world, (1, 5))
    true, missed = mean_of(world, M["truth"]), []
    for k, name in enumerate(("data", "model 1", "mixed 1", "model 5")):
        mean, rng = mean_of(world, M[name]), np.random.default_rng(k)
        known = mean @ true / np.linalg.norm(mean) / np.linalg.norm(true)
        assert 0.5 < abs(known) < 0.98
        for _ in range(200):
            data = drawn(world, {"G": M[name], "T": M["truth"]}, 64, rng)
            found = interval("gain", estimates(moments(data["G"], data["T"]), 64)["gain"])
            better, worse = found.low > known, found.high < known
            missed.append((better, worse) if known > 0 else (worse, better))
    too_good, too_bad = np.mean(missed, axis=0)
    assert too_good + too_bad < 0.056  # 800 repetitions: 0.05 and 0.8 standard errors
    assert 0 < too_bad < 0.035
    assert 0 < too_good < 0.045


@pytest.mark.parametrize("side", [-1, 1])
def test_the_sign_of_a_cosine_is_known_where_its_size_is_lost(side):
    """|E G|² as large as the noise of the mean, along a truth: one direction of many is enough."""
    rng, known, decided, lost = np.random.default_rng(4), [], [], 0
    for _ in range(300):
        T = np.zeros((64, 24))
        T[:, 0] = 3 + rng.normal(size=64)
        G = rng.normal(size=(64, 24)) + side * (24 / 64) ** 0.5 * np.eye(24)[0]
        cosine = estimates(moments(G, T), 64)["cosine"]
        found = interval("cosine", cosine)
        lost += np.isnan(found.se)
        known.append(found.low <= side <= found.high)
        decided.append(side * (found.low + found.high) > 0 and found.low * found.high > 0)
    assert lost > 0
    assert np.mean(known) > 0.95
    assert np.mean(decided) > 0.9


def test_every_name_stands_once_and_has_an_interval():
    assert len(QUANTITIES) == len(TABLE)
    assert {each.interval for each in TABLE} == set(METHODS)


def test_what_is_estimated_is_in_the_table_and_needs_what_its_row_says():
    data = planted(np.random.default_rng(0), 12)
    with_truth = set(estimates(moments(data.G, data.T), batch=12))
    without = set(estimates(moments(data.G), batch=12))
    assert with_truth <= set(QUANTITIES)
    assert without <= set(WITHOUT_TRUTH)
    assert {QUANTITIES[name].needs for name in with_truth - without} == {"truth", "return"}


def test_values_stated_for_a_batch_change_with_it_and_no_others():
    data = planted(np.random.default_rng(1), 40, ratio=30.0, size=0.5)
    small, large = (estimates(moments(data.G, data.T), batch=n) for n in (4, 400))
    changed = {name for name in small if small[name].value != large[name].value}
    assert changed == {each.name for each in TABLE if each.per_batch}


def test_the_noncentrality_is_that_of_scipys_distribution():
    for x, dimensions, quantile in [(30.0, 3.0, 2.0), (30.0, 12.5, -2.0), (4e4, 40.0, 2.0)]:
        there = noncentrality(x, dimensions, quantile)
        level = scipy.stats.ncx2.cdf(x, dimensions, there)
        assert level == pytest.approx(scipy.stats.norm.cdf(quantile), abs=2e-4)
    assert noncentrality(3.0, 3.0, 2.0) == 0.0  # a mean of 0 explains it


@pytest.mark.parametrize(("ratio", "floor", "ceiling"), [(0, 0.955, 0.995), (1, 0.925, 0.98)])
def test_a_bias_that_is_small_or_none_is_covered_as_often_as_promised(ratio, floor, ceiling):
    rng, hits, above_zero = np.random.default_rng(ratio), [], []
    for _ in range(500):
        data = planted(rng, 64, ratio=ratio)
        found = interval("bias2", estimates(moments(data.G, data.T), batch=64)["bias2"])
        hits.append(found.low <= data.known["bias2"] <= found.high)
        above_zero.append(found.high > 0)
    assert floor < np.mean(hits) < ceiling
    assert all(above_zero)  # no sample shows that there is none


def test_the_variance_along_the_mean_is_that_of_the_samples():
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(50, 4)) * (3.0, 1.0, 0.5, 0.1) + 1
    mean = squared_norm(pairs(Y, Y), np.ones(50)).mean
    centre = Y.mean(axis=0)
    assert mean[0] == pytest.approx(centre @ centre)
    along = centre @ np.cov(Y.T) @ centre / 50 / (centre @ centre)
    assert mean[1] == pytest.approx(along)


def test_without_the_mean_or_its_error_there_are_no_ends():
    exact = squared_norm(pairs(np.ones((8, 2)), np.ones((8, 2))), np.ones(8))
    assert noncentral_ends(exact.value, exact.mean, 0.0, (-2.0, 2.0)) is None
    assert noncentral_ends(1.0, None, 0.1, (-2.0, 2.0)) is None


NAN = float("nan")


@pytest.mark.parametrize(
    ("number", "kind", "guess"),
    [
        (Number(0.5, 0.1, 0.9, 64), "above", "above"),
        (Number(-0.5, -0.9, -0.1, 64), "below", "below"),
        (Number(0.5, 0.0, 0.9, 64), "undecided", "above"),  # an end on the threshold excludes none
        (Number(-0.5, -0.9, 0.0, 64), "undecided", "below"),
        (Number(0.0, -0.1, 0.1, 64), "undecided", "unknown"),
        (Number(NAN, -1.0, 1.0, 64), "undecided", "unknown"),
        (Number(1.3, 0.2, 1.0, 64), "above", "above"),  # a noise-corrected cosine beyond its range
    ],
)
def test_an_interval_decides_what_it_excludes(number, kind, guess):
    found = decide(number, 0.0)
    assert (found.kind, found.guess, found.decided) == (kind, guess, kind != "undecided")
    assert (found.more == 0) == found.decided
    mirror = decide(Number(-number.value, -number.high, -number.low, number.n), 0.0)
    sides = {"above": "below", "below": "above"}
    assert (mirror.kind, mirror.guess) == (sides.get(kind, kind), sides.get(guess, guess))
    assert mirror.more == found.more


def test_the_promised_samples_decide_in_the_promised_share_of_repetitions():
    rng, mean, n, z = np.random.default_rng(0), 0.2, 64, stats.norm.ppf(0.975)

    def known(value, n):
        return Number(value, value - z / n**0.5, value + z / n**0.5, n)

    for power in (0.6, 0.8, 0.95):
        more = decide(known(mean, n), 0.0, power).more
        values = mean + rng.normal(size=20_000) / (n + more) ** 0.5
        share = np.mean([decide(known(value, n + more), 0.0).kind == "above" for value in values])
        assert share == pytest.approx(power, abs=0.01)


def test_only_the_end_that_faces_the_threshold_prices_the_decision():
    near = decide(Number(0.5, -0.1, 0.6, 64), 0.0).more
    assert decide(Number(0.5, -0.1, 50.0, 64), 0.0).more == near
    assert decide(Number(0.5, -0.4, 0.6, 64), 0.0).more > near
    assert decide(Number(1e-9, -1.0, 1.0, 64), 0.0).more is None  # nobody can afford it


@pytest.mark.parametrize(
    ("number", "unknown"),
    [
        (Number(1.0, 0.2, 1.9, 64), False),
        (Number(1.0, 0.1, 1.1, 64), True),
        (Number(-1.0, -1.1, -0.1, 64), True),
        (Number(1.0, 2.8e-14, 2.7e5, 64), True),
        (Number(0.1, -0.2, 0.4, 64), False),
        (Number(0.001, 0.0, 0.003, 64), False),  # a bound from above
        (Number(NAN, -1.0, 1.0, 64), True),
        (Number(1.0, 0.5, float("inf"), 64), True),
    ],
)
def test_intervals_over_more_than_a_decade_are_no_results(number, unknown):
    assert number.spans_decades is unknown


def test_the_samples_promised_for_the_sign_of_a_gain_decide_it():
    """By the median over undecided repetitions, and a fifth of them would not be enough."""
    rng = np.random.default_rng(5)

    def measured(n):
        T = rng.normal(size=(n, 12))
        G = 0.6 * T + 0.8 * rng.normal(size=(n, 12))
        T[:, 0] += 1.5
        G[:, :2] += 0.18, 0.4  # gain 0.41
        found = interval("gain", (gain := estimates(moments(G, T), n)["gain"]))
        return Number(gain.value, found.low, found.high, n)

    found = [decide(measured(48), 0.0) for _ in range(150)]
    promised = [each.more for each in found if each.more]
    assert len(promised) > 50
    size = 48 + int(np.median(promised))
    assert np.mean([decide(measured(size), 0.0).kind == "above" for _ in range(100)]) > 0.75
    fewer = 48 + int(np.median(promised)) // 5
    assert np.mean([decide(measured(fewer), 0.0).kind == "above" for _ in range(100)]) < 0.75


def test_a_known_standard_error_prices_the_decision_in_the_place_of_the_interval():
    plain = Number(0.5, -0.1, 1.1, 64)
    assert decide(Number(0.5, -0.1, 1.1, 64, 0.6 / stats.norm.ppf(0.975)), 0.0) == decide(
        plain, 0.0
    )
    assert decide(Number(0.5, -0.1, 1.1, 64, 0.2), 0.0).more < decide(plain, 0.0).more
    assert decide(plain.negative, 0.0).more == decide(plain, 0.0).more


N, REPETITIONS = 64, 200
SAMPLING = 2 * (0.05 * 0.95 / REPETITIONS) ** 0.5  # two standard errors of a coverage of 95%


def test_degrees_of_freedom_are_those_of_the_squares_of_what_was_drawn():
    # Var s² of G draws is σ⁴ (κ − 1)/G: of a uniform κ = 9/5, of an exponential 9.
    rng = np.random.default_rng(0)
    for draw, kurtosis in ((rng.uniform, 1.8), (rng.exponential, 9.0)):
        found = np.median([freedom(draw(size=400)) for _ in range(200)])
        assert found == pytest.approx(min(2 * 400 / (kurtosis - 1), 399), rel=0.25)
    assert freedom(np.full(10, 3.0)) == 9


def test_the_mean_of_heavy_tails_is_covered_more_often_with_the_freedom_that_they_leave():
    rng, plain, freed = np.random.default_rng(1), 0, 0
    for _ in range(600):
        x = stats.lognorm.rvs(1.0, size=N, random_state=rng) * rng.choice([-1.0, 1.0], size=N)
        left_out = (x.sum() - x) / (N - 1)
        reach = abs(x.mean()) / jackknife_se(left_out)
        plain += reach < stats.t.ppf(0.975, N - 1)
        freed += reach < stats.t.ppf(0.975, freedom(left_out))
    assert freed >= 0.94 * 600 - 2 * (0.05 * 0.95 * 600) ** 0.5
    assert freed > plain


@pytest.mark.parametrize("world", [WORLDS[1], WORLDS[2]], ids=lambda world: world.name)
def test_the_cosine_of_a_batch_is_covered(world):
    M = action_gradients(world)
    m, truth = M["model 5"], M["truth"]
    many = drawn(world, {"G": m}, 100_000, np.random.default_rng(1))["G"]
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(many.T)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    known = drawn_batch_cosine(mean_of(world, m), mean_of(world, truth), root, N)
    rng, hits = np.random.default_rng(2), 0
    for _ in range(REPETITIONS):
        data = drawn(world, {"G": m, "T": truth}, N, rng)
        found = interval(
            "cosine_batch", estimates(moments(data["G"], data["T"]), N)["cosine_batch"]
        )
        hits += found.low <= known <= found.high
    assert hits / REPETITIONS >= 0.93 - SAMPLING


def test_the_rate_of_growth_is_covered():
    M = action_gradients(UNSTABLE, LENGTHS)
    models = {name: m for name, m in M.items() if name.startswith("model")}
    exact = np.log([trace_of(UNSTABLE, m) for m in models.values()])
    rng, hits, repetitions = np.random.default_rng(3), 0, 80
    for _ in range(repetitions):
        variances = [variance(G) for G in drawn(UNSTABLE, models, N, rng).values()]
        found = variance_growth(
            STEPS,
            np.array([each.value for each in variances]),
            np.stack([each.left_out for each in variances]),
        )
        stretch = slice(found.onset - 1, found.last)
        slope = np.polyfit(STEPS[stretch], exact[stretch], 1)[0]
        hits += found.low <= slope <= found.high
    assert hits / repetitions >= 0.93 - 2 * (0.05 * 0.95 / repetitions) ** 0.5


def variance(G):
    """tr Cov of gradients [N, d] with each sample left out, from its definition."""
    n, sums, squares = len(G), G.sum(axis=0), (G**2).sum(axis=1)
    whole = (squares.sum() - sums @ sums / n) / (n - 1)
    left = sums - G
    rest = (squares.sum() - squares - (left**2).sum(axis=1) / (n - 1)) / (n - 2)
    return Estimate(float(whole), rest)


STEPS = np.arange(1.0, 26.0)


def distances(law, starts=128, seed=0):
    """A curve per start: the law times a factor of its own, and a little noise."""
    draw = np.random.default_rng(seed)
    size = draw.lognormal(0, 0.5, size=(starts, 1))
    return size * law(STEPS) * draw.lognormal(0, 0.05, size=(starts, len(STEPS)))


@pytest.mark.parametrize(
    ("law", "name"),
    [
        (lambda i: 0.3 * i, "linear"),
        (lambda i: 0.3 * np.exp(0.2 * i), "exponential"),
        (lambda i: 0.3 * i**2, "faster"),
        (lambda i: 0.3 * np.sqrt(i), "slower"),
        (lambda i: 3 * np.exp(-0.2 * i), "slower"),  # one that only shrinks is no violation
        (lambda i: 10 + 0.1 * i, "slower"),  # a line far from the origin
    ],
)
def test_the_law_of_growth_is_recognised(law, name):
    assert error_growth(distances(law)).law == name


def test_a_poor_fit_leaves_the_question_open():
    found = error_growth(distances(lambda i: i * np.exp(0.8 * np.sin(i))))
    assert found.power_fit < 0.95
    assert found.law == "undecided"


def test_the_interval_of_the_exponent_covers_it():
    """Every start has an exponent of its own, with mean 1 and equal sizes of error."""
    covered, repetitions = 0, 200
    for seed in range(repetitions):
        draw = np.random.default_rng(seed)
        noise = np.cumsum(draw.normal(0, 0.1, size=(64, len(STEPS))), axis=1)
        found = error_growth(STEPS * np.exp(noise) * np.exp(-0.01 * STEPS))
        covered += found.exponent.low <= 1.0 <= found.exponent.high
    # |s − ŝ|² averages exp(2 noise), whose mean is exp(2 · 0.01 i): the factor above cancels it
    # in expectation, so that the curve is linear.
    assert covered / repetitions > 0.88


def test_a_model_without_error_has_no_growth():
    assert error_growth(np.zeros((8, 25))) is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.ones(25), "shape"),
        (np.ones((8, 3)), "shape"),
        (-np.ones((8, 25)), "finite"),
        (np.full((8, 25), np.nan), "finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(values, named):
    with pytest.raises(InputError, match=named):
        error_growth(values)


# Planted growth is found; none is not.


H = np.arange(1.0, 26.0)


def planted_growth(law, noise=0.05, groups=40):
    """Variances of a law, with left-out values whose jackknife error is about `noise`."""
    rng = np.random.default_rng(0)
    wobble = noise * rng.normal(size=(len(H), groups)) / np.sqrt(groups)
    return variance_growth(H, law, law[:, None] * np.exp(wobble - wobble.mean(1, keepdims=True)))


def test_exponential_growth_is_found_with_its_onset_and_rate():
    law = np.exp(np.where(H < 8, 0.0, 0.35 * (H - 8)))
    found = planted_growth(law)
    assert found.grows
    assert found.law == "exponential"
    assert found.onset == 8
    assert found.slope == pytest.approx(0.35, abs=1e-9)
    assert found.low < 0.35 < found.high


def test_a_power_law_is_not_called_exponential():
    found = planted_growth(H**3)
    assert found.grows
    assert found.law == "power"
    assert found.power == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("law", [np.exp(-0.2 * H), 1 + 1e-3 * H, np.ones(25)])
def test_decay_and_plateaus_do_not_grow(law):
    found = planted_growth(law)
    assert not found.grows or found.factor < 2


def test_a_short_noisy_stretch_does_not_tell_the_two_apart():
    wiggle = 1 + 0.3 * (-1.0) ** H
    found = planted_growth(wiggle * H**1.5)
    assert found.grows
    assert found.law == "either"


def test_too_few_horizons_or_no_variance_give_no_growth():
    assert variance_growth(H[:3], H[:3], H[:3, None]) is None
    assert variance_growth(H, 0 * H, 0 * H[:, None]) is None
