"""MAGE's critic loss: its value, and its gradient in the critic, against finite differences.

STEVE's targets against plain loops over members, critics and horizons.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from gradlab.data.replay import Batch
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems import from_function
from gradlab.systems.learned import LearnedSystem
from gradlab.training.members import stacked
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.critics import (
    LEAST_VARIANCE,
    ActionGradient,
    OneStep,
    Q,
    Steve,
    Valuing,
    inverse_variance_mean,
)
from gradlab.training.seed_models import SeedModels, SeedTwoModels

DISCOUNT, REWARD_SCALE, ROWS = 0.9, 0.5, 5


def push(state, action, noise):
    moved = 0.9 * state + torch.cat([torch.sin(action), action * state[:, :1]], 1) + 0.1 * noise
    return moved, -(state**2).sum(1) - 0.3 * (action**2).sum(1) + action[:, 0] * noise[:, 0]


MODEL = from_function(
    push, state_dim=2, action_dim=1, noise_dim=2, alive=lambda state: state[:, 0] < 0.5
)


def squashed(state, noise):
    return torch.tanh(state.sum(dim=2, keepdim=True)), None


def target_critic(state, action, log_prob=None):
    return torch.cos(state).sum(dim=2) + action[..., 0] ** 3


class DrawnNoise:
    def normal(self, name, iteration, shape):
        generator = torch.Generator().manual_seed(len(name))
        return torch.randn(1, *shape, generator=generator, dtype=torch.float64)


def mage_context(masked=False):
    context = Context(
        Objective(DISCOUNT, REWARD_SCALE, masked), squashed, squashed, squashed, None, None,
        target_critic, None, None, MODEL, DrawnNoise(), 0,
    )  # fmt: skip
    state = torch.randn(1, ROWS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nothing = state.new_zeros(1, ROWS)
    return context, Batch(state, state[..., :1], nothing, state, nothing)


def two_critics():
    """Of one seed, smooth; their parameters, and their values [1, 2, N]."""
    torch.manual_seed(1)
    modules = [nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2)]
    pair = stacked(modules, "tanh", torch.float64, "cpu")
    valuing = Valuing(Q, 2, Objective(DISCOUNT))
    return pair, partial(valuing.every, pair)


def error(context, batch, critics, action):
    """δ [C, N] of the model's transition, without derivatives."""
    state, noise = batch.state[0], context.normal("penalty model noise", (1, ROWS, 2))[0, 0]
    after = MODEL.step(state, action[0], noise)
    lives = after.alive.double() if context.objective.masked else 1.0
    value = target_critic(after.state[None], squashed(after.state[None], None)[0])[0]
    return REWARD_SCALE * after.reward + DISCOUNT * lives * value - critics(batch.state, action)[0]


def huber(size, threshold):
    """x² / 2 threshold where x is below it, else x − threshold / 2."""
    below = size**2 / (2 * max(threshold, 1e-300))
    return torch.where(size < threshold, below, size - threshold / 2)


@pytest.mark.parametrize(("masked", "threshold"), [(False, 0.0), (True, 0.0), (False, 0.7)])
def test_the_loss_is_the_size_of_the_td_errors_differences_in_the_action(masked, threshold):
    context, batch = mage_context(masked)
    _, critics = two_critics()
    action, step = squashed(batch.state, None)[0], 1e-5
    loss = ActionGradient(OneStep(twin=True), weight=0.3, threshold=threshold)
    got, value = loss(context, batch, critics, torch.zeros(1, ROWS))
    with torch.no_grad():
        ends = [error(context, batch, critics, action + by) for by in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)  # one action: its absolute value is its norm
        sizes = slope.abs(), error(context, batch, critics, action).abs()
        parts = [huber(size, threshold).mean(dim=1) for size in sizes]
        wanted = parts[0] + 0.3 * parts[1]
        torch.testing.assert_close(got[0].detach(), wanted, rtol=1e-7, atol=0)
        torch.testing.assert_close(value.detach(), critics(batch.state, action))
    assert (slope.abs() > 1e-3).all()
    assert not threshold or ((sizes[1] < threshold).any() and (sizes[1] > threshold).any())


@pytest.mark.parametrize(("weight", "threshold"), [(0.0, 0.0), (0.2, 0.0), (0.2, 1.0)])
def test_its_gradient_in_the_critics_is_that_of_finite_differences(weight, threshold):
    context, batch = mage_context()
    net, critics = two_critics()
    loss = ActionGradient(OneStep(twin=True), weight, threshold)

    def total():
        return loss(context, batch, critics, torch.zeros(1, ROWS))[0].sum()

    gradients = torch.autograd.grad(total(), net.parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        ways = [torch.randn(p.shape, generator=generator).double() for p in net.parameters]
        slope = sum((g * d).sum() for g, d in zip(gradients, ways, strict=True) if g is not None)
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                torch._foreach_add_(net.parameters, ways, alpha=step)
            ends.append(total().item())
        with torch.no_grad():
            torch._foreach_add_(net.parameters, ways, alpha=1e-6)
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


SEEDS, MEMBERS, CRITICS, N, H = 2, 3, 2, 4, 3
GAMMA, ALPHA, SCALE = 0.9, 0.2, 0.5
AIMS = torch.tensor([[[0.3, -0.5], [0.1, 0.4], [-0.2, 0.3]], [[0.2, 0.2], [-0.4, 0.1], [0.5, 0.0]]])
AIMS = AIMS.double()  # of each seed's policy, [E, 3, 2]


def alive(state):
    return state[:, 0] < 0.8


def policy(state, noise):
    """Linear, [E, N, 3] and [E, N, 2]; log π of a standard normal around it, up to a constant."""
    return state @ AIMS + 0.3 * noise, -0.5 * noise.square().sum(dim=2)


def critic(state, action, seed, number):
    """Of one seed, [N]."""
    return (number + 1) * torch.sin(state.sum(dim=1)) + (seed + 0.5) * action.prod(dim=1)


def critics(state, action, log_prob):
    values = [
        torch.stack([critic(state[e], action[e], e, c) for c in range(CRITICS)])
        for e in range(SEEDS)
    ]
    return torch.stack(values) - ALPHA * log_prob[:, None]


class Drawn:
    """Noise that is the same whenever it is drawn."""

    def normal(self, name, iteration, shape):
        generator = torch.Generator().manual_seed(
            {"expansion actions": 1, "expansion noise": 2}[name]
        )
        return torch.randn(SEEDS, *shape, generator=generator, dtype=torch.float64)


def ensemble():
    torch.manual_seed(3)
    made = GaussianEnsemble(3, 2, SEEDS * MEMBERS, (8,)).double().requires_grad_(False)
    for parameter in made.parameters():
        parameter.mul_(2.0)  # members that differ
    return made


def given(masked):
    torch.manual_seed(4)
    shape = SEEDS, N
    state, after = torch.randn(2, *shape, 3, dtype=torch.float64)
    action, reward = torch.randn(*shape, 2).double(), torch.randn(*shape).double()
    batch = Batch(state, action, reward, after, (torch.arange(N) == 1).double().expand(shape))
    model = SeedModels(ensemble().numbers(state), SEEDS, alive)
    objective = Objective(GAMMA, SCALE, masked, ALPHA)
    smallest = None  # STEVE's candidates are the critics' own
    context = Context(
        objective, policy, policy, policy, None, smallest, smallest, None, None, model, Drawn(), 0,
        noise_dim=2, target_values=critics,
    )  # fmt: skip
    return context, batch


def by_hand(context, batch, seed, row, member):
    """T_i of one transition by one member, [H + 1][C]."""
    draws = context.draws
    actions = draws.normal("expansion actions", 0, (H + 1, N, 2))[seed, :, row]
    noise = draws.normal("expansion noise", 0, (H, N, 4))[seed, :, row]
    system = LearnedSystem(ensemble(), alive=alive, elites=(seed * MEMBERS + member,))
    state = batch.next_state[seed, row][None]
    masked = context.objective.masked
    lives = float(1 - batch.terminated[seed, row]) if masked else 1.0
    total, targets = SCALE * float(batch.reward[seed, row]), []
    for i in range(H + 1):
        action = state @ AIMS[seed] + 0.3 * actions[i]
        log_prob = -0.5 * float(actions[i].square().sum())
        targets.append([
            total + GAMMA ** (i + 1) * lives
            * (float(critic(state, action, seed, c)) - ALPHA * log_prob)
            for c in range(CRITICS)
        ])  # fmt: skip
        if i < H:
            after = system.step(state, action, torch.cat([noise[i], torch.zeros(1)])[None])
            total += GAMMA ** (i + 1) * lives * (SCALE * float(after.reward) - ALPHA * log_prob)
            lives *= float(after.alive) if masked else 1.0
            state = after.state
    return targets


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("two_models", [False, True])
def test_targets_are_those_of_plain_loops(masked, two_models):
    context, batch = given(masked)
    if two_models:
        context = replace(context, model=SeedTwoModels(context.model, None))
    got = Steve(H, ALPHA)(context, batch)
    for seed in range(SEEDS):
        for row in range(N):
            every = [by_hand(context, batch, seed, row, m) for m in range(MEMBERS)]
            weights, means = [], []
            for i in range(H + 1):
                values = [targets[i][c] for targets in every for c in range(CRITICS)]
                mean = sum(values) / len(values)
                variance = sum((value - mean) ** 2 for value in values) / len(values)
                means.append(mean)
                weights.append(1 / (variance + LEAST_VARIANCE))
            wanted = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
            assert float(got[seed, row]) == pytest.approx(wanted, rel=1e-9)
            largest = max(weights) / sum(weights)
            assert largest < 0.999 or (masked and row == 1)  # or one horizon alone would be tested


def test_a_horizon_on_which_all_agree_takes_the_weight_and_equal_spreads_share_it():
    spread = torch.tensor([-1.0, 1.0]).double()
    agreed = torch.stack([5 + 0 * spread, 7 + spread])[:, None, :, None, None]
    assert float(inverse_variance_mean(agreed)) == pytest.approx(5.0, rel=1e-7)
    alike = torch.stack([5 + spread, 7 + spread])[:, None, :, None, None]
    assert float(inverse_variance_mean(alike)) == pytest.approx(6.0)


def test_every_critic_of_a_seed_has_the_entropy_at_the_seeds_own_temperature():
    torch.manual_seed(5)
    modules = [nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(4)]
    network = stacked(modules, "tanh", torch.float64, "cpu")
    alpha = torch.tensor([[0.1], [0.7]]).double()
    valuing = Valuing(Q, CRITICS, Objective(GAMMA, temperature=alpha))
    state, action = torch.randn(SEEDS, N, 3).double(), torch.randn(SEEDS, N, 2).double()
    log_prob = torch.randn(SEEDS, N).double()
    got = valuing.all(network)(state, action, log_prob)
    for seed in range(SEEDS):
        for c in range(CRITICS):
            x = torch.cat([state[seed], action[seed]], dim=1)
            wanted = modules[CRITICS * seed + c].double()(x)[:, 0] - alpha[seed] * log_prob[seed]
            torch.testing.assert_close(got[seed, c], wanted)
