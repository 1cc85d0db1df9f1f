"""∂(s', r)/∂p of a step's parameters, for system identification.

w · y(p),   y = (s', r) of some states, w random weights:      its gradient in p by autograd,
against central differences of every entry of p at two step sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.systems.system import System
from gradlab.tools.certify import evaluation
from gradlab.tools.certify.comparison import SAFETY, Examination
from gradlab.tools.certify.evaluation import Points, outputs
from gradlab.tools.certify.result import Deviation, Entry
from gradlab.user_code import running

WEIGHTS, MOST = 4, 256  # random weights w; entries of all parameters together


def named(parameters: Any) -> dict[str, Tensor]:
    """
    Raises:
        InputError: no module and no dictionary of float tensors, or too many entries.
    """
    if isinstance(parameters, nn.Module):
        parameters = dict(parameters.named_parameters())
    validation.instance("parameters", parameters, Mapping, "a module, or a dict of tensors")
    for name, tensor in parameters.items():
        plain = isinstance(tensor, Tensor) and tensor.is_leaf and tensor.is_contiguous()
        if not plain or not tensor.is_floating_point():
            raise validation.expected(
                f"parameters[{name!r}]", tensor, "a contiguous float tensor, a leaf"
            )
    entries = sum(tensor.numel() for tensor in parameters.values())
    if not 0 < entries <= MOST:
        raise InputError(f"parameters have {entries} entries, expected 1 to {MOST}")
    return dict(parameters)


def deviations(
    exam: Examination, given: dict[str, Tensor]
) -> tuple[list[Deviation], dict[str, float]]:
    """Parameters whose gradient is wrong, and the relative error of every one.

    Raises:
        InputError: the step is not a differentiable function of a parameter.
    """
    system, points = exam.system, exam.points
    few = points.at(evaluation.evenly(len(points), evaluation.FEW))
    y = outputs(system, few)
    draw = torch.randn(WEIGHTS, *y.shape, generator=stream(0, "certify weights"), dtype=y.dtype)
    weights = draw / y.std(0).clamp_min(1e-12)
    J = _gradients(system, few, given, weights)
    wrong: list[Deviation] = []
    errors: dict[str, float] = {}
    for name, tensor in given.items():
        D, error = _differences(system, few, tensor, weights, exam.epsilon)
        size = D.abs().amax()
        gap = ((J[name] - D).abs() - SAFETY * error).clamp_min(0)
        errors[name] = off = float(gap.max() / size) if size > 0 else float((gap > 0).any())
        if off > exam.tolerance:
            code = "wrong" if bool(J[name].any()) else "dead"
            ratio = float((J[name] * D).sum() / D.square().sum())
            entries = (Entry("all", name, off, ratio=ratio),)
            wrong.append(Deviation(code, off, len(few), "parameters", "", "step", entries))
    return wrong, errors


def _gradients(
    system: System, points: Points, given: dict[str, Tensor], weights: Tensor
) -> dict[str, Tensor]:
    """Of w · y in every parameter, [weights, entries]."""
    tensors = list(given.values())
    before = [tensor.requires_grad for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.requires_grad_(True)
        with torch.enable_grad(), running("step"):
            out = system.step(*evaluation.state_and_action(system, points.z), points.noise)
            y = torch.cat([out.state, out.reward[:, None]], 1)
        if not y.requires_grad:
            raise InputError("step is not differentiable in parameters: it uses other tensors")
        rows = [
            torch.autograd.grad((w * y).sum(), tensors, retain_graph=True, materialize_grads=True)
            for w in weights
        ]
    finally:
        for tensor, needed in zip(tensors, before, strict=True):
            tensor.requires_grad_(needed)
    columns = zip(given, zip(*rows, strict=True), strict=True)
    return {name: torch.stack(found).flatten(1).to(weights) for name, found in columns}


def _differences(
    system: System, points: Points, tensor: Tensor, weights: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Of w · y in every entry of one parameter, and their errors, [weights, entries]."""
    flat = tensor.detach().view(-1)
    h = float(evaluation.SIZE * epsilon ** (1 / 3) * flat.abs().amax().clamp_min(1e-6))
    columns, errors = [], []

    def at(k: int, move: float) -> Tensor:
        before = flat[k].clone()
        try:
            flat[k] += move
            return outputs(system, points)
        finally:
            flat[k] = before

    for k in range(len(flat)):
        slopes = []
        for step in (h, h / evaluation.RATIO):
            up = at(k, step)
            slopes.append((weights * (up - at(k, -step))).sum((1, 2)) / (2 * step))
        wide, narrow = slopes
        size = (weights * up).square().sum((1, 2)).sqrt()
        columns.append(narrow)
        errors.append(
            (wide - narrow).abs() + evaluation.ROUNDING * epsilon * size * evaluation.RATIO / h
        )
    return torch.stack(columns, 1), torch.stack(errors, 1)
