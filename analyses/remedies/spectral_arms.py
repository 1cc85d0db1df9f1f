"""Models and policies with and without spectral normalisation, alike in everything else.

    arm       model                        policy
    neither   plain                        plain
    model     all but the last layer       plain
    policy    plain                        all layers
    both      all but the last layer       all layers                    (RP-PGM, appendix B.1)

A trial is one seed: its transitions of a random policy, on which both models are fitted from the
same initial weights, and one initial policy, which every arm improves alike through its own model
(h-step reparameterised gradients, RP-PGM eq. 4.2, without a critic). ReLU throughout, five layers
in the model and four in the policy as in the paper; widths are ours, for it prints none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gradlab
from gradlab.data.noise import child, stream
from gradlab.fitting.collection import collect
from gradlab.fitting.fitted import Fit
from gradlab.fitting.model_settings import RP_PGM, ModelSettings
from gradlab.fitting.models import fit_model
from gradlab.gradients.estimator import Estimator, checked
from gradlab.gradients.gram import path_gradients
from gradlab.gradients.tail import Tail
from gradlab.gradients.weighted_terms import carried
from gradlab.networks import spectral
from gradlab.networks.policies import GaussianPolicy
from gradlab.systems.cartpole import SIMULATOR_WEIGHTS, PendulumReward
from gradlab.systems.learned import LearnedSystem, RewardFunction
from gradlab.systems.system import System
from gradlab.tasks import Task

HORIZONS = (1, 2, 3, 5, 8, 10, 15, 20, 30)
MODEL = replace(RP_PGM, hidden=(128, 128, 128, 128), patience=10)
POLICY = (64, 64, 64)
ROWS = 5000
UPDATES, BATCH, RATE = 100, 128, 3e-4  # of a policy's improvement
UNROLL = 5
SEEDS = 5


@dataclass(frozen=True)
class World:
    """A simulator, a start law, and what the claim expects there."""

    name: str
    system: System
    starts: Callable[[int, torch.Generator], Tensor]
    contracts: bool = False
    limit: tuple[float, ...] | None = None
    discount: float = 0.99


@dataclass(frozen=True)
class Arm:
    """What is normalised."""

    model: bool
    policy: bool


ARMS: Mapping[str, Arm] = {
    "neither": Arm(False, False),
    "model": Arm(True, False),
    "policy": Arm(False, True),
    "both": Arm(True, True),
}


@dataclass(frozen=True, eq=False)
class Trial:
    """One seed of one task.

    Attributes:
        reward: the task's, or None: the models' own heads.
        fits: without and with normalised layers.
    """

    task: Task
    reward: RewardFunction | None
    seed: int
    fits: Mapping[bool, Fit]


@dataclass(frozen=True, eq=False)
class Treated:
    """A trial's model and policies under one arm; `improved` went through this model."""

    model: LearnedSystem
    first: nn.Module
    improved: nn.Module


def hanging(n: int, generator: torch.Generator) -> Tensor:
    """Near the hanging pole, θ = π."""
    start = 0.1 * torch.rand(n, 4, generator=generator, dtype=torch.float64) - 0.05
    return start + torch.tensor([0.0, torch.pi, 0.0, 0.0], dtype=torch.float64)


def tasks() -> dict[str, tuple[Task, RewardFunction]]:
    """Two swing-ups in closed form, with their rewards: a rod with a motor, a cart under a pole."""
    rod, cart = (
        gradlab.tasks.pendulum(),
        gradlab.tasks.inverted_pendulum("analytic", slider="wide", reward="post_step"),
    )
    swing = PendulumReward(SIMULATOR_WEIGHTS, "post_step")
    return {
        "pendulum": (rod, lambda state, action, after: rod.simulator.step(state, action).reward),
        "cart-pole": (
            replace(cart, starts=hanging),
            lambda state, action, after: swing.value(state, after),
        ),
    }


@cache
def trial(name: str, seed: int, rows: int = ROWS, epochs: int = MODEL.epochs) -> Trial:
    return fitted(*tasks()[name], seed, rows, replace(MODEL, epochs=epochs))


def fitted(
    task: Task,
    reward: RewardFunction | None,
    seed: int,
    rows: int,
    settings: ModelSettings,
    policy: nn.Module | None = None,
) -> Trial:
    """Both models, from the same weights and order of rows, with a head where no reward is given.

    Args:
        policy: whose transitions; None: random actions.
    """
    data = collect(task, rows, policy, seed=child(seed, "spectral data"))
    held = replace(settings, reward=reward is None, seed=seed)
    chosen = {False: replace(held, spectral=None), True: held}
    fits = {normalised: fit_model(data, each) for normalised, each in chosen.items()}
    return Trial(task, reward, seed, fits)


@cache
def treated(made: Trial, arm: Arm, updates: int = UPDATES) -> Treated:
    model = LearnedSystem(made.fits[arm.model].ensemble, made.reward)
    first = initial_policy(made.task, made.seed, arm.policy)
    return Treated(model, first, improved(first, model, made.task, made.seed, updates))


def initial_policy(task: Task, seed: int, normalised: bool) -> GaussianPolicy:
    """A stochastic policy of four ReLU layers, float32; equal weights before normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, "spectral policy"))
        policy = GaussianPolicy(
            task.simulator.state_dim, task.simulator.action_dim, POLICY, "relu",
            scale=task.observation_scale, squash=True, limit=task.action_limit,
        )  # fmt: skip
    if normalised:
        spectral.normalise(policy, "all")
    return policy.eval()


def improved(
    policy: nn.Module, system: System, task: Task, seed: int, updates: int = UPDATES
) -> nn.Module:
    """The policy after Adam on h-step gradients through `system`; a copy, float32, in eval mode."""
    policy = copy.deepcopy(policy).train()
    optimiser = torch.optim.Adam(policy.parameters(), lr=RATE)
    for update in range(updates):
        loss = -_mean_return(policy, system, task, child(seed, f"improve {update}"))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
    return policy.eval()


def _mean_return(policy: nn.Module, system: System, task: Task, seed: int) -> Tensor:
    state = task.starts(BATCH, stream(seed, "starts")).float()
    total = state.new_zeros(())
    for t in range(UNROLL):
        shape = (BATCH, task.simulator.action_dim)
        noise = torch.randn(shape, generator=stream(seed, "policy", t))
        xi = system.sample_noise(BATCH, stream(seed, "dynamics", t), torch.float32)
        out = system.step(state, policy(state, noise), xi)
        total = total + task.discount**t * out.reward.mean()
        state = out.state
    return total


def plain(policy: nn.Module) -> nn.Module:
    """float64, normalised weights as plain ones: the coordinates in which all arms are compared."""
    return spectral.baked(copy.deepcopy(policy).double().eval())


def world(name: str, task: Task, system: System) -> World:
    return World(name, system, task.starts, limit=task.action_limit, discount=task.discount)


Unnormalise = Callable[[Tensor], Tensor]


@torch.no_grad()
def by_raw_weights(policy: nn.Module) -> Unnormalise:
    """Gradients [N, P] by the plain weights of `plain(policy)` → by W under W / σ(W).

    With V = W/σ and its leading singular vectors u, v:  ∂/∂W = (∂/∂V − ⟨∂/∂V, V⟩ u vᵀ) / σ.
    """
    parts = []
    begin = 0
    sigmas = {
        name: torch.linalg.matrix_norm(layer.parametrizations.weight.original.double(), ord=2)
        for name, layer in policy.named_modules()
        if parametrize.is_parametrized(layer, "weight")
    }
    for name, value in plain(policy).named_parameters():
        rows = slice(begin, begin + value.numel())
        begin = rows.stop
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in sigmas:
            U, _, Vh = torch.linalg.svd(value.detach(), full_matrices=False)
            top = torch.outer(U[:, 0], Vh[0]).flatten()
            parts.append((rows, value.detach().flatten(), top, sigmas[layer]))

    def change(gradients: Tensor) -> Tensor:
        found = gradients.clone()
        for rows, weight, top, sigma in parts:
            found[:, rows] -= (gradients[:, rows] @ weight)[:, None] * top
            found[:, rows] /= sigma
        return found

    return change


def gradients(
    world: World,
    policy: nn.Module,
    actions: str,
    samples: int,
    horizons: tuple[int, ...] = HORIZONS,
    seed: int = 0,
) -> list[Tensor]:
    """Per-sample gradients [N, P] for every horizon, along one rollout."""
    tail = Tail(horizons[-1], None, world.discount)
    estimator = Estimator(world.system, world.system, actions, tail)
    starts = world.starts(samples, stream(seed, "starts"))
    begin = checked(estimator, policy, starts, "ignore")
    found = carried(estimator, policy, begin, horizons, seed, "ignore")
    return [path_gradients(found.jacobian, costates) for costates in found.costates]


def traces(G: Tensor) -> tuple[float, NDArray[np.float64]]:
    """tr Cov of the rows of G [N, P], and with each row left out [N]."""
    G = G.double()
    n, total = len(G), G.sum(0)
    squares, cross = (G**2).sum(1), G @ total
    value = float((squares.sum() - total @ total / n) / (n - 1))
    rest = total @ total - 2 * cross + squares
    left_out = (squares.sum() - squares - rest / (n - 1)) / (n - 2)
    return value, left_out.numpy()
