"""The gradient that a row's policy follows, start by start, from the row's own loss.

    G_i = −∂/∂θ_i [N · loss],   θ_1 = … = θ_N = θ,   the i-th start acted on by θ_i

The loss is called as by an update, for one seed in float64, with a copy of the policy for each
start: one backward pass has all gradients (ascent, per unit of the task's reward). Starts are the
states at which it first acts, those that the source draws; of on-policy paths the unbroken ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.training.algorithms import Algorithm
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner
from gradlab.training.members import Network
from gradlab.training.models.seed_models import Model
from gradlab.training.parts.context import Act
from gradlab.training.parts.critics import Q
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.sources import Stores, TwoStores
from gradlab.training.settings import Settings
from gradlab.training.state import Run

USE = "measured gradient"  # of the draws
FEWEST = 4  # starts whose moments have intervals


def measured_terms(algorithm: Algorithm, settings: Settings) -> tuple[Term, ...]:
    """Those of the row; where it has one horizon, shorter ones before it unless the settings leave
    them out: 0 (the critic alone), and powers of 2."""
    last = algorithm.terms[-1]
    several = len(algorithm.terms) > 1 or algorithm.loss.horizon is not None
    if several or last.horizon == 0 or settings.gradient_horizons == "own":
        return algorithm.terms
    valued = algorithm.critics > 0 and algorithm.target.kind == Q and not algorithm.loss.paths
    shorter = [0] if valued else []
    shorter += [2**k for k in range(last.horizon.bit_length()) if 2**k < last.horizon]
    return (*(replace(last, horizon=n) for n in shorter), last)


def carrying(algorithm: Algorithm, term: Term) -> int:
    """How many actions of a path carry θ."""
    if not term.way.every or term.horizon == 0:
        return 1
    return term.horizon + (algorithm.critics > 0 and algorithm.target.kind == Q)


def samples(algorithm: Algorithm, term: Term) -> int:
    """Independent samples of the gradient that an update averages: rows, or paths of them."""
    steps = max(term.horizon, 1) if algorithm.loss.paths else 1
    return algorithm.batch // steps


def law(algorithm: Algorithm) -> str:
    """The states at which the row's gradient is measured: those that it starts from, in words."""
    if algorithm.loss.paths:
        return "starts of its newest paths, those within one episode"
    if algorithm.source.steps:
        return "states of its newest windows"
    batch = "replayed states"
    if algorithm.source.branching is not None and not isinstance(algorithm.source, TwoStores):
        batch = f"states of its batches ({algorithm.source.name})"
    if not isinstance(algorithm.loss, FromStarts) or algorithm.loss.share == 0:
        return batch
    if algorithm.loss.share == 1:
        return "starts of the task"
    return f"states ({algorithm.loss.share:.0%} starts of the task, the others {batch})"


def batches(run: Run) -> Batch:
    """As many rows as are measured, drawn as the row's source draws; on policy, all of them."""
    learner, size = run.learner, run.settings.gradient_starts
    if run.algorithm.source.steps:
        size = run.algorithm.batch
    draws = Draws(learner.seeds, learner.dtype, learner.device, USE, block=1)
    second = None if run.branches is None else run.branches.replay
    return run.algorithm.source(Stores(run.replay, second, draws, size), run.iteration)


def rows_of(run: Run, seed: int, batches: Batch, like: Tensor) -> tuple[Batch, int]:
    """One seed's rows [1, ·] in the dtype and on the device of `like`, and how many starts.

    The policy has moved on since they were collected: at which noise it acts so is inferred.
    """
    batch = Batch(**{
        name: values[seed : seed + 1].to(like) for name, values in batches.tensors.items()
    })  # fmt: skip
    batch = replace(batch, policy_noise=None)
    if not run.algorithm.loss.paths:
        return batch, batch.state.shape[1]
    steps = run.algorithm.horizons[0]
    batch = unbroken(batch, steps, run.settings.agents)
    return batch, batch.state.shape[1] // steps


def unbroken(batch: Batch, steps: int, agents: int) -> Batch:
    """Paths in which no episode ends or begins, [1, steps · N, ·] step after step.

    Args:
        batch: [1, windows' steps · agents, ·], as it was collected.
    """

    def cut(values: Tensor) -> Tensor:
        """[1, steps, paths, ·]"""
        apart = values.reshape(1, -1, steps, agents, *values.shape[2:])
        return apart.transpose(1, 2).flatten(2, 3)

    state, after, ended = (cut(x) for x in (batch.state, batch.next_state, batch.terminated))
    whole = (after[:, :-1] == state[:, 1:]).all(dim=3) & (ended[:, :-1] < 0.5)
    kept = whole.all(dim=1)[0]
    return Batch(**{
        name: cut(values)[:, :, kept].flatten(1, 2) for name, values in batch.tensors.items()
    })  # fmt: skip


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
