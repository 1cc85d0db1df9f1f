"""Jacobians of an ensemble's means and noise scales, in closed form through its layers; those of
networks of one's own by automatic differentiation.

    ∂μ/∂x = [I, 0] + f ∂m/∂x̂ / d,     ∂σ/∂x = σ/2 · (∂log v/∂raw) ∂raw/∂x̂ / d,     x = [s, a]
    ∂(μ + σ ξ)/∂x at given ξ: one row per output, since the two share the product's left factor

Rows are outputs where these are fewer than inputs, else inputs. Members and blocks of samples come
one after another, so that what is not returned stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.networks.gaussian_ensemble import (
    GaussianEnsemble,
    Numbers,
    Prediction,
    bounded,
    predict,
    scaled,
    standardised_inputs,
)
from gradlab.networks.layers import (
    Layers,
    Modules,
    blocks,
    pull_back,
    push_forward,
    tangents,
    trace,
)


@dataclass(frozen=True)
class Jacobians:
    """Of means and noise scales, each [E, N, out, ds + da], or [N, out, ds + da] averaged."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Along:
    """A prediction, and its derivatives along K directions: mean and std [E, N, K, out]."""

    prediction: Prediction
    mean: Tensor
    std: Tensor


@torch.no_grad()
def mean_jacobians(ensemble: GaussianEnsemble, state: Tensor, action: Tensor) -> Tensor:
    """∂μ_k/∂[s, a], [E, N, out, ds + da]; state [N, ds] and action [N, da], or one per member."""
    x, width = torch.cat([state, action], dim=-1), ensemble.outputs
    mean = x.new_empty(ensemble.members, x.shape[-2], width, x.shape[-1])
    for member, rows, numbers, part in _parts(ensemble, x, width):
        mean[member, rows] = _of_mean(numbers, part)[0]
    return mean


@torch.no_grad()
def jacobians(ensemble: GaussianEnsemble, state: Tensor, action: Tensor) -> Jacobians:
    """∂μ_k/∂[s, a] and ∂σ_k/∂[s, a], per member."""
    x, width = torch.cat([state, action], dim=-1), ensemble.outputs
    shape = (ensemble.members, x.shape[-2], width, x.shape[-1])
    jacobian = Jacobians(x.new_empty(shape), x.new_empty(shape))
    for member, rows, numbers, part in _parts(ensemble, x, 2 * width):
        mean, std = _of_both(numbers, part)
        jacobian.mean[member, rows], jacobian.std[member, rows] = mean[0], std[0]
    return jacobian


@torch.no_grad()
def averaged_jacobians(ensemble: GaussianEnsemble, state: Tensor, action: Tensor) -> Jacobians:
    """The same, averaged over the members, of which one is held at a time."""
    x, width = torch.cat([state, action], dim=-1), ensemble.outputs
    shape = (x.shape[-2], width, x.shape[-1])
    average = Jacobians(x.new_zeros(shape), x.new_zeros(shape))
    for _, rows, numbers, part in _parts(ensemble, x, 2 * width):
        mean, std = _of_both(numbers, part)
        average.mean[rows] += mean[0] / ensemble.members
        average.std[rows] += std[0] / ensemble.members
    return average


def along(ensemble: GaussianEnsemble, state: Tensor, action: Tensor, directions: Tensor) -> Along:
    """Predictions and their directional derivatives; no Jacobian is formed.

    Differentiable in the parameters, for losses on derivatives.

    Args:
        state, action: [N, ds], [N, da], or with a leading member axis.
        directions: [N, K, ds + da] in units of (s, a), or [E, N, K, ds + da].
    """
    numbers = ensemble.numbers(state)
    x = torch.cat([state, action], dim=-1)
    x = x.expand(ensemble.members, *x.shape[-2:])
    directions = directions.expand(ensemble.members, *directions.shape[-3:])
    parts = [
        _along(numbers, x[:, rows], directions[:, rows])
        for rows in blocks(numbers.layers, x.shape[1], directions.shape[2])
    ]
    mean, std, by_mean, by_std = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return Along(Prediction(mean, std), by_mean, by_std)


@torch.no_grad()
def realised(numbers: Numbers, x: Tensor, noise: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """μ + σ ξ [N, outputs] and its Jacobian [N, outputs, ds + da].

    Args:
        numbers: of one member.
        x: [s, a], [N, ds + da].
        noise: ξ [N, outputs].
        outputs: how many of the outputs, from the first.
    """
    value, jacobian = x.new_empty(len(x), outputs), x.new_empty(len(x), outputs, x.shape[1])
    for rows in blocks(numbers.layers, len(x), outputs):
        value[rows], jacobian[rows] = _realised(numbers, x[None, rows], noise[rows])
    return value, jacobian


def _realised(numbers: Numbers, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    k = noise.shape[1]
    if isinstance(numbers.layers, Modules):

        def outcome(x: Tensor) -> Tensor:
            predicted = predict(numbers, x)
            return predicted.mean[..., :k] + predicted.std[..., :k] * noise

        value, jacobian = _differentiated(outcome, x)
        return value[0], jacobian[0]
    raw, slopes = trace(numbers.layers, standardised_inputs(numbers, x))
    prediction = scaled(numbers, x, raw)
    spread = prediction.std[..., :k] * noise
    weights = _rows(numbers.layers.weights[-1])
    rows = numbers.target_std[..., :k, None] * weights[:, None, :k]
    if not numbers.deterministic:
        by_raw = 0.5 * spread * bounded(numbers, raw.chunk(2, dim=-1)[1])[1][..., :k]
        rows = rows + by_raw[..., None] * weights.chunk(2, 1)[1][:, None, :k]
    jacobian = (
        pull_back(numbers.layers, slopes, rows) / numbers.input_std[:, :, None]
        + numbers.residual[:k]
    )
    return (prediction.mean[..., :k] + spread)[0], jacobian[0]


def _parts(
    ensemble: GaussianEnsemble, x: Tensor, columns: int
) -> Iterator[tuple[int, slice, Numbers, Tensor]]:
    """Member, rows, the member's numbers and its inputs [1, n, ds + da], block by block."""
    columns = min(columns, x.shape[-1])
    for member in range(ensemble.members):
        numbers = ensemble.numbers(x, [member])
        inputs = x if x.ndim == 2 else x[member]
        for rows in blocks(numbers.layers, len(inputs), columns):
            yield member, rows, numbers, inputs[None, rows]


def _differentiated(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [E, N, K] of rows [E, N, in], and their Jacobian [E, N, K, in], by autograd."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
        rows = [
            torch.autograd.grad(each.sum(), x, retain_graph=True, materialize_grads=True)[0]
            for each in y.unbind(dim=-1)
        ]
    return y.detach(), torch.stack(rows, dim=-2)


def _of_mean(numbers: Numbers, x: Tensor) -> Tensor:
    if isinstance(numbers.layers, Modules):
        return _differentiated(lambda x: predict(numbers, x).mean, x)[1]
    outputs = numbers.residual.shape[0]
    _, slopes = trace(numbers.layers, standardised_inputs(numbers, x))
    return _mean_scaled(numbers, _network(numbers.layers, slopes, outputs))


def _of_both(numbers: Numbers, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(numbers.layers, Modules):

        def both(x: Tensor) -> Tensor:
            predicted = predict(numbers, x)
            return torch.cat([predicted.mean, predicted.std], dim=-1)

        by_mean, by_std = _differentiated(both, x)[1].chunk(2, dim=2)
        return by_mean, by_std
    if numbers.deterministic:
        mean = _of_mean(numbers, x)
        return mean, torch.zeros_like(mean)
    raw, slopes = trace(numbers.layers, standardised_inputs(numbers, x))
    by_mean, by_raw = _network(numbers.layers, slopes, raw.shape[-1]).chunk(2, dim=2)
    slope = bounded(numbers, raw.chunk(2, dim=-1)[1])[1]
    half = 0.5 * scaled(numbers, x, raw).std * slope
    return _mean_scaled(numbers, by_mean), half[..., None] * by_raw / numbers.input_std[:, :, None]


def _mean_scaled(numbers: Numbers, by_mean: Tensor) -> Tensor:
    scale = numbers.target_std[..., None] / numbers.input_std[:, :, None]
    return scale * by_mean + numbers.residual


def _network(layers: Layers, slopes: list[Tensor], outputs: int) -> Tensor:
    """Derivatives of the first `outputs` outputs, [E, N, outputs, in]."""
    narrow = replace(layers, weights=(*layers.weights[:-1], layers.weights[-1][..., :outputs]))
    if outputs < layers.weights[0].shape[1]:
        return pull_back(narrow, slopes, _rows(narrow.weights[-1])[:, None])
    return push_forward(narrow, slopes).mT


def _rows(weight: Tensor) -> Tensor:
    # A transposed view would hand its strides on to every product with it, and each be copied.
    return weight.mT.contiguous()


def _along(
    numbers: Numbers, x: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    raw, moved = tangents(
        numbers.layers,
        standardised_inputs(numbers, x),
        directions / numbers.input_std[:, :, None],
    )
    prediction, width = scaled(numbers, x, raw), len(numbers.residual)
    by_mean = moved[..., :width]
    mean = directions @ numbers.residual.T + numbers.target_std[:, :, None] * by_mean
    if numbers.deterministic:
        return prediction.mean, prediction.std, mean, torch.zeros_like(mean)
    half = 0.5 * prediction.std * bounded(numbers, raw.chunk(2, dim=-1)[1])[1]
    return prediction.mean, prediction.std, mean, half[:, :, None] * moved[..., width:]
