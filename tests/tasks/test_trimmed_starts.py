"""Trimmed starts: a law of their own, of known moments where the task's own is Gaussian."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import gradlab
from gradlab.errors import InputError
from gradlab.runs.comparison import compared
from gradlab.tasks import trimmed
from gradlab.truth.lqr import lqr_gradient, second_moment
from gradlab.verdicts.measurement.verdict import first_screen, verdict
from tests.measurement.linear import WEIGHT, networks, turning

TASK = turning()
MEAN = torch.tensor([0.6, -0.3], dtype=torch.float64)


def smaller(share):
    """Cov[s | d ≤ q] / C of a Gaussian in two dimensions: F_χ²₄(q²) / F_χ²₂(q²)."""
    q2 = stats.chi2.isf(share, 2)
    return stats.chi2.cdf(q2, 4) / stats.chi2.cdf(q2, 2)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_moments_of_gaussian_starts_are_those_of_the_truncated_law(share):
    starts = trimmed(TASK, share).starts(40_000, torch.Generator().manual_seed(3))
    radius = ((starts - MEAN).square().sum(dim=1) / 0.5).sqrt().max()
    assert float(radius) == pytest.approx(stats.chi2.isf(share, 2) ** 0.5, rel=0.02)
    torch.testing.assert_close(starts.mean(dim=0), MEAN, rtol=0.0, atol=0.015)
    expected = smaller(share) * 0.5 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(torch.cov(starts.T), expected, rtol=0.02, atol=0.01)


def test_the_law_is_one_for_all_seeds_and_repeats():
    twice = [trimmed(TASK, 0.1).starts for _ in range(2)]
    draws = [law(500, torch.Generator().manual_seed(1)) for law in twice]
    assert torch.equal(*draws) and draws[0].shape == (500, 2)


@pytest.mark.slow
def test_truth_and_returns_are_those_of_the_trimmed_law():
    policy, critic = networks(TASK)
    plain, narrow = (
        gradlab.measure(TASK, policy, critic, horizon=1, starts=512, judges=4, trim_starts=share)
        for share in (0.0, 0.3)
    )
    covariance = 0.5 * torch.eye(2, dtype=torch.float64)
    W = WEIGHT * torch.eye(2, dtype=torch.float64)
    for profile, factor in ((plain, 1.0), (narrow, smaller(0.3))):
        moment = second_moment(MEAN, factor * covariance)
        norm = float(lqr_gradient(TASK.simulator, W, moment, TASK.discount, "all").norm())
        assert abs(profile.truth["norm"] - norm) < 3 * profile.truth["standard_error"]
    gap = plain.truth["norm"] - narrow.truth["norm"]
    assert gap > 4 * plain.truth["standard_error"]
    with pytest.raises(InputError, match=r"the task's trim_starts is None in A and 0\.3 in B"):
        compared(plain, narrow)
    notice = "Starts trimmed to the central 70% of their law: another question than the task's own"
    assert first_screen(narrow).notice.startswith(notice) and not first_screen(plain).notice
    assert any(each.text.startswith(notice) for each in verdict(narrow))


@pytest.mark.parametrize(
    ("share", "starts", "words"),
    [
        (0.7, 64, "trim_starts is 0.7, expected a share above 0 and below 0.5"),
        (-0.1, 64, "trim_starts is -0.1, expected a share above 0"),
        (float("nan"), 64, "trim_starts is nan, expected a share"),
        ("1%", 64, "trim_starts is '1%', expected a share"),
        (0.01, torch.zeros(8, 2), "trim_starts is 0.01, but starts holds the states themselves"),
    ],
)
def test_shares_and_starts_that_cannot_be_trimmed_are_refused(share, starts, words):
    with pytest.raises(InputError) as error:
        gradlab.measure(TASK, *networks(TASK), starts=starts, trim_starts=share)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_starts_that_hardly_differ_have_no_middle():
    coin = replace(TASK, starts=lambda n, g: MEAN * torch.randint(2, (n, 1), generator=g))
    with pytest.raises(InputError, match=r"no 0\.01 of the starts of linear_quadratic is farther"):
        trimmed(coin, 0.01)


# Laws of starts as users write them.


SYSTEM = gradlab.systems.from_function(lambda s, a: (0.9 * s + a, -(s[:, 0] ** 2)), 2, 1)


def task(starts):
    return gradlab.Task("mine", SYSTEM, None, starts, discount=0.9, horizon=3)


def drawn(starts, n=5):
    return task(starts).starts(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "starts",
    [
        lambda n: torch.randn(n, 2),
        lambda n: torch.randn(n, 2, requires_grad=True),
        lambda n: np.random.normal(size=(n, 2)),
        lambda n: np.random.normal(size=(n, 2)).astype(np.float32),
        lambda n, generator: torch.randn(n, 2, generator=generator),
        lambda n: torch.arange(2 * n).reshape(n, 2),
    ],
)
def test_starts_need_neither_generator_nor_float64_and_repeat(starts):
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(7)
    np.random.seed(7)
    found = drawn(starts)
    assert found.shape == (5, 2) and found.dtype == torch.float64 and not found.requires_grad
    assert torch.equal(drawn(starts), found)
    assert (torch.rand(1), np.random.rand()) == expected, "the user's streams go on"


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (lambda n: torch.zeros(10, 2), r"starts returned shape (10, 2) for n = 5, expected [5, 2]"),
        (lambda n: torch.zeros(n, 3), r"starts returned shape (5, 3) for n = 5, expected [5, 2]"),
        (lambda n: [0.0] * n, "starts returned a list, expected a tensor [n, 2]"),
        (lambda n: np.array(["a"]), "starts returned a ndarray"),
        (lambda n: 1 / 0, "test_trimmed_starts.py, line"),
        (lambda: torch.zeros(2, 2), "starts takes (), expected a function (n, generator)"),
        (lambda n, generator, more: None, "starts takes (n, generator, more), expected"),
    ],
)
def test_a_law_that_does_not_fit_is_named(starts, words):
    with pytest.raises(InputError) as error:
        drawn(starts)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_task_made_anew_keeps_its_law():
    from dataclasses import replace

    first = task(lambda n: torch.randn(n, 2))
    again = replace(first, horizon=4)
    assert again.starts is first.starts
