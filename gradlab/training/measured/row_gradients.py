"""The gradient that a row's policy follows, start by start, from the row's own loss.

    G_i = −∂/∂θ_i [N · loss],   θ_1 = … = θ_N = θ,   the i-th start acted on by θ_i

The loss is called as an update calls it, for one seed in float64, but that each of its N starts has
a copy of the policy to itself, so that one backward pass has the gradients of all of them. A new
loss needs nothing here: what it starts from are the states at which it first acts with θ, and what
it makes of the model is seen by giving it the simulator instead. Paths from one start (MAAC) are
one sample. Gradients are ascent, per unit of the task's reward, θ as in `policy.parameters()`.
Where weights are normalised as they act, what is followed is the gradient in those before
(`in_trained_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner
from gradlab.training.members import Network
from gradlab.training.models.seed_models import Model
from gradlab.training.parts.context import Act
from gradlab.training.parts.policy_losses import Term


@dataclass(frozen=True, eq=False)
class StartGradients:
    """states: where the loss began, [N, ds]; gradients: [N, P]; NaN where they left the numbers."""

    states: Tensor
    gradients: Tensor


def start_gradients(
    single: Learner, batch: Batch, term: Term, model: Model | None, draws: Draws, iteration: int
) -> StartGradients:
    """Of one term at full weight.

    Args:
        single: one seed, in float64.
        batch: [1, N, ·], or [1, horizon · N, ·] step after step where the row follows paths.
        model: what the loss rolls out, or differentiates along recorded transitions.

    A horizon that is adapted is that of the term here.
    """
    paths = single.algorithm.loss.paths
    count = batch.state.shape[1] // (term.horizon if paths else 1)
    copies = single.policy.repeated(count)
    act = _Divided(single.acting.bound(copies), count)
    context = single.context(iteration, draws)
    context = replace(context, act=act, model=model, agents=count, cut=None)
    loss, _ = single.algorithm.loss(context, batch, (term,), np.ones((1, 1)))
    wanted = tuple(map(torch.zeros_like, copies.parameters))
    if loss.requires_grad:  # a reward of states alone has no slope in the last action
        wanted = torch.autograd.grad(loss.sum(), copies.parameters, materialize_grads=True)
    scale = -count / single.settings.reward_scale
    assert act.first is not None
    return StartGradients(act.first, scale * _flattened(copies, wanted))


def in_trained_weights(single: Learner, gradients: Tensor) -> Tensor:
    """Gradients [N, P] in the weights that act, as gradients in the weights that are trained."""
    trained, acting = single.trained_policy, single.policy
    if acting is trained.raw:
        return gradients
    pulled = torch.autograd.grad(
        acting.parameters, trained.raw.parameters, _divided(acting, gradients),
        retain_graph=True, is_grads_batched=True,
    )  # fmt: skip
    return _flattened(acting, tuple(tensor.squeeze(1) for tensor in pulled))


def weights_of(network: Network, gradients: Tensor) -> list[Tensor]:
    """Of every layer's weight, [N, out, in], out of gradients [N, P]."""
    depth = len(network.layers.weights)
    return [weight[:, 0].mT for weight in _divided(network, gradients)[:depth]]


class _Divided:
    """Acts on [1, N · K, ·] by N copies of the policy, K neighbouring rows each.

    Attributes:
        first: the states [N, ds] of its first call.
    """

    def __init__(self, act: Act, count: int) -> None:
        self.act, self.count = act, count
        self.first: Tensor | None = None

    def __call__(self, state: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        divided = state.view(self.count, -1, state.shape[2])
        if self.first is None:
            self.first = divided[:, 0].detach()
        dealt = None if noise is None else noise.view(self.count, -1, noise.shape[2])
        action, log_prob = self.act(divided, dealt)
        joined = action.view(1, -1, action.shape[2])
        return joined, None if log_prob is None else log_prob.view(1, -1)


def _flattened(network: Network, gradients: tuple[Tensor, ...]) -> Tensor:
    """[M, P] in the order of a module's parameters: each layer's weight [out, in], its bias."""
    depth = len(network.layers.weights)
    weights, biases = gradients[:depth], iter(gradients[depth:])
    parts = []
    for weight, bias in zip(weights, network.layers.biases, strict=True):
        parts.append(weight.mT.flatten(1))
        if bias is not None:
            parts.append(next(biases).flatten(1))
    return torch.cat(parts, dim=1)


def _divided(network: Network, flat: Tensor) -> list[Tensor]:
    """The inverse: [N, P] → [N, 1, in, out] of every weight, then [N, 1, 1, out] of every bias."""
    weights, biases, at = [], [], 0
    for weight, bias in zip(network.layers.weights, network.layers.biases, strict=True):
        wide, narrow = weight.shape[1:]
        block = flat[:, at : at + wide * narrow]
        weights.append(block.view(-1, 1, narrow, wide).mT)
        at += wide * narrow
        if bias is not None:
            biases.append(flat[:, None, None, at : at + narrow])
            at += narrow
    return [*weights, *biases]
