"""TD(λ) of V(s) and Q(s, a) along windows, against sums of n-step returns; fits in passes."""

from dataclasses import replace

import pytest
import torch

from gradlab.data.replay import Batch
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner
from gradlab.training.parts.context import Passes
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.window_losses import StateLambda
from gradlab.training.settings import Settings
from tests.training.small_runs import SMALL, row, task

STEPS, AGENTS, GAMMA = 6, 4, 0.9


def window(generator, ends=(), truncated=()):
    """States of one seed that follow one another, but after (step, agent) in `ends` and
    `truncated`."""

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    states, after = drawn(STEPS, AGENTS, 3), drawn(STEPS, AGENTS, 3)
    terminated = torch.zeros(STEPS, AGENTS, dtype=torch.float64)
    for t, agent in ends:
        terminated[t, agent] = 1.0
    for t in range(STEPS - 1):
        for agent in range(AGENTS):
            if (t, agent) not in (*ends, *truncated):
                after[t, agent] = states[t + 1, agent]
    parts = states, drawn(STEPS, AGENTS, 2), drawn(STEPS, AGENTS), after, terminated
    return Batch(
        *(x.flatten(0, 1)[None] for x in parts), policy_noise=drawn(STEPS * AGENTS, 2)[None]
    )


def wanted(learner, batch, target, masked):
    """(1 − λ) Σ λⁿ⁻¹ (n-step return) + λᵀ⁻¹ (the longest), step by step and agent by agent."""
    alpha, scale = target.temperature, learner.settings.reward_scale
    _, log_prob = learner.acting.draw(learner.policy, batch.state, batch.policy_noise)
    earned = (scale * batch.reward - alpha * log_prob)[0].detach().view(STEPS, AGENTS)
    ahead = ()
    if target.actions:  # drawn path by path
        noise = learner.context(0, learner.draws).along("tail actions", 1, STEPS * AGENTS, 2)[0]
        noise = noise.view(1, AGENTS, STEPS, 2).transpose(1, 2).flatten(1, 2)
        ahead = learner.acting.draw(learner.policy, batch.next_state, noise)
    value = learner.valuing.least(learner.target_critic)(batch.next_state, *ahead)
    value = value[0].view(STEPS, AGENTS)
    ended = batch.terminated[0].view(STEPS, AGENTS) > 0.5
    states, after = (x[0].view(STEPS, AGENTS, 3) for x in (batch.state, batch.next_state))
    targets = torch.zeros(STEPS, AGENTS, dtype=torch.float64)
    for agent in range(AGENTS):
        for begin in range(STEPS):
            returns, total = [], 0.0
            for t in range(begin, STEPS):
                n = t - begin + 1
                own = scale * batch.reward[0].view(STEPS, AGENTS)[t, agent]
                first = target.actions and t == begin  # whose entropy is added to Q
                total = total + GAMMA ** (n - 1) * (own if first else earned[t, agent])
                beyond = 0.0 if masked and ended[t, agent] else value[t, agent]
                returns.append(total + GAMMA**n * beyond)
                last = t + 1 == STEPS or not torch.equal(after[t, agent], states[t + 1, agent])
                if last or ended[t, agent]:
                    break
            *early, longest = returns
            mixed = sum((1 - target.trace) * target.trace**k * x for k, x in enumerate(early))
            targets[begin, agent] = mixed + target.trace ** len(early) * longest
    return targets.flatten()


@pytest.mark.parametrize(
    "target",
    [
        StateLambda(0.7),
        StateLambda(0.0),
        StateLambda(1.0),
        StateLambda(0.9, 2, temperature=0.3),
        StateLambda(0.9, temperature=0.3, actions=True),
    ],
)
@pytest.mark.parametrize("termination", ["mask", "ignore"])
def test_targets_are_weighted_sums_of_n_step_returns(target, termination):
    algorithm = replace(row("abpt" if target.actions else "shac"), source=Newest(4), target=target)
    settings = Settings(**SMALL | {"termination": termination, "reward_scale": 0.5})
    learner = Learner(algorithm, task(), settings)
    generator = torch.Generator().manual_seed(3)
    batch = window(generator, ends=[(1, 0), (4, 2)], truncated=[(2, 1), (0, 2)])
    made = target(learner.context(0, learner.draws), batch)
    right = wanted(learner, batch, target, termination == "mask")
    torch.testing.assert_close(made[0].detach(), right)


def test_passes_meet_every_row_once_in_an_order_of_their_own():
    draws = Draws((0, 1), torch.float64, "cpu")
    state = torch.arange(20, dtype=torch.float64).view(1, 10, 2).expand(2, -1, -1)
    target = torch.arange(10, dtype=torch.float64).expand(2, -1)
    batch = Batch(state, state, target, state, torch.zeros_like(target))
    steps = list(Passes(2, 3)(draws, 7, batch, target))
    assert [len(rows.reward[0]) for rows, _ in steps] == 2 * [4, 4, 2]
    for rows, goals in steps:
        torch.testing.assert_close(rows.reward, goals)
        torch.testing.assert_close(rows.state[..., 0], 2 * goals)
    for first in (0, 3):
        seen = torch.cat([goals for _, goals in steps[first : first + 3]], dim=1)
        assert seen.sort(dim=1).values.tolist() == target.tolist()
    orders = [torch.cat([g for _, g in steps[k : k + 3]], dim=1) for k in (0, 3)]
    assert not torch.equal(*orders) and not torch.equal(orders[0][0], orders[0][1])
    again = list(Passes(2, 3)(draws, 7, batch, target))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(steps, again, strict=True))
    assert [rows for rows, _ in Passes()(draws, 7, batch, target)] == [batch]
