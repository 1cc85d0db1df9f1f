"""Exponents, doubling horizons and multi-step errors of models, against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import systems
from gradlab.errors import InputError
from gradlab.statistics.chains import ahead
from gradlab.tasks import Task
from gradlab.tools.jacobians.page import screen
from tests.jacobians.systems import GAIN, A, B, feedback, linear, starts, value


def test_exponents_are_the_eigenvalues_of_the_closed_and_of_the_open_loop():
    run = gradlab.compare_jacobians(linear(), None, starts(8), feedback(), horizon=800)
    for loop, M in (("closed", A + B @ GAIN), ("open", A)):
        found = run.rows("exponent", block=loop)["value"].to_numpy()
        expected = np.log(np.sort(np.abs(np.linalg.eigvals(M.numpy())))[::-1])
        np.testing.assert_allclose(found, expected, atol=3e-3)
    assert run.rows("block").empty
    assert run.rows("product").empty


def test_doubling_decades_and_the_end_of_float32_follow_from_the_exponent():
    system = linear(torch.eye(1).double() * 1.5, torch.ones(1, 1).double())
    policy = feedback(torch.tensor([[-0.2]], dtype=torch.float64))
    run = gradlab.compare_jacobians(system, None, starts(6, 1), policy, discount=0.9, horizon=40)
    rate = np.log(1.3)
    assert value(run, "horizon", "steps per factor of ten", block="closed") == pytest.approx(
        np.log(10) / rate
    )
    predicted = np.log(2) / 2 / (rate + np.log(0.9))
    for block in ("typical start", "mean square"):
        found = value(run, "horizon", "predicted doubling of the variance", block=block)
        assert found == pytest.approx(predicted)
    end = np.log(float(np.finfo(np.float32).max)) / rate
    assert value(run, "horizon", "product leaves float32", block="closed") == pytest.approx(end)
    longer = gradlab.compare_jacobians(system, None, starts(6, 1), policy, horizon=2000)
    found = value(longer, "horizon", "product leaves float32", block="closed")
    assert found == np.floor(end) + 1


def test_the_mean_square_follows_the_fastest_starts():
    def step(s, a):
        return torch.stack([s[:, 0] * torch.exp(s[:, 1]), s[:, 1]], 1) + 0 * a, s[:, 0]

    system = systems.from_function(step, state_dim=2, action_dim=1)
    rates = torch.tensor([0.1, 0.1, 0.1, 0.5], dtype=torch.float64)
    start = torch.stack([1e-9 + 0 * rates, rates], 1)
    run = gradlab.compare_jacobians(
        system, None, start, feedback(torch.zeros(1, 2).double()), horizon=60
    )
    assert value(run, "exponent", "λ", block="closed", output="1") == pytest.approx(0.2, rel=1e-6)
    assert value(run, "exponent", "λ of the mean square") == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("growth", "discount", "light", "words"),
    [
        ((0.005,) * 4, 0.99, "act", "Backpropagate as far as you like: in the closed loop of"),
        (
            (0.005,) * 4,
            1.0,
            "choose",
            "Keep rollouts short: the variance of the gradient doubles in 69",
        ),
        (
            (0.02,) * 4,
            0.99,
            "choose",
            "the variance of the discounted gradient doubles in 35 steps",
        ),
        ((0.0,) * 15 + (0.5,), 0.9, "choose", "variance of the discounted gradient doubles in 0.8"),
        ((0.1, 0.11) * 2, 0.9, "choose", "neither growth nor decay of the discounted gradient"),
    ],
)
def test_a_chain_is_judged_with_the_discount_and_by_the_starts_that_carry_the_variance(
    growth, discount, light, words
):
    def step(s, a):
        return torch.stack([s[:, 0] * torch.exp(s[:, 1]), s[:, 1]], 1) + 0 * a, s[:, 0] + a[:, 0]

    rates = torch.tensor(growth * 4, dtype=torch.float64)
    run = gradlab.compare_jacobians(
        systems.from_function(step, state_dim=2, action_dim=1), None,
        torch.stack([1e-9 + 0 * rates, rates], 1), feedback(torch.zeros(1, 2).double()),
        horizon=60, discount=discount,
    )  # fmt: skip
    first = screen(run)
    assert first.light == light and words in first.headline


@pytest.mark.parametrize(
    ("loop", "horizon", "light", "words"),
    [
        ([[0.97, 1.0], [0.0, 0.97]], 10, "choose", "Look at a longer path, of 20 steps"),
        ([[0.97, 1.0], [0.0, 0.97]], 20, "choose", "Look at a longer path, of 40 steps"),
        ([[0.97, 1.0], [0.0, 0.97]], 40, "choose", "Look at a longer path, of 80 steps"),
        ([[0.97, 1.0], [0.0, 0.97]], 80, "act", "Backpropagate as far as you like"),
        ([[1.05, 1.0], [0.0, 1.05]], 20, "choose", "Keep rollouts short"),
        ([[1.3, 0.0], [0.0, 0.5]], 20, "choose", "Keep rollouts short"),
        ([[0.84, 1.89], [-0.21, 0.84]], 5, "choose", "decays, but these are few"),
    ],
)
def test_growth_that_slows_down_is_not_told_as_growth_that_lasts(loop, horizon, light, words):
    """The first is t 0.97^(t−1), highest at 33 steps; the last turns, and grows by 5% per step."""
    M = torch.tensor(loop, dtype=torch.float64)
    start, still = starts(8, 2), feedback(torch.zeros(1, 2).double())
    system = linear(M, torch.eye(2, 1).double())
    first = screen(gradlab.compare_jacobians(system, None, start, still, horizon=horizon))
    assert first.light == light and words in first.headline


def test_a_slope_goes_on_as_it_changes():
    t = np.arange(20.0, 41)
    for curve, expected in ((0.3 * t, 0.3), (0.2 * t + 5 * np.log(t), 0.2)):
        assert ahead(curve) == pytest.approx(expected, abs=0.01)
    assert np.isnan(ahead(t[:2]))


def test_a_model_one_percent_too_strong_informs_for_sixty_nine_steps():
    model = linear(1.01 * A, 1.01 * B)
    run = gradlab.compare_jacobians(linear(), model, starts(8), feedback(), horizon=100)
    assert value(run, "horizon", "model's product informs") == 69
    errors = run.rows("product").sort_values("step")["value"].to_numpy()
    np.testing.assert_allclose(errors, 1.01 ** np.arange(101) - 1, rtol=1e-8, atol=1e-12)


def test_chains_that_are_hardly_better_than_zeros_do_not_hold():
    """A twentieth of every Jacobian: after 10 steps 1 − .05¹⁰ of the product is missing."""
    for model, held in ((linear(0.05 * A, 0.05 * B), False), (linear(1.001 * A, B), True)):
        run = gradlab.compare_jacobians(linear(), model, starts(8), feedback(), horizon=10)
        found = screen(run)
        assert ("hold over the whole path" in found.headline) == held
        assert ("hardly better than a zero gradient" in found.headline) != held
        assert held or found.light != "act"


def test_a_constant_offset_grows_linearly_and_an_unstable_one_does_not():
    def shifted(gain, offset):
        def step(s, a):
            return gain * s + 0 * a + offset, s[:, 0]

        return systems.from_function(step, state_dim=1, action_dim=1)

    policy = feedback(torch.zeros(1, 1, dtype=torch.float64))
    for gain, law in ((1.0, "linear"), (1.4, "exponential"), (0.5, "slower")):
        true, model = shifted(gain, 0.0), shifted(gain, 0.1)
        run = gradlab.compare_jacobians(true, model, starts(8, 1), policy, horizon=25)
        assert run.notes["condition_1"] == law


def test_measured_and_predicted_doubling_agree_where_the_chain_is_all_there_is():
    eye = torch.eye(1, dtype=torch.float64)
    system = linear(1.5 * eye, eye, noise=0.04)
    policy = feedback(torch.tensor([[-0.2]], dtype=torch.float64))
    task = Task("unstable", system, system, lambda n, g: torch.randn(n, 1, generator=g).double(),
                discount=0.9, horizon=14)  # fmt: skip

    class Critic(nn.Module):
        def forward(self, s, a):
            return -2 * s[:, 0] ** 2 - a[:, 0] ** 2

    profile = gradlab.measure(task, policy, Critic(), horizon=14, starts=256, law="start")
    run = gradlab.compare_jacobians(
        system, system, starts(16, 1), policy, discount=0.9, profile=profile
    )
    with pytest.raises(InputError, match="measure this one"):
        gradlab.compare_jacobians(
            system, None, starts(16, 1), feedback(torch.tensor([[-0.3]])), profile=profile
        )
    # The last term γⁿ Dₙ qₙ has qₙ ∝ sₙ, which grows like Dₙ: twice the chain's rate.
    predicted = value(run, "horizon", "predicted doubling of the variance", block="typical start")
    measured = value(run, "horizon", "measured doubling of the variance", block="true_dynamics")
    rate = 2 * np.log(1.3 * 0.9)
    assert predicted == pytest.approx(np.log(2) / rate)
    assert measured == pytest.approx(np.log(2) / (rate + 2 * np.log(1.3)), rel=0.05)
