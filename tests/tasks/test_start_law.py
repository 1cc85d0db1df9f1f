"""Laws of starts as users write them."""

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError

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
        (lambda n: 1 / 0, "test_start_law.py, line"),
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
