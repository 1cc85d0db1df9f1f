"""Forward mode, second derivatives, and where a NaN comes from."""

import math

import pytest
import torch

import gradlab
from gradlab.systems import from_function


class Cube(torch.autograd.Function):
    """x³; the second derivative is left out."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, *gradients):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() ** 2 * gradients[0]


class Tangent(torch.autograd.Function):
    """x³; the forward mode is another one."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, *gradients):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradients[0]

    @staticmethod
    def jvp(ctx, *tangents):
        (x,) = ctx.saved_tensors
        return 2 * x**2 * tangents[0]


def certified(function):
    def step(s, a):
        return 0.9 * s + 0.1 * function(s) + a, -s.square().sum(1) - a.square().sum(1)

    return gradlab.certify(from_function(step, 2, 2), samples=64)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda s: s**3, None), (torch.sin, None), (lambda s: 2 * s, None),
        (Cube.apply, "second derivatives"), (Tangent.apply, "forward mode"),
    ],
)  # fmt: skip
def test_what_differs_beside_reverse_mode_is_noted(function, kind):
    certificate = certified(function)
    found = [
        x.kind for x in certificate.findings if x.kind in ("forward mode", "second derivatives")
    ]
    assert found == ([] if kind is None else [kind])
    assert certificate.passed
    assert set(certificate.facts["modes"]) == {"forward mode", "second derivatives"}


def test_a_derivative_that_is_not_finite_has_its_operation_line_and_row():
    def step(s, a):
        drag = torch.where(s[:, :1] > 0, torch.sqrt(s[:, :1]), 0.0)  # NaN below 0
        return torch.cat([0.9 * s[:, :1] + 0.1 * drag, s[:, 1:]], 1) + a, -s.square().sum(1)

    certificate = gradlab.certify(from_function(step, 2, 2), samples=64)
    wrong = next(x for x in certificate.findings if x.kind == "not finite" and x.block == "A")
    line = step.__code__.co_firstlineno + 1
    assert f"sqrt (test_modes.py:{line})" in wrong.sentence
    row = [float(x) for x in wrong.sentence.split(": (")[1].split(")")[0].split(",")]
    assert len(row) == 4 and row[0] <= 0 and not math.isnan(row[0])
