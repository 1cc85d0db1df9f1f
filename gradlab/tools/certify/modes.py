"""Beside reverse mode: forward mode, second derivatives, and the operation that made a NaN.

    J u                    by dual numbers        against   J u by reverse sweeps
    ∂/∂z (vᵀ J) u          by a second sweep      against   (vᵀ J(z + hu) − vᵀ J(z − hu)) / 2h

Two random u and v, at smooth points. `torch.func.jvp`, gradient penalties, MAGE's critics and
DDPPO's loss use them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradlab.data.noise import stream
from gradlab.errors import InputError, in_short
from gradlab.systems.system import System
from gradlab.tools.certify.evaluation import Points, state_and_action
from gradlab.tools.certify.result import Finding, Kind
from gradlab.wording import below, percent

SMOOTH = 64  # points
_STEPS = (1e-4, 3e-5)  # of the points' size, of second differences
_SAFETY = 10.0  # their difference, times this, is no error
_REFUSED = (RuntimeError, TypeError, InputError)
_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def mode_findings(
    system: System, points: Points, fail_above: float, seed: int
) -> tuple[list[Finding], dict[str, str]]:
    """What forward mode and second derivatives have wrong, and whether they were tried. `points`:
    smooth ones, of a differentiable system."""
    found: list[Finding] = []
    tried: dict[str, str] = {}
    for name, compared, sentence in _MODES:
        try:
            error = compared(system, points, seed)
        except _REFUSED as refusal:
            tried[name] = f"not offered: {in_short(refusal)}"
            continue
        tried[name] = f"off by up to {below(error)}"
        if error > fail_above:
            text = sentence.format(percent(min(error, 1.0)))
            found.append(Finding(name, "note", text, error))
    return found, tried


_FORWARD = (
    "Forward mode gives another derivative than reverse mode, by up to {}: torch.func.jvp and "
    "jacfwd of this step are wrong."
)
_SECOND = (
    "Second derivatives are not those of the first, by up to {}: a detached tensor, or a backward "
    "pass that is not differentiated itself, spoils gradient penalties and losses on derivatives."
)


def _forward(system: System, points: Points, seed: int) -> float:
    """Largest error of J u, over its usual size; u random."""
    u = _random(points.z, seed)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(points.z, u)  # type: ignore[no-untyped-call]
        y = _outputs(system, dual, points.noise)
        tangent = forward_ad.unpack_dual(y).tangent  # type: ignore[no-untyped-call]
    if tangent is None:
        raise RuntimeError("the step's outputs have no tangent")
    v = _random(tangent, seed + 1)
    reverse, _ = _swept(system, points.z, points.noise, v)
    size = (v * tangent).sum(1)
    usual = size.square().mean().sqrt().clamp_min(1e-300)
    error = (size - (reverse * u).sum(1)).abs()
    return float((error / torch.maximum(size.abs(), usual)).quantile(0.95))


def _second(system: System, points: Points, seed: int) -> float:
    """Largest error of ∂/∂z (vᵀ J) u beyond that of the difference, over its usual size."""
    u, scale = _random(points.z, seed), points.z.std().clamp_min(1e-2)
    v = _random(torch.empty(len(points), system.state_dim + 1).to(points.z), seed + 1)
    first, z = _swept(system, points.z, points.noise, v, again=True)
    if first.requires_grad:
        (second,) = torch.autograd.grad((first * u).sum(), z, allow_unused=True)
    else:
        second = None
    second = torch.zeros_like(z) if second is None else second.detach()
    w = _random(points.z, seed + 2)
    differences = []
    for step in _STEPS:
        h = step * scale
        ends = [_swept(system, points.z + sign * h * w, points.noise, v)[0] for sign in (1.0, -1.0)]
        differences.append(((ends[0] - ends[1]) / (2 * h) * u).sum(1))
    known, given = differences[1], (second * w).sum(1)
    least = 1e-6 * float(first.detach().norm(dim=1).mean())
    size = known.abs().square().mean().sqrt().clamp_min(least)
    error = (given - known).abs() - _SAFETY * (differences[0] - known).abs()
    share = float((error.clamp_min(0) / torch.maximum(known.abs(), size)).quantile(0.95))
    if share > 0 and not first.requires_grad:
        raise RuntimeError("the backward pass carries no graph")
    return share


def _outputs(system: System, z: Tensor, noise: Tensor | None) -> Tensor:
    """[s', r] in the graph of z."""
    out = system.step(*state_and_action(system, z), noise)
    return torch.cat([out.state, out.reward[:, None]], 1)


def _swept(
    system: System, z: Tensor, noise: Tensor | None, v: Tensor, again: bool = False
) -> tuple[Tensor, Tensor]:
    """vᵀ J by one reverse sweep, with its own graph where it is swept `again`; and its z."""
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        y = _outputs(system, z, noise)
        (found,) = torch.autograd.grad((v * y).sum(), z, create_graph=again)
    return found, z


def _random(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=stream(seed, "certify modes"), dtype=torch.float64).to(
        like
    )


_MODES: tuple[tuple[Kind, Callable[[System, Points, int], float], str], ...] = (
    ("forward mode", _forward, _FORWARD),
    ("second derivatives", _second, _SECOND),
)


def nan_origin(output: Callable[[Tensor], Tensor], z: Tensor) -> str:
    """The operation whose derivative first leaves the finite numbers, with its line; "" unknown.
    `output`: z → outputs that carry a graph, at rows where a derivative is not finite."""
    lost: list[Any] = []  # nodes that were sent finite numbers, and sent back others

    def hear(node: Any, back: Sequence[Tensor | None], sent: Sequence[Tensor | None]) -> None:
        if _finite(sent) and not _finite(back):
            lost.append(node)

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly(check_nan=False):  # which keeps every node's line
            values = output(z.detach().clone().requires_grad_()).flatten()
        nodes, found = [values.grad_fn], set[Any]()
        while nodes:
            if (node := nodes.pop()) is not None and node not in found:
                found.add(node)
                node.register_hook(partial(hear, node))
                nodes += [each for each, _ in node.next_functions]
        with suppress(RuntimeError):
            for value in values:
                if not lost and value.requires_grad:
                    value.backward(retain_graph=True)
    if not lost:
        return ""
    name = re.sub(r"Backward\d*$", "", lost[0].name()).lower()
    lines = "".join(lost[0].metadata.get("traceback_", ()))
    places = [
        match for match in _PLACE.finditer(lines)
        if "/torch/" not in match["file"] and "/gradlab/" not in match["file"]
    ]  # fmt: skip
    if not places:
        return name
    return f"{name} ({places[-1]['file'].rsplit('/', 1)[-1]}:{places[-1]['line']})"


def _finite(gradients: Sequence[Tensor | None]) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in gradients if x is not None)
