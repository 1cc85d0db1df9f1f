"""Forward and backward by hand against autograd's, and against finite differences."""

import itertools

import pytest
import torch

from gradlab.networks import products
from gradlab.networks.layers import Layers
from gradlab.networks.perceptron import IN_PLACE, perceptron
from gradlab.networks.products import fast_products

SHAPES = ((5, 7, 7, 1), (5, 7, 3), (5, 1), (5, 2), (3, 1, 4))


@pytest.fixture(params=[False, True], ids=["batched", "separate"])
def apart(request, monkeypatch):
    """Products of both kinds, however small they are."""
    monkeypatch.setattr(products, "LARGE", 1)
    with fast_products(apart=request.param):
        yield request.param


def made(sizes, activation, members=3):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    pairs = list(itertools.pairwise(sizes))
    weights = tuple(normal(members, i, o) for i, o in pairs)
    biases = tuple(normal(members, 1, o) for _, o in pairs)
    return Layers(weights, biases, activation), normal(members, 11, sizes[0])


def inputs(layers, x):
    return [x, *layers.weights, *(bias for bias in layers.biases if bias is not None)]


def loss(y):
    return (y.sin() * torch.arange(1.0, y.numel() + 1).view_as(y)).sum()


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("activation", IN_PLACE)
def test_values_and_gradients_are_those_of_autograd(apart, activation, sizes):
    layers, x = made(sizes, activation)
    ours, theirs = perceptron(layers, x), layers(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    found = torch.autograd.grad(loss(ours), inputs(layers, x))
    for one, other in zip(found, torch.autograd.grad(loss(theirs), inputs(layers, x)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", IN_PLACE)
def test_gradients_of_first_and_second_order_are_finite_differences(apart, activation):
    layers, x = made((3, 4, 4, 2), activation, members=2)

    def of(x, *numbers):
        depth = len(layers.weights)
        return perceptron(Layers(numbers[:depth], numbers[depth:], activation), x)

    assert torch.autograd.gradcheck(of, inputs(layers, x))
    assert torch.autograd.gradgradcheck(of, inputs(layers, x))


def test_only_what_was_asked_for_is_computed():
    layers, x = made((5, 7, 7, 1), "elu")
    frozen = Layers(
        tuple(w.detach() for w in layers.weights),
        tuple(b.detach() for b in layers.biases if b is not None),
        "elu",
    )
    (found,) = torch.autograd.grad(loss(perceptron(frozen, x)), x)
    (expected,) = torch.autograd.grad(loss(layers(x)), x)
    torch.testing.assert_close(found, expected)
    assert not perceptron(frozen, x.detach()).requires_grad


def test_arguments_are_left_as_they_are(apart):
    layers, x = made((5, 7, 7, 1), "relu")
    before = [tensor.detach().clone() for tensor in inputs(layers, x)]
    y = perceptron(layers, x)
    outer = torch.ones_like(y)
    torch.autograd.grad(y, inputs(layers, x), outer)
    assert all(torch.equal(a, b) for a, b in zip(inputs(layers, x), before, strict=True))
    assert torch.equal(outer, torch.ones_like(y))


def test_parameters_changed_on_the_way_are_refused():
    layers, x = made((5, 7, 1), "tanh")
    y = perceptron(layers, x).sum()
    with torch.no_grad():
        layers.weights[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y, layers.weights)
