"""STEVE's targets against plain loops over members, critics and horizons."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab.data.replay import Batch
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems.learned import LearnedSystem
from gradlab.training.members import stacked
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.critics import Q, Valuing
from gradlab.training.parts.targets import LEAST_VARIANCE, Steve, inverse_variance_mean
from gradlab.training.seed_models import SeedModels, SeedTwoModels

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
